"""Ids of chunks or documents in, their neighbours with final scores out: what an index must offer to be mined."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from nextlong.indexing import Vectors
from nextlong.searching import EXACT_RERANK_RATIO, Neighbours, merged

_ROUNDING = 1e-5  # FAISS sums in float32
_WIDER = (2, 4, 8, 16)  # of more equals than that, FAISS decides which are found
ROWS_AT_ONCE = 2**15  # bounds the embeddings held while proposals are scored, 0.1 GB at 768 dimensions in float32

Search = Callable[[Vectors, int], Neighbours]
"""(queries [n, d], top_k) -> scores and ids [n, top_k]"""
FetchVectors = Callable[[NDArray[np.int64]], Vectors]
"""ids [n] -> stored embeddings [n, d]"""


class Retriever(Protocol):
    """Neighbours of what is indexed, asked for by id; a query finds itself too. `Bm25` is another one."""

    def neighbours_of(self, ids: NDArray[np.int64], top_k: int) -> Neighbours:
        """The nearest of ids [n]: scores, ids [n, at most top_k], by score, ties by id, -1 at the end."""

    def scores_of(self, ids: NDArray[np.int64], others: NDArray[np.int64]) -> NDArray[np.float32]:
        """Scores [n, k] of given others [n, k], in their order; -inf for id -1."""


class EmbeddingRetriever(NamedTuple):
    """Neighbours by FAISS, scored again from the stored embeddings: neither batches nor threads change a result.

    A score is the inner product of two embeddings, summed in float64, rounded to 6 decimals, kept as float32. Ties are
    broken by id among up to 16 top_k equals. An approximate index may propose fewer than top_k.
    """

    search: Search
    fetch_vectors: FetchVectors
    rerank_ratio: float = EXACT_RERANK_RATIO
    """How many times top_k is proposed."""
    proposals: Sequence[NDArray[Any]] = ()
    """What each index shard alone proposed beforehand, as `ShardSearch` gives it: then only ties need the search."""

    def neighbours_of(self, ids: NDArray[np.int64], top_k: int) -> Neighbours:
        """As in `Retriever`."""
        vectors, most = self.fetch_vectors(ids), num_proposals(top_k, self.rerank_ratio)
        return self._nearest(vectors, top_k, self._merged(ids, most) if self.proposals else self.search(vectors, most))

    def neighbours_of_vectors(self, vectors: Vectors, top_k: int) -> Neighbours:
        """The nearest of vectors [n, d] that need not be indexed, as `neighbours_of` gives those of ids."""
        return self._nearest(vectors, top_k, self.search(vectors, num_proposals(top_k, self.rerank_ratio)))

    def _nearest(self, vectors: Vectors, top_k: int, proposed: Neighbours) -> Neighbours:
        most = num_proposals(top_k, self.rerank_ratio)
        first = self._rescored(vectors, proposed)
        scores, found = first.scores[:, :top_k], first.ids[:, :top_k]
        rows = np.flatnonzero(_may_go_on(first, top_k, most))
        for factor in _WIDER:  # equals stand on both sides of the cut: ties are broken by id among all of them
            still = []
            for some in np.array_split(rows, -(-len(rows) * factor // max(1, len(vectors)))) if len(rows) else []:
                wider = self._rescored(vectors[some], self.search(vectors[some], most * factor))
                scores[some], found[some] = wider.scores[:, :top_k], wider.ids[:, :top_k]
                still.append(some[_may_go_on(wider, top_k, most * factor)])
            rows = np.concatenate([rows[:0], *still])
        return Neighbours(scores, found)

    def _merged(self, ids: NDArray[np.int64], most: int) -> Neighbours:
        """The search over all shards, from what each has proposed."""
        found = (shard[np.searchsorted(shard["query"], ids)] for shard in self.proposals)
        return merged((Neighbours(records["scores"], records["ids"]) for records in found), most)

    def _rescored(self, vectors: Vectors, proposed: Neighbours) -> Neighbours:
        scores = _products(vectors, proposed.ids, self.fetch_vectors)
        order = _nearest_first(scores, proposed.ids)
        return Neighbours(np.take_along_axis(scores, order, 1), np.take_along_axis(proposed.ids, order, 1))

    def scores_of(self, ids: NDArray[np.int64], others: NDArray[np.int64]) -> NDArray[np.float32]:
        """As in `Retriever`."""
        return _products(self.fetch_vectors(ids), others, self.fetch_vectors)


class ShardSearch:
    """Asked like a retriever, it answers nothing, and keeps what one index shard proposes for every query.

    To be asked in the same batches as the retriever that it prepares: FAISS's scores depend on them in the last digits.
    """

    def __init__(self, search: Search, fetch_vectors: FetchVectors, rerank_ratio: float) -> None:
        self._search = search
        self._fetch_vectors = fetch_vectors
        self._rerank_ratio = rerank_ratio
        self._found: list[tuple[NDArray[np.int64], Neighbours]] = []

    def neighbours_of(self, ids: NDArray[np.int64], top_k: int) -> Neighbours:
        """As in `Retriever`, but none."""
        found = self._search(self._fetch_vectors(ids), num_proposals(top_k, self._rerank_ratio))
        self._found.append((ids, found))
        return Neighbours(found.scores[:, :0], found.ids[:, :0])

    def scores_of(self, ids: NDArray[np.int64], others: NDArray[np.int64]) -> NDArray[np.float32]:
        """As in `Retriever`, but none."""
        return np.full(others.shape, -np.inf, np.float32)

    def proposals(self) -> NDArray[Any]:
        """One record a query, by query: its id, scores [k] and ids [k], -1 where it was asked for fewer."""
        top_k = max((found.ids.shape[1] for _, found in self._found), default=0)
        columns = [("query", np.int64), ("scores", np.float32, (top_k,)), ("ids", np.int64, (top_k,))]
        records = np.empty(sum(len(ids) for ids, _ in self._found), columns)
        records["scores"], records["ids"] = -np.inf, -1
        first = 0
        for ids, found in self._found:
            here, width = records[first : first + len(ids)], found.ids.shape[1]
            here["query"], here["scores"][:, :width], here["ids"][:, :width] = ids, found.scores, found.ids
            first += len(ids)
        return records[np.argsort(records["query"], kind="stable")]


def num_proposals(top_k: int, rerank_ratio: float) -> int:
    """Neighbours that FAISS proposes where top_k are wanted: at least one more, by which ties at the cut are seen."""
    return max(top_k + 1, int(np.ceil(top_k * rerank_ratio)))


def _may_go_on(found: Neighbours, top_k: int, most: int) -> NDArray[np.bool_]:
    """Of each row, whether something not found may have the score of its top_k-th, as FAISS's own scores round."""
    if found.ids.shape[1] < most or not found.ids.size:
        return np.zeros(len(found.ids), np.bool_)
    open_ended: NDArray[np.bool_] = found.ids[:, -1] >= 0
    return open_ended & (found.scores[:, top_k - 1] <= found.scores[:, -1] + _ROUNDING)


