"""Documents that break a tokenizer or a model: found by trying fewer and fewer, left out, named and counted.

A part is written as a whole; only when that fails, its documents are tried in pieces, down to single ones. Where the
process died, they are tried in a child process, so that the worker lives. Run as a module, this file is that child.
"""

import contextlib
import json
import os
import pickle
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from etl.parts import PartResult, describe, written_aside
from etl.work import Work
from nextlong.accounting import Account
from nextlong.errors import UserError

FILE = "quarantine.jsonl"
REASON = "quarantined"
"""Under which accounts count what is left out."""

Attempt = Callable[[int, int], object]
"""Does to the documents [first, last) of a part what may fail, and keeps nothing; can be pickled."""
Write = Callable[[Mapping[int, str]], PartResult]
"""Writes a part without some documents: their places in it, each with the reason."""

_PIECES = 16  # tried at once: a part is computed once more in all, and a document found in four steps
_FEW, _SHARE = 8, 0.01  # of a part's documents; more than both is no document's fault
_REASON_CHARS = 500
_INTERRUPTS = (KeyboardInterrupt, SystemExit, GeneratorExit)
_SENT_BY_OTHERS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)  # no document makes a process send itself these


class Failure(NamedTuple):
    """A document that failed alone."""

    place: int
    reason: str


def write_without_poisoned(
    write: Write, attempt: Attempt, num_documents: int, *, carefully: bool = False
) -> PartResult:
    """Write a part, if need be without the documents that fail alone. Raises what was not any document's fault.

    carefully: try first, in a child process, since writing killed a worker.
    """
    if carefully:
        return write(_limited(_tried_in_child(attempt, num_documents), num_documents))
    try:
        return write({})
    except (UserError, OSError):  # settings, disks and networks are no document's fault
        raise
    except BaseException as error:  # a panic in Rust is no Exception
        if isinstance(error, _INTERRUPTS):
            raise
        poisoned = _limited(_tried(attempt, _pieces(0, num_documents)), num_documents)
        if not poisoned:
            raise RuntimeError(describe(error)) from error
    return write(poisoned)


def mask(num_documents: int, poisoned: Iterable[int]) -> NDArray[np.bool_]:
    """bool [num_documents], False for the poisoned."""
    is_kept = np.ones(num_documents, np.bool_)
    is_kept[list(poisoned)] = False
    return is_kept


def record(documents: pa.Table, poisoned: Mapping[int, str]) -> dict[str, Any]:
    """What a part's values say of its poisoned documents; documents: the part's doc_id, source_id, source."""
    rows = documents.select(["doc_id", "source_id", "source"]).take(pa.array(list(poisoned), pa.int64())).to_pylist()
    records = [row | {"reason": reason} for row, reason in zip(rows, poisoned.values(), strict=True)]
    return {REASON: records} if records else {}


