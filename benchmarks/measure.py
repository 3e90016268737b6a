"""Ratios in one run: candidates are timed in turn, again and again, and compared by their medians."""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import psutil


def medians(candidates: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each candidate; all are run once before, unmeasured, then in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for candidate in candidates.values():
        candidate()
    for _ in range(repeats):
        for name, candidate in candidates.items():
            started = time.perf_counter()
            candidate()
            seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(each) for name, each in seconds.items()}


def report(seconds: dict[str, float], amount: float, unit: str, ours: str = "ours") -> str:
    """One line a candidate: rate, and how many times as fast ours is."""
    lines = [
        f"  {name:<44} {amount / each:>14,.1f} {unit}/s   ours / this = {each / seconds[ours]:.2f}"
        for name, each in seconds.items()
    ]
    return "\n".join(lines)


def own_bytes(process: psutil.Process) -> int:
    """Memory that a process holds for itself: mapped files and shared pages are not counted. 0 when it has ended."""
    try:
        memory = process.memory_info()
    except psutil.Error:
        return 0
    return int(memory.rss - memory.shared)


def corpus_arguments(description: str | None) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--corpus", type=Path, default=Path("demo/docstrings.parquet"), help="parquet with a text column"
    )
    parser.add_argument("--tokenizer", default="demo/tokenizer", help="tokenizer.json or its folder")
    parser.add_argument("--repeats", type=int, default=5)
    return parser
