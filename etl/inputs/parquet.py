"""Parquet files in: sizes of their row groups, and spans of them as Arrow tables of strings out."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from etl.inputs.files import InputFile, open_file
from etl.inputs.spans import (
    REPLACEMENT,
    SURROGATES,
    Bounds,
    Columns,
    ReadSplit,
    Span,
    decode_utf8,
    telling_damage,
    without_id,
)
from etl.inputs.structured import WANTED, is_structured, to_json, to_python
from nextlong.errors import UserError

_CHECKED_ROWS = 1024  # texts that are decoded in Python when one of them is no UTF-8
_TABLE_BYTES = 8 * 2**20
_BUFFER_BYTES = 8 * 2**20  # read ahead: without, a whole row group would be held
_AHEAD_BYTES = 2**20  # of a remote file, beyond each request: row groups may be small, and most columns are not wanted
_EXPANDED_BYTES = 2**28  # of a table, were each of its rows the longest value of a dictionary
_GREATEST_ROWS = 2**26  # of a row group: Arrow writes no more
_ROWS_A_BYTE = 8  # of a file that has more rows than that


class RowGroup(NamedTuple):
    """Size of a parquet row group."""

    num_rows: int
    text_bytes: int
    """As encoded, and one a row at least: a million equal rows may take ten bytes."""


def read_row_groups(file: InputFile, columns: Columns) -> list[RowGroup]:
    """Sizes of a parquet file's row groups, from its footer.

    Raises UserError when it is no whole parquet file, or a column is missing or of a type that cannot be read.
    """
    with _open_parquet(file) as (parquet, _), telling_damage(file, lambda: "in its footer"):
        _check_types(file, parquet.schema_arrow, columns)
        footer = parquet.metadata
        leaves = _leaves(footer, columns.text)
        groups = [footer.row_group(place) for place in range(footer.num_row_groups)]
        sizes = [
            (group.num_rows, sum(group.column(leaf).total_uncompressed_size for leaf in leaves)) for group in groups
        ]
    check_claims(file, sizes)
    return [RowGroup(num_rows, max(num_rows, num_bytes)) for num_rows, num_bytes in sizes]


def read_parquet(span: Span, columns: Columns, bounds: Bounds) -> Iterator[ReadSplit]:
    """The rows of a span, some MiB at a time; row groups are streamed.

    Raises UserError, with file and row, for what cannot be read.
    """
    with _open_parquet(span.file) as (parquet, stream):
        stop = parquet.num_row_groups if span.stop is None else span.stop
        first_row = sum(parquet.metadata.row_group(group).num_rows for group in range(span.start))
        for group in range(span.start, stop):
            for table in _read_group(parquet, stream, group, span.file, columns):
                yield _to_strings(table, span.file, columns, bounds, first_row)
                first_row += table.num_rows


def _read_group(parquet: Any, stream: BinaryIO, group: int, file: InputFile, columns: Columns) -> Iterator[pa.Table]:
    facts = parquet.metadata.row_group(group)
    names = [name for _, name in columns.roles]
    leaves = [leaf for name in names for leaf in _leaves(parquet.metadata, name)]
    with telling_damage(file, lambda: f"in row group {group}"):
        longest = max(_longest_value(stream, facts, leaf) for leaf in leaves)
        average = facts.num_rows * _TABLE_BYTES // max(1, facts.total_byte_size)
        rows = max(1, min(average, _EXPANDED_BYTES // max(1, longest)))
        batches = parquet.iter_batches(rows, row_groups=[group], columns=names, use_threads=False)
        yield from map(pa.Table.from_batches, _gathered(batches))


def _gathered(batches: Iterable[pa.RecordBatch]) -> Iterator[list[pa.RecordBatch]]:
    """Batches together until they fill a table: a large dictionary makes them small, and each table costs 0.3 ms.

    Those with a column of Arrow's type dictionary stay alone, as they grow once more when they become strings.
    """
    held: list[pa.RecordBatch] = []
    size = 0
    for batch in batches:
        held.append(batch)
        size += _TABLE_BYTES if any(map(pa.types.is_dictionary, batch.schema.types)) else batch.nbytes
        if size >= _TABLE_BYTES:
            yield held
            held, size = [], 0
    if held:
        yield held


def _longest_value(stream: BinaryIO, facts: Any, leaf: int) -> int:
    """The most bytes that a row may have by its column's dictionary; of lists, one of as many values as the mean."""
    column = facts.column(leaf)
    num_values: int = -(-column.num_values // max(1, facts.num_rows))
    return _dictionary_bytes(stream, column) * max(1, num_values)


def _dictionary_bytes(stream: BinaryIO, column: Any) -> int:
    """Bytes of a column's dictionary page, which none of its values can exceed; 0 without one.

    A page begins with its header in Thrift's compact protocol: its type (2: dictionary) and the decompressed bytes.
    """
    offset = column.dictionary_page_offset or column.data_page_offset
    if offset < 0:
        raise pa.ArrowInvalid("a column begins before the file")
    stream.seek(offset)
    header = stream.read(8)
    if header[:3] != b"\x15\x04\x15":
        return 0
    number = 0
    for place, byte in enumerate(header[3:]):
        number |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            break
    return number >> 1


def check_claims(file: InputFile, groups: Sequence[tuple[int, int]]) -> None:
    """Raise UserError for more rows than the file's size allows, since 16 bytes a row are kept; groups: rows, bytes."""
    if any(num_rows < 0 or num_bytes < 0 for num_rows, num_bytes in groups):
        raise UserError(f"{file.name} is damaged: its footer tells of less than no rows. Fetch it again.")
    total = sum(num_rows for num_rows, _ in groups)
    if any(num_rows > _GREATEST_ROWS for num_rows, _ in groups) or total > max(
        _GREATEST_ROWS, _ROWS_A_BYTE * file.bytes
    ):
        raise UserError(
            f"{file.name} has {total:,} rows in {file.bytes:,} bytes, the most of one row group "
            f"{max(num_rows for num_rows, _ in groups):,}: more than {_GREATEST_ROWS:,} in a row group, or "
            f"{_ROWS_A_BYTE} a byte, are not read. Leave the file out, or write it with smaller row groups."
        )


def _leaves(footer: Any, name: str) -> list[int]:
    """The places of a column's values in the file: one, or several of a column that has columns itself."""
    paths = [footer.schema.column(place).path for place in range(footer.num_columns)]
    if name in paths:
        return [paths.index(name)]
    return [place for place, path in enumerate(paths) if path.startswith(f"{name}.")]


def _to_strings(table: pa.Table, file: InputFile, columns: Columns, bounds: Bounds, first_row: int) -> ReadSplit:
    """A table's columns in the schema's order and types."""
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
    if columns.structured:
        text, places = _write_json(table[columns.text], file, columns.text, first_row)
        replaced.update(places)
    else:
        text = strings(columns.text, pa.large_string())
    source = pc.fill_null(strings(columns.source, pa.string()), file.name)
    kept = [strings(name, pa.string()) for name in columns.keep]
    is_too_long = _exceeds(text, bounds.document_chars)
    text = pc.if_else(is_too_long, pa.scalar(None, text.type), text) if is_too_long.any() else text
    num_replaced = sum(not is_too_long[row] for row in replaced)
    return ReadSplit(pa.table([ids, text, source, *kept], schema=columns.schema), num_replaced, is_too_long)


def _exceeds(text: pa.ChunkedArray, most: int | None) -> NDArray[np.bool_]:
    """Which texts have more characters."""
    if most is None or (pc.max(pc.binary_length(text)).as_py() or 0) <= most:
        return np.zeros(len(text), bool)
    return np.asarray(pc.fill_null(pc.greater(pc.utf8_length(text), most), False))


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


def _write_json(
    column: pa.ChunkedArray, file: InputFile, name: str, first_row: int
) -> tuple[pa.ChunkedArray, list[int]]:
    """A structured column's values as JSON text, and the places of those in which something became U+FFFD."""
    if _is_text(column.type):
        decoded, replaced = _decode_column(column, pa.large_string())
        values = decoded.to_pylist()
    else:
        values, replaced = to_python(column)
    texts: list[str | None] = []
    for place, value in enumerate(values):
        try:
            text = to_json(value)
        except ValueError as error:
            raise UserError(
                f"{file.name}, row {first_row + place} (from 0): column {name!r} (input.text) is {error}, but must be "
                f"{WANTED}, or null."
            ) from error
        if text is not None and SURROGATES.search(text):
            text = SURROGATES.sub(REPLACEMENT, text)
            replaced.append(place)
        texts.append(text)
    return pa.chunked_array([pa.array(texts, pa.large_string())]), replaced


def _check_types(file: InputFile, schema: pa.Schema, columns: Columns) -> None:
    for role, name in columns.roles:
        if schema.get_field_index(name) < 0:
            raise UserError(
                f"{file.name} has no column {name!r} (input.{role}), or has it twice; its columns: "
                f"{', '.join(schema.names)}. Set input.{role} to one of them."
            )
        kind = schema.field(name).type
        is_structured_text = role == "text" and columns.structured
        if not (
            _is_text(kind) or (is_structured_text and is_structured(kind)) or (role != "text" and _is_number(kind))
        ):
            wanted = "strings" if role == "text" else "strings or numbers"
            wanted = "lists of objects, or strings with JSON" if is_structured_text else wanted
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
def _open_parquet(file: InputFile) -> Iterator[tuple[Any, BinaryIO]]:
    with open_file(file, ahead_bytes=_AHEAD_BYTES) as stream:
        with telling_damage(file, lambda: "or no parquet file"):
            parquet = pq.ParquetFile(stream, pre_buffer=False, buffer_size=_BUFFER_BYTES)
        with parquet:
            yield parquet, stream
