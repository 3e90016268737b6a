"""A meta-chunk and its candidates in, which of them repeat it out, and how many other thresholds would drop."""

import heapq
from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nextlong.sketching import overlaps

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 0.99, 1.0)
"""For each of these is counted how many candidates reach it."""
_EXAMPLES = 4  # on either side of a threshold, a part
_PAIRS_AT_ONCE = 2**15  # bounds the sketches held, 8 MB at 64 hashes

FetchSketches = Callable[[NDArray[np.int64]], NDArray[np.uint32]]
"""chunk_ids [n] -> MinHash sketches [n, h]"""


class NearDuplicateRules(NamedTuple):
    """When a candidate is a false negative."""

    similarity: float | None = None
    """From this score on; None: never."""
    overlap: float | None = None
    """From this Jaccard overlap of word 5-grams on, as `sketching.overlaps` estimates it; None: never."""
    fetch_sketches: FetchSketches | None = None
    """Needed for the overlap alone."""


class Found(NamedTuple):
    """Of k candidates: which a rule drops, bool [k] each."""

    by_similarity: NDArray[np.bool_]
    by_overlap: NDArray[np.bool_]


class NearDuplicates:
    """The rules at work, and what they met: counts by threshold, and the pairs next to the recipe's threshold."""

    def __init__(self, rules: NearDuplicateRules) -> None:
        self._rules = rules
        self._met = {
            name: _Met(threshold)
            for name, threshold in (("similarity", rules.similarity), ("overlap", rules.overlap))
            if threshold is not None
        }

    def find(self, queries: NDArray[np.int64], ids: NDArray[np.int64], scores: NDArray[np.float32]) -> Found:
        """Which candidates [n] are near-duplicates of their meta-chunks [n], where those of one stand together."""
        none = np.zeros(len(ids), np.bool_)
        return Found(
            self._met["similarity"].compare(queries, ids, scores) if "similarity" in self._met else none,
            self._met["overlap"].compare(queries, ids, self._overlaps(queries, ids))
            if "overlap" in self._met
            else none,
        )

    def to_dict(self) -> dict[str, Any]:
        """By rule: threshold, compared, at_or_above {threshold: candidates}, just_below and just_above (JSON).

        The examples are [value, meta-chunk, candidate], the nearest to the threshold first.
        """
        return {name: met.to_dict() for name, met in self._met.items()}

    def _overlaps(self, queries: NDArray[np.int64], ids: NDArray[np.int64]) -> NDArray[np.float32]:
        if self._rules.fetch_sketches is None:
            raise ValueError("near_duplicate_overlap needs sketches of the chunks")
        found = np.empty(len(ids), np.float32)
        for first in range(0, len(ids), _PAIRS_AT_ONCE):
            some = slice(first, first + _PAIRS_AT_ONCE)
            found[some] = _overlaps_of_pairs(queries[some], ids[some], self._rules.fetch_sketches)
        return found


def _overlaps_of_pairs(
    queries: NDArray[np.int64], ids: NDArray[np.int64], fetch_sketches: FetchSketches
) -> NDArray[np.float32]:
    """Meta-chunks share candidates: each sketch is fetched once."""
    known, places = np.unique(ids, return_inverse=True)
    starts = np.flatnonzero(np.diff(queries, prepend=-1))
    of_queries, of_known = fetch_sketches(queries[starts]), fetch_sketches(known)
    found = np.empty(len(ids), np.float32)
    for of_query, (first, last) in zip(of_queries, pairwise([*starts.tolist(), len(ids)]), strict=True):
        found[first:last] = overlaps(of_query, of_known.take(places[first:last], axis=0))
    return found


class _Met:
    """The values that one rule compared with its threshold."""

    def __init__(self, threshold: float) -> None:
        self._threshold = np.float32(threshold)
        self._levels = np.unique(np.array([*THRESHOLDS, threshold], np.float32))
        self._counts = np.zeros(len(self._levels) + 1, np.int64)  # by the number of levels that a value reaches
        self._below: list[tuple[float, int, int]] = []
        self._above: list[tuple[float, int, int]] = []

    def compare(
        self, queries: NDArray[np.int64], ids: NDArray[np.int64], values: NDArray[np.float32]
    ) -> NDArray[np.bool_]:
        is_near: NDArray[np.bool_] = values >= self._threshold
        reached = np.searchsorted(self._levels, values, "right")
        self._counts += np.bincount(reached, minlength=len(self._counts))
        self._below = self._nearest(self._below, queries, ids, values, ~is_near)
        self._above = self._nearest(self._above, queries, ids, values, is_near)
        return is_near

    def to_dict(self) -> dict[str, Any]:
        at_or_above = self._counts[::-1].cumsum()[::-1][1:].tolist()
        return {
            "threshold": _plain(self._threshold),
            "compared": int(self._counts.sum()),
            "at_or_above": {str(_plain(level)): n for level, n in zip(self._levels, at_or_above, strict=True)},
            "just_below": [list(example) for example in self._below],
            "just_above": [list(example) for example in self._above],
        }

    def _nearest(
        self,
        known: list[tuple[float, int, int]],
        queries: NDArray[np.int64],
        ids: NDArray[np.int64],
        values: NDArray[np.float32],
        where: NDArray[np.bool_],
    ) -> list[tuple[float, int, int]]:
        distances = np.where(where, np.abs(values - self._threshold), np.inf)
        cut = np.partition(distances, _EXAMPLES - 1)[_EXAMPLES - 1] if len(distances) > _EXAMPLES else np.inf
        near = np.flatnonzero(where & (distances <= cut))
        few = near[np.lexsort((ids[near], queries[near], distances[near]))[:_EXAMPLES]]
        new = zip(map(_plain, values[few]), queries[few].tolist(), ids[few].tolist(), strict=True)
        return heapq.nsmallest(_EXAMPLES, [*known, *new], key=self._distance)

    def _distance(self, example: tuple[float, int, int]) -> tuple[float, int, int]:
        return abs(example[0] - _plain(self._threshold)), example[1], example[2]


def _plain(value: np.float32) -> float:
    return round(float(value), 6)


def total(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """The sum of what `NearDuplicates.to_dict` gave for several parts, with the examples nearest the threshold."""
    merged: dict[str, Any] = {}
    for part in parts:
        for name, facts in part.items():
            known = merged.setdefault(name, {"threshold": facts["threshold"], "compared": 0, "at_or_above": {}})
            known["compared"] += facts["compared"]
            for level, number in facts["at_or_above"].items():
                known["at_or_above"][level] = known["at_or_above"].get(level, 0) + number
            for side in ("just_below", "just_above"):
                examples = known.get(side, []) + facts[side]
                known[side] = sorted(examples, key=lambda each: (abs(each[0] - known["threshold"]), *each[1:]))[
                    :_EXAMPLES
                ]
    return merged
