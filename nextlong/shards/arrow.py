"""Arrow shards: sequences in, memory-mapped files out, which our trainer and `datasets.load_from_disk` read; and back.

They are IPC streams: a process that dies in the middle leaves one that opens without complaint, so they are written
aside, like every shard.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from nextlong.errors import UserError
from nextlong.sequences import Sequences, Shapes, concatenate, regroup, spans
from nextlong.shards.table import read_sequences, schema_of, shards_by_tokens, to_table

SHARD_TOKENS = 1 << 27
BATCH_TOKENS = 1 << 22


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arrow:
    """How arrow shards are written."""

    shard_tokens: int = SHARD_TOKENS
    batch_tokens: int = BATCH_TOKENS
    """Of a record batch, which is written at once."""

    def __post_init__(self) -> None:
        for name, number in (("shard", self.shard_tokens), ("batch", self.batch_tokens)):
            if number < 1:
                raise UserError(f"a {name} of {number:,} tokens cannot be written.")

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
        """Write one shard; returns {"files": names, "sha256": by name, "has_mask": ...}."""
        name = f"data-{number:05d}-of-{of:05d}.arrow"
        rows_each = max(1, self.batch_tokens // shapes.length_tokens)
        with pa.OSFile(str(folder / name), "wb") as file, pa.ipc.new_stream(file, schema_of(shapes.has_mask)) as stream:
            for block in regroup(shapes.checked(blocks), rows_each):
                stream.write_table(to_table(block))
        with open(folder / name, "rb") as written:
            digest = hashlib.file_digest(written, "sha256").hexdigest()
        return {"files": [name], "has_mask": shapes.has_mask, "sha256": {name: digest}}

    def finish(self, folder: Path, shards: list[dict[str, Any]]) -> list[str]:
        """Write state.json and dataset_info.json, by which `datasets.load_from_disk` opens the folder."""
        digests = "".join(shard["sha256"][name] for shard in shards for name in shard["files"])
        state: dict[str, Any] = {
            "_data_files": [{"filename": name} for shard in shards for name in shard["files"]],
            # `datasets` names the cached results of its transforms by it: of other content it must be another.
            "_fingerprint": hashlib.sha256(digests.encode()).hexdigest()[:16],
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
        self._folder = folder
        self._batches: list[tuple[Path, pa.RecordBatch]] = []
        for path in [folder / name for name in names]:
            try:
                batches = list(pa.ipc.open_stream(pa.memory_map(str(path))))
            except (OSError, pa.ArrowException) as error:
                raise UserError(f"{path} cannot be read as an arrow stream: {error}") from error
            self._batches += [(path, batch) for batch in batches]
        self._firsts = np.cumsum([0, *[batch.num_rows for _, batch in self._batches]])

    def __len__(self) -> int:
        return int(self._firsts[-1])

    def read(self, start: int, stop: int) -> Sequences:
        """The sequences start ... stop - 1. Raises UserError for a damaged file."""
        found = []
        for number, first, last in spans(self._firsts, start, stop, self._folder):
            path, batch = self._batches[number]
            found.append(read_sequences(partial(pa.Table.from_batches, [batch.slice(first, last - first)]), path))
        return concatenate(found)
