"""Accounts of stages in, flows out: of each unit what was read, what every stage kept, and why the rest was dropped."""

from collections.abc import Sequence
from typing import NamedTuple

from etl.report.facts import Facts
from nextlong.accounting import Count


class Step(NamedTuple):
    """What one stage did to a unit: read = kept + dropped."""

    stage: str
    kept_as: str
    """What is left, in words."""
    read: int
    kept: int
    dropped: dict[str, int]


class Flow(NamedTuple):
    """Steps of which each reads what the one before it kept."""

    title: str
    told: str
    read_as: str
    steps: list[Step]

    @property
    def reasons(self) -> list[tuple[str, str, int]]:
        """(stage, reason, number) of all that was dropped."""
        return [(step.stage, reason, number) for step in self.steps for reason, number in step.dropped.items()]


def flows(facts: Facts) -> list[Flow]:
    """The flows of documents, chunks, candidates and tokens, as far as the finished stages tell them."""
    found = [_documents(facts), _chunks(facts), _candidates(facts), _tokens(facts)]
    return [flow for flow in found if flow.steps]


def _documents(facts: Facts) -> Flow:
    used = "meta-documents" if facts.setting("synthesis", "strategy") == "nextlong" else "in long documents"
    stages = (("read", "distinct documents"), ("chunk", "documents in chunks"), ("interleave", used))
    told = "What became of every document of the input."
    return Flow("Documents", told, "read", _steps(facts, "documents", stages))


def _chunks(facts: Facts) -> Flow:
    steps = _steps(facts, "chunks", (("chunk", "chunks"), ("embed", "embedded")))
    used = facts.value("interleave", "distinct_chunks")
    if steps and used is not None:
        left = steps[-1].kept
        steps.append(Step("interleave", "in long documents", left, used, _only(in_no_long_document=left - used)))
    told = "How much of the corpus is in the long documents; a chunk that serves in several counts once."
    return Flow("Chunks", told, "chunks", steps)


def _candidates(facts: Facts) -> Flow:
    stages = (("mine", "candidates"), ("interleave", "placed"))
    told = "What was looked up for meta-chunks, which rules dropped it, and how much of it was needed."
    return Flow("Candidates", told, "looked up", _steps(facts, "candidates", stages))


def _tokens(facts: Facts) -> Flow:
    stages = (("interleave", "in long documents"), ("pack", "in sequences"))
    told = "Of the tokens that were gathered for long documents, those that are in them and in the sequences."
    return Flow("Tokens", told, "gathered", _steps(facts, "tokens", stages))


def _steps(facts: Facts, unit: str, stages: Sequence[tuple[str, str]]) -> list[Step]:
    """A step a stage that counts the unit; what a later stage did not read, it dropped as not taken."""
    steps: list[Step] = []
    for stage, kept_as in stages:
        count: Count | None = facts.stages[stage].account.counts.get(unit) if stage in facts.stages else None
        if count is None:
            continue
        left = steps[-1].kept - count.read if steps else 0
        dropped = _only(not_taken=max(0, left), **dict(count.dropped))
        steps.append(Step(stage, kept_as, count.read + max(0, left), count.kept, dropped))
    return steps


def _only(**dropped: int) -> dict[str, int]:
    return {reason: number for reason, number in dropped.items() if number}
