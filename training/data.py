"""Packed folders and their proportions in, the rows of any optimizer step out: a function of the step alone.

So the position in the data is one number, the same under any number of ranks and loader threads, and a run that stops
and goes on sees what it would have seen.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from nextlong.errors import UserError
from nextlong.mixing import mix, shares_of
from nextlong.packed_folder import Folder
from nextlong.sequences import Sequences
from training.boundaries import Batch, collate
from training.config import Data

_BLOCK_STEPS = 1 << 16  # rows of a mixture that are decided at once
_MOST_NAMES = 8
"""Rows that a sentence names."""


class Rows:
    """All rows in the order in which they are trained on; row number n is the same for everybody."""

    def __init__(self, settings: Data) -> None:
        """Raises UserError for folders that are no packed ones, or of several lengths or tokenizers."""
        self._settings = settings
        self.folders = [Folder.open(name) for name in settings.folders]
        _check_alike(self.folders)
        first = self.folders[0]
        self._shares = shares_of(settings.proportions or [len(folder) for folder in self.folders])
        self.length_tokens = first.length_tokens
        self.tokenizer_sha256: str = first.manifest["tokenizer_sha256"]
        self.vocab_size = int(first.manifest["vocab_size"])
        self._lock = Lock()
        self._order = lru_cache(maxsize=4 * len(self.folders))(self._permutation)
        self._chosen = np.empty(0, np.int32)
        self._counts = np.empty((0, len(self.folders)), np.int64)

    def __len__(self) -> int:
        return sum(map(len, self.folders))

    def place(self, number: int) -> tuple[int, int]:
        """(folder, its row) of the row with this number: passes over a folder follow each other without end."""
        with self._lock:  # several threads read
            if number >= len(self._chosen):
                self._chosen = mix(self._shares, max(_BLOCK_STEPS, 2 * number))
                is_of = self._chosen[:, None] == np.arange(len(self.folders))
                self._counts = np.cumsum(is_of, axis=0) - is_of
            folder = int(self._chosen[number])
            turn, place = divmod(int(self._counts[number, folder]), len(self.folders[folder]))
            return folder, int(self._order(folder, turn)[place])

    def most(self, num_rows: int) -> list[int]:
        """How many of so many rows in a row may come from each folder."""
        return [math.ceil(share * num_rows) for share in self._shares]

    def names(self, numbers: Sequence[int]) -> str:
        """Where rows are, for people: the first few."""
        places = [self.place(number) for number in numbers[:_MOST_NAMES]]
        told = ", ".join(f"row {row} of {self.folders[folder].path}" for folder, row in places)
        return told + (f" and {len(numbers) - _MOST_NAMES} more" if len(numbers) > _MOST_NAMES else "")

    def identity(self) -> str:
        """A checksum of what decides the order of rows: their folders, proportions and the seed."""
        told = [[folder.manifest["fingerprint"] for folder in self.folders], list(map(str, self._shares))]
        return hashlib.sha256(json.dumps([*told, self._settings.seed]).encode()).hexdigest()

    def read(self, number: int) -> Sequences:
        """One row."""
        folder, row = self.place(number)
        return self.folders[folder].read(row, self.vocab_size)

    def weights(self, number: int) -> NDArray[np.float32] | None:
        """float32 [length]: of a row's tokens as targets; None: all 1."""
        if self._settings.negative_weight == 1:
            return None
        folder, row = self.place(number)
        weights = np.ones(self.length_tokens, np.float32)
        for start, end in self.folders[folder].segments(row, "negative"):
            weights[start:end] = self._settings.negative_weight
        return weights

    def _permutation(self, folder: int, turn: int) -> NDArray[np.int64]:
        return np.random.default_rng([self._settings.seed, folder, turn]).permutation(len(self.folders[folder]))


