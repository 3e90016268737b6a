"""Meta-documents in, candidates for hard negatives out: retrieve, score exactly, apply the rules (Sec. 3.1.2, 5.4)."""

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nextlong.accounting import Account
from nextlong.near_duplicates import NearDuplicateRules, NearDuplicates
from nextlong.retrieval import Retriever
from nextlong.sampling import STAGE_SELECTION
from nextlong.searching import Neighbours

QUERIES_AT_ONCE = 512  # bounds the [queries, candidates] arrays; a Flat index wants large batches


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
    """What one meta-chunk may take as negatives, in the order in which they are tried.

    Mined: what the rules left of its neighbours, nearest first, ties by chunk_id (of random chunks: as drawn).
    """

    chunk_id: int
    ids: NDArray[np.int64]
    scores: NDArray[np.float32]
    """Similarity to the meta-chunk; NaN for the meta-chunk itself."""
    ranks: NDArray[np.int64]
    """Place among the mined candidates, 0 the nearest."""


class RandomChunks(NamedTuple):
    """Chunks to draw from in place of neighbours: all of a corpus but the excluded ones."""

    seed: int
    num_chunks: int
    excluded: NDArray[np.int64]

    def draw(self, query: int, number: int) -> NDArray[np.int64]:
        """So many chunk_ids at most, without replacement, in drawn order; by seed and query alone."""
        rng = np.random.default_rng([self.seed, STAGE_SELECTION, query])
        drawn = rng.choice(self.num_chunks, min(number, self.num_chunks), replace=False)
        return drawn[~np.isin(drawn, self.excluded)] if len(self.excluded) else drawn


FetchHashes = Callable[[NDArray[np.int64]], NDArray[np.uint64]]
"""chunk_ids [n] -> hashes of the chunks' texts"""


class Mined(NamedTuple):
    """The outcome of mining some meta-documents."""

    candidates: list[Candidates]
    """One for every meta-chunk, in document and chunk order."""
    account: Account
    near_duplicates: NearDuplicates


def mine(
    documents: Sequence[MetaDocument],
    *,
    retriever: Retriever,
    fetch_hashes: FetchHashes,
    rules: NearDuplicateRules,
    random_of: RandomChunks | None = None,
) -> Mined:
    """Candidates for every meta-chunk of the documents, and what the rules dropped.

    The rules, in order, each counted: chunks of the own document; exact copies (by text hash) of any meta-chunk of the
    document; near duplicates of the meta-chunk: they are false negatives (Sec. 5.4 found that a repeated meta-chunk
    lowers results). An approximate index may propose fewer. random_of: in
    place of neighbours, chunks drawn from the whole corpus.
    """
    account, near_duplicates = Account(), NearDuplicates(rules)
    mined: dict[int, Candidates] = {}
    for num_to_fetch, group in sorted(_groups(documents).items()):
        queries = np.concatenate([document.chunk_ids for document in group])
        owners = [document for document in group for _ in range(document.num_chunks)]
        for start in range(0, len(queries), QUERIES_AT_ONCE):
            batch = slice(start, start + QUERIES_AT_ONCE)
            if random_of is None:
                neighbours = retriever.neighbours_of(queries[batch], num_to_fetch)
            else:
                neighbours = _random(queries[batch], owners[batch], random_of, retriever)
            kept = apply_rules(queries[batch], owners[batch], neighbours, fetch_hashes, near_duplicates, account)
            mined |= {each.chunk_id: each for each in kept}
    candidates = [mined[chunk] for document in documents for chunk in document.chunk_ids.tolist()]
    return Mined(candidates, account, near_duplicates)


