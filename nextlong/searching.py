"""FAISS indexes and queries in, neighbours out, and how many lists and proposals reach a recall: higher is nearer."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nextlong.folders import inside
from nextlong.indexing import Vectors, bytes_per_vector, code_bytes, lists_of, num_lists, one_thread, read_index

EXACT_RERANK_RATIO = 1.05  # FAISS's distances differ from the exact scores in the last digits: re-ordering needs margin
_RERANK_RATIOS = (2.0, 4.0, 8.0, 16.0)
_LISTS_FOR_RATIO = 4  # a proposal costs a random read of an embedding: fewer of them are worth so many times the lists
_LEAST_GAIN = 0.001  # in recall, by twice the lists


class Neighbours(NamedTuple):
    """Search results, nearest first, ties by id."""

    scores: NDArray[np.float32]
    """float32 [n, k]"""
    ids: NDArray[np.int64]
    """int64 [n, k]; -1 where fewer than k were found"""


class Index:
    """A searchable index: one or more FAISS shards, opened memory-mapped, and what index.json says of them."""

    def __init__(self, shards: Sequence[Any], facts: dict[str, Any]) -> None:
        self.facts = facts
        self._shards = shards

    @classmethod
    def open(cls, folder: Path, facts: dict[str, Any] | None = None) -> "Index":
        """Open the shards that the facts (None: index.json) name; all processes of a host share their pages.

        Raises UserError for a name that leads out of the folder, and for a shard that keeps its lists elsewhere.
        """
        facts = facts or json.loads((folder / "index.json").read_text())
        shards = [read_index(inside(folder, name), is_mapped=True) for name in facts["shards"]]
        index = cls(shards, facts)
        if facts["nprobe"]:
            index.set_nprobe(facts["nprobe"])
        return index

    def __repr__(self) -> str:
        facts, shards = self.facts, len(self._shards)
        size = f"{facts['num_chunks']:,} vectors x {facts['dimensions']}, {shards} shard{'s' * (shards != 1)}"
        if self.is_exact:
            return f"Index({facts['factory']}, {size}, exact)"
        measured = f"nprobe {facts['nprobe']}, recall {facts['recall']:.3f}" if "recall_queries" in facts else "untuned"
        return f"Index({facts['factory']}, {size}, {measured})"

    def __len__(self) -> int:
        return int(sum(shard.ntotal for shard in self._shards))

    @property
    def is_exact(self) -> bool:
        """Whether a search misses nothing, so that there is no recall to measure."""
        return self.facts["factory"] in ("Flat", "IDMap,Flat", "IDMap2,Flat")

    @property
    def num_lists(self) -> int:
        """Inverted lists of a shard, 0 where there are none."""
        return num_lists(self._shards[0])

    @property
    def bytes_per_vector(self) -> int:
        """Bytes that one vector takes, its id included."""
        return bytes_per_vector(self._shards[0])

    @property
    def rerank_ratio(self) -> float:
        """How many times the wanted neighbours a search should propose, to be scored again."""
        return float(self.facts.get("rerank_ratio", EXACT_RERANK_RATIO))

    @property
    def rerank_ratios(self) -> tuple[float, ...]:
        """The ratios to choose from: codes of fewer than 8 bits a dimension (PQ) lose the order of near neighbours."""
        shard = self._shards[0]
        return _RERANK_RATIOS if code_bytes(shard) < shard.d else (EXACT_RERANK_RATIO,)

    def set_nprobe(self, nprobe: int) -> None:
        """Visit so many inverted lists a query; indexes without lists have nothing to set."""
        for shard in self._shards:
            lists = lists_of(shard)
            if lists is not None:
                lists.nprobe = nprobe

    def search(self, queries: Vectors, top_k: int) -> Neighbours:
        """The nearest of all shards for queries [n, d], on one thread; scores are FAISS's own, not the final ones."""
        one_thread()
        wanted = np.ascontiguousarray(queries, np.float32)
        found = (Neighbours(*shard.search(wanted, min(top_k, max(1, shard.ntotal)))) for shard in self._shards)
        return next(found) if len(self._shards) == 1 else merged(found, top_k)


