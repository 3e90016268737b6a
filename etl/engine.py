"""Parts in, their markers out: run one after the other in this process, or on the workers of a Dask cluster."""

import contextlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError
from itertools import compress
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from etl.journal import Journal
from etl.parts import DISK_FULL, Part, describe, finished, perform, with_arguments
from etl.progress import Progress, is_watched, shown
from nextlong.errors import UserError

log = logging.getLogger(__name__)

T = TypeVar("T")
_PATIENCE_SECONDS = 60
_ANSWER_SECONDS = 10
_MINUTES_WITHOUT_WORKERS = 10  # for workers of our own, of which Dask starts a new one where one dies
_WAITING = {"no-worker", "queued", "waiting"}  # states, with the scheduler, of tasks that wait for a worker
_TASKS_A_THREAD = 4  # enough that no worker waits; the scheduler never holds more than this, whatever the corpus


class StageFailed(RuntimeError):
    """Parts of a stage failed for a reason that is not in the input or the recipe; finished parts are kept."""


class Engine:
    """Runs the parts of a stage and shows progress; a client of None runs them one after the other in this process.

    progress: whether a bar is shown; None: in a terminal or a notebook. has_own_workers: workers are processes of this
    command, so that nobody could start others where none is left.
    """

    def __init__(
        self, client: Any | None = None, *, progress: bool | None = None, has_own_workers: bool = False
    ) -> None:
        self._client = client
        self._has_own_workers = has_own_workers
        self._minutes_without_workers = 0
        self._progress = is_watched() if progress is None else progress
        self._journal = Journal()
        self.peak_memory_bytes = 0
        """Of the process that took most for a part so far; whoever wants it of a stage sets it to 0 before."""

    @property
    def client(self) -> Any | None:
        """The Dask client; None: everything runs in this process."""
        return self._client

    @contextlib.contextmanager
    def noting(self, journal: Journal) -> Iterator[None]:
        """In the block, a journal gets what is done and what fails."""
        self._journal = journal
        try:
            yield
        finally:
            self._journal = Journal()

    @property
    def tasks_a_host(self) -> int:
        """How many tasks may run at once on one host, on that which runs most."""
        threads: Counter[str] = Counter()
        for worker in self._workers():
            threads[worker["host"]] += worker["nthreads"]
        return max(threads.values(), default=1)

    def run(self, parts: Sequence[Part], *, doing: str, unit: str, resource: str | None = None) -> list[dict[str, Any]]:
        """The markers of all parts, in their order; finished ones are compared with their checksums, and not run again.

        resource: such as GPU; where some workers were started with it, they alone run the parts, one each at a time.
        An error in one part lets the others finish, unless the disk is full. Then UserError for a user's mistake, else
        StageFailed.
        """
        is_there = [finished(part) is not None for part in parts]
        if any(is_there):
            log.info("%s: %d of %d parts are there already", doing, sum(is_there), len(parts))
        weights = [part.weight for part in parts]
        done = sum(weight for weight, there in zip(weights, is_there, strict=True) if there)
        names = [f"{part.folder.name}-{part.name}" for part in parts]
        markers: list[dict[str, Any]] = [{}] * len(parts)
        demand = self._demand(resource)
        with self._shown(doing, unit, total=sum(weights), initial=done, is_there=is_there, parts=parts) as progress:
            for place, outcome in self._outcomes(parts, names, demand, _look_for([*compress(parts, is_there)])):
                if isinstance(outcome, Exception):  # the worker died four times on it, or the cluster went away
                    outcome = {"part": parts[place].name, "error": describe(outcome), "is_users": False}
                markers[place] = outcome
                if "error" not in outcome:
                    if not is_there[place]:
                        progress.done(parts[place].name, weights[place])
                    continue
                progress.failed(parts[place].name, outcome["error"])
                log.error("%s, %s: %s", doing, outcome["part"], outcome["error"])
                if outcome["error"].startswith(DISK_FULL):  # as it would be for all that follow
                    break
        _raise(doing, markers)
        peaks = [each.get("peak_memory_bytes") or 0 for each in markers]
        self.peak_memory_bytes = max([self.peak_memory_bytes, *peaks])
        return markers

    def _outcomes(
        self, parts: Sequence[Part], names: Sequence[str], demand: dict[str, float] | None, look: Callable[[Part], Any]
    ) -> Iterator[tuple[int, Any]]:
        """(place of a part, marker or exception); a part that killed workers is tried once more, carefully."""
        killers = []
        for place, outcome in self._completed(perform, parts, names, demand, look):
            if _is_killed(outcome) and "carefully" in parts[place].arguments:
                killers.append(place)
            else:
                yield place, outcome
        if killers:
            log.warning("%d parts killed their workers: looking for documents that do", len(killers))
        careful = [with_arguments(parts[place], carefully=True) for place in killers]
        for number, outcome in self._completed(perform, careful, [names[place] for place in killers], demand, look):
            yield killers[number], outcome

    def map(self, function: Callable[[Any], T], items: Sequence[Any], *, doing: str, unit: str) -> list[T]:
        """The results of a function that writes nothing, in the order of the items; raises what it raised."""
        results: dict[int, Any] = {}
        with self._shown(doing, unit, total=len(items)) as progress:
            for place, outcome in self._completed(function, items, [doing.replace(" ", "-")] * len(items)):
                if isinstance(outcome, Exception):
                    raise outcome
                results[place] = outcome
                progress.done(str(place), 1)
        return [results[place] for place in range(len(items))]

    def _shown(
        self,
        doing: str,
        unit: str,
        *,
        total: int,
        initial: int = 0,
        parts: Sequence[Part] = (),
        is_there: Sequence[bool] = (),
    ) -> contextlib.AbstractContextManager[Progress]:
        is_over = bool(parts) and all(is_there)
        return shown(
            doing,
            unit,
            total=total,
            initial=initial,
            is_shown=self._progress and not is_over,
            journal=self._journal,
            folder=parts[0].folder.name if parts else None,
            parts=len(parts),
            there=sum(is_there),
        )

    def _demand(self, resource: str | None) -> dict[str, float] | None:
        """What a task asks of its worker: 1 of the resource where any worker has it, else nothing."""
        return {resource: 1} if resource and any(each["resources"].get(resource) for each in self._workers()) else None

    def _workers(self) -> list[dict[str, Any]]:
        """What the scheduler knows of each worker; none where everything runs in this process."""
        if self._client is None:
            return []
        with self._answering():
            return [*self._client.scheduler_info(n_workers=-1)["workers"].values()]

    def _completed(
        self,
        function: Callable[[Any], Any],
        items: Sequence[Any],
        names: Sequence[str],
        demand: dict[str, float] | None = None,
        look: Callable[[Any], Any] = lambda item: None,
    ) -> Iterator[tuple[int, Any]]:
        """(place of an item, result or exception), as they come; a few tasks a thread are with the scheduler.

        look: finds the result of an item whose worker does not tell, or None.
        """
        client = self._client
        if client is None:
            yield from ((place, function(item)) for place, item in enumerate(items))
            return
        waiting = list(reversed(range(len(items))))
        in_hand: dict[Any, int] = {}
        done: SimpleQueue[Any] = SimpleQueue()
        num_idle = 0
        try:
            while waiting or in_hand:
                for place in [waiting.pop() for _ in range(min(self._window() - len(in_hand), len(waiting)))]:
                    key = f"{names[place]}-{place}-{time.monotonic_ns()}"
                    with self._answering():
                        future = client.submit(function, items[place], key=key, pure=False, resources=demand)
                    in_hand[future] = place
                    future.add_done_callback(done.put)
                try:
                    future = done.get(timeout=_PATIENCE_SECONDS)
                except Empty:
                    self._miss_workers()
                    untold = self._untold(in_hand, items, look)
                    for future, place, found in untold:
                        del in_hand[future]
                        client.cancel([future])
                        yield place, found
                    num_idle = 0 if untold or self._is_in_work(in_hand) else num_idle + 1
                    if num_idle == 2:  # at first, something may just have been on its way
                        raise _unheard(len(in_hand)) from None
                    continue
                num_idle = self._minutes_without_workers = 0
                if future in in_hand:
                    yield in_hand.pop(future), self._result(future)
        finally:
            client.cancel(list(in_hand))

    def _untold(
        self, in_hand: dict[Any, int], items: Sequence[Any], look: Callable[[Any], Any]
    ) -> list[tuple[Any, int, Any]]:
        """(future, place, result) of what is done though no worker says so, which Dask's messages may leave unsaid."""
        told = [(future, place, look(items[place])) for future, place in in_hand.items()]
        untold = [each for each in told if each[2] is not None]
        if untold:
            log.warning("%d tasks are done, but their workers did not say so: was a clock set back?", len(untold))
        return untold

    def _miss_workers(self) -> None:
        """Says where there is no worker, once a minute; raises StageFailed where none can be hoped for any more."""
        with self._answering():
            if self._client is None or self._client.nthreads():
                self._minutes_without_workers = 0
                return
        self._minutes_without_workers += 1
        if self._has_own_workers and self._minutes_without_workers == _MINUTES_WITHOUT_WORKERS:
            raise StageFailed(
                f"the worker processes of this command have ended, and Dask has started no others for "
                f"{self._minutes_without_workers} minutes: is the machine short of memory, processes or open files? "
                f"Finished parts are kept; run the same command again to go on, with fewer workers where that helps."
            )
        log.warning("there is no worker: waiting for one")

    def _is_in_work(self, in_hand: Iterable[Any]) -> bool:
        """Whether a worker that has any of these tasks is busy or does not answer, or all of them wait for a worker.

        Asks the workers: what the scheduler knows of them may be old, as a clock that is set back stops heartbeats too.
        """
        client, keys = self._client, {future.key for future in in_hand}
        if client is None:
            return True
        with self._answering():
            states = client.sync(client.scheduler.get_task_status, keys=[*keys])
            if _WAITING.issuperset(states.values()):
                return True
            given = [worker for worker, tasks in client.processing().items() if not keys.isdisjoint(tasks)]
            try:  # Client.run hands callback_timeout on to Client.sync
                answers = client.run(_is_busy, workers=given, on_error="return", callback_timeout=_ANSWER_SECONDS)
            except TimeoutError:  # one of them stands still
                return True
        return any(answers.values())  # of one that is gone by now, an exception

    def _window(self) -> int:
        """Tasks that the scheduler may hold; workers come and go meanwhile."""
        with self._answering():
            threads: dict[str, int] = self._client.nthreads() if self._client is not None else {}
            return _TASKS_A_THREAD * max(1, sum(threads.values()))

    def _result(self, future: Any) -> Any:
        from distributed.comm import CommClosedError

        try:
            return future.result()
        except (CancelledError, CommClosedError) as error:  # so ends all that a lost scheduler had in hand
            raise self._lost() from error
        except Exception as error:
            return error

    @contextlib.contextmanager
    def _answering(self) -> Iterator[None]:
        """Raises StageFailed where the scheduler is gone: what is sent to it meanwhile would wait for ever."""
        if self._client is not None and self._client.status != "running":
            raise self._lost()
        try:
            yield
        except OSError as error:  # Dask's CommClosedError is one
            raise self._lost() from error

    def _lost(self) -> StageFailed:
        return StageFailed(
            "the connection to the Dask scheduler was lost. Finished parts are kept: when a scheduler and workers run "
            "again, run the same command again to go on (with the new --scheduler address if it changed)."
        )


