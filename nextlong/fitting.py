"""Lengths of documents in; which tokens of which documents fill which sequence of one length, out. No token is read.

A piece is a run of tokens of one document in one sequence, of at least two: one token alone predicts nothing.
"""

from bisect import bisect_left, insort
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
    shuffled by the seed; concat and truncate keep the order of the documents, and concat fills all sequences but the
    last to within two tokens. The same lengths and seed give the same layout. Memory: 200 bytes a piece. Raises
    UserError for a length below 4 and a seed below 0.
    """
    if length_tokens < 4:
        raise UserError(f"a sequence of {length_tokens} tokens is too short to pack into: take at least 4.")
    if seed < 0:
        raise UserError(f"the seed is {seed}, but it must be 0 or above.")
    if how == "best-fit":
        return _best_fit(lengths, length_tokens, seed)
    if how == "concat":
        return _concatenated(lengths, length_tokens)
    documents = np.flatnonzero(lengths >= length_tokens)
    number = len(documents)
    return Layout(documents, np.zeros(number, np.int64), np.full(number, length_tokens), np.arange(number + 1))


def _best_fit(lengths: NDArray[np.int64], length_tokens: int, seed: int) -> Layout:
    """Pieces of one sequence stand in the order of the documents."""
    documents, starts, sizes = _cut(lengths, length_tokens)
    longest_first = np.argsort(-sizes, kind="stable")
    row_of = np.empty(len(sizes), np.int64)
    row_of[longest_first], num_rows = _rows_by_best_fit(sizes[longest_first].tolist(), length_tokens)
    place_of = np.empty(num_rows, np.int64)
    place_of[np.random.default_rng([seed]).permutation(num_rows)] = np.arange(num_rows)
    row_of = place_of[row_of]
    order = np.argsort(row_of, kind="stable")
    offsets = np.concatenate([[0], np.cumsum(np.bincount(row_of, minlength=num_rows))])
    return Layout(documents[order], starts[order], sizes[order], offsets)


def _cut(
    lengths: NDArray[np.int64], length_tokens: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """(document, start, size) of pieces of at most a sequence and at least two tokens: 9 tokens by 4 are 4, 3, 2."""
    counts = np.where(lengths >= LEAST_TOKENS, -(-lengths // length_tokens), 0)
    documents = np.repeat(np.arange(len(lengths)), counts)
    starts = (np.arange(len(documents)) - np.repeat(np.cumsum(counts) - counts, counts)) * length_tokens
    ends = np.minimum(starts + length_tokens, lengths[documents])
    alone = np.flatnonzero(
        ends - starts < LEAST_TOKENS
    )  # the last of its document, which takes one of the piece before
    starts[alone] -= 1
    ends[alone - 1] -= 1
    return documents, starts, ends - starts


def _rows_by_best_fit(sizes: list[int], length_tokens: int) -> tuple[list[int], int]:
    """The row of each size, and how many rows there are: each goes where it leaves the least room, or to a new row.

    Among rows with the same room to the one that came to it last.
    """
    rows: list[int] = []
    rows_with: dict[int, list[int]] = {}  # by room left
    rooms: list[int] = []  # that some row has, ascending
    num_rows = 0
    for size in sizes:
        place = bisect_left(rooms, size)
        if place == len(rooms):
            room, row = length_tokens, num_rows
            num_rows += 1
        else:
            room = rooms[place]
            row = rows_with[room].pop()
            if not rows_with[room]:
                rooms.pop(place)
        rows.append(row)
        room -= size
        if room >= LEAST_TOKENS:
            there = rows_with.setdefault(room, [])
            if not there:
                insort(rooms, room)
            there.append(row)
    return rows, num_rows


def _concatenated(lengths: NDArray[np.int64], length_tokens: int) -> Layout:
    documents: list[int] = []
    starts: list[int] = []
    sizes: list[int] = []
    offsets = [0]
    room = length_tokens
    for document, rest in enumerate(lengths.tolist()):
        start = 0
        while rest >= LEAST_TOKENS:
            size = min(rest, room)
            size -= rest - size == 1  # leaves two for the next sequence, not one alone
            if size >= LEAST_TOKENS:
                documents.append(document)
                starts.append(start)
                sizes.append(size)
                start, rest, room = start + size, rest - size, room - size
            if rest >= LEAST_TOKENS:  # so there is no room
                offsets.append(len(sizes))
                room = length_tokens
    if offsets[-1] < len(sizes):
        offsets.append(len(sizes))
    return Layout(*(np.array(each, np.int64) for each in (documents, starts, sizes, offsets)))


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
