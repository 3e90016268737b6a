"""Facts in, the charts of the page out: each with what it shows in words, and its numbers."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from etl.report.facts import Facts
from etl.report.figures import Palette, bars_figure, flow_figure, histogram_figure, rows_figure
from etl.report.flows import Flow, flows
from etl.report.samples import Sample
from etl.work import STAGES


class Chart(NamedTuple):
    """One figure and what stands around it."""

    section: str
    title: str
    told: str
    draw: Callable[[Palette], Any]
    """The plotly figure, in the colours of a page."""
    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    """Its numbers as text."""
    is_wide: bool = False


FLOWS, LENGTHS, HARDNESS, SPENT = "What became of the corpus", "Lengths", "How hard it is", "Time and memory"
SECTIONS = (FLOWS, LENGTHS, HARDNESS, SPENT)


def charts(facts: Facts) -> list[Chart]:
    """All charts that the finished stages have numbers for, section by section."""
    found = [_flow(flow) for flow in flows(facts)]
    found += _lengths(facts)
    found += _by_rank(facts)
    found += _reuse(facts)
    found += _meta(facts)
    return found + _spent(facts)


def _flow(flow: Flow) -> Chart:
    rows = [("", flow.read_as, f"{flow.steps[0].read:,}")]
    for step in flow.steps:
        rows += [
            (step.stage, f"dropped: {reason.replace('_', ' ')}", f"{number:,}")
            for reason, number in step.dropped.items()
        ]
        rows.append((step.stage, step.kept_as, f"{step.kept:,}"))
    return Chart(FLOWS, flow.title, flow.told, partial(flow_figure, flow), ("stage", "", "number"), rows, is_wide=True)


def _lengths(facts: Facts) -> list[Chart]:
    titles = {"document_tokens": ("Documents", "documents"), "chunk_tokens": ("Chunks", "chunks")}
    return [
        _distribution(LENGTHS, title, "Tokens by the recipe's tokenizer", facts.samples[name], "tokens", unit)
        for name, (title, unit) in titles.items()
        if name in facts.samples
    ]


def _meta(facts: Facts) -> list[Chart]:
    found = []
    if "meta_distances" in facts.samples and len(facts.samples["meta_distances"].values):
        told = "Tokens from the end of a meta-chunk to the start of the next"
        sample = facts.samples["meta_distances"]
        found.append(
            _distribution(HARDNESS, "Distance between neighbouring meta-chunks", told, sample, "tokens", "pairs")
        )
    if "meta_ratios" in facts.samples:
        told = "Meta-chunks' share of a long document's tokens"
        sample = facts.samples["meta_ratios"]
        found.append(
            _distribution(HARDNESS, "Share of meta text", told, sample, "share of the tokens", "long documents", ".1%")
        )
    return found


def _distribution(
    section: str, title: str, told: str, sample: Sample, x_title: str, y_title: str, number_format: str = ",.0f"
) -> Chart:
    draw = partial(histogram_figure, sample.values, x_title=x_title, y_title=y_title, number_format=number_format)
    levels = {"least": 0, "1 in 10 below": 10, "median": 50, "9 in 10 below": 90, "most": 100}
    values = sample.values if len(sample.values) else np.zeros(1)
    rows = [(name, format(float(np.percentile(values, level)), number_format)) for name, level in levels.items()]
    rows.append(("mean", format(float(values.mean()), number_format)))
    return Chart(section, title, f"{told}; of {sample.told}.", draw, ("", x_title), rows)


def _by_rank(facts: Facts) -> list[Chart]:
    means = facts.value("interleave", "similarity_by_rank")
    if not means:
        return []
    is_bm25 = facts.setting("mining", "retrieval") == "bm25"
    what = "BM25 score" if is_bm25 else "cosine similarity"
    told = f"Mean {what} of negatives to their meta-chunk, by their rank among its candidates; 0 is the nearest."
    draw = partial(bars_figure, means, x_title="rank", y_title=what, number_format=".1f" if is_bm25 else ".2f")
    rows = [(rank, f"{mean:.3f}") for rank, mean in means.items()]
    return [Chart(HARDNESS, "Similarity by rank", told, draw, ("rank", what), rows)]


def _reuse(facts: Facts) -> list[Chart]:
    reuse = facts.value("interleave", "reuse")
    if not reuse:
        return []
    told = "Chunks by the number of long documents that they are inserted in; chunks that serve in none are not shown."
    draw = partial(bars_figure, reuse, x_title="uses", y_title="chunks", number_format=",d")
    rows = [(uses, f"{number:,}") for uses, number in reuse.items()]
    return [Chart(HARDNESS, "Reuse of inserted chunks", told, draw, ("uses", "chunks"), rows)]


def _spent(facts: Facts) -> list[Chart]:
    stages = {name: facts.stages[name] for name in STAGES if name in facts.stages}
    seconds = {name: stage.seconds for name, stage in stages.items() if stage.seconds}
    memory = {name: stage.peak_memory_bytes / 2**20 for name, stage in stages.items() if stage.peak_memory_bytes}
    told = "Seconds from a stage's start to its end, in the run that finished it."
    found = [_spending("Seconds a stage", told, "seconds", seconds, ",.1f")] if seconds else []
    told = "The most that one process held at once while it worked on the stage, mapped files included."
    return found + ([_spending("Memory a stage", told, "MiB", memory, ",.0f")] if memory else [])


def _spending(title: str, told: str, unit: str, spent: Mapping[str, float], number_format: str) -> Chart:
    draw = partial(rows_figure, spent, x_title=unit, number_format=number_format)
    rows = [(name, format(number, number_format)) for name, number in spent.items()]
    return Chart(SPENT, title, told, draw, ("stage", unit), rows)
