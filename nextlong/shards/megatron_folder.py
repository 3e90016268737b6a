"""Our Megatron shards in, sequences out; their labels of domains are not in the format."""

import struct
import tokenize
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from nextlong.errors import UserError
from nextlong.sequences import Sequences, concatenate, spans
from nextlong.shards.megatron import BOUNDARIES, CODES, IGNORED, LABELS, MAGIC

_UNREADABLE = (
    *(OSError, ValueError, KeyError, OverflowError, EOFError, AttributeError),
    *(struct.error, tokenize.TokenError),  # the latter by np.load
)


class MegatronFolder:
    """Our Megatron shards, memory-mapped; names: their files in order."""

    def __init__(self, folder: Path, names: Iterable[str]) -> None:
        prefixes = [name.removesuffix(".idx") for name in names if name.endswith(".idx")]
        self._folder = folder
        self._shards = [_Shard(folder / prefix) for prefix in prefixes if not prefix.endswith(LABELS)]
        self._firsts = np.cumsum([0, *[len(shard.ids) for shard in self._shards]])

    def __len__(self) -> int:
        return int(self._firsts[-1])

    def read(self, start: int, stop: int) -> Sequences:
        """The sequences start ... stop - 1, each domain empty."""
        found = spans(self._firsts, start, stop, self._folder)
        return concatenate([self._shards[number].read(first, last) for number, first, last in found])


class _Shard:
    def __init__(self, prefix: Path) -> None:
        def beside(suffix: str) -> Path:
            return prefix.with_name(f"{prefix.name}{suffix}")

        try:
            number, length, dtype = _read_index(beside(".idx"))
            self.ids = _mapped(beside(".bin"), dtype, number, length)
            self._boundaries = np.load(beside(BOUNDARIES), "r", allow_pickle=False)
            if self._boundaries.dtype != np.dtype("<i8") or self._boundaries.shape[1:] != (3,):
                raise ValueError("its boundaries are no rows of three numbers")
            has_labels = beside(f"{LABELS}.bin").is_file()
            self._labels = _mapped(beside(f"{LABELS}.bin"), "<i4", number, length) if has_labels else None
        except _UNREADABLE as error:
            reason = f"{type(error).__name__}: {error}"
            raise UserError(f"{prefix} cannot be read as a Megatron dataset of equal rows ({reason}).") from error

    def read(self, start: int, stop: int) -> Sequences:
        offsets = np.searchsorted(self._boundaries[:, 0], np.arange(start, stop + 1))
        return Sequences(
            self.ids[start:stop].astype(np.uint32),
            np.array(self._boundaries[offsets[0] : offsets[-1], 1:]),
            offsets - offsets[0],
            [""] * (stop - start),
            None if self._labels is None else (self._labels[start:stop] != IGNORED).astype(np.uint8),
        )


def _read_index(path: Path) -> tuple[int, int, str]:
    """(rows, tokens of each, type of an id) of an .idx file whose rows are all of one length."""
    index = path.read_bytes()
    if not index.startswith(MAGIC):
        raise ValueError("its .idx begins otherwise")
    _, code, number, _ = struct.unpack_from("<QBQQ", index, len(MAGIC))
    sizes = np.unique(np.frombuffer(index, "<i4", number, len(MAGIC) + 25))
    if len(sizes) != 1:
        raise ValueError(f"its .idx states {len(sizes)} lengths of a row")
    return number, int(sizes[0]), {code: name for name, code in CODES.items()}[code]


def _mapped(path: Path, dtype: DTypeLike, number: int, length: int) -> NDArray[Any]:
    found = np.asarray(np.memmap(path, dtype, "r"))
    if len(found) != number * length:
        raise ValueError(f"{path.name} has {len(found)} numbers, but its .idx states {number} times {length}")
    return found.reshape(number, length)
