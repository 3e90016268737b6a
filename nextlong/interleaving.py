"""A meta-document and its negatives in, the segments of a long document out (Sec. 3.1.2, Eq. 4 and 5)."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from nextlong.budgeting import Allocation

NO_RANK = -1
Role = Literal["meta", "negative", "repeat", "document"]
"""What a chunk is in a long document: of the meta-document, a hard negative of the meta-chunk, the meta-chunk again
(negatives=self_repeat), or of a whole document among others (the methods compared with)."""


class Segment(NamedTuple):
    """A run of tokens of one chunk in a long document: tokens [start, end) are the first end - start of the chunk's."""

    chunk_id: int
    role: Role
    start: int
    end: int
    rank: int
    """Place among the candidates of what it was looked up for, 0 the nearest; -1 where nothing was looked up."""
    score: float | None
    """Similarity to what it was looked up for; None where nothing was looked up."""


def interleave(
    meta_chunk_ids: Sequence[int],
    meta_chunk_tokens: Sequence[int],
    allocation: Allocation,
    *,
    target_length_tokens: int,
    position: Literal["head", "tail", "random"],
    seed: Sequence[int],
    role: Role = "negative",
) -> list[Segment]:
    """The segments of one long document, in order; they tile [0, target). meta_chunk_tokens: each one's length.

    Each meta-chunk stands with its negatives, nearest first: before them (head, Eq. 4), after them (tail), or at a
    drawn place among them (random; App. B.1, Table 5). What lies beyond the target is cut: that is the paper's
    truncation, and nothing under the exact budget. seed: the entropy of the draws, [seed, stage, doc_id]. role: of
    what is inserted.
    """
    rng = np.random.default_rng(list(seed))
    segments: list[Segment] = []
    start = 0
    for chunk_id, num_tokens, negatives in zip(meta_chunk_ids, meta_chunk_tokens, allocation.negatives, strict=True):
        place = {"head": 0, "tail": len(negatives)}.get(position)
        if place is None:
            place = int(rng.integers(0, len(negatives) + 1))
        for number in range(len(negatives) + 1):  # l_i = [m_i ; n_i1 ; ... ; n_ik] (Eq. 4)
            if start >= target_length_tokens:
                return segments
            if number == place:
                end = min(start + num_tokens, target_length_tokens)
                segments.append(Segment(chunk_id, "meta", start, end, NO_RANK, None))
            else:
                negative = negatives[number - (number > place)]
                end = min(start + negative.num_tokens, target_length_tokens)
                segments.append(Segment(negative.chunk_id, role, start, end, negative.rank, negative.score))
            start = end
    return segments
