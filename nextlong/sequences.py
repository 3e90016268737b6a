"""Packed sequences as arrays: what packing makes, and what every shard format writes and reads."""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from nextlong.errors import UserError


@dataclasses.dataclass(frozen=True)
class Sequences:
    """n packed sequences of L tokens."""

    input_ids: NDArray[np.uint32]
    """uint32 [n, L]"""
    indices: NDArray[np.int64]
    """int64 [m, 2]: start and end of every piece of every sequence, one sequence after the other."""
    offsets: NDArray[np.int64]
    """int64 [n + 1]: the pieces of sequence i are indices[offsets[i]:offsets[i + 1]]."""
    domains: list[str]
    """n labels."""
    mask: NDArray[np.uint8] | None = None
    """uint8 [n, L]: 1 where a token is a target of the loss; None: all are."""

    def __len__(self) -> int:
        return len(self.domains)

    @property
    def length_tokens(self) -> int:
        """L"""
        return int(self.input_ids.shape[1])

    def pieces(self, row: int) -> NDArray[np.int64]:
        """int64 [k, 2]: start and end of the pieces of one sequence."""
        return self.indices[self.offsets[row] : self.offsets[row + 1]]

    def rows(self, start: int, stop: int) -> "Sequences":
        """The sequences start ... stop - 1, nothing copied."""
        first, last = self.offsets[start], self.offsets[stop]
        return Sequences(
            self.input_ids[start:stop],
            self.indices[first:last],
            self.offsets[start : stop + 1] - first,
            self.domains[start:stop],
            None if self.mask is None else self.mask[start:stop],
        )

    def check(self, where: str, *, vocab_size: int | None = None, first_row: int = 0) -> None:
        """Raise UserError, with `where` and the row, unless pieces tile their sequences and ids are in the vocabulary.

        Pieces have at least two tokens: one alone predicts nothing, and trainers that skip it shorten the sequence.
        """
        starts, ends = self.indices[:, 0], self.indices[:, 1]
        first, last = self.offsets[:-1], self.offsets[1:] - 1
        if (empty := np.flatnonzero(last < first)).size:
            raise UserError(f"{where}, row {first_row + int(empty[0])}: there are no boundaries (indices).")
        expected = np.concatenate([[0], ends[:-1]])
        expected[first] = 0
        ends_wrong = np.zeros(len(self.indices), np.bool_)
        ends_wrong[last] = ends[last] != self.length_tokens
        if (wrong := np.flatnonzero((starts != expected) | (ends - starts < 2) | ends_wrong)).size:
            row = int(np.searchsorted(self.offsets, wrong[0], "right")) - 1
            raise UserError(
                f"{where}, row {first_row + row}: the boundaries do not tile [0, {self.length_tokens}) in pieces of at "
                f"least two tokens; piece {int(wrong[0] - self.offsets[row])} is "
                f"[{int(starts[wrong[0]])}, {int(ends[wrong[0]])}]."
            )
        if (
            vocab_size is not None
            and (high := np.flatnonzero(self.input_ids.max(axis=1, initial=0) >= vocab_size)).size
        ):
            row = int(high[0])
            place = int(np.argmax(self.input_ids[row] >= vocab_size))
            raise UserError(
                f"{where}, row {first_row + row}: token {place} has the id {int(self.input_ids[row, place])}, but the "
                f"vocabulary has {vocab_size}. Give the tokenizer that the ids were made with."
            )
        if self.mask is not None and (bad := np.flatnonzero(self.mask.max(axis=1, initial=0) > 1)).size:
            raise UserError(f"{where}, row {first_row + int(bad[0])}: the mask holds other numbers than 0 and 1.")


@dataclasses.dataclass(frozen=True)
class Shapes:
    """What decides the bytes that n sequences take, without their tokens."""

    length_tokens: int
    num_pieces: NDArray[np.int64]
    """int64 [n]"""
    domain_bytes: NDArray[np.int64]
    """int64 [n]: of the labels in UTF-8."""
    has_mask: bool = False

    def __len__(self) -> int:
        return len(self.num_pieces)

    def rows(self, start: int, stop: int) -> "Shapes":
        """Those of the sequences start ... stop - 1."""
        return dataclasses.replace(
            self, num_pieces=self.num_pieces[start:stop], domain_bytes=self.domain_bytes[start:stop]
        )

    @classmethod
    def of(cls, sequences: Sequences) -> "Shapes":
        """Those of sequences at hand."""
        domain_bytes = np.array([len(domain.encode()) for domain in sequences.domains], np.int64)
        return cls(sequences.length_tokens, np.diff(sequences.offsets), domain_bytes, sequences.mask is not None)


def concatenate(blocks: Sequence[Sequences]) -> Sequences:
    """Blocks of sequences of one length, one after the other."""
    if len(blocks) == 1:
        return blocks[0]
    masks = [block.mask for block in blocks if block.mask is not None]
    counts = np.concatenate([np.diff(block.offsets) for block in blocks])
    return Sequences(
        np.concatenate([block.input_ids for block in blocks]),
        np.concatenate([block.indices for block in blocks]),
        np.concatenate([[0], np.cumsum(counts)]),
        [domain for block in blocks for domain in block.domains],
        np.concatenate(masks) if len(masks) == len(blocks) else None,
    )


def ranges(num_rows: int, rows_each: int) -> Iterator[tuple[int, int]]:
    """Consecutive [start, stop) that cover num_rows, of rows_each and a last, smaller one."""
    for start in range(0, num_rows, rows_each):
        yield start, min(start + rows_each, num_rows)
