"""Lengths of documents in; which tokens of which documents fill which sequence of one length, out. No token is read.

A piece is a run of tokens of one document in one sequence, of at least two: one token alone predicts nothing.
"""

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nextlong.errors import UserError

Fitting = Literal["best-fit", "concat", "truncate"]
"""best-fit: documents are cut only where longer than a sequence. concat: laid end to end and cut at every sequence's
end. truncate: one document a sequence, what exceeds it cut off, shorter ones left out."""
LEAST_TOKENS = 2
"""Of a piece."""


class Layout(NamedTuple):
    """The pieces of n sequences, one sequence after the other; what they leave of a sequence is padding."""

    documents: NDArray[np.int64]
    """int64 [m]: position of the piece's document in the list of lengths."""
    starts: NDArray[np.int64]
    """int64 [m]: the piece's first token in its document."""
    lengths: NDArray[np.int64]
    """int64 [m]"""
    offsets: NDArray[np.int64]
    """int64 [n + 1]: the pieces of sequence i are offsets[i] ... offsets[i + 1] - 1."""

    @property
    def num_sequences(self) -> int:
        """n"""
        return len(self.offsets) - 1


def fit(lengths: NDArray[np.int64], length_tokens: int, how: Fitting, *, seed: int = 0) -> Layout:
    """The layout of documents of these lengths (int64 [d], tokens) in sequences of `length_tokens`.

    Documents below two tokens have no piece, and truncate leaves out those below a sequence; all tokens of the others
    are placed, under truncate the first `length_tokens`. best-fit takes the longest first, so its sequences are then
    shuffled by the seed; concat and truncate keep the order of the documents. The same lengths and seed give the same
    layout. Raises UserError for a length below 4.
    """
    if length_tokens < 4:
        raise UserError(f"a sequence of {length_tokens} tokens is too short to pack into: take at least 4.")
    if how == "best-fit":
        return _best_fit(lengths, length_tokens, seed)
    if how == "concat":
        return _layout(_concatenated(lengths.tolist(), length_tokens))
    documents = np.flatnonzero(lengths >= length_tokens)
    number = len(documents)
    return Layout(documents, np.zeros(number, np.int64), np.full(number, length_tokens), np.arange(number + 1))


_Piece = tuple[int, int, int]  # document, start, length


def _best_fit(lengths: NDArray[np.int64], length_tokens: int, seed: int) -> Layout:
    """Best-fit-decreasing: each piece, the longest first, goes where it leaves the least room, or to a new sequence."""
    pieces = list(_cut(lengths, length_tokens))
    rows: list[list[int]] = []
    rows_with: dict[int, list[int]] = {}  # by room left
    rooms: list[int] = []  # that some row has, ascending
    for number in sorted(range(len(pieces)), key=lambda number: -pieces[number][2]):
        size = pieces[number][2]
        place = bisect_left(rooms, size)
        if place == len(rooms):
            room, row = length_tokens, len(rows)
            rows.append([])
        else:
            room = rooms[place]
            row = rows_with[room].pop()
            if not rows_with[room]:
                rooms.pop(place)
        rows[row].append(number)
        if room - size >= LEAST_TOKENS:
            there = rows_with.setdefault(room - size, [])
            if not there:
                insort(rooms, room - size)
            there.append(row)
    order = np.random.default_rng([seed]).permutation(len(rows)).tolist()
    return _layout([pieces[number] for number in sorted(rows[row])] for row in order)


def _cut(lengths: NDArray[np.int64], length_tokens: int) -> Iterator[_Piece]:
    """Documents in pieces of at most a sequence and at least two tokens."""
    for document, rest in enumerate(lengths.tolist()):
        start = 0
        while rest >= LEAST_TOKENS:
            size = min(rest, length_tokens)
            size -= rest - size == 1  # not one token alone
            yield document, start, size
            start, rest = start + size, rest - size


def _concatenated(lengths: Sequence[int], length_tokens: int) -> Iterator[list[_Piece]]:
    row: list[_Piece] = []
    room = length_tokens
    for document, rest in enumerate(lengths):
        start = 0
        while rest >= LEAST_TOKENS:
            size = min(rest, room)
            size -= rest - size == 1
            if size >= LEAST_TOKENS:
                row.append((document, start, size))
                start, rest, room = start + size, rest - size, room - size
            if rest >= LEAST_TOKENS or room < LEAST_TOKENS:
                yield row
                row, room = [], length_tokens
    if row:
        yield row


def _layout(rows: "Iterator[list[_Piece]] | Sequence[list[_Piece]]") -> Layout:
    flat: list[_Piece] = []
    offsets = [0]
    for row in rows:
        flat += row
        offsets.append(len(flat))
    columns = np.array(flat, np.int64).reshape(-1, 3).T
    return Layout(columns[0], columns[1], columns[2], np.array(offsets))


def boundaries(layout: Layout, length_tokens: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(indices int64 [k, 2], offsets int64 [n + 1]) of a layout's sequences, padding included: they tile each one.

    Padding is the last piece of its sequence; one token of it alone belongs to the piece before.
    """
    counts = np.diff(layout.offsets)
    filled = np.add.reduceat(layout.lengths, layout.offsets[:-1]) if len(counts) else np.empty(0, np.int64)
    padding = length_tokens - filled
    is_padded = padding >= LEAST_TOKENS
    lengths = np.insert(layout.lengths, layout.offsets[1:][is_padded], padding[is_padded])
    offsets = np.concatenate([[0], np.cumsum(counts + is_padded)])
    lengths[offsets[1:] - 1] += np.where(is_padded, 0, padding)
    ends = np.cumsum(lengths)
    base = np.repeat(np.arange(len(counts)) * length_tokens, np.diff(offsets))
    return np.stack([ends - lengths - base, ends - base], axis=1), offsets
