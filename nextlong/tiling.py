"""The boundaries of somebody else's sequence in, pieces that tile it out; what none may hold is masked, not lost."""

from collections.abc import Iterator
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
    """Tokens [start, end) that must be no targets, each once, ascending: outside all boundaries, or alone."""


def tile(indices: NDArray[np.int64], length_tokens: int, where: str) -> Tiled:
    """The pieces of the first `length_tokens` tokens; indices: int64 [n, 2], start and end of each piece given.

    Tokens between, before or after the pieces become pieces of their own that are masked; a token that would be alone
    joins the piece before it (the first, the one after) and is masked. Trainers that skip such tokens shorten the
    sequence silently. Pieces without a token are left out. Raises UserError, naming `where` and the piece, for
    boundaries that overlap, run backwards or begin before the sequence.
    """
    pieces: list[list[int]] = []
    masked: list[tuple[int, int]] = []
    for start, end, is_given in _parts(_ascending(indices, where), length_tokens):
        is_alone = end - start < LEAST_TOKENS
        if pieces and (is_alone or pieces[-1][1] - pieces[-1][0] < LEAST_TOKENS):
            pieces[-1][1] = end
        else:
            pieces.append([start, end])
        if is_alone or not is_given:
            masked.append((start, end))
    return Tiled(np.array(pieces, np.int64).reshape(-1, 2), masked)


def _ascending(indices: NDArray[np.int64], where: str) -> NDArray[np.int64]:
    """The pieces that hold a token, by their start."""
    numbers = np.flatnonzero(indices[:, 0] != indices[:, 1])
    numbers = numbers[np.argsort(indices[numbers, 0], kind="stable")]
    ascending = indices[numbers]
    starts, ends = ascending[:, 0], ascending[:, 1]
    is_wrong = (ends < starts) | (starts < np.concatenate([[0], ends])[:-1])
    if is_wrong.any():
        wrong = int(np.argmax(is_wrong))
        start, end = ascending[wrong].tolist()
        raise UserError(
            f"{where}: the boundaries (indices) overlap, run backwards or begin before the sequence at piece "
            f"{int(numbers[wrong])}, [{start}, {end}]."
        )
    return ascending


def _parts(ascending: NDArray[np.int64], length_tokens: int) -> Iterator[tuple[int, int, bool]]:
    """(start, end, whether it was given) of the pieces and of what lies between them; together they tile."""
    place = 0
    for start, end in [*ascending.tolist(), [length_tokens, length_tokens]]:
        start, end = min(start, length_tokens), min(end, length_tokens)
        if start > place:
            yield place, start, False
        if end > start:
            yield start, end, True
        place = end
