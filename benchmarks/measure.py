"""Ratios in one run: candidates are timed in turn, again and again, and compared by their medians."""

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import psutil

RATIOS_FILE = "BENCHMARK_RATIOS"
"""Environment variable: the file to which `record` adds."""
DEMO_CORPUS = Path("demo/docstrings.parquet")


def medians(candidates: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each candidate; all are run once before, unmeasured, then in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for candidate in candidates.values():
        candidate()
    for _ in range(repeats):
        for name, candidate in candidates.items():
            seconds[name].append(timed(candidate))
    return {name: statistics.median(each) for name, each in seconds.items()}


def timed(call: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def report(seconds: dict[str, float], amount: float, unit: str, ours: str = "ours", title: str = "") -> str:
    """One line a candidate: rate, and how many times as fast ours is, which is recorded unless it is ours as well.

    title: tells apart candidates of one name, of several reports of one benchmark. Parts of ours begin with "our".
    """
    lines = []
    for name, each in seconds.items():
        ratio = each / seconds[ours]
        lines.append(f"  {name:<44} {amount / each:>14,.1f} {unit}/s   ours / this = {ratio:.2f}")
        if name != ours and not name.startswith("our"):
            record(": ".join(filter(None, (title, name))), ratio)
    return "\n".join(lines)


def record(name: str, ratio: float) -> None:
    """Add a ratio, above 1 where ours is faster, to the file that the environment names, for `benchmarks.guard`."""
    if RATIOS_FILE in os.environ:
        specification = sys.modules["__main__"].__spec__
        benchmark = specification.name.removeprefix("benchmarks.") if specification else "benchmark"
        with open(os.environ[RATIOS_FILE], "a") as file:
            file.write(json.dumps({"name": f"{benchmark}: {name}", "ratio": round(ratio, 4)}) + "\n")


def own_bytes(process: psutil.Process) -> int:
    """Memory that a process holds for itself: mapped files and shared pages are not counted. 0 when it has ended."""
    try:
        memory = process.memory_info()
    except psutil.Error:
        return 0
    return int(memory.rss - memory.shared)


def _corpus(name: str) -> Path:
    """The file of a name; that of the demo is made, with its tokenizer beside it, where it is not there."""
    if Path(name) == DEMO_CORPUS and not DEMO_CORPUS.is_file():
        from etl.demo import make_recipe

        make_recipe(DEMO_CORPUS.parent, None)
    return Path(name)


def corpus_arguments(description: str | None) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--corpus", type=_corpus, default=str(DEMO_CORPUS), help="parquet with a text column (default: the demo's)"
    )
    parser.add_argument("--tokenizer", default="demo/tokenizer", help="tokenizer.json or its folder")
    parser.add_argument("--repeats", type=int, default=5)
    return parser
