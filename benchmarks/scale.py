"""A run over made corpora of growing size with made embeddings: what a chunk costs in each stage, and what is held.

python -m benchmarks.scale --chunks 10000 100000 1000000
python -m benchmarks.scale --chunks 200000 --samples 4000 --workers 1 2 --repeats 3
python -m benchmarks.scale --chunks 100000 --targets 16384 65536 131072 524288 --pictures FOLDER
"""

import argparse
import contextlib
import multiprocessing
import os
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq

from benchmarks import made
from benchmarks.used import Case, Run, Runs, Use
from etl import pipeline
from etl.connect import local_engine
from etl.docstrings import train_tokenizer
from etl.engine import Engine
from etl.inputs import Input
from etl.job import Job, prepare
from etl.recipe import Recipe, resolved_yaml
from etl.work import STAGES
from nextlong.config import Chunking, Embedding, Indexing, Synthesis

_TOKENS_A_CHUNK = 131  # of long documents, for each chunk of the corpus: one of 32K for 250
_WATCH_SECONDS = 0.1


def main() -> None:
    """Print the tables."""
    options = _options()
    runs: Runs = {}
    for num_chunks in options.chunks:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            started = time.perf_counter()
            num_topics = _alone(_prepare, Path(folder), num_chunks, options)
            print(f"{num_chunks:,} chunks: corpus made in {time.perf_counter() - started:.0f} s", flush=True)
            cases = [Case(num_chunks, workers, target) for target in options.targets for workers in options.workers]
            for case in options.repeats * cases:
                run = _alone(_measure, Path(folder), case, num_topics, options)
                runs.setdefault(case, []).append(run)
                print(_describe(run, case), flush=True)
    for table in (_costs(runs), _memory(runs), *([_speedups(runs, options)] if len(options.workers) > 1 else [])):
        print("\n" + "\n".join(table))
    if options.pictures:
        from benchmarks.pictures import draw

        draw(runs, options.pictures)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, nargs="+", default=[10_000, 100_000], help="sizes of the corpora")
    parser.add_argument("--workers", type=int, nargs="+", default=[2], help="numbers of workers")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--dimensions", type=int, default=128)
    parser.add_argument("--granularity-chars", type=int, default=1_024)
    parser.add_argument("--part-bytes", type=int, default=4 * 2**20, help="text a part, of every corpus")
    parser.add_argument("--targets", type=int, nargs="+", default=[32_768], help="tokens of a long document")
    parser.add_argument("--samples", type=int, help="long documents; default: 131 of their tokens a chunk")
    parser.add_argument("--factory", default="auto", help="of the index")
    parser.add_argument("--folder", help="where to make the files; default: the system's temporary folder")
    parser.add_argument("--pictures", type=Path, help="folder for figures of all this (pip install matplotlib)")
    return parser.parse_args()


