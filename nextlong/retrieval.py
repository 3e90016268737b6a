"""Ids of chunks or documents in, their neighbours with final scores out: what an index must offer to be mined."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from nextlong.indexing import Neighbours, Vectors

_OVERFETCH = 1.05  # FAISS's distances differ in the last digits from the exact scores; re-ordering needs some margin
_ROUNDING = 1e-5  # FAISS sums in float32
_WIDER = (2, 4, 8, 16)  # of more equals than that, FAISS decides which are found

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

    def neighbours_of(self, ids: NDArray[np.int64], top_k: int) -> Neighbours:
        """As in `Retriever`."""
        vectors = self.fetch_vectors(ids)
        most = int(np.ceil(top_k * _OVERFETCH))
        first = self._rescored(vectors, most)
        scores, found = first.scores[:, :top_k], first.ids[:, :top_k]
        rows = np.flatnonzero(_may_go_on(first, top_k, most))
        for factor in _WIDER:  # equals stand on both sides of the cut: ties are broken by id among all of them
            still = []
            for some in np.array_split(rows, -(-len(rows) * factor // max(1, len(ids)))) if len(rows) else []:
                wider = self._rescored(vectors[some], most * factor)
                scores[some], found[some] = wider.scores[:, :top_k], wider.ids[:, :top_k]
                still.append(some[_may_go_on(wider, top_k, most * factor)])
            rows = np.concatenate([rows[:0], *still])
        return Neighbours(scores, found)

    def _rescored(self, vectors: Vectors, most: int) -> Neighbours:
        proposed = self.search(vectors, most).ids
        scores = _products(vectors, proposed, self.fetch_vectors)
        order = np.lexsort((proposed, -scores))
        return Neighbours(np.take_along_axis(scores, order, 1), np.take_along_axis(proposed, order, 1))

    def scores_of(self, ids: NDArray[np.int64], others: NDArray[np.int64]) -> NDArray[np.float32]:
        """As in `Retriever`."""
        return _products(self.fetch_vectors(ids), others, self.fetch_vectors)


def _may_go_on(found: Neighbours, top_k: int, most: int) -> NDArray[np.bool_]:
    """Of each row, whether something not found may have the score of its top_k-th, as FAISS's own scores round."""
    if found.ids.shape[1] < most or not found.ids.size:
        return np.zeros(len(found.ids), np.bool_)
    open_ended: NDArray[np.bool_] = found.ids[:, -1] >= 0
    return open_ended & (found.scores[:, top_k - 1] <= found.scores[:, -1] + _ROUNDING)


def _products(queries: Vectors, ids: NDArray[np.int64], fetch_vectors: FetchVectors) -> NDArray[np.float32]:
    """The score of every query [n, d] with each of its ids [n, k]; every vector is fetched once."""
    known, places = np.unique(ids, return_inverse=True)
    vectors = np.zeros((len(known), queries.shape[1]), np.float64)
    vectors[known >= 0] = fetch_vectors(known[known >= 0])
    places = places.reshape(ids.shape)
    scores = np.empty(ids.shape, np.float32)
    for row, query in enumerate(queries.astype(np.float64)):
        scores[row] = np.einsum("kd,d->k", vectors[places[row]], query).round(6)  # no BLAS: one order of summation
    scores[ids < 0] = -np.inf
    return scores


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