def _nearest_first(scores: NDArray[np.float32], ids: NDArray[np.int64]) -> NDArray[np.intp]:
    """Of each row [n, k], by score, ties by id; a stable sort is fast on proposals, which come nearly in order."""
    order = np.argsort(-scores, axis=1, kind="stable")
    ordered = np.take_along_axis(scores, order, 1)
    tied = (ordered[:, 1:] == ordered[:, :-1]).any(axis=1)
    order[tied] = np.lexsort((ids[tied], -scores[tied]))
    return order


def _products(queries: Vectors, ids: NDArray[np.int64], fetch_vectors: FetchVectors) -> NDArray[np.float32]:
    """The score of every query [n, d] with each of its ids [n, k], for some queries at a time."""
    size = max(1, ROWS_AT_ONCE // max(1, ids.shape[1]))
    rows = [slice(first, first + size) for first in range(0, len(queries), size)]
    scores = [_products_at_once(queries[some], ids[some], fetch_vectors) for some in rows]
    return np.concatenate([np.empty((0, ids.shape[1]), np.float32), *scores])


def _products_at_once(queries: Vectors, ids: NDArray[np.int64], fetch_vectors: FetchVectors) -> NDArray[np.float32]:
    """Every vector is fetched once and held as it is stored: in float64 only those of one query at a time."""
    known, places = np.unique(ids, return_inverse=True)
    num_missing = int(np.searchsorted(known, 0))
    vectors, places = fetch_vectors(known[num_missing:]), places.reshape(ids.shape) - num_missing
    scores = np.full(ids.shape, -np.inf)
    if len(vectors):
        for row, query in enumerate(queries.astype(np.float64)):
            near = vectors.take(places[row], axis=0).astype(np.float64)
            np.vecdot(near, query, out=scores[row])  # no matrix product: each is summed alone, in one order
    scores[ids < 0] = -np.inf  # the place -1 was that of the last one
    return scores.round(6).astype(np.float32)


def document_vectors(vectors: Vectors, num_chunks: NDArray[np.integer]) -> NDArray[np.float32]:
    """A vector a document [m, d]: the mean of its chunks' vectors at length 1; a mean of 0 stays 0.

    vectors [n, d]: of the chunks of consecutive documents; num_chunks [m]: of each, at least 1. Sums are in float64.
    """
    if not len(num_chunks):
        return np.empty((0, vectors.shape[1]), np.float32)
    starts = np.cumsum(num_chunks) - num_chunks
    means = np.add.reduceat(vectors.astype(np.float64), starts, axis=0) / num_chunks[:, None]
    lengths = np.sqrt((means * means).sum(axis=1, keepdims=True))
    unit: NDArray[np.float32] = (means / np.where(lengths > 0, lengths, 1)).astype(np.float32)
    return unit
