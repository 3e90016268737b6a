"""Parquet files in: sizes of their row groups, and spans of them as Arrow tables of strings out."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from etl.inputs.files import InputFile, open_file
from etl.inputs.spans import Columns, Span, decode_utf8, telling_damage, without_id
from nextlong.errors import UserError

_CHECKED_ROWS = 1024  # texts that are decoded in Python when one of them is no UTF-8
_TABLE_BYTES = 8 * 2**20
_BUFFER_BYTES = 8 * 2**20  # read ahead: without, a whole row group would be held


class RowGroup(NamedTuple):
    """Size of a parquet row group."""

    num_rows: int
    text_bytes: int


def read_row_groups(file: InputFile, columns: Columns) -> list[RowGroup]:
    """Sizes of a parquet file's row groups, from its footer.

    Raises UserError when it is no whole parquet file, or a column is missing or of a type that cannot be read.
    """
    with _open_parquet(file) as parquet:
        _check_types(file, parquet.schema_arrow, columns)
        footer = parquet.metadata
        leaf = [footer.schema.column(place).path for place in range(footer.num_columns)].index(columns.text)
        groups = [footer.row_group(place) for place in range(footer.num_row_groups)]
        return [RowGroup(group.num_rows, group.column(leaf).total_uncompressed_size) for group in groups]


def read_parquet(span: Span, columns: Columns) -> Iterator[tuple[pa.Table, int]]:
    """Tables of some MiB, and in how many of their rows characters became U+FFFD; row groups are streamed.

    Raises UserError, with file and row, for what cannot be read.
    """
    with _open_parquet(span.file) as parquet:
        stop = parquet.num_row_groups if span.stop is None else span.stop
        first_row = sum(parquet.metadata.row_group(group).num_rows for group in range(span.start))
        for group in range(span.start, stop):
            for table in _read_group(parquet, group, span.file, columns):
                yield _to_strings(table, span.file, columns, first_row)
                first_row += table.num_rows


def _read_group(parquet: Any, group: int, file: InputFile, columns: Columns) -> Iterator[pa.Table]:
    facts = parquet.metadata.row_group(group)
    rows = max(1, facts.num_rows * _TABLE_BYTES // max(1, facts.total_byte_size))
    names = [name for _, name in columns.roles]
    with telling_damage(file, lambda: f"in row group {group}"):
        for batch in parquet.iter_batches(rows, row_groups=[group], columns=names, use_threads=False):
            yield pa.Table.from_batches([batch])


def _to_strings(table: pa.Table, file: InputFile, columns: Columns, first_row: int) -> tuple[pa.Table, int]:
    """A row group's columns in the schema's order and types."""
    replaced: set[int] = set()

    def strings(name: str | None, kind: pa.DataType) -> pa.ChunkedArray:
        if name is None:
            return pa.chunked_array([pa.nulls(table.num_rows, kind)])
        strings, places = _decode_column(table[name], kind)
        replaced.update(places)
        return strings

    ids = strings(columns.id, pa.string())
    if columns.id is not None and ids.null_count:
        row = first_row + pc.index(pc.is_null(ids), True).as_py()
        raise UserError(f"{file.name}, row {row} (from 0): {without_id(columns.id)}")
    text = strings(columns.text, pa.large_string())
    source = pc.fill_null(strings(columns.source, pa.string()), file.name)
    kept = [strings(name, pa.string()) for name in columns.keep]
    return pa.table([ids, text, source, *kept], schema=columns.schema), len(replaced)


def _decode_column(column: pa.ChunkedArray, kind: pa.DataType) -> tuple[pa.ChunkedArray, list[int]]:
    """A column as valid strings, and the places where bytes that are no UTF-8 became U+FFFD."""
    if not _is_text(column.type):
        return column.cast(kind), []
    column = column.cast(pa.large_binary())  # parquet files can claim UTF-8 that is none: check it
    parts, replaced = [], []
    for start in range(0, len(column), _CHECKED_ROWS):
        part = column.slice(start, _CHECKED_ROWS)
        try:
            part = part.cast(kind)
        except pa.ArrowInvalid:
            decoded = [(None, False) if value is None else decode_utf8(value) for value in part.to_pylist()]
            replaced += [start + place for place, (_, is_replaced) in enumerate(decoded) if is_replaced]
            part = pa.chunked_array([pa.array([text for text, _ in decoded], kind)])
        parts += part.chunks
    return pa.chunked_array(parts, kind), replaced


def _check_types(file: InputFile, schema: pa.Schema, columns: Columns) -> None:
    for role, name in columns.roles:
        if schema.get_field_index(name) < 0:
            raise UserError(
                f"{file.name} has no column {name!r} (input.{role}), or has it twice; its columns: "
                f"{', '.join(schema.names)}. Set input.{role} to one of them."
            )
        kind = schema.field(name).type
        if not (_is_text(kind) or (role != "text" and _is_number(kind))):
            wanted = "strings" if role == "text" else "strings or numbers"
            raise UserError(f"{file.name}: column {name!r} (input.{role}) is {kind}, but must hold {wanted}.")


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    strings = (pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary(), pa.binary_view())
    return kind in strings


def _is_number(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    is_plain = pa.types.is_primitive(kind) and not pa.types.is_interval(kind)  # dates and booleans too
    return bool(is_plain or pa.types.is_decimal(kind) or pa.types.is_null(kind))


@contextmanager
def _open_parquet(file: InputFile) -> Iterator[Any]:
    with open_file(file) as stream:
        with telling_damage(file, lambda: "or no parquet file"):
            parquet = pq.ParquetFile(stream, pre_buffer=False, buffer_size=_BUFFER_BYTES)
        with parquet:
            yield parquet