def _is_busy(dask_worker: Any) -> bool:
    """Whether a worker runs anything, or Dask has paused it; threads tell, as a cancelled task may go on in one."""
    return bool(dask_worker.active_threads) or dask_worker.status.name == "paused"


def _unheard(num_tasks: int) -> StageFailed:
    return StageFailed(
        f"no worker works on the {num_tasks} tasks that were given to the scheduler: messages of Dask are lost, or "
        f"wait for a clock that was set back. Finished parts are kept; run the same command again to go on (where "
        f"scheduler and workers were running before, start new ones first)."
    )


def _look_for(old: Sequence[Part]) -> Callable[[Part], dict[str, Any] | None]:
    """(part) -> its marker, if it is finished, and was not already when its checksums were yet to be compared."""
    names = {part.name for part in old}
    return lambda part: None if part.name in names else finished(part)


def _is_killed(outcome: Any) -> bool:
    """Whether a task came back because the workers that ran it died, one after the other."""
    if not isinstance(outcome, Exception):
        return False
    from distributed.scheduler import KilledWorker

    return isinstance(outcome, KilledWorker)


def _raise(doing: str, markers: list[dict[str, Any]]) -> None:
    errors = [marker for marker in markers if "error" in marker]
    mistakes = [error for error in errors if error["is_users"]]
    if mistakes:
        more = f" ({len(mistakes) - 1} more parts have such errors; see run.log.)" if len(mistakes) > 1 else ""
        raise UserError(mistakes[0]["error"] + more)
    if errors:
        first, num_finished = errors[0], sum("files" in marker for marker in markers)
        raise StageFailed(
            f"{doing}: {len(errors)} of {len(markers)} parts failed, the first is {first['part']}: {first['error']}. "
            f"The {num_finished} finished parts are kept; run the same command again to go on."
        )