class Batches:
    """The micro-steps of each optimizer step, for one data rank of several."""

    def __init__(
        self,
        rows: Rows,
        *,
        rows_per_step: int,
        rows_per_micro_step: int,
        rank: int,
        size: int,
        multiple: int,
        threads: int = 1,
    ):
        """rows_per_step: of all ranks. multiple: what a micro-step's tokens are padded to. threads: that read.

        Raises UserError where rows cannot be dealt out evenly, or a step has more of a folder than there are.
        """
        if rows_per_step % (size * rows_per_micro_step):
            raise UserError(
                f"an optimizer step has {rows_per_step} row{'s' * (rows_per_step > 1)}, which {size} data-parallel "
                f"ranks with {rows_per_micro_step} rows a micro-step do not divide."
            )
        for folder, most in zip(rows.folders, rows.most(rows_per_step), strict=True):
            if most > len(folder):
                raise UserError(
                    f"an optimizer step has {rows_per_step:,} rows, {most:,} of them of {folder.path}, which has "
                    f"{len(folder):,}: one would come twice. Lower batch.global_tokens, or the folder's proportion."
                )
        self.rows, self._rank, self._size, self._multiple = rows, rank, size, multiple
        self.rows_per_step, self._per_micro = rows_per_step, rows_per_micro_step
        self._readers = ThreadPoolExecutor(threads)

    @property
    def micro_steps(self) -> int:
        """Of an optimizer step."""
        return self.rows_per_step // (self._size * self._per_micro)

    def all_numbers(self, step: int) -> list[int]:
        """Of the rows of a step, over all ranks."""
        first = step * self.rows_per_step
        return list(range(first, first + self.rows_per_step))

    def numbers(self, step: int) -> list[list[int]]:
        """The rows' numbers of each micro-step of this rank.

        The rows of the step are sorted by their attention cost (the sum of squared document lengths) and dealt out, so
        that ranks wait for each other little; which rows a step has does not depend on the ranks.
        """
        return self._deal(self._read(step))

    def step(self, step: int) -> list[Batch]:
        """The micro-steps of one optimizer step."""
        read = self._read(step)
        return [self._batch({number: read[number] for number in numbers}) for numbers in self._deal(read)]

    def _read(self, step: int) -> dict[int, Sequences]:
        """All rows of a step, on every rank: their lengths decide who computes which."""
        numbers = self.all_numbers(step)
        return dict(zip(numbers, self._readers.map(self.rows.read, numbers), strict=True))

    def _deal(self, read: dict[int, Sequences]) -> list[list[int]]:
        numbers = list(read)
        if self._size > 1:
            costs = {number: _cost(sequence) for number, sequence in read.items()}
            numbers.sort(key=lambda number: (-costs[number], number))
        own = numbers[self._rank :: self._size]
        return [own[start :: self.micro_steps] for start in range(self.micro_steps)]

    def from_step(self, first: int, last: int) -> Iterator[list[Batch]]:
        """The steps first ... last - 1, each read while the one before is trained on."""
        if first >= last:
            return
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(self.step, first)
            for step in range(first, last):
                batches = waiting.result()
                if step + 1 < last:
                    waiting = pool.submit(self.step, step + 1)
                yield batches

    def _batch(self, read: dict[int, Sequences]) -> Batch:
        mask = None
        if any(sequence.mask is not None for sequence in read.values()):
            ones = np.ones((1, self.rows.length_tokens), np.uint8)
            mask = np.concatenate([ones if each.mask is None else each.mask for each in read.values()])
        weights = [each for each in map(self.rows.weights, read) if each is not None]
        return collate(
            np.concatenate([sequence.input_ids for sequence in read.values()]),
            [sequence.pieces(0) for sequence in read.values()],
            mask,
            np.stack(weights) if weights else None,
            multiple=self._multiple,
        )


def _cost(sequence: Sequences) -> float:
    return float((np.diff(sequence.pieces(0), axis=1).astype(np.float64) ** 2).sum())


def _check_alike(folders: Sequence[Folder]) -> None:
    first = folders[0]
    for folder in folders:
        for name, what in (
            ("sequence_length_tokens", "sequences of {:,} tokens"),
            ("tokenizer_sha256", "tokenizer {}"),
        ):
            ours, theirs = folder.manifest[name], first.manifest[name]
            if ours != theirs:
                raise UserError(
                    f"data.folders: {folder.path} has {what.format(ours)}, but {first.path} {what.format(theirs)}."
                )
