"""Megatron shards: sequences in, a .bin of token ids and its .idx out, as GPT-NeoX and Megatron read them.

One sequence is one document of one row: with seq_length = L every sample of a trainer is exactly one row. Boundaries
lie beside it, since the format has no place for them that survives shuffling.
"""

import contextlib
import dataclasses
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from nextlong.errors import UserError
from nextlong.sequences import Sequences, Shapes, ranges

MAGIC = b"MMIDIDX\x00\x00"
CODES = {"uint16": 8, "int32": 4}
IGNORED = -100
"""A label that is no target."""
LABELS = "_label"
BOUNDARIES = ".boundaries.npy"
_SMALL_VOCABULARY = 65_500  # below it both trainers read uint16
_MOST_TOKENS = (1 << 31) - 1  # of a sequence: sizes are int32


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
        if shapes.length_tokens > _MOST_TOKENS:
            raise UserError(f"sequences of {shapes.length_tokens:,} tokens do not fit the int32 of Megatron's format.")
        if self.shard_tokens is None:
            return list(ranges(len(shapes), max(1, len(shapes))))
        return list(ranges(len(shapes), max(1, self.shard_tokens // shapes.length_tokens)))

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
        """Write one shard; returns {"files": names}. The .idx comes last: without it there is nothing to open."""
        prefix = "sequences" if of == 1 else f"sequences_{number:05d}"
        dtype = np.dtype("<u2" if self.vocab_size < _SMALL_VOCABULARY else "<i4")
        names = [f"{prefix}.bin", f"{prefix}{BOUNDARIES}", *([f"{prefix}{LABELS}.bin"] if shapes.has_mask else [])]
        row = 0
        with contextlib.ExitStack() as stack:
            ids, boundaries, *labels = (stack.enter_context(open(folder / name, "wb")) for name in names)
            head = {"descr": "<i8", "fortran_order": False, "shape": (int(shapes.num_pieces.sum()), 3)}
            np.lib.format.write_array_header_1_0(boundaries, head)
            for block in shapes.checked(blocks):
                self._check(block, row)
                ids.write(block.input_ids.astype(dtype, "C", copy=False).data)
                rows = np.repeat(np.arange(row, row + len(block)), np.diff(block.offsets))
                boundaries.write(np.column_stack([rows, block.indices]).astype("<i8", "C", copy=False).data)
                for file in labels:
                    targets = np.where(block.mask == 1, block.input_ids.astype("<i4", "C"), np.int32(IGNORED))
                    file.write(targets.astype("<i4", "C", copy=False).data)
                row += len(block)
        indexed = {f"{prefix}{LABELS}.idx": np.dtype("<i4")} if shapes.has_mask else {}
        for name, each in (indexed | {f"{prefix}.idx": dtype}).items():
            (folder / name).write_bytes(_index(row, shapes.length_tokens, each))
            names.append(name)
        return {"files": names}

    def finish(self, folder: Path, shards: list[dict[str, Any]]) -> list[str]:
        """Nothing binds the shards: trainers take several prefixes."""
        return []

    def _check(self, block: Sequences, first_row: int) -> None:
        if block.input_ids.max(initial=0) >= self.vocab_size:
            block.check("the sequences", vocab_size=self.vocab_size, first_row=first_row)


def _index(num_rows: int, length_tokens: int, dtype: np.dtype[Any]) -> bytes:
    """magic | u64 version | u8 type | u64 sequences | u64 documents + 1 | i32 sizes | i64 offsets | i64 documents"""
    head = MAGIC + struct.pack("<QBQQ", 1, CODES[dtype.name], num_rows, num_rows + 1)
    sizes = np.full(num_rows, length_tokens, "<i4")
    pointers = np.arange(num_rows, dtype="<i8") * (length_tokens * dtype.itemsize)
    return head + sizes.tobytes() + pointers.tobytes() + np.arange(num_rows + 1, dtype="<i8").tobytes()
