"""A meta-document and its negatives in, the segments of a long document out (Sec. 3.1.2, Eq. 4 and 5)."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nextlong.budgeting import Allocation

NO_RANK = -1
Role = Literal["meta", "negative", "repeat", "document"]
"""What a chunk is in a long document: of the meta-document, a hard negative of the meta-chunk, the meta-chunk again
(negatives=self_repeat), or of a whole document among others (the methods compared with)."""
ROLES: tuple[Role, ...] = ("meta", "negative", "repeat", "document")
_META = np.int8(ROLES.index("meta"))


class Segments(NamedTuple):
    """The segments of a long document in order, as columns [n].

    A segment is a run of tokens of one chunk: tokens [start, end) are the first end - start of the chunk's.
    """

    chunk_ids: NDArray[np.int64]
    roles: NDArray[np.int8]
    """Numbers into ROLES."""
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    ranks: NDArray[np.int64]
    """Place among the candidates of what it was looked up for, 0 the nearest; -1 where nothing was looked up."""
    scores: NDArray[np.float32]
    """Similarity to what it was looked up for; NaN where nothing was looked up."""

    @classmethod
    def none(cls) -> "Segments":
        """Of no long document."""
        ids = np.empty(0, np.int64)
        return cls(ids, np.empty(0, np.int8), ids, ids, ids, np.empty(0, np.float32))


def interleave(
    meta_chunk_ids: NDArray[np.int64],
    meta_chunk_tokens: NDArray[np.int64],
    allocation: Allocation,
    *,
    target_length_tokens: int,
    position: Literal["head", "tail", "random"],
    seed: Sequence[int],
    role: Role = "negative",
) -> Segments:
    """The segments of one long document; they tile [0, target). meta_chunk_tokens: each one's length.

    Each meta-chunk stands with its negatives, nearest first: before them (head, Eq. 4), after them (tail), or at a
    drawn place among them (random; App. B.1, Table 5). What lies beyond the target is cut: that is the paper's
    truncation, and nothing under the exact budget. seed: the entropy of the draws, [seed, stage, doc_id]. role: of
    what is inserted.
    """
    negatives, num_meta = allocation.negatives, len(meta_chunk_ids)
    sizes = negatives.counts + 1  # of the extended chunks l_i = [m_i ; n_i1 ; ... ; n_ik] (Eq. 4)
    is_meta = np.zeros(num_meta + len(negatives.chunk_ids), np.bool_)
    is_meta[np.cumsum(sizes) - sizes + _places(negatives.counts, position, seed)] = True
    order = np.where(is_meta, np.cumsum(is_meta) - 1, num_meta + np.cumsum(~is_meta) - 1)  # of meta-chunks, negatives
    ends = np.cumsum(np.concatenate([meta_chunk_tokens, negatives.num_tokens])[order])
    starts = np.concatenate([[0], ends[:-1]])
    shown = slice(int(np.searchsorted(starts, target_length_tokens)))
    order, is_meta = order[shown], is_meta[shown]
    return Segments(
        np.concatenate([meta_chunk_ids, negatives.chunk_ids])[order],
        np.where(is_meta, _META, np.int8(ROLES.index(role))),
        starts[shown],
        np.minimum(ends[shown], target_length_tokens),
        np.concatenate([np.full(num_meta, NO_RANK), negatives.ranks])[order],
        np.concatenate([np.full(num_meta, np.nan, np.float32), negatives.scores])[order],
    )


def _places(counts: NDArray[np.int64], position: str, seed: Sequence[int]) -> NDArray[np.int64] | int:
    """Where each meta-chunk stands among its negatives."""
    if position == "random":
        return np.random.default_rng(list(seed)).integers(0, counts + 1)
    return counts if position == "tail" else 0
