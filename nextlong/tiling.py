"""The boundaries of somebody else's sequence in, pieces that tile it out; what none may hold is masked, not lost."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nextlong.errors import UserError
from nextlong.fitting import LEAST_TOKENS


class Tiled(NamedTuple):
    """Pieces of at least two tokens that tile a sequence."""

    pieces: NDArray[np.int64]
    """int64 [k, 2]"""
    masked: list[tuple[int, int]]
    """Tokens [start, end) that must be no targets: outside all boundaries, or alone."""


def tile(indices: NDArray[np.int64], length_tokens: int, where: str) -> Tiled:
    """The pieces of the first `length_tokens` tokens; indices: int64 [n, 2], start and end of each piece given.

    Tokens between, before or after the pieces become pieces of their own that are masked; a token that would be alone
    joins the piece before it (the first, the one after) and is masked. Trainers that skip such tokens shorten the
    sequence silently. Raises UserError, naming `where`, for boundaries that overlap, run backwards or leave the
    sequence.
    """
    indices = indices[np.argsort(indices[:, 0], kind="stable")]
    starts, ends = indices[:, 0], indices[:, 1]
    if (ends < starts).any() or (starts[1:] < ends[:-1]).any() or (len(starts) and starts[0] < 0):
        wrong = int(np.argmax((ends < starts) | np.concatenate([[starts[0] < 0], starts[1:] < ends[:-1]])))
        raise UserError(
            f"{where}: the boundaries (indices) overlap or run backwards at piece {wrong}, "
            f"[{int(starts[wrong])}, {int(ends[wrong])}]."
        )
    pieces: list[list[int]] = []
    masked: list[tuple[int, int]] = []
    place = 0
    for start, end in [*indices.tolist(), [length_tokens, length_tokens]]:
        start, end = min(start, length_tokens), min(end, length_tokens)
        if start > place:
            pieces.append([place, start])
            masked.append((place, start))
        if end > start:
            pieces.append([start, end])
        place = max(place, end)
    joined: list[list[int]] = []
    for start, end in pieces:
        is_alone = end - start < LEAST_TOKENS
        if joined and (is_alone or joined[-1][1] - joined[-1][0] < LEAST_TOKENS):
            joined[-1][1] = end
        else:
            joined.append([start, end])
        if is_alone:
            masked.append((start, end))
    return Tiled(np.array(joined, np.int64).reshape(-1, 2), masked)