def merged(found: Iterable[Neighbours], top_k: int) -> Neighbours:
    """The nearest [n, at most top_k] of several searches for the same queries, by score, ties by id, -1 at the end.

    Holds two results at a time, however many there are (at least one).
    """
    nearest: Neighbours | None = None
    for each in found:
        pair = each if nearest is None else _side_by_side(nearest, each)
        order = np.lexsort((pair.ids, np.where(pair.ids < 0, np.inf, -pair.scores)))[:, :top_k]
        nearest = Neighbours(np.take_along_axis(pair.scores, order, 1), np.take_along_axis(pair.ids, order, 1))
    if nearest is None:
        raise ValueError("nothing to merge")
    return nearest


def _side_by_side(left: Neighbours, right: Neighbours) -> Neighbours:
    return Neighbours(np.hstack([left.scores, right.scores]), np.hstack([left.ids, right.ids]))


def exact_neighbours(queries: Vectors, parts: Iterable[Vectors], top_k: int) -> NDArray[np.int64]:
    """Row numbers [n, top_k] of the exact nearest among all rows of `parts` laid end to end, by one pass over them."""
    import faiss

    one_thread()
    wanted = np.ascontiguousarray(queries, np.float32)
    nothing = Neighbours(np.empty((len(wanted), 0), np.float32), np.empty((len(wanted), 0), np.int64))

    def found() -> Iterator[Neighbours]:
        first = 0
        for part in parts:
            if len(part):
                rows = np.ascontiguousarray(part, np.float32)
                scores, ids = faiss.knn(wanted, rows, min(top_k, len(part)), metric=faiss.METRIC_INNER_PRODUCT)
                yield Neighbours(scores, ids + first)
            first += len(part)

    return merged(chain([nothing], found()), top_k).ids


def recall(found: NDArray[np.int64], exact: NDArray[np.int64]) -> float:
    """Share of the exact neighbours [n, k] that a search found [n, k]; 1.0 when there are none."""
    hits = sum(np.isin(row, truth).sum() for row, truth in zip(found, exact, strict=True))
    return float(hits / exact.size) if exact.size else 1.0


def choose_nprobe(recall_at: Callable[[int], float], most: int, target_recall: float) -> int:
    """The smallest power of two, at most `most`, whose recall reaches the target, or that doubling hardly raises.

    The latter where vectors are compressed too much, or where a graph does not lead to lists far away. 1: no lists.
    """
    nprobe, reached = 1, recall_at(1)
    while nprobe < most and reached < target_recall:
        twice = min(2 * nprobe, most)
        before, reached = reached, recall_at(twice)
        if reached - before < _LEAST_GAIN:
            break
        nprobe = twice
    return nprobe


def choose_search(
    recall_at: Callable[[int, float], float],
    *,
    nprobe: int | None,
    ratios: Sequence[float],
    num_lists: int,
    target_recall: float,
) -> tuple[int, float]:
    """nprobe (as given, where it is) and the smallest of the ascending ratios that reach the target.

    recall_at: (nprobe, ratio) -> recall. The fewest lists are found with the greatest ratio; for a smaller one up to
    four times as many are visited. Where nothing reaches the target: the greatest ratio.
    """
    fewest = nprobe or choose_nprobe(lambda lists: recall_at(lists, ratios[-1]), num_lists, target_recall)
    most = min(_LISTS_FOR_RATIO * fewest, num_lists)
    for ratio in ratios[:-1]:
        lists = nprobe or choose_nprobe(partial(_at_ratio, recall_at, ratio), most, target_recall)
        if recall_at(lists, ratio) >= target_recall:
            return lists, ratio
    return fewest, ratios[-1]


def _at_ratio(recall_at: Callable[[int, float], float], ratio: float, nprobe: int) -> float:
    return recall_at(nprobe, ratio)
