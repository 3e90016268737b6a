"""MDS shards (version 2) of Mosaic's streaming library: sequences in, the reference writer's bytes out.

A shard is u32 N | u32 offset[N + 1], absolute | config JSON | N samples. A sample is the u32 size of every column of
variable size, then the values, in the order of the columns' names.
"""

import dataclasses
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nextlong.errors import UserError
from nextlong.sequences import Sequences, Shapes
from nextlong.shards.hashed_file import HASHES, HashedFile
from nextlong.shards.mds_encodings import FIXED_BYTES, array_head

INDEX = "index.json"
SIZE_LIMIT_BYTES = 1 << 26
MOST_BYTES = (1 << 32) - 1
"""Of a shard, whose offsets are u32."""
_LEVEL = 3  # of zstd

Columns = Literal["sequences", "llm-foundry"]
"""sequences: input_ids, indices, length, domain and mask. llm-foundry: tokens alone, int64, as its datasets want."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mds:
    """How MDS shards are written."""

    columns: Columns = "sequences"
    compression: str | None = None
    """None, zstd, or zstd:LEVEL. A compressed shard is held in memory while it is made."""
    hashes: tuple[str, ...] = ()
    """Of hashlib's; noted in the index, of the raw and of the compressed file."""
    shard_bytes: int = SIZE_LIMIT_BYTES
    """A shard ends before the sample that would make it larger, compression aside; it has at least one."""

    def __post_init__(self) -> None:
        if not 0 < self.shard_bytes <= MOST_BYTES:
            raise UserError(f"a shard of {self.shard_bytes:,} bytes cannot be written: MDS takes 1 to {MOST_BYTES:,}.")
        if unknown := sorted(set(self.hashes) - set(HASHES)):
            raise UserError(f"there is no hash {unknown[0]}; there are {', '.join(HASHES)}.")
        if self.compression is not None and not re.fullmatch("zstd(:([1-9]|1[0-9]|2[0-2]))?", self.compression):
            raise UserError(f"compression is {self.compression!r}, but it must be zstd, or zstd:1 to zstd:22.")

    def shards(self, shapes: Shapes) -> list[tuple[int, int]]:
        """The sequences [start, stop) of each shard. Raises UserError for one that fits into none."""
        ends = np.cumsum(self._sizes(shapes) + 4)
        empty = 8 + len(self._config(shapes.has_mask))
        found, start, begin = [], 0, 0
        while start < len(shapes):
            stop = max(start + 1, int(np.searchsorted(ends, begin + self.shard_bytes - empty, "right")))
            end = int(ends[stop - 1])
            if end - begin + empty > MOST_BYTES:
                raise UserError(
                    f"sequence {start:,} alone would make a shard of {end - begin + empty:,} bytes, but MDS takes "
                    f"{MOST_BYTES:,}: take shorter sequences."
                )
            found.append((start, stop))
            start, begin = stop, end
        return found

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
        """Write one shard; returns {"files": names, "index": its entry in index.json, "sha256": by name}."""
        config = self._config(shapes.has_mask)
        offsets = np.concatenate([[0], np.cumsum(self._sizes(shapes))]) + 8 + 4 * len(shapes) + len(config)
        if offsets[-1] > MOST_BYTES:
            raise UserError(f"one shard would have {int(offsets[-1]):,} bytes, but MDS takes {MOST_BYTES:,}.")
        head = np.concatenate([[len(shapes)], offsets]).astype("<u4").tobytes() + config
        name = f"shard.{number:05d}.mds"
        hashes = sorted(set(self.hashes))
        with_more = {*hashes, "sha256"} if with_sha256 else hashes
        is_packed = self.compression is not None
        with HashedFile(folder / name, hashes if is_packed else with_more, keep=is_packed) as raw:
            raw.write([head])
            for block in shapes.checked(blocks):
                raw.write(self._samples(block))
        written = raw
        entry = json.loads(config) | {"samples": len(shapes), "raw_data": raw.facts(hashes), "zip_data": None}
        if self.compression is not None:
            name = f"{name}.zstd"
            level = int(self.compression.partition(":")[2] or _LEVEL)
            with HashedFile(folder / name, with_more) as written:
                written.write([pa.Codec("zstd", level).compress(raw.content, asbytes=True)])
            entry["zip_data"] = written.facts(hashes)
        sha256 = {name: written.digest("sha256")} if with_sha256 else {}
        return {"files": [name], "index": entry, "sha256": sha256}

    def finish(self, folder: Path, shards: list[dict[str, Any]]) -> list[str]:
        """Write index.json, which makes the folder readable; returns its name."""
        index = {"version": 2, "shards": [shard["index"] for shard in shards]}
        (folder / INDEX).write_text(json.dumps(index, sort_keys=True))
        return [INDEX]

    def _encodings(self, has_mask: bool) -> dict[str, str]:
        if self.columns == "llm-foundry":
            return {"tokens": "bytes"}
        columns = {"domain": "str", "indices": "ndarray:int64", "input_ids": "ndarray:uint32", "length": "int"}
        return columns | ({"mask": "ndarray:uint8"} if has_mask else {})

    def _config(self, has_mask: bool) -> bytes:
        encodings = self._encodings(has_mask)
        config = {
            "column_encodings": list(encodings.values()),
            "column_names": list(encodings),
            "column_sizes": [FIXED_BYTES.get(encoding) for encoding in encodings.values()],
            "compression": self.compression,
            "format": "mds",
            "hashes": sorted(set(self.hashes)),
            "size_limit": self.shard_bytes,
            "version": 2,
        }
        return json.dumps(config, sort_keys=True).encode()

    def _sizes(self, shapes: Shapes) -> NDArray[np.int64]:
        """Bytes of every sample."""
        if self.columns == "llm-foundry":
            return np.full(len(shapes), 4 + 8 * shapes.length_tokens)
        ids_head = len(array_head((shapes.length_tokens,)))
        mask = 4 + ids_head + shapes.length_tokens if shapes.has_mask else 0
        pieces = shapes.num_pieces
        indices_head = 1 + 2 * np.select([pieces < 1 << 8, pieces < 1 << 16], [1, 2], 4)
        fixed = 12 + ids_head + 4 * shapes.length_tokens + 8 + mask
        sizes: NDArray[np.int64] = fixed + shapes.domain_bytes + indices_head + 16 * pieces
        return sizes

    def _samples(self, block: Sequences) -> Iterator[Any]:
        """The buffers of the block's samples, in order; tokens are not copied."""
        if self.columns == "llm-foundry":
            for ids in block.input_ids:
                yield np.array(8 * len(ids), "<u4").tobytes()
                yield ids.astype("<i8").data.cast("B")
            return
        ids_head = array_head((block.length_tokens,))
        length = np.array(block.length_tokens, "<i8").tobytes()
        ids_size = len(ids_head) + 4 * block.length_tokens
        mask_size = [len(ids_head) + block.length_tokens] if block.mask is not None else []
        all_ids = block.input_ids.astype("<u4", copy=False)
        for row, domain in enumerate(block.domains):
            pieces = block.pieces(row).astype("<i8", copy=False)
            label, pieces_head = domain.encode(), array_head(pieces.shape)
            sizes = [len(label), len(pieces_head) + pieces.nbytes, ids_size, *mask_size]
            yield np.array(sizes, "<u4").tobytes() + label + pieces_head + pieces.tobytes() + ids_head
            yield all_ids[row].data.cast("B")
            if block.mask is None:
                yield length
            else:
                yield length + ids_head
                yield block.mask[row].data.cast("B")