def _alone(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call in a process of its own: what an earlier call left in memory is not counted."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def _prepare(folder: Path, num_chunks: int, options: argparse.Namespace) -> int:
    """Make corpus, tokenizer, and files in the place of a model's; returns the number of topics."""
    corpus, model = folder / "corpus", folder / "model"
    corpus.mkdir()
    model.mkdir()
    num_topics = made.write_corpus(corpus, num_chunks, options.granularity_chars)
    some = pq.read_table(min(corpus.iterdir()), columns=["text"])["text"].slice(0, 1_000).to_pylist()
    train_tokenizer(some, folder / "tokenizer.json", 16_384)
    (model / "model.onnx").touch()
    for name in ("tokenizer.json", "config.json"):
        (model / name).write_text("{}")
    return num_topics


def _measure(folder: Path, case: Case, num_topics: int, options: argparse.Namespace) -> Run:
    load = os.getloadavg()[0]
    recipe = Recipe(
        input=Input(path=str(folder / "corpus"), source="source", part_bytes=options.part_bytes),
        output=str(folder / "work"),
        tokenizer=str(folder / "tokenizer.json"),
        chunking=Chunking(granularity_chars=options.granularity_chars),
        embedding=Embedding(model=str(folder / "model")),
        index=Indexing(factory=options.factory),
        synthesis=Synthesis(
            target_length_tokens=case.target,
            num_samples=options.samples or max(1, case.num_chunks * _TOKENS_A_CHUNK // case.target),
        ),
    )
    job = prepare(recipe)
    job.work.claim(resolved_yaml(recipe), "")
    with local_engine(case.workers) as engine, _watching(job, engine) as (worker_use, driver_use, num_tasks):
        pipeline.run(job, engine, only="read")
        pipeline.run(job, engine, only="chunk")
        made.embed(job, engine, options.dimensions, num_topics)
        summary = pipeline.run(job, engine)["stages"]
    num_bytes = sum(path.stat().st_size for path in job.work.path.rglob("*") if path.is_file())
    shutil.rmtree(job.work.path)
    stages = [stage for stage in STAGES if stage != "embed"]
    seconds = {stage: summary[stage]["seconds"] for stage in stages}
    in_long_documents = summary["interleave"]["account"]["chunks"]["kept"]
    amounts = dict.fromkeys(stages, summary["chunk"]["rows"])
    amounts |= {"mine": summary["mine"]["rows"], "interleave": in_long_documents, "pack": in_long_documents}
    values = summary["index"]["values"]
    facts = {name: values.get(name) for name in ("factory", "nprobe", "recall", "recall_top_k")}
    num_tokens = summary["interleave"]["rows"] * case.target
    return Run(seconds, amounts, num_tokens, worker_use, driver_use, max(num_tasks), num_bytes, load, facts)


@contextlib.contextmanager
def _watching(job: Job, engine: Engine) -> Iterator[tuple[Use, Use, list[int]]]:
    """What the workers and this process use while the block runs, and how many tasks the scheduler holds."""
    workers, driver, num_tasks = Use(), Use(), [0]
    scheduler = engine.client.cluster.scheduler if engine.client else None
    this, done = psutil.Process(), threading.Event()

    def watch() -> None:
        processes = this.children(recursive=True)
        while not done.wait(_WATCH_SECONDS):
            stage = next((name for name in STAGES if not job.work[name].manifest_file.exists()), "pack")
            driver.note(stage, this)
            for process in processes:
                workers.note(stage, process)
            num_tasks.append(len(scheduler.tasks) if scheduler else 0)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield workers, driver, num_tasks
    finally:
        done.set()
        watcher.join()


def _describe(run: Run, case: Case) -> str:
    facts = run.index
    return (
        f"  {case.workers} workers, target {case.target:,}, {sum(run.seconds.values()):,.1f} s, "
        f"load before {run.load:.1f}, {facts['factory']}, nprobe {facts['nprobe']}, "
        f"recall {facts['recall']:.3f}, {run.disk_bytes / 2**30:.2f} GiB, "
        + ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in run.seconds.items())
    )


def _costs(runs: Runs) -> Iterator[str]:
    """A chunk of mine is a meta-chunk, of interleave and pack one in a long document; the smallest of the repeats.

    Processor time is steadier than seconds where others use the machine too.
    """
    stages = list(next(iter(runs.values()))[0].seconds)
    measures: dict[str, Callable[[Run, int, str], float]] = {
        "us a chunk": lambda run, workers, stage: workers * run.seconds[stage],
        "worker cpu us": lambda run, workers, stage: run.workers.cpu_seconds[stage],
        "driver cpu us": lambda run, workers, stage: run.driver.cpu_seconds[stage],
    }
    for title, cost in measures.items():
        yield _head(title, stages)
        for case, some in runs.items():
            costs = [min(cost(run, case.workers, stage) / run.amounts[stage] for run in some) for stage in stages]
            yield _row(case, [f"{1e6 * each:,.1f}" for each in costs])


def _memory(runs: Runs) -> Iterator[str]:
    uses: dict[str, Callable[[Run], Use]] = {
        "MiB, worker": lambda run: run.workers,
        "MiB, driver": lambda run: run.driver,
    }
    for title, use in uses.items():
        yield _head(title, STAGES)
        for case, some in runs.items():
            peaks = [max(use(run).most_bytes[stage] for run in some) / 2**20 for stage in STAGES]
            yield _row(case, [f"{peak:,.0f}" for peak in peaks])
    for case, some in runs.items():
        most = max(run.num_tasks for run in some)
        yield f"{case.num_chunks:,} chunks, {case.workers} workers, target {case.target:,}: {most} tasks at once"


def _speedups(runs: Runs, options: argparse.Namespace) -> Iterator[str]:
    """How many times as fast the last number of workers is as the first."""
    few, many = options.workers[0], options.workers[-1]
    yield _head(f"{many} / {few} workers", next(iter(runs.values()))[0].seconds)
    for case in runs:
        if case.workers == many:
            slow, fast = _medians(runs[case._replace(workers=few)]), _medians(runs[case])
            yield _row(case, [f"{slow[stage] / fast[stage]:.2f}" for stage in slow])


def _medians(some: Sequence[Run]) -> dict[str, float]:
    return {stage: statistics.median(run.seconds[stage] for run in some) for stage in some[0].seconds}


def _head(title: str, stages: Sequence[str] | dict[str, float]) -> str:
    return f"{title:>14} {'workers':>8} {'target':>8}" + "".join(f"{stage:>11}" for stage in stages)


def _row(case: Case, cells: list[str]) -> str:
    return f"{case.num_chunks:>14,} {case.workers:>8} {case.target:>8,}" + "".join(f"{cell:>11}" for cell in cells)


if __name__ == "__main__":
    main()
