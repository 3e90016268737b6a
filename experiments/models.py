"""A plan and its data in; every model trained and measured, several at a time, each in a process, out."""

import json
import logging
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from etl.parts import write_json
from etl.verb import cores
from experiments.plan import Plan
from experiments.train import long_run, train_long, train_short

log = logging.getLogger(__name__)
_Model = tuple[str, int]  # method and seed


def train_and_measure(plan: Plan, out: Path, workers: int) -> None:
    """The short stages, and as soon as one is there, the long stages that start from it; what is done is kept."""
    missing = [model for model in _models(plan) if not _measures(out, *model).is_file()]
    threads = max(1, cores() // workers)
    pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=_start_worker, initargs=(threads,))
    with pool:
        try:
            _run(plan, out, pool, missing)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def measured_rows(plan: Plan, out: Path) -> list[dict[str, Any]]:
    """[{"method", "seed", "measure", "value", "better"}] of all models."""
    return [
        {"method": method, "seed": seed} | row
        for method, seed in _models(plan)
        for row in json.loads(_measures(out, method, seed).read_text())["rows"]
    ]


def _run(plan: Plan, out: Path, pool: ProcessPoolExecutor, missing: Sequence[_Model]) -> None:
    bases = dict.fromkeys(plan.base(seed) for _, seed in missing)
    running: dict[Future[Any], int | None] = {pool.submit(train_short, plan, out, base): base for base in bases}
    started, num_done = time.perf_counter(), 0
    while running:
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            base, told = running.pop(future), future.result()
            if base is not None:
                own = [model for model in missing if plan.base(model[1]) == base]
                running |= {pool.submit(_train_and_measure, plan, out, *model): None for model in own}
            num_done += base is None
            seconds = time.perf_counter() - started
            log.info("%s is there; %d of %d models after %.0f s", told, num_done, len(missing), seconds)


def _start_worker(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)


def _train_and_measure(plan: Plan, out: Path, method: str, seed: int) -> Path:
    """The run folder; in a process of the pool."""
    from experiments.measure import measure

    run = long_run(out, method, seed)
    rows = measure(plan, out, train_long(plan, out, method, seed), out / "evaluated" / run.name)
    _measures(out, method, seed).parent.mkdir(exist_ok=True)
    write_json(_measures(out, method, seed), {"rows": rows})
    return run


def _measures(out: Path, method: str, seed: int) -> Path:
    return out / "measured" / f"{method}-{seed}.json"


def _models(plan: Plan) -> Iterator[_Model]:
    return ((method, seed) for seed in plan.seeds for method in plan.methods)
