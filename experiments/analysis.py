"""Rows of measures in; for each measure the methods with intervals over seeds, their order, and the paper's, out.

Each method is compared with the baseline seed by seed: both start from the same weights and see as many tokens, so what
a seed does to both falls out of the difference. Intervals are Student's, 95 %: of three seeds, 4.3 standard errors to
each side.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations, permutations
from statistics import fmean
from typing import Any, NamedTuple

from evaluation.intervals import mean_interval
from evaluation.scoring import Interval
from experiments.plan import BASELINE, PAPER_SCORES

Row = Mapping[str, Any]


class Compared(NamedTuple):
    """One method by one measure."""

    method: str
    value: Interval
    """Over seeds."""
    difference: Interval | None
    """To the baseline, paired by seed; None: it is the baseline."""
    seeds: int


class Outcome(NamedTuple):
    """All methods by one measure."""

    measure: str
    better: str
    """high, low or neither."""
    baseline: str
    methods: list[Compared]
    """The best first; with neither: as they came."""
    tau: float | None
    """Kendall's rank correlation with the paper's table, of the methods that it has; None: fewer than two, or
    neither."""
    chance: float | None
    """Share of all orders of these methods whose tau is at least as great."""


def analyse(rows: Iterable[Row], *, baseline: str = BASELINE) -> list[Outcome]:
    """Rows {"method", "seed", "measure", "value", "better"} in any order; measures as they first come.

    Only seeds that a method and the baseline both have are compared. Raises ValueError where the baseline is missing.
    """
    values: dict[str, dict[str, dict[int, float]]] = {}
    better: dict[str, str] = {}
    for row in rows:
        better.setdefault(row["measure"], row["better"])
        values.setdefault(row["measure"], {}).setdefault(row["method"], {})[row["seed"]] = row["value"]
    return [_outcome(measure, better[measure], by_method, baseline) for measure, by_method in values.items()]


def kendall(first: Sequence[float], second: Sequence[float]) -> float:
    """Kendall's tau-b of two lists: pairs in the same order less those in opposite order; ties count to neither.

    NaN where all of a list are equal.
    """
    signs = [(_sign(a - b), _sign(c - d)) for (a, c), (b, d) in combinations(zip(first, second, strict=True), 2)]
    untied = [sum(a != 0 for a, _ in signs), sum(b != 0 for _, b in signs)]
    return sum(a * b for a, b in signs) / (untied[0] * untied[1]) ** 0.5 if all(untied) else float("nan")


def _outcome(measure: str, better: str, by_method: Mapping[str, Mapping[int, float]], baseline: str) -> Outcome:
    if baseline not in by_method:
        raise ValueError(f"{measure} is not measured for {baseline}, with which all are compared")
    sign = {"high": 1, "low": -1, "neither": 0}[better]
    methods = [_compared(name, of_seeds, by_method[baseline]) for name, of_seeds in by_method.items()]
    methods.sort(key=lambda each: -sign * each.value.mean)
    known = [each for each in methods if each.method in PAPER_SCORES]
    if not sign or len(known) < 2:
        return Outcome(measure, better, baseline, methods, None, None)
    ours, paper = [sign * each.value.mean for each in known], [PAPER_SCORES[each.method] for each in known]
    tau = kendall(ours, paper)
    others = [kendall(order, paper) for order in permutations(ours)]
    chance = fmean(other >= tau - 1e-12 for other in others) if tau == tau else None
    return Outcome(measure, better, baseline, methods, tau if tau == tau else None, chance)


def _compared(name: str, values: Mapping[int, float], baseline: Mapping[int, float]) -> Compared:
    shared = sorted(values.keys() & baseline.keys())
    differences = [values[seed] - baseline[seed] for seed in shared]
    difference = mean_interval(differences) if shared and values is not baseline else None
    return Compared(name, mean_interval(list(values.values())), difference, len(values))


def _sign(number: float) -> int:
    return (number > 0) - (number < 0)


def as_rows(outcomes: Iterable[Outcome]) -> list[dict[str, Any]]:
    """A row a method and measure, for programs; place: 1 for the best."""
    return [
        {
            "measure": each.measure,
            "better": each.better,
            "baseline": each.baseline,
            "method": method.method,
            "place": place if each.better != "neither" else None,
            **method.value._asdict(),
            "difference": method.difference and method.difference._asdict(),
            "seeds": method.seeds,
            "tau": each.tau,
            "chance": each.chance,
        }
        for each in outcomes
        for place, method in enumerate(each.methods, 1)
    ]


def as_markdown(outcomes: Iterable[Outcome]) -> str:
    """A table a measure. An asterisk: the interval of the difference does not hold 0."""
    return "\n".join(line for each in outcomes for line in (*_table(each), ""))


def _table(outcome: Outcome) -> Iterable[str]:
    told = "" if outcome.better == "neither" else f" ({outcome.better} is better)"
    yield f"### {outcome.measure}{told}"
    yield ""
    yield f"| method | mean [95 %] | against {outcome.baseline} [95 %] | seeds |"
    yield "|---|---|---|---|"
    for each in outcome.methods:
        yield f"| {each.method} | {_told(each.value)} | {_told_difference(each.difference)} | {each.seeds} |"
    if outcome.tau is not None:
        yield ""
        yield (
            f"Order against the paper's table: Kendall's tau {outcome.tau:+.2f}; {outcome.chance:.0%} of all orders "
            f"reach it."
        )


def _told(found: Interval) -> str:
    return f"{found.mean:.3f}{_ends(found, '.3f')}"


def _told_difference(found: Interval | None) -> str:
    if found is None:
        return ""
    mark = " *" if found.low > 0 or found.high < 0 else ""
    return f"{found.mean:+.3f}{_ends(found, '+.3f')}{mark}"


def _ends(found: Interval, shape: str) -> str:
    """Nothing for a single seed, which has no interval."""
    return "" if math.isnan(found.low) else f" [{found.low:{shape}}, {found.high:{shape}}]"
