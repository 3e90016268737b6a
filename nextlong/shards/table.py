"""Sequences to an Arrow table and back, nothing copied: the columns of our parquet and arrow shards."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from nextlong.errors import UserError
from nextlong.sequences import Sequences

SCHEMA = pa.schema(
    [
        ("input_ids", pa.list_(pa.uint32())),
        ("indices", pa.list_(pa.list_(pa.uint32(), 2))),  # [n, 2]: start and end of each piece
        ("length", pa.int32()),
        ("domain", pa.string()),
    ]
)
MASK = pa.field("mask", pa.list_(pa.uint8()))
"""1 where a token is a target of the loss; the column is left out where all are."""


def schema_of(has_mask: bool) -> pa.Schema:
    """The columns of sequences with or without a mask."""
    return SCHEMA.append(MASK) if has_mask else SCHEMA


def to_table(sequences: Sequences) -> pa.Table:
    """The table of sequences."""
    number, length = len(sequences), sequences.length_tokens
    rows = np.arange(number + 1, dtype=np.int32)
    pairs = pa.FixedSizeListArray.from_arrays(pa.array(sequences.indices.astype(np.uint32).ravel()), 2)
    columns = [
        pa.ListArray.from_arrays(rows * length, pa.array(sequences.input_ids.reshape(-1))),
        pa.ListArray.from_arrays(sequences.offsets.astype(np.int32), pairs),
        pa.array(np.full(number, length, np.int32)),
        pa.array(sequences.domains, pa.string()),
    ]
    if sequences.mask is not None:
        columns.append(pa.ListArray.from_arrays(rows * length, pa.array(sequences.mask.reshape(-1))))
    return pa.table(columns, schema=schema_of(sequences.mask is not None))


def from_table(table: pa.Table, where: str) -> Sequences:
    """The sequences of a table. Raises UserError, naming `where`, for other columns and rows of unequal length."""
    if missing := [name for name in ("input_ids", "indices", "domain") if name not in table.column_names]:
        raise UserError(f"{where} has no column {missing[0]}; it has {', '.join(table.column_names)}.")
    mask = _rows(table, "mask", where) if "mask" in table.column_names else None
    return Sequences(_rows(table, "input_ids", where), *pieces_of(table["indices"]), table["domain"].to_pylist(), mask)


def pieces_of(column: pa.ChunkedArray) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(indices int64 [m, 2], offsets int64 [n + 1]) of a column `indices`."""
    counts = pc.list_value_length(column).to_numpy()
    pairs = _flat(column).flatten().to_numpy(zero_copy_only=False)
    return pairs.reshape(-1, 2).astype(np.int64), np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])


def _rows(table: pa.Table, name: str, where: str) -> Any:
    lengths = pc.list_value_length(table[name]).to_numpy()
    if len(lengths) and (other := np.flatnonzero(lengths != lengths[0])).size:
        raise UserError(
            f"{where}, row {int(other[0])}: {name} has {lengths[other[0]]} entries, but that of the first row has "
            f"{lengths[0]}. Sequences of one folder are of one length: convert it with 'nextlong convert'."
        )
    return _flat(table[name]).to_numpy(zero_copy_only=False).reshape(len(lengths), -1 if len(lengths) else 0)


def _flat(column: pa.ChunkedArray) -> Any:
    flat = pc.list_flatten(column)
    return flat.combine_chunks() if flat.num_chunks != 1 else flat.chunk(0)
