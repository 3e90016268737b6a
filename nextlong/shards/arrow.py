"""Arrow shards: sequences in, memory-mapped files out, which our trainer and `datasets.load_from_disk` read; and back.

They are IPC streams: a process that dies in the middle leaves one that opens without complaint, so they are written
aside, like every shard.
"""

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from nextlong.errors import UserError
from nextlong.sequences import Sequences, Shapes, concatenate, ranges
from nextlong.shards.table import from_table, schema_of, to_table

SHARD_TOKENS = 1 << 27
BATCH_TOKENS = 1 << 22


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arrow:
    """How arrow shards are written."""

    shard_tokens: int = SHARD_TOKENS

    def __post_init__(self) -> None:
        if self.shard_tokens < 1:
            raise UserError(f"a shard of {self.shard_tokens:,} tokens cannot be written.")

    def shards(self, shapes: Shapes) -> list[tuple[int, int]]:
        """The sequences [start, stop) of each shard."""
        return list(ranges(len(shapes), max(1, self.shard_tokens // shapes.length_tokens)))

    def write(self, folder: Path, number: int, of: int, shapes: Shapes, blocks: Iterable[Sequences]) -> dict[str, Any]:
        """Write one shard; returns {"files": names}."""
        name = f"data-{number:05d}-of-{of:05d}.arrow"
        rows_each = max(1, BATCH_TOKENS // shapes.length_tokens)
        with pa.OSFile(str(folder / name), "wb") as file, pa.ipc.new_stream(file, schema_of(shapes.has_mask)) as stream:
            for block in blocks:
                for start, stop in ranges(len(block), rows_each):
                    stream.write_table(to_table(block.rows(start, stop)))
        return {"files": [name], "has_mask": shapes.has_mask}

    def finish(self, folder: Path, shards: list[dict[str, Any]]) -> list[str]:
        """Write state.json and dataset_info.json, by which `datasets.load_from_disk` opens the folder."""
        files = [{"filename": name} for shard in shards for name in shard["files"]]
        state: dict[str, Any] = {
            "_data_files": files,
            "_fingerprint": "0" * 16,  # of no transformation
            "_format_columns": None,
            "_format_kwargs": {},
            "_format_type": None,
            "_output_all_columns": False,
            "_split": "train",
        }
        has_mask = any(shard["has_mask"] for shard in shards)
        for name, content in (("state.json", state), ("dataset_info.json", {"features": features(has_mask)})):
            (folder / name).write_text(json.dumps(content, indent=1) + "\n")
        return ["state.json", "dataset_info.json"]


def features(has_mask: bool) -> dict[str, Any]:
    """The columns as `datasets` describes them."""

    def values(dtype: str) -> dict[str, Any]:
        return {"dtype": dtype, "_type": "Value"}

    columns = {
        "input_ids": {"feature": values("uint32"), "_type": "List"},
        "indices": {"feature": {"feature": values("uint32"), "length": 2, "_type": "List"}, "_type": "List"},
        "length": values("int32"),
        "domain": values("string"),
    }
    return columns | ({"mask": {"feature": values("uint8"), "_type": "List"}} if has_mask else {})


class ArrowFolder:
    """Our arrow shards, memory-mapped: token ids are views of the files."""

    def __init__(self, folder: Path, names: Iterable[str]) -> None:
        self._batches: list[tuple[str, pa.RecordBatch]] = []
        for path in [folder / name for name in names]:
            try:
                batches = list(pa.ipc.open_stream(pa.memory_map(str(path))))
            except (OSError, pa.ArrowException) as error:
                raise UserError(f"{path} cannot be read as an arrow stream: {error}") from error
            self._batches += [(str(path), batch) for batch in batches]
        self._firsts = np.cumsum([0, *[batch.num_rows for _, batch in self._batches]])

    def __len__(self) -> int:
        return int(self._firsts[-1])

    def read(self, start: int, stop: int) -> Sequences:
        """The sequences start ... stop - 1."""
        found = []
        for number in range(int(np.searchsorted(self._firsts, start, "right")) - 1, len(self._batches)):
            first, last = int(self._firsts[number]), int(self._firsts[number + 1])
            if first >= stop:
                break
            where, batch = self._batches[number]
            rows = batch.slice(max(start, first) - first, min(stop, last) - max(start, first))
            found.append(from_table(pa.table(rows), where))
        return concatenate(found)
