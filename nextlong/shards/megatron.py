"""Megatron shards: sequences in, a .bin of token ids and its .idx out, as GPT-NeoX and Megatron read them; and back.

One sequence is one document of one row: with seq_length = L every sample of a trainer is exactly one row. Boundaries
lie beside it, since the format has no place for them that survives shuffling.
"""

import dataclasses
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from nextlong.errors import UserError
from nextlong.sequences import Sequences, Shapes, concatenate, ranges

_MAGIC = b"MMIDIDX\x00\x00"
_CODES = {"uint16": 8, "int32": 4}
_SMALL_VOCABULARY = 65_500  # below it both trainers read uint16
_IGNORED = -100  # a label that is no target
_LABELS = "_label"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Megatron:
    """How Megatron shards are written."""

    vocab_size: int
    """Below 65,500 token ids are uint16, else int32: the rule of both readers."""
    shard_tokens: int | None = None
    """None: everything in one file."""

    def __post_init__(self) -> None:
        if self.vocab_size > 1 << 31:
            raise UserError(f"a vocabulary of {self.vocab_size:,} does not fit the int32 of Megatron's format.")
        if self.shard_tokens is not None and self.shard_tokens < 1:
            raise UserError(f"a shard of {self.shard_tokens:,} tokens cannot be written.")

    def shards(self, shapes: Shapes) -> list[tuple[int, int]]:
        """The sequences [start, stop) of each shard."""
        if self.shard_tokens is None:
            return list(ranges(len(shapes), max(1, len(shapes))))
        return list(ranges(len(shapes), max(1, self.shard_tokens // shapes.length_tokens)))

    def write(self, folder: Path, number: int, of: int, shapes: Shapes, blocks: Iterable[Sequences]) -> dict[str, Any]:
        """Write one shard; returns {"files": names}. The .idx comes last: without it there is nothing to open."""
        prefix = "sequences" if of == 1 else f"sequences_{number:05d}"
        dtype = np.dtype("<u2" if self.vocab_size < _SMALL_VOCABULARY else "<i4")
        boundaries, row = [np.empty((0, 3), np.int64)], 0
        labels = open(folder / f"{prefix}{_LABELS}.bin", "wb") if shapes.has_mask else None  # noqa: SIM115
        with open(folder / f"{prefix}.bin", "wb") as file:
            for block in blocks:
                self._check(block, row)
                file.write(block.input_ids.astype(dtype, copy=False).data)
                rows = np.repeat(np.arange(row, row + len(block)), np.diff(block.offsets))
                boundaries.append(np.column_stack([rows, block.indices]))
                row += len(block)
                if labels is not None:
                    labels.write(np.where(block.mask == 1, block.input_ids.astype("<i4"), np.int32(_IGNORED)).data)
        np.save(folder / f"{prefix}.boundaries.npy", np.concatenate(boundaries))
        names = [f"{prefix}.bin", f"{prefix}.idx", f"{prefix}.boundaries.npy"]
        if labels is not None:
            labels.close()
            (folder / f"{prefix}{_LABELS}.idx").write_bytes(_index(row, shapes.length_tokens, np.dtype("<i4")))
            names += [f"{prefix}{_LABELS}.bin", f"{prefix}{_LABELS}.idx"]
        (folder / f"{prefix}.idx").write_bytes(_index(row, shapes.length_tokens, dtype))
        return {"files": names}

    def finish(self, folder: Path, shards: list[dict[str, Any]]) -> list[str]:
        """Nothing binds the shards: trainers take several prefixes."""
        return []

    def _check(self, block: Sequences, first_row: int) -> None:
        if block.input_ids.max(initial=0) >= self.vocab_size:
            block.check("the sequences", vocab_size=self.vocab_size, first_row=first_row)


def _index(num_rows: int, length_tokens: int, dtype: np.dtype[Any]) -> bytes:
    """magic | u64 version | u8 type | u64 sequences | u64 documents + 1 | i32 sizes | i64 offsets | i64 documents"""
    head = _MAGIC + struct.pack("<QBQQ", 1, _CODES[dtype.name], num_rows, num_rows + 1)
    sizes = np.full(num_rows, length_tokens, "<i4")
    pointers = np.arange(num_rows, dtype="<i8") * (length_tokens * dtype.itemsize)
    return head + sizes.tobytes() + pointers.tobytes() + np.arange(num_rows + 1, dtype="<i8").tobytes()


class MegatronFolder:
    """Our Megatron shards, memory-mapped."""

    def __init__(self, folder: Path, names: Iterable[str]) -> None:
        self._shards = []
        for name in sorted(name for name in names if name.endswith(".idx") and not name.endswith(f"{_LABELS}.idx")):
            self._shards.append(_Shard(folder / name.removesuffix(".idx")))
        self._firsts = np.cumsum([0, *[len(shard.ids) for shard in self._shards]])

    def __len__(self) -> int:
        return int(self._firsts[-1])

    def read(self, start: int, stop: int) -> Sequences:
        """The sequences start ... stop - 1; their labels of domains are not in the format."""
        found = []
        for shard, first in zip(self._shards, self._firsts.tolist(), strict=False):
            begin, end = max(start, first) - first, min(stop, first + len(shard.ids)) - first
            if begin < end:
                found.append(shard.read(begin, end))
        return concatenate(found)


class _Shard:
    def __init__(self, prefix: Path) -> None:
        try:
            index = prefix.with_name(f"{prefix.name}.idx").read_bytes()
            _, code, number, _ = struct.unpack_from("<QBQQ", index, len(_MAGIC))
            dtype = {code: name for name, code in _CODES.items()}[code]
            [length] = set(np.frombuffer(index, "<i4", number, len(_MAGIC) + 25).tolist())
            self.ids = _mapped(prefix.with_name(f"{prefix.name}.bin"), dtype, length)
            self._boundaries = np.load(prefix.with_name(f"{prefix.name}.boundaries.npy"), allow_pickle=False)
            labels = prefix.with_name(f"{prefix.name}{_LABELS}.bin")
            self._labels = _mapped(labels, "<i4", length) if labels.is_file() else None
            if not index.startswith(_MAGIC) or len(self.ids) != number:
                raise ValueError("its .bin has not the rows that its .idx states")
        except (OSError, ValueError, KeyError, struct.error) as error:
            raise UserError(f"{prefix} cannot be read as a Megatron dataset of equal rows: {error}") from error

    def read(self, start: int, stop: int) -> Sequences:
        offsets = np.searchsorted(self._boundaries[:, 0], np.arange(start, stop + 1))
        return Sequences(
            self.ids[start:stop].astype(np.uint32),
            self._boundaries[offsets[0] : offsets[-1], 1:],
            offsets - offsets[0],
            [""] * (stop - start),
            None if self._labels is None else (self._labels[start:stop] != _IGNORED).astype(np.uint8),
        )


def _mapped(path: Path, dtype: DTypeLike, length: int) -> NDArray[Any]:
    return np.asarray(np.memmap(path, dtype, "r")).reshape(-1, length)
