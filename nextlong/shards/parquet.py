"""Parquet shards: sequences in, files that `datasets.load_dataset` reads out; and back."""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from nextlong.errors import UserError
from nextlong.sequences import Sequences, Shapes, concatenate, ranges
from nextlong.shards.table import from_table, schema_of, to_table

FOLDER = "data"
SHARD_TOKENS = 1 << 27  # 512 MiB of token ids, and below the 2**31 elements that a list column may have
GROUP_TOKENS = 1 << 20  # a reader unpacks a row group at a time


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parquet:
    """How parquet shards are written: zstd-3 without dictionaries, which costs a token 9.8 bits."""

    shard_tokens: int = SHARD_TOKENS
    group_tokens: int = GROUP_TOKENS

    def __post_init__(self) -> None:
        if not 0 < self.shard_tokens < 1 << 31:
            raise UserError(f"a shard of {self.shard_tokens:,} tokens cannot be written: parquet lists take 2^31 - 1.")

    def shards(self, shapes: Shapes) -> list[tuple[int, int]]:
        """The sequences [start, stop) of each shard."""
        return list(ranges(len(shapes), max(1, self.shard_tokens // shapes.length_tokens)))

    def write(self, folder: Path, number: int, of: int, shapes: Shapes, blocks: Iterable[Sequences]) -> dict[str, Any]:
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
            for block in blocks:
                for start, stop in ranges(len(block), rows_each):
                    writer.write_table(to_table(block.rows(start, stop)))
        return {"files": [name]}

    def finish(self, folder: Path, shards: list[dict[str, Any]]) -> list[str]:
        """Nothing binds the shards: their names say how many there are."""
        return []


class ParquetFolder:
    """Our parquet shards, read a row group at a time."""

    def __init__(self, folder: Path, names: Iterable[str]) -> None:
        self._paths = [folder / name for name in names]
        try:
            self._counts = [pq.read_metadata(path).num_rows for path in self._paths]
        except (OSError, pa.ArrowException) as error:
            raise UserError(f"{folder} cannot be read as parquet: {error}") from error
        self._firsts = np.cumsum([0, *self._counts])

    def __len__(self) -> int:
        return int(self._firsts[-1])

    def read(self, start: int, stop: int) -> Sequences:
        """The sequences start ... stop - 1."""
        found = []
        for path, first in zip(self._paths, self._firsts.tolist(), strict=False):
            file = pq.ParquetFile(path)
            for group in range(file.num_row_groups):
                last = first + file.metadata.row_group(group).num_rows
                if max(start, first) < min(stop, last):
                    block = from_table(file.read_row_group(group), str(path))
                    found.append(block.rows(max(start, first) - first, min(stop, last) - first))
                first = last
        return concatenate(found)