def collect(markers: Iterable[Mapping[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The records of all parts of a stage, as its manifest's values hold them; {} where there are none."""
    records = [each for marker in markers for each in marker["values"].get(REASON, [])]
    return {REASON: records} if records else {}


def refuse_none_left(markers: Sequence[Mapping[str, Any]], unit: str, what: str) -> None:
    """Raise UserError where a stage has kept nothing of its unit, as what it uses fails on each document alone."""
    records = collect(markers).get(REASON, [])
    account = Account.total(Account.from_dict(marker["account"]) for marker in markers)
    if records and not account.counts[unit].kept:
        raise UserError(
            f"no document is left: all {len(records):,} are quarantined, since the {what} fails on each alone, as "
            f"{records[0]['reason']}. Check the {what}."
        )


def doc_ids(work: Work) -> list[int]:
    """Of all documents that a work folder's finished stages have quarantined."""
    return [each["doc_id"] for each in _records(work)]


def write_file(work: Work) -> int:
    """Name the quarantined documents in the work folder's quarantine.jsonl; returns how many. No file where none is."""
    path, records = work.path / FILE, _records(work)
    if records:
        with written_aside(path) as aside:
            aside.write_text("".join(json.dumps(each, ensure_ascii=False) + "\n" for each in records))
    else:
        path.unlink(missing_ok=True)
    return len(records)


def _records(work: Work) -> list[dict[str, Any]]:
    """Those of a work folder's finished stages, each with its stage."""
    return [
        {"stage": stage, **each}
        for stage, folder in work.stages.items()
        for each in (folder.manifest() or {"values": {}})["values"].get(REASON, [])
    ]


def _limited(failures: Iterator[Failure], num_documents: int) -> dict[int, str]:
    """The failures by place, in order. Raises RuntimeError when so many fail that something else must be at fault."""
    found: dict[int, str] = {}
    for place, reason in failures:
        found[place] = reason
        if len(found) > max(_FEW, _SHARE * num_documents) or len(found) == num_documents > 1:
            raise RuntimeError(
                f"{len(found)} of {num_documents:,} documents fail alone, so that it is hardly their fault; "
                f"the last because of {reason}"
            )
    return dict(sorted(found.items()))


def _pieces(first: int, last: int) -> list[tuple[int, int]]:
    size = max(1, -(-(last - first) // _PIECES))
    return [(start, min(start + size, last)) for start in range(first, last, size)]


def _tried(
    attempt: Attempt,
    pieces: Sequence[tuple[int, int]],
    tell: Callable[[list[tuple[int, int]]], None] = lambda waiting: None,
) -> Iterator[Failure]:
    """The documents in some ranges that fail alone; tell: is called with what is left, before its first is tried."""
    waiting = list(pieces)
    while waiting:
        tell(waiting)
        first, last = waiting.pop(0)
        try:
            attempt(first, last)
        except (UserError, OSError):
            raise
        except BaseException as error:
            if isinstance(error, _INTERRUPTS):
                raise
            if last - first == 1:
                yield Failure(first, _reason(error))
            else:
                waiting = _pieces(first, last) + waiting


def _tried_in_child(attempt: Attempt, num_documents: int) -> Iterator[Failure]:
    """As `_tried`, in processes that may die: what one died of is tried in smaller pieces by the next.

    Raises RuntimeError for one that died before it tried any, or was ended by somebody.
    """
    waiting: list[tuple[int, int]] = _pieces(0, num_documents)
    while waiting:
        told: dict[str, Any] = {}
        with _child(attempt, waiting) as child:
            for line in child.stdout or ():
                told = json.loads(line)
                if "error" in told:
                    raise RuntimeError(told["error"])
                if "failure" in told:
                    yield Failure(*told["failure"])
                else:
                    waiting = [(first, last) for first, last in told["waiting"]]
        if child.returncode == 0:
            return
        if not told or -child.returncode in _SENT_BY_OTHERS:
            when = "while it tried documents" if told else "before it tried any document"
            raise RuntimeError(f"a process ended {when}, by no fault of theirs ({_death(child.returncode)})")
        (first, last), *rest = waiting
        if last - first == 1:
            yield Failure(first, f"the process died of it ({_death(child.returncode)})")
            waiting = rest
        else:
            waiting = _pieces(first, last) + rest


@contextlib.contextmanager
def _child(attempt: Attempt, pieces: Sequence[tuple[int, int]]) -> Iterator["subprocess.Popen[bytes]"]:
    path = os.pathsep.join(each for each in sys.path if each)
    with tempfile.TemporaryFile() as given:
        pickle.dump((attempt, pieces), given)  # for this package's own code; nothing that a user gives is unpickled
        given.seek(0)
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", "etl.quarantine"],
            stdin=given,
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": path},
        )
    with child:
        try:
            yield child
        except BaseException:
            child.kill()
            raise


def _reason(error: BaseException) -> str:
    """One line for a file that people read."""
    return " ".join(describe(error).split())[:_REASON_CHARS]


def _death(returncode: int) -> str:
    return signal.Signals(-returncode).name if returncode < 0 else f"exit status {returncode}"


def main() -> None:
    """Try what standard input holds; a line of JSON on standard output for everything there is to tell."""
    lines = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print does not belong there

    def tell(**told: Any) -> None:
        print(json.dumps(told), file=lines, flush=True)

    try:
        attempt, pieces = pickle.load(sys.stdin.buffer)
        for failure in _tried(attempt, pieces, tell=lambda waiting: tell(waiting=waiting)):
            tell(failure=failure)
    except Exception as error:
        tell(error=describe(error))


if __name__ == "__main__":
    main()
