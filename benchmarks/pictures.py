"""Runs of several sizes in, figures out: what a chunk and a token cost, what is held, what a second worker gives."""

from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt

from benchmarks.used import Run, Runs

_OF_TARGET = ("mine", "interleave", "pack")  # stages whose work follows from the target


def draw(runs: Runs, folder: Path) -> None:
    """Write SVG files; of repeated runs the smallest figures, as in the tables."""
    folder.mkdir(parents=True, exist_ok=True)
    plt.rcParams |= {
        "svg.fonttype": "none",
        "svg.hashsalt": "nextlong",
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    first = next(iter(runs))
    stages = tuple(runs[first][0].seconds)
    by_chunks = {case: some for case, some in runs.items() if case[1:] == first[1:]}
    largest = max(case.num_chunks for case in runs)
    by_target = {case: some for case, some in runs.items() if case[:2] == (largest, first.workers)}
    _lines(by_chunks, stages, "num_chunks", _cpu_a_chunk, "processor µs a chunk", folder / "cost-a-chunk.svg")
    _lines(by_target, _OF_TARGET, "target", _cpu_a_token, "processor ns a token", folder / "cost-a-token.svg")
    _lines(by_chunks, stages, "num_chunks", _held, "MiB held by a worker, at most", folder / "memory-by-chunks.svg")
    _lines(by_target, _OF_TARGET, "target", _held, "MiB held by a worker, at most", folder / "memory-by-target.svg")
    _lines(
        {case: some for case, some in runs.items() if (case.num_chunks, case.target) == (largest, first.target)},
        stages,
        "workers",
        lambda run, stage: run.seconds[stage],
        "seconds",
        folder / "workers.svg",
    )


def _lines(
    runs: Runs, stages: tuple[str, ...], along: str, value: Callable[[Run, str], float], label: str, file: Path
) -> None:
    """A line a stage; nothing is drawn of a single size."""
    if len(runs) < 2:
        return
    figure, axes = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
    places = [getattr(case, along) for case in runs]
    for stage in stages:
        axes.plot(places, [min(value(run, stage) for run in some) for some in runs.values()], "o-", label=stage)
    axes.set_xscale("log", base=2 if along == "target" else 10)
    axes.set_xticks(places, [f"{place:,}" for place in places])
    axes.minorticks_off()
    axes.set_ylim(0, 1.05 * axes.dataLim.y1)
    axes.set_xlabel({"num_chunks": "chunks", "target": "tokens of a long document", "workers": "workers"}[along])
    axes.set_ylabel(label)
    figure.legend(loc="outside right upper", frameon=False)
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)


def _cpu_a_chunk(run: Run, stage: str) -> float:
    return 1e6 * _cpu(run, stage) / run.amounts[stage]


def _cpu_a_token(run: Run, stage: str) -> float:
    return 1e9 * _cpu(run, stage) / run.num_tokens


def _cpu(run: Run, stage: str) -> float:
    return run.workers.cpu_seconds[stage] + run.driver.cpu_seconds[stage]


def _held(run: Run, stage: str) -> float:
    return run.workers.most_bytes[stage] / 2**20