def apply_rules(
    queries: NDArray[np.int64],
    documents: Sequence[MetaDocument],
    neighbours: Neighbours,
    fetch_hashes: FetchHashes,
    near_duplicates: NearDuplicates,
    account: Account,
) -> list[Candidates]:
    """Of the ordered neighbours [n, k] of meta-chunks [n], those that may become negatives, order kept.

    documents: that of each meta-chunk. Adds to the account's unit "candidates": read = kept + dropped by rule. Only
    neighbours up to the document's num_candidates-th of another document are read.
    """
    scores, ids = neighbours
    _, first, num_chunks, wanted = (np.array(column)[:, None] for column in zip(*documents, strict=True))
    own = (ids >= first) & (ids < first + num_chunks)
    others_before = np.cumsum(~own, axis=1, dtype=np.int32) - ~own
    read = (ids >= 0) & (others_before < wanted)
    copy = read & ~own & _copies(ids, documents, fetch_hashes)
    compared = read & ~own & ~copy
    near = near_duplicates.find(np.repeat(queries, compared.sum(axis=1)), ids[compared], scores[compared])
    kept = compared.copy()
    kept[compared] = ~near.by_similarity & ~near.by_overlap
    account.add(
        "candidates",
        read=int(read.sum()),
        kept=int(kept.sum()),
        dropped={
            "own_document": int((read & own).sum()),
            "exact_copy": int(copy.sum()),
            "near_duplicate": int(near.by_similarity.sum()),
            "near_duplicate_by_overlap": int((near.by_overlap & ~near.by_similarity).sum()),
        },
    )
    return _by_query(queries, kept, neighbours)


def _copies(ids: NDArray[np.int64], documents: Sequence[MetaDocument], fetch_hashes: FetchHashes) -> NDArray[np.bool_]:
    """Of neighbours [n, k], which have the text of any meta-chunk of the document [n] that they were found for."""
    copies = np.zeros(ids.shape, np.bool_)
    hashes = np.zeros(ids.shape, np.uint64)
    hashes[ids >= 0] = fetch_hashes(ids[ids >= 0])
    first = 0
    for document, rows in groupby(documents):
        last = first + sum(1 for _ in rows)
        copies[first:last] = np.isin(hashes[first:last], fetch_hashes(document.chunk_ids))
        first = last
    return copies


def _by_query(queries: NDArray[np.int64], kept: NDArray[np.bool_], neighbours: Neighbours) -> list[Candidates]:
    ids, scores, ranks = neighbours.ids[kept], neighbours.scores[kept], np.arange(kept.shape[1])
    lasts = np.cumsum(kept.sum(axis=1)).tolist()
    ranges = zip(queries.tolist(), [0, *lasts[:-1]], lasts, strict=True)
    return [
        Candidates(query, ids[first:last], scores[first:last], ranks[: last - first]) for query, first, last in ranges
    ]


def _random(
    queries: NDArray[np.int64], documents: Sequence[MetaDocument], chunks: RandomChunks, retriever: Retriever
) -> Neighbours:
    """Chunks drawn for each query, without replacement, in drawn order, -1 at the end; by seed and query alone."""
    drawn = [
        chunks.draw(query, document.num_candidates + document.num_chunks)
        for query, document in zip(queries.tolist(), documents, strict=True)
    ]
    ids = np.full((len(drawn), max(map(len, drawn))), -1, np.int64)
    for row, found in enumerate(drawn):
        ids[row, : len(found)] = found
    return Neighbours(retriever.scores_of(queries, ids), ids)


def _groups(documents: Sequence[MetaDocument]) -> dict[int, list[MetaDocument]]:
    """Documents by neighbours to fetch, so that few queries fetch more than they need."""
    groups: dict[int, list[MetaDocument]] = {}
    for document in documents:
        groups.setdefault(_num_to_fetch(document), []).append(document)
    return groups


def _num_to_fetch(document: MetaDocument) -> int:
    """Enough neighbours that, the own document's chunks taken out, the wanted number is left; eight sizes an octave.

    It depends on nothing but the document, nor then do its neighbours.
    """
    return int(np.ceil(2 ** (np.ceil(8 * np.log2(document.num_candidates + document.num_chunks)) / 8)))
