"""Packed sequences as arrays: what packing makes, and what every shard format writes and reads."""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

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

        Pieces have at least two tokens: one alone predicts nothing, and trainers that skip it shorten the sequence. A
        mask is of the tokens, 0 and 1.
        """
        self._check_boundaries(where, first_row)
        if vocab_size is not None and (beyond := self.beyond(vocab_size)) is not None:
            raise UserError(
                f"{where}, row {first_row + beyond[0]}: token {beyond[1]} has the id {int(self.input_ids[beyond])}, "
                f"but the vocabulary has {vocab_size}. Give the tokenizer that the ids were made with."
            )
        if self.mask is None:
            return
        if self.mask.shape != self.input_ids.shape:
            raise UserError(
                f"{where}, row {first_row}: the mask has {self.mask.shape[1]} entries for {self.length_tokens} tokens."
            )
        if (row := _first(self.mask.max(axis=1, initial=0) > 1)) is not None:
            raise UserError(f"{where}, row {first_row + row}: the mask holds other numbers than 0 and 1.")

    def beyond(self, vocab_size: int) -> tuple[int, int] | None:
        """Row and place of the first id that is not in the vocabulary; None: all are."""
        row = _first(self.input_ids.max(axis=1, initial=0) >= vocab_size)
        return None if row is None else (row, int(np.argmax(self.input_ids[row] >= vocab_size)))

    def _check_boundaries(self, where: str, first_row: int) -> None:
        starts, ends = self.indices[:, 0], self.indices[:, 1]
        first, last = self.offsets[:-1], self.offsets[1:] - 1
        if (row := _first(last < first)) is not None:
            raise UserError(f"{where}, row {first_row + row}: there are no boundaries (indices).")
        expected = np.concatenate([[0], ends[:-1]])
        expected[first] = 0
        ends_wrong = np.zeros(len(self.indices), np.bool_)
        ends_wrong[last] = ends[last] != self.length_tokens
        if (wrong := _first((starts != expected) | (ends - starts < 2) | ends_wrong)) is not None:
            row = int(np.searchsorted(self.offsets, wrong, "right")) - 1
            raise UserError(
                f"{where}, row {first_row + row}: the boundaries do not tile [0, {self.length_tokens}) in pieces of at "
                f"least two tokens; piece {int(wrong - self.offsets[row])} is "
                f"[{int(starts[wrong])}, {int(ends[wrong])}]."
            )


def _first(is_wrong: NDArray[np.bool_]) -> int | None:
    """Where the first True is; None: nowhere."""
    return int(np.argmax(is_wrong)) if is_wrong.any() else None


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

    def checked(self, blocks: Iterable[Sequences]) -> Iterator[Sequences]:
        """The blocks as they come. Raises UserError where they are not of these shapes: their bytes were counted on."""
        row = 0
        for block in blocks:
            found, told = Shapes.of(block), self.rows(row, row + len(block))
            number = min(len(found), len(told))
            alike = (found.length_tokens, found.has_mask) == (told.length_tokens, told.has_mask)
            pieces, domains = found.num_pieces[:number], found.domain_bytes[:number]
            wrong = _first((pieces != told.num_pieces) | (domains != told.domain_bytes) | (not alike))
            if wrong is not None or len(found) > len(told):
                raise UserError(
                    f"sequence {row + (number if wrong is None else wrong)} of a shard of {len(self)} is not the one "
                    f"that was counted on when the shard was planned. Was the input changed meanwhile?"
                )
            yield block
            row += len(block)
        if row < len(self):
            raise UserError(f"a shard ends after {row} of its {len(self)} sequences. Was the input changed meanwhile?")


def concatenate(blocks: Sequence[Sequences]) -> Sequences:
    """Blocks of sequences, one after the other; with a mask where one has one. Raises UserError for several lengths."""
    if len(blocks) == 1:
        return blocks[0]
    lengths = sorted({block.length_tokens for block in blocks})
    if len(lengths) > 1:
        raise UserError(f"sequences of {lengths[0]} and of {lengths[-1]} tokens stand in one folder: use one length.")
    masks = None
    if any(block.mask is not None for block in blocks):
        masks = [np.ones(each.input_ids.shape, np.uint8) if each.mask is None else each.mask for each in blocks]
    counts = np.concatenate([np.diff(block.offsets) for block in blocks])
    return Sequences(
        np.concatenate([block.input_ids for block in blocks]),
        np.concatenate([block.indices for block in blocks]),
        np.concatenate([[0], np.cumsum(counts)]),
        [domain for block in blocks for domain in block.domains],
        None if masks is None else np.concatenate(masks),
    )


def regroup(blocks: Iterable[Sequences], rows_each: int) -> Iterator[Sequences]:
    """The same sequences in blocks of rows_each and a last, smaller one; copied only where they come from several."""
    waiting: list[Sequences] = []
    room = rows_each
    for block in blocks:
        place = 0
        while place < len(block):
            waiting.append(block.rows(place, min(place + room, len(block))))
            place, room = place + len(waiting[-1]), room - len(waiting[-1])
            if not room:
                yield concatenate(waiting)
                waiting, room = [], rows_each
    if waiting:
        yield concatenate(waiting)


def ranges(num_rows: int, rows_each: int) -> Iterator[tuple[int, int]]:
    """Consecutive [start, stop) that cover num_rows, of rows_each and a last, smaller one."""
    for start in range(0, num_rows, rows_each):
        yield start, min(start + rows_each, num_rows)


def spans(firsts: NDArray[np.int64], start: int, stop: int, where: Any) -> Iterator[tuple[int, int, int]]:
    """(number, first, last) of each shard that holds some of the sequences start ... stop - 1, by its own rows.

    firsts: int64 [shards + 1], the first sequence of each shard and the end of all. Raises UserError, naming `where`,
    for sequences that are not there.
    """
    if not 0 <= start < stop <= firsts[-1]:
        raise UserError(f"{where} has {int(firsts[-1]):,} sequences, so none are {start:,} to {stop - 1:,}.")
    number = int(np.searchsorted(firsts, start, "right")) - 1
    while (begin := int(firsts[number])) < stop:
        end = int(firsts[number + 1])
        if begin < end:
            yield number, max(start, begin) - begin, min(stop, end) - begin
        number += 1
