"""Packed folders and their proportions in, the rows of any optimizer step out: a function of the step alone.

So the position in the data is one number, the same under any number of ranks and loader threads, and a run that stops
and goes on sees what it would have seen.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nextlong.errors import UserError
from nextlong.mixing import mix, shares_of
from nextlong.sequences import Sequences
from nextlong.shards import Reader, open_shards
from training.boundaries import Batch, collate
from training.config import Data

_BLOCK_STEPS = 1 << 16  # rows of a mixture that are decided at once


@dataclasses.dataclass(frozen=True)
class Folder:
    """One packed folder."""

    path: Path
    manifest: dict[str, Any]
    reader: Reader

    @classmethod
    def open(cls, name: str) -> "Folder":
        """Raises UserError for a folder that no export made."""
        path = Path(name).expanduser()
        try:
            manifest = json.loads((path / "manifest.json").read_text())
            names = [each for shard in manifest["shards"] for each in shard["files"]]
            return cls(path, manifest, open_shards(path, manifest["format"], names))
        except (OSError, ValueError, KeyError, TypeError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(
                f"data.folders: {name} is no packed folder ({error}). Make one with nextlong export."
            ) from error

    def __len__(self) -> int:
        return int(self.manifest["rows"])


class Rows:
    """All rows in the order in which they are trained on; row number n is the same for everybody."""

    def __init__(self, settings: Data) -> None:
        self._settings = settings
        self.folders = [Folder.open(name) for name in settings.folders]
        _check_alike(self.folders)
        sizes = [len(folder) for folder in self.folders]
        self._shares = shares_of(settings.proportions or sizes)
        self.length_tokens = int(self.folders[0].manifest["sequence_length_tokens"])
        self.tokenizer_sha256: str = self.folders[0].manifest["tokenizer_sha256"]
        self.vocab_size = int(self.folders[0].manifest["vocab_size"])
        self._lock = Lock()
        self._order = lru_cache(maxsize=4 * len(sizes))(self._permutation)
        self._chosen = np.empty(0, np.int32)
        self._counts = np.empty((0, len(sizes)), np.int64)

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

    def name(self, number: int) -> str:
        """Where the row with this number is, for people."""
        folder, row = self.place(number)
        return f"row {row} of {self.folders[folder].path}"

    def identity(self) -> str:
        """A checksum of what decides the order of rows: their folders, proportions and the seed."""
        told = [[folder.manifest["fingerprint"] for folder in self.folders], list(map(str, self._shares))]
        return hashlib.sha256(json.dumps([*told, self._settings.seed]).encode()).hexdigest()

    def read(self, number: int) -> tuple[Sequences, NDArray[np.float32] | None]:
        """One row, and the weights of its tokens as targets (None: 1)."""
        folder, row = self.place(number)
        found = self.folders[folder]
        sequence = found.reader.read(row, row + 1)
        sequence.check(str(found.path), vocab_size=self.vocab_size, first_row=row)
        return sequence, self._weights(found, row)

    def _permutation(self, folder: int, turn: int) -> NDArray[np.int64]:
        return np.random.default_rng([self._settings.seed, folder, turn]).permutation(len(self.folders[folder]))

    def _weights(self, folder: Folder, row: int) -> NDArray[np.float32] | None:
        if self._settings.negative_weight == 1:
            return None
        weights = np.ones(self.length_tokens, np.float32)
        for start, end in negatives(folder, row):
            weights[start:end] = self._settings.negative_weight
        return weights


def negatives(folder: Folder, row: int) -> list[tuple[int, int]]:
    """Tokens [start, end) of the negative segments of a row, by its provenance."""
    return [(each["start"], each["end"]) for each in segments(folder, row) if each["role"] == "negative"]


def segments(folder: Folder, row: int) -> list[dict[str, Any]]:
    """The segments of a row, by its provenance."""
    first = 0
    for shard, name in zip(folder.manifest["shards"], folder.manifest["provenance"], strict=True):
        if row < first + shard["rows"]:
            found: list[dict[str, Any]] = _segments_of_shard(folder.path / name)[row - first].as_py()
            return found
        first += shard["rows"]
    raise UserError(f"{folder.path} has no row {row}.")


@lru_cache(maxsize=16)
def _segments_of_shard(path: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_table(path, columns=["segments"])["segments"].combine_chunks()
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UserError(f"the provenance {path} cannot be read ({error}), which data.negative_weight needs.") from error


Row = tuple[Sequences, NDArray[np.float32] | None]


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

        Raises UserError where rows cannot be dealt out evenly, or a step has more than there are.
        """
        if rows_per_step % (size * rows_per_micro_step):
            raise UserError(
                f"an optimizer step has {rows_per_step} rows, which {size} data-parallel ranks with "
                f"{rows_per_micro_step} rows a micro-step do not divide."
            )
        if rows_per_step > len(rows):
            raise UserError(
                f"an optimizer step has {rows_per_step} rows, but data.folders have {len(rows)}: one would come twice."
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
        return [self._batch([read[number] for number in numbers]) for numbers in self._deal(read)]

    def _read(self, step: int) -> dict[int, Row]:
        """All rows of a step, on every rank: their lengths decide who computes which."""
        numbers = self.all_numbers(step)
        return dict(zip(numbers, self._readers.map(self.rows.read, numbers), strict=True))

    def _deal(self, read: dict[int, Row]) -> list[list[int]]:
        numbers = list(read)
        if self._size > 1:
            costs = {number: _cost(sequence) for number, (sequence, _) in read.items()}
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

    def _batch(self, read: list[Row]) -> Batch:
        masks = [sequence.mask for sequence, _ in read]
        mask = None
        if any(each is not None for each in masks):
            ones = np.ones((1, self.rows.length_tokens), np.uint8)
            mask = np.concatenate([ones if each is None else each for each in masks])
        weights = [each for _, each in read if each is not None]
        return collate(
            np.concatenate([sequence.input_ids for sequence, _ in read]),
            [sequence.pieces(0) for sequence, _ in read],
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
        if not len(folder):
            raise UserError(f"data.folders: {folder.path} has no sequence.")
