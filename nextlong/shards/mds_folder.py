"""An MDS folder in, ours or another's; sequences, or the values of its columns, out. Nothing is unpacked on disk."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nextlong.errors import UserError
from nextlong.folders import inside
from nextlong.sequences import Sequences, concatenate
from nextlong.shards.mds import FIXED_BYTES, INDEX

_DTYPES = {8: "u1", 9: "i1", 16: "<u2", 17: "<i2", 18: "<f2", 32: "<u4", 33: "<i4", 34: "<f4", 64: "<u8", 65: "<i8"}


class MdsFolder:
    """An MDS folder, ours or another's, read by position; zstd shards are unpacked in memory, one at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            self._entries = json.loads((folder / INDEX).read_text())["shards"]
            self._firsts = np.cumsum([0, *[int(entry["samples"]) for entry in self._entries]])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{folder} is no MDS folder: its {INDEX} cannot be read ({error}).") from error
        self._opened: tuple[int, MdsShard] | None = None

    def __len__(self) -> int:
        return int(self._firsts[-1])

    @property
    def shards(self) -> list[Path]:
        """The files of the shards."""
        return [self._path(entry) for entry in self._entries]

    @property
    def columns(self) -> dict[str, str]:
        """Encoding by name, of the first shard."""
        return dict(zip(self._entries[0]["column_names"], self._entries[0]["column_encodings"], strict=True))

    def shard(self, number: int) -> "MdsShard":
        """One shard, open; the last one asked for is kept."""
        if self._opened is None or self._opened[0] != number:
            self._opened = number, MdsShard(self._path(self._entries[number]), self._entries[number])
        return self._opened[1]

    def read(self, start: int, stop: int) -> Sequences:
        """The sequences start ... stop - 1. Raises UserError, naming file and row, for samples of other columns."""
        found = []
        for number in range(len(self._entries)):
            first, last = int(self._firsts[number]), int(self._firsts[number + 1])
            if max(start, first) < min(stop, last):
                shard = self.shard(number)
                found.append(shard.sequences(max(start, first) - first, min(stop, last) - first))
        return concatenate(found)

    def _path(self, entry: dict[str, Any]) -> Path:
        raw = inside(self._folder, entry["raw_data"]["basename"])
        return raw if raw.is_file() or not entry["zip_data"] else inside(self._folder, entry["zip_data"]["basename"])


class MdsShard:
    """One file of samples; values are views of it."""

    def __init__(self, path: Path, entry: dict[str, Any]) -> None:
        self.path = path
        self._names = entry["column_names"]
        self._encodings = dict(zip(self._names, entry["column_encodings"], strict=True))
        self._sizes = dict(zip(self._names, entry["column_sizes"], strict=True))
        try:
            self._data = self._content(entry)
            self._offsets = self._data[4 : 8 + 4 * entry["samples"]].view("<u4").astype(np.int64)
            whole = len(self._data) == self._offsets[-1] == entry["raw_data"]["bytes"]
        except (OSError, ValueError, IndexError) as error:
            raise UserError(f"{path} cannot be read as an MDS shard: {error}") from error
        if not whole:
            raise UserError(f"{path} is no whole MDS shard: it has not the size that its index states.")

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def _content(self, entry: dict[str, Any]) -> NDArray[np.uint8]:
        if self.path.name != entry["raw_data"]["basename"]:
            with open(self.path, "rb") as file:
                return np.frombuffer(pa.Codec("zstd").decompress(file.read(), entry["raw_data"]["bytes"]), np.uint8)
        return np.asarray(np.memmap(self.path, np.uint8, "r"))

    def places(self, column: str) -> NDArray[np.int64]:
        """int64 [samples, 2]: where the column's value of every sample begins and ends in the file."""
        variable = [name for name in self._names if self._sizes[name] is None]
        begin = self._offsets[:-1]
        cells = begin[:, None] + np.arange(4 * len(variable))
        sizes = dict(zip(variable, self._data[cells].view("<u4").astype(np.int64).T, strict=True))
        start = begin + 4 * len(variable)
        for name in self._names:
            size = sizes[name] if name in sizes else np.full(len(begin), self._sizes[name], np.int64)
            if name == column:
                return np.stack([start, start + size], axis=1)
            start = start + size
        raise UserError(f"{self.path} has no column {column}; it has {', '.join(self._names)}.")

    def values(self, column: str, start: int = 0, stop: int | None = None) -> Iterator[Any]:
        """The column's values of the samples start ... stop - 1: arrays are views, text and numbers are Python's."""
        decode = _decoder(self._encodings.get(column, ""))
        for first, last in self.places(column)[start:stop].tolist():
            yield decode(self._data[first:last])

    def sequences(self, start: int, stop: int) -> Sequences:
        """The samples start ... stop - 1 as sequences; those of one column `tokens` are one piece each."""
        if "tokens" in self._encodings:
            ids = np.stack([each.view("<i8").astype(np.uint32) for each in self.values("tokens", start, stop)])
            pieces = np.tile(np.array([[0, ids.shape[1]]]), (len(ids), 1))
            return Sequences(ids, pieces, np.arange(len(ids) + 1), [""] * len(ids))
        pieces_of = [np.asarray(each, np.int64) for each in self.values("indices", start, stop)]
        masks = self.values("mask", start, stop) if "mask" in self._encodings else None
        return Sequences(
            np.stack(list(self.values("input_ids", start, stop))),
            np.concatenate(pieces_of),
            np.cumsum([0, *map(len, pieces_of)]),
            list(self.values("domain", start, stop)),
            None if masks is None else np.stack([np.asarray(each, np.uint8) for each in masks]),
        )


def _decoder(encoding: str) -> Any:
    kind, _, rest = encoding.partition(":")
    if kind == "str":
        return lambda data: data.tobytes().decode()
    if kind == "int" or (kind in FIXED_BYTES and not rest):
        dtype = "<i8" if kind == "int" else np.dtype(kind).newbyteorder("<")
        return lambda data: data.view(dtype)[0].item()
    if kind == "ndarray":
        dtype_name, _, shape = rest.partition(":")
        fixed = tuple(map(int, shape.split(","))) if shape else None
        return lambda data: _array(data, dtype_name, fixed)
    return lambda data: data


def _array(data: NDArray[np.uint8], dtype_name: str, shape: tuple[int, ...] | None) -> NDArray[Any]:
    """The array of a value, whose bytes may begin with its type and its shape."""
    place = 0
    if not dtype_name:
        dtype, place = np.dtype(_DTYPES[int(data[0])]), 1
    else:
        dtype = np.dtype(dtype_name).newbyteorder("<")
    if shape is None:
        ndim, width = int(data[place]) >> 2, 1 << (int(data[place]) & 3)
        end = place + 1 + ndim * width
        shape, place = tuple(data[place + 1 : end].view(f"<u{width}").tolist()), end
    return data[place:].view(dtype).reshape(shape)
