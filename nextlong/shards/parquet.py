"""Parquet shards: sequences in, files that `datasets.load_dataset` reads out; and back."""

import dataclasses
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from nextlong.errors import UserError
from nextlong.sequences import Sequences, Shapes, concatenate, regroup, spans
from nextlong.shards.table import read_sequences, schema_of, shards_by_tokens, to_table

FOLDER = "data"
SHARD_TOKENS = 1 << 27  # 512 MiB of token ids, and below the 2**31 elements that a list column may have
GROUP_TOKENS = 1 << 20  # a reader unpacks a row group at a time


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parquet:
    """How parquet shards are written: zstd-3 without dictionaries, about ten bits a token."""

    shard_tokens: int = SHARD_TOKENS
    group_tokens: int = GROUP_TOKENS

    def __post_init__(self) -> None:
        for name, number in (("shard", self.shard_tokens), ("row group", self.group_tokens)):
            if not 0 < number < 1 << 31:
                raise UserError(f"a {name} of {number:,} tokens cannot be written: parquet lists take 2^31 - 1.")

    def shards(self, shapes: Shapes) -> list[tuple[int, int]]:
        """The sequences [start, stop) of each shard."""
        return shards_by_tokens(shapes, self.shard_tokens)

    def write(
        self,
        folder: Path,
        number: int,
        of: int,
        shapes: Shapes,
        blocks: Iterable[Sequences],
        *,
        with_sha256: bool = False,
    ) -> dict[str, Any]:
        """Write one shard; returns {"files": names}."""
        name = f"{FOLDER}/train-{number:05d}-of-{of:05d}.parquet"
        (folder / FOLDER).mkdir(exist_ok=True)
        rows_each = max(1, self.group_tokens // shapes.length_tokens)
        with pq.ParquetWriter(
            folder / name,
            schema_of(shapes.has_mask),
            compression="zstd",
            compression_level=3,
            use_dictionary=False,
        ) as writer:
            for block in regroup(shapes.checked(blocks), rows_each):
                writer.write_table(to_table(block))
        return {"files": [name]}

    def finish(self, folder: Path, shards: list[dict[str, Any]]) -> list[str]:
        """Nothing binds the shards: their names say how many there are."""
        return []


class ParquetFolder:
    """Our parquet shards, read a row group at a time."""

    def __init__(self, folder: Path, names: Iterable[str]) -> None:
        self._folder = folder
        self._groups: list[tuple[Path, int]] = []
        counts = [0]
        for path in [folder / name for name in names]:
            try:
                footer = pq.read_metadata(path)
                rows = [footer.row_group(group).num_rows for group in range(footer.num_row_groups)]
                if min(rows, default=0) < 0:
                    raise ValueError("a row group has fewer rows than none")
            except (OSError, ValueError, pa.ArrowException) as error:
                raise UserError(f"{path} cannot be read as parquet: {error}") from error
            self._groups += [(path, group) for group in range(len(rows))]
            counts += rows
        self._firsts = np.cumsum(counts)

    def __len__(self) -> int:
        return int(self._firsts[-1])

    def read(self, start: int, stop: int) -> Sequences:
        """The sequences start ... stop - 1. Raises UserError for a damaged file."""
        found = []
        for number, first, last in spans(self._firsts, start, stop, self._folder):
            path, group = self._groups[number]
            found.append(read_sequences(partial(_row_group, path, group), path).rows(first, last))
        return concatenate(found)


def _row_group(path: Path, group: int) -> pa.Table:
    with pq.ParquetFile(path) as file:
        return file.read_row_group(group)
