"""A meta-document and its negatives in, the segments of a long document out (Sec. 3.1.2, Eq. 4 and 5)."""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np

from nextlong.budgeting import Allocation, Negative

NO_RANK = -1


class Segment(NamedTuple):
    """A run of tokens of one chunk in a long document: tokens [start, end) are the first end - start of the chunk's."""

    chunk_id: int
    role: Literal["meta", "negative"]
    start: int
    end: int
    rank: int
    """Place among the meta-chunk's candidates, 0 the nearest; -1 for a meta-chunk."""
    score: float | None
    """Similarity to the meta-chunk; None for a meta-chunk."""


def interleave(
    meta_chunk_ids: Sequence[int],
    allocation: Allocation,
    *,
    num_tokens: Callable[[int], int],
    target_length_tokens: int,
    position: Literal["head", "tail", "random"],
    seed: Sequence[int],
) -> list[Segment]:
    """The segments of one long document, in order; they tile [0, target).

    Each meta-chunk stands with its negatives, nearest first: before them (head, Eq. 4), after them (tail), or at a
    drawn place among them (random; App. B.1, Table 5). What lies beyond the target is cut: that is the paper's
    truncation, and nothing under the exact budget. seed: the entropy of the draws, [seed, stage, doc_id].
    """
    rng = np.random.default_rng(list(seed))
    segments: list[Segment] = []
    start = 0
    for chunk_id, negatives in zip(meta_chunk_ids, allocation.negatives, strict=True):
        for member in _extended_chunk(chunk_id, num_tokens(chunk_id), negatives, position, rng):
            end = min(start + member.end, target_length_tokens)
            if end > start:
                segments.append(member._replace(start=start, end=end))
            start = end
    return segments


def _extended_chunk(
    chunk_id: int,
    num_tokens: int,
    negatives: Sequence[Negative],
    position: Literal["head", "tail", "random"],
    rng: np.random.Generator,
) -> list[Segment]:
    """l_i = [m_i ; n_i1 ; ... ; n_ik] (Eq. 4), every segment starting at 0 and ending at its length."""
    members = [Segment(each.chunk_id, "negative", 0, each.num_tokens, each.rank, each.score) for each in negatives]
    place = {"head": 0, "tail": len(members)}.get(position)
    if place is None:
        place = int(rng.integers(0, len(members) + 1))
    members.insert(place, Segment(chunk_id, "meta", 0, num_tokens, NO_RANK, None))
    return members
