"""Sequences to an Arrow table and back, tokens not copied: the columns of our parquet and arrow shards."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from nextlong.errors import UserError
from nextlong.sequences import Sequences, Shapes, ranges

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
_MOST_TOKENS = (1 << 31) - 1  # of a sequence: offsets of lists are int32


def schema_of(has_mask: bool) -> pa.Schema:
    """The columns of sequences with or without a mask."""
    return SCHEMA.append(MASK) if has_mask else SCHEMA


def shards_by_tokens(shapes: Shapes, shard_tokens: int) -> list[tuple[int, int]]:
    """The sequences [start, stop) of each shard. Raises UserError for sequences that no list holds."""
    if shapes.length_tokens > _MOST_TOKENS:
        raise UserError(
            f"sequences of {shapes.length_tokens:,} tokens do not fit a list, which takes {_MOST_TOKENS:,}."
        )
    return list(ranges(len(shapes), max(1, shard_tokens // shapes.length_tokens)))


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


def read_sequences(read: Callable[[], pa.Table], path: Path) -> Sequences:
    """The sequences of a table that is read from a file. Raises UserError, naming it, where it is damaged."""
    try:
        table = read()
        table.validate(full=True)  # offsets that lead out of the table would read foreign memory
        return from_table(table, str(path))
    except UserError:
        raise
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UserError(f"{path} is damaged: {error}") from error


def from_table(table: pa.Table, where: str) -> Sequences:
    """The sequences of a table. Raises UserError, naming `where`, for other columns and rows of unequal length."""
    if missing := [name for name in ("input_ids", "indices", "domain") if name not in table.column_names]:
        raise UserError(f"{where} has no column {missing[0]}; it has {', '.join(table.column_names)}.")
    domains = table["domain"]
    if not (pa.types.is_string(domains.type) or pa.types.is_large_string(domains.type)) or domains.null_count:
        raise UserError(f"{where}: column domain is {domains.type} or has nulls, but it must be text.")
    mask = _rows(table, "mask", pa.uint8(), where) if "mask" in table.column_names else None
    ids = _rows(table, "input_ids", pa.uint32(), where)
    return Sequences(ids, *pieces_of(table["indices"], where), domains.to_pylist(), mask)


def pieces_of(column: pa.ChunkedArray, where: str = "the table") -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(indices int64 [m, 2], offsets int64 [n + 1]) of a column `indices`. Raises UserError for what is no pairs."""
    pairs = _flat(column) if _is_list(column.type) and not column.null_count else None
    if (
        pairs is None
        or not _is_list(pairs.type)
        or not pa.types.is_integer(pairs.type.value_type)
        or pairs.null_count
        or not pc.all(pc.equal(pc.list_value_length(pairs), 2), min_count=0).as_py()
        or (numbers := pairs.flatten()).null_count
    ):
        raise UserError(f"{where}: column indices is {column.type} or has nulls, but it must be lists of two numbers.")
    counts = pc.list_value_length(column).to_numpy()
    offsets = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
    return numbers.to_numpy().reshape(-1, 2).astype(np.int64), offsets


def _rows(table: pa.Table, name: str, of: pa.DataType, where: str) -> Any:
    column = table[name]
    if not _is_list(column.type) or column.type.value_type != of or column.null_count:
        raise UserError(f"{where}: column {name} is {column.type} or has nulls, but it must be lists of {of}.")
    lengths = pc.list_value_length(column).to_numpy()
    if len(lengths) and (other := np.flatnonzero(lengths != lengths[0])).size:
        raise UserError(
            f"{where}, row {int(other[0])}: {name} has {lengths[other[0]]} entries, but that of the first row has "
            f"{lengths[0]}. Sequences of one folder are of one length: convert it with 'nextlong convert'."
        )
    flat = _flat(column)
    if flat.null_count:
        raise UserError(f"{where}: column {name} has nulls in its lists.")
    return flat.to_numpy().reshape(len(lengths), -1 if len(lengths) else 0)


def _is_list(type_: pa.DataType) -> bool:
    return bool(pa.types.is_list(type_) or pa.types.is_large_list(type_) or pa.types.is_fixed_size_list(type_))


def _flat(column: pa.ChunkedArray) -> Any:
    flat = pc.list_flatten(column)
    return flat.combine_chunks() if flat.num_chunks != 1 else flat.chunk(0)
