"""Meta-documents in, candidates for hard negatives out: retrieve, score exactly, apply the rules (Sec. 3.1.2, 5.4)."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nextlong.accounting import Account
from nextlong.indexing import Neighbours, Vectors

_QUERIES_AT_ONCE = 256  # bounds the [queries, candidates] arrays; a Flat index wants large batches
_OVERFETCH = 1.05  # FAISS's distances differ in the last digits from the exact scores; re-ordering needs some margin


class MetaDocument(NamedTuple):
    """The document to extend: its chunks are the chunk_ids first_chunk_id ... first_chunk_id + num_chunks - 1."""

    doc_id: int
    first_chunk_id: int
    num_chunks: int
    num_candidates: int
    """Candidates of other documents to retrieve for each meta-chunk."""

    @property
    def chunk_ids(self) -> NDArray[np.int64]:
        """The meta-chunks, in order."""
        return np.arange(self.first_chunk_id, self.first_chunk_id + self.num_chunks)


class Candidates(NamedTuple):
    """What the rules left of one meta-chunk's neighbours, nearest first, ties by chunk_id."""

    chunk_id: int
    ids: NDArray[np.int64]
    scores: NDArray[np.float32]


Search = Callable[[Vectors, int], Neighbours]
"""(queries [n, d], top_k) -> scores and ids [n, top_k]"""
FetchVectors = Callable[[NDArray[np.int64]], Vectors]
"""chunk_ids [n] -> stored embeddings [n, d]"""
FetchHashes = Callable[[NDArray[np.int64]], NDArray[np.uint64]]
"""chunk_ids [n] -> hashes of the chunks' texts"""


def mine(
    documents: Sequence[MetaDocument],
    *,
    search: Search,
    fetch_vectors: FetchVectors,
    fetch_hashes: FetchHashes,
    near_duplicate_similarity: float | None,
) -> tuple[list[Candidates], Account]:
    """Candidates for every meta-chunk of the documents, in document and chunk order, and their account.

    The rules, in order, each counted: chunks of the own document; exact copies (by text hash) of any meta-chunk of the
    document; near duplicates, whose similarity to the meta-chunk is at or above the threshold: they are false
    negatives (Sec. 5.4 found that a repeated meta-chunk lowers results). What the index proposed is scored again from
    the stored embeddings, so neither batches nor threads change a result. An approximate index may propose fewer.
    """
    account = Account()
    mined: dict[int, Candidates] = {}
    for group in _groups(documents):
        queries = np.concatenate([document.chunk_ids for document in group])
        owners = np.repeat(np.arange(len(group)), [document.num_chunks for document in group])
        vectors = fetch_vectors(queries)
        for start in range(0, len(queries), _QUERIES_AT_ONCE):
            batch = slice(start, start + _QUERIES_AT_ONCE)
            neighbours = rescore(vectors[batch], search(vectors[batch], _num_to_fetch(group)).ids, fetch_vectors)
            hashes = _gather(fetch_hashes, neighbours.ids)
            for row, (query, owner) in enumerate(zip(queries[batch], owners[batch], strict=True)):
                kept = apply_rules(
                    neighbours.scores[row],
                    neighbours.ids[row],
                    hashes[row],
                    group[owner],
                    fetch_hashes(group[owner].chunk_ids),
                    near_duplicate_similarity,
                    account,
                )
                mined[int(query)] = Candidates(int(query), *kept)
    return [mined[int(chunk)] for document in documents for chunk in document.chunk_ids], account


def rescore(queries: Vectors, ids: NDArray[np.int64], fetch_vectors: FetchVectors) -> Neighbours:
    """Exact scores of proposed neighbours ids [n, k], and their final order: by score, ties by id, -1 last.

    A score is the inner product of the stored embeddings, summed in float64, rounded to 6 decimals, kept as float32.
    """
    known, places = np.unique(ids, return_inverse=True)
    vectors = np.zeros((len(known), queries.shape[1]), np.float64)
    vectors[known >= 0] = fetch_vectors(known[known >= 0])
    places = places.reshape(ids.shape)
    scores = np.empty(ids.shape, np.float32)
    for row, query in enumerate(queries.astype(np.float64)):
        scores[row] = np.einsum("kd,d->k", vectors[places[row]], query).round(6)  # no BLAS: one order of summation
    scores[ids < 0] = -np.inf
    order = np.lexsort((ids, -scores))
    return Neighbours(np.take_along_axis(scores, order, 1), np.take_along_axis(ids, order, 1))


def apply_rules(
    scores: NDArray[np.float32],
    ids: NDArray[np.int64],
    hashes: NDArray[np.uint64],
    document: MetaDocument,
    document_hashes: NDArray[np.uint64],
    near_duplicate_similarity: float | None,
    account: Account,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Of one meta-chunk's ordered neighbours [k], those that may become negatives: (ids, scores), order kept.

    Adds to the account's unit "candidates": read = kept + own_document + exact_copy + near_duplicate. Only neighbours
    up to the document's num_candidates-th of another document are read.
    """
    own = (ids >= document.first_chunk_id) & (ids < document.first_chunk_id + document.num_chunks)
    others_so_far = np.cumsum(~own)
    read = (ids >= 0) & np.where(own, others_so_far < document.num_candidates, others_so_far <= document.num_candidates)
    copy = ~own & np.isin(hashes, document_hashes)
    near = np.zeros_like(own) if near_duplicate_similarity is None else scores >= np.float32(near_duplicate_similarity)
    kept = read & ~own & ~copy & ~near
    account.add(
        "candidates",
        read=int(read.sum()),
        kept=int(kept.sum()),
        dropped={
            "own_document": int((read & own).sum()),
            "exact_copy": int((read & copy).sum()),
            "near_duplicate": int((read & near & ~own & ~copy).sum()),
        },
    )
    return ids[kept], scores[kept]


def _groups(documents: Sequence[MetaDocument]) -> list[list[MetaDocument]]:
    """Documents that need about as many neighbours together, so that few queries fetch more than they need."""
    groups: dict[int, list[MetaDocument]] = {}
    for document in documents:
        groups.setdefault(int(np.ceil(np.log2(document.num_candidates + document.num_chunks))), []).append(document)
    return [groups[size] for size in sorted(groups)]


def _num_to_fetch(group: Sequence[MetaDocument]) -> int:
    """Enough neighbours that, the own document's chunks taken out, the wanted number is left with a margin."""
    return max(int(np.ceil(document.num_candidates * _OVERFETCH)) + document.num_chunks for document in group)


def _gather(fetch_hashes: FetchHashes, ids: NDArray[np.int64]) -> NDArray[np.uint64]:
    hashes = np.zeros(ids.shape, np.uint64)
    hashes[ids >= 0] = fetch_hashes(ids[ids >= 0])
    return hashes
