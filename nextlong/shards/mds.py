"""MDS shards (version 2) of Mosaic's streaming library: sequences in, the reference writer's bytes out.

A shard is u32 N | u32 offset[N + 1], absolute | config JSON | N samples. A sample is the u32 size of every column of
variable size, then the values, in the order of the columns' names.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nextlong.errors import UserError
from nextlong.sequences import Sequences, Shapes

INDEX = "index.json"
SIZE_LIMIT_BYTES = 1 << 26
FIXED_BYTES = {
    "int": 8,
    "uint8": 1,
    "int8": 1,
    "uint16": 2,
    "int16": 2,
    "uint32": 4,
    "int32": 4,
    "uint64": 8,
    "int64": 8,
}
_MOST_BUFFERS = 1024  # that one call of writev takes
_MOST_BYTES = 1 << 32  # offsets are u32

Columns = Literal["sequences", "llm-foundry"]
"""sequences: input_ids, indices, length, domain and mask. llm-foundry: tokens alone, int64, as its datasets want."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mds:
    """How MDS shards are written."""

    columns: Columns = "sequences"
    compression: str | None = None
    """None, zstd, or zstd:LEVEL."""
    hashes: tuple[str, ...] = ()
    """Of hashlib's; noted in the index, of the raw and of the compressed file."""
    shard_bytes: int = SIZE_LIMIT_BYTES
    """A shard ends before the sample that would make it larger, compression aside."""

    def __post_init__(self) -> None:
        if not 0 < self.shard_bytes < _MOST_BYTES:
            raise UserError(f"a shard of {self.shard_bytes:,} bytes cannot be written: MDS takes 1 to 4,294,967,295.")
        if unknown := sorted(set(self.hashes) - hashlib.algorithms_guaranteed):
            raise UserError(f"there is no hash {unknown[0]}; common ones are sha1, sha256 and blake2b.")
        name, _, level = (self.compression or "zstd").partition(":")
        if name != "zstd" or (level and level not in map(str, range(1, 23))):
            raise UserError(f"compression is {self.compression}, but it must be zstd, or zstd:1 to zstd:22.")

    def shards(self, shapes: Shapes) -> list[tuple[int, int]]:
        """The sequences [start, stop) of each shard."""
        sizes = self._sizes(shapes) + 4
        empty = 8 + len(self._config(shapes.has_mask))
        found, start, filled = [], 0, empty
        for row, size in enumerate(sizes.tolist()):
            if filled + size > self.shard_bytes and row > start:
                found.append((start, row))
                start, filled = row, empty
            filled += size
        if start < len(shapes):
            found.append((start, len(shapes)))
        return found

    def write(self, folder: Path, number: int, _of: int, shapes: Shapes, blocks: Iterable[Sequences]) -> dict[str, Any]:
        """Write one shard; returns {"files": names, "index": its entry in index.json}."""
        config = self._config(shapes.has_mask)
        offsets = np.concatenate([[0], np.cumsum(self._sizes(shapes))]) + 8 + 4 * len(shapes) + len(config)
        if offsets[-1] >= _MOST_BYTES:
            raise UserError(f"one shard would have {int(offsets[-1]):,} bytes, but MDS takes 4,294,967,295.")
        head = np.concatenate([[len(shapes)], offsets]).astype("<u4").tobytes() + config
        name = f"shard.{number:05d}.mds"
        raw = _File(folder / name, self.hashes, keep=self.compression is not None)
        with raw:
            raw.write([head])
            for block in blocks:
                raw.write(self._samples(block))
        entry = json.loads(config) | {"samples": len(shapes), "raw_data": raw.facts(), "zip_data": None}
        if self.compression is not None:
            zipped = _File(folder / f"{name}.zstd", self.hashes)
            level = int(self.compression.partition(":")[2] or 3)
            with zipped:
                zipped.write([pa.Codec("zstd", level).compress(raw.content(), asbytes=True)])
            entry["zip_data"], name = zipped.facts(), f"{name}.zstd"
        return {"files": [name], "index": entry}

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
            "hashes": sorted(self.hashes),
            "size_limit": self.shard_bytes,
            "version": 2,
        }
        return json.dumps(config, sort_keys=True).encode()

    def _sizes(self, shapes: Shapes) -> NDArray[np.int64]:
        """Bytes of every sample."""
        if self.columns == "llm-foundry":
            return np.full(len(shapes), 4 + 8 * shapes.length_tokens)
        ids_head = len(_array_head((shapes.length_tokens,)))
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
        ids_head = _array_head((block.length_tokens,))
        length = np.array(block.length_tokens, "<i8").tobytes()
        ids_size = len(ids_head) + 4 * block.length_tokens
        mask_size = [len(ids_head) + block.length_tokens] if block.mask is not None else []
        all_ids = block.input_ids.astype("<u4", copy=False)
        for row, domain in enumerate(block.domains):
            pieces = block.pieces(row).astype("<i8", copy=False)
            label, pieces_head = domain.encode(), _array_head(pieces.shape)
            sizes = [len(label), len(pieces_head) + pieces.nbytes, ids_size, *mask_size]
            yield np.array(sizes, "<u4").tobytes() + label + pieces_head + pieces.tobytes() + ids_head
            yield all_ids[row].data.cast("B")
            if block.mask is None:
                yield length
            else:
                yield length + ids_head
                yield block.mask[row].data.cast("B")


def _array_head(shape: tuple[int, ...]) -> bytes:
    """What stands before the values of an array whose type is known: its shape, in the smallest unsigned type."""
    width = next(width for width in range(4) if max(shape) < 1 << (8 << width))
    return bytes([len(shape) << 2 | width]) + np.array(shape, f"<u{1 << width}").tobytes()


class _File:
    """A file that is hashed as it is written; keep: its content is held in memory, and none is made."""

    def __init__(self, path: Path, hashes: Iterable[str], *, keep: bool = False) -> None:
        self._path = path
        self._hashes = {name: hashlib.new(name) for name in sorted(hashes)}
        self._kept: list[Any] | None = [] if keep else None
        self._number = -1
        self._bytes = 0

    def __enter__(self) -> None:
        if self._kept is None:
            self._number = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)

    def __exit__(self, *_: object) -> None:
        if self._kept is None:
            os.close(self._number)

    def write(self, buffers: Iterable[Any]) -> None:
        batch: list[Any] = []
        for buffer in buffers:
            batch.append(buffer)
            if len(batch) == _MOST_BUFFERS:
                self._write(batch)
                batch = []
        self._write(batch)

    def _write(self, batch: list[Any]) -> None:
        for buffer in batch:
            self._bytes += len(buffer)
            for each in self._hashes.values():
                each.update(buffer)
        if self._kept is not None:
            self._kept += [bytes(buffer) for buffer in batch]
        elif batch:
            _write_all(self._number, batch)

    def content(self) -> bytes:
        """What was written, where it is kept."""
        return b"".join(self._kept or [])

    def facts(self) -> dict[str, Any]:
        """As an index names it."""
        digests = {name: each.hexdigest() for name, each in self._hashes.items()}
        return {"basename": self._path.name, "bytes": self._bytes, "hashes": digests}


def _write_all(number: int, buffers: list[Any]) -> None:
    """Write buffers one after the other, however little a call takes of them."""
    written = os.writev(number, buffers)
    for place, buffer in enumerate(buffers):
        if written < len(buffer):
            rest = memoryview(buffer)[written:]
            while rest:
                rest = rest[os.write(number, rest) :]
            if place + 1 < len(buffers):
                _write_all(number, buffers[place + 1 :])
            return
        written -= len(buffer)
