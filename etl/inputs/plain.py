"""Plain files, jsonl and text, compressed or not, in; their documents as Arrow tables of strings out."""

import json
import posixpath
import re
from collections.abc import Iterable, Iterator, Sequence
from io import BufferedReader
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from etl.inputs.files import InputFile
from etl.inputs.spans import (
    BUFFER_BYTES,
    REPLACEMENT,
    SURROGATES,
    Bounds,
    Columns,
    ReadSplit,
    Span,
    decode_utf8,
    open_decompressed,
    telling_damage,
    without_id,
)
from etl.inputs.structured import WANTED, to_json
from nextlong.errors import UserError

_TABLE_CHARS = 4 * 1024 * 1024  # Python strings alive at a time: they take up to four bytes a character
_UTF8_BYTES = 4  # a character's, at most
_JSON_BYTES = 6  # such as \u00e9: of a jsonl line, a character of its text
_OTHER_FIELDS_BYTES = 1024 * 1024  # of a jsonl line, beside its text
_BOM = b"\xef\xbb\xbf"
_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")
_JSON = json.JSONDecoder(strict=False)  # keeps control characters inside strings, such as tabs and NUL
_JSONL = "A jsonl file has one object a line; a file that is one JSON list is rewritten by: jq -c '.[]' OLD > NEW.jsonl"


class Line(NamedTuple):
    """A line of a jsonl file."""

    start: int
    """Its first byte."""
    stop: int
    """The byte after its end; of a line that is too long, at least the end of the span that it begins in."""
    content: bytes | None
    """With its end; None: longer than any document may be, and not held."""

    @property
    def is_row(self) -> bool:
        """Whether it is a document: blank lines are none."""
        return self.content is None or bool(self.content.removeprefix(_BOM).strip())


class _Row(NamedTuple):
    values: list[str | None]  # in the schema's order
    is_replaced: bool  # whether a character was
    is_too_long: bool = False


def read_plain(spans: Iterable[Span], columns: Columns, bounds: Bounds) -> Iterator[ReadSplit]:
    """The rows of spans, a few MiB at a time.

    Raises UserError, with file and line, for what cannot be read.
    """
    rows = chain.from_iterable(_read_rows(span, columns, bounds) for span in spans)
    yield from _tables(rows, columns.schema)


def read_lines(span: Span, bounds: Bounds) -> Iterator[Line]:
    """The lines that begin in a span; decompressed on the way, and no line longer than a document may be is held."""
    most = -1 if bounds.document_chars is None else bounds.document_chars * _JSON_BYTES + _OTHER_FIELDS_BYTES
    position = span.start
    with (
        open_decompressed(span.file, bounds) as stream,
        telling_damage(span.file, lambda: f"soon after the first {position:,} bytes of its content"),
    ):
        if position:
            stream.seek(position - 1)
            position += _skip_line(stream, None if span.stop is None else span.stop + 1 - position) - 1
        while (span.stop is None or position < span.stop) and (content := stream.readline(most)):
            start, position = position, position + len(content)
            is_whole = len(content) != most or content.endswith(b"\n")
            if not is_whole:
                position += _skip_line(stream, None if span.stop is None else span.stop - position)
            yield Line(start, position, content if is_whole else None)
        if span.stop is not None and position < span.stop:
            raise UserError(
                f"{span.file.name} ends before byte {span.stop:,}, but was longer when it was listed. Start again, and "
                "do not change the input during a run."
            )


def _skip_line(stream: BufferedReader, enough: int | None) -> int:
    """Pass over the rest of a line, or over `enough` bytes of it, without holding it; returns the number of bytes."""
    skipped = 0
    while (enough is None or skipped < enough) and (piece := stream.readline(BUFFER_BYTES)):
        skipped += len(piece)
        if piece.endswith(b"\n"):
            break
    return skipped


def _tables(rows: Iterable[_Row], schema: pa.Schema) -> Iterator[ReadSplit]:
    """Rows gathered into tables of some MiB."""
    held: list[_Row] = []
    chars = 0
    for row in rows:
        held.append(row)
        chars += sum(len(value) for value in row.values if value is not None)
        if chars >= _TABLE_CHARS:
            yield _table(held, schema)
            held, chars = [], 0
    if held:
        yield _table(held, schema)


def _table(rows: Sequence[_Row], schema: pa.Schema) -> ReadSplit:
    values = zip(*[row.values for row in rows], strict=True)
    arrays = [pa.array(column, field.type) for column, field in zip(values, schema, strict=True)]
    is_too_long = np.array([row.is_too_long for row in rows])
    return ReadSplit(pa.table(arrays, schema=schema), sum(row.is_replaced for row in rows), is_too_long)


def _read_rows(span: Span, columns: Columns, bounds: Bounds) -> Iterator[_Row]:
    if span.file.format == "text":
        yield _read_text(span.file, bounds)
    else:
        yield from _read_jsonl(span, columns, bounds)


def _read_text(file: InputFile, bounds: Bounds) -> _Row:
    """A text file is one document: its id is its name, its source the folder it is in."""
    folder = posixpath.dirname(file.name) or posixpath.basename(posixpath.dirname(file.path))
    content = _content(file, bounds)
    if content is None:
        return _Row([file.name, None, folder], False, True)
    text, is_replaced = decode_utf8(content)
    return _within(_Row([file.name, text.removeprefix("\ufeff"), folder], is_replaced), 1, bounds)


def _content(file: InputFile, bounds: Bounds) -> bytearray | None:
    """All of a text file; None when it is longer than a document may be, as soon as that is known."""
    most = None if bounds.document_chars is None else bounds.document_chars * _UTF8_BYTES + len(_BOM)
    data = bytearray()
    if most is not None and not file.compression and file.bytes > most:
        return None
    with (
        open_decompressed(file, bounds) as stream,
        telling_damage(file, lambda: f"soon after the first {len(data):,} bytes of its content"),
    ):
        while piece := stream.read(BUFFER_BYTES):
            data += piece
            if most is not None and len(data) > most:
                return None
    return data


def _read_jsonl(span: Span, columns: Columns, bounds: Bounds) -> Iterator[_Row]:
    place = columns.schema.get_field_index("text")
    for line in read_lines(span, bounds):
        if not line.is_row:
            continue
        if line.content is None:
            yield _Row([None] * len(columns.schema.names), False, True)
            continue
        content = line.content.removeprefix(_BOM)
        string, is_replaced = decode_utf8(content)
        try:
            values = _values(_parse(string), span.file, columns)
        except ValueError as error:
            number = _count_newlines(span.file, line.start, bounds) + 1
            raise UserError(f"{span.file.name}, line {number}: {error}") from error
        is_replaced = is_replaced and any(REPLACEMENT in value for value in values if value)
        if _SURROGATE_ESCAPE.search(content):
            mended = [value and SURROGATES.sub(REPLACEMENT, value) for value in values]
            is_replaced = is_replaced or mended != values
            values = mended
        yield _within(_Row(values, is_replaced), place, bounds)


def _within(row: _Row, place: int, bounds: Bounds) -> _Row:
    """The row, without its text when that is too long; place: of the text."""
    text = row.values[place]
    if text is None or bounds.document_chars is None or len(text) <= bounds.document_chars:
        return row
    row.values[place] = None
    return _Row(row.values, False, True)


def _parse(line: str) -> dict[str, Any]:
    try:
        record = _JSON.decode(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON ({error.msg} at column {error.pos + 1}). {_JSONL}") from error
    except RecursionError as error:
        raise ValueError("nested too deeply to be read. Remove the line.") from error
    if not isinstance(record, dict):
        raise ValueError(f"{_name_type(record)}, not an object. {_JSONL}")
    return record


def _values(record: dict[str, Any], file: InputFile, columns: Columns) -> list[str | None]:
    """A record's values in the schema's order. Raises ValueError for what is missing or of another type."""
    if columns.text not in record:
        fields = ", ".join(record) or "none"
        raise ValueError(f"there is no field {columns.text!r} (input.text); its fields: {fields}. Set input.text.")
    text = record[columns.text]
    if columns.structured:
        text = _structured(text, columns.text)
    elif not (text is None or isinstance(text, str)):
        raise ValueError(f"field {columns.text!r} (input.text) is {_name_type(text)}, but must be a string or null.")
    row_id = None if columns.id is None else _scalar(record, columns.id, "id")
    if columns.id is not None and row_id is None:
        raise ValueError(without_id(columns.id))
    source = None if columns.source is None else _scalar(record, columns.source, "source")
    return [
        row_id,
        text,
        file.name if source is None else source,
        *[_scalar(record, name, "keep") for name in columns.keep],
    ]


def _structured(value: Any, name: str) -> str | None:
    try:
        return to_json(value)
    except ValueError as error:
        found = error if isinstance(value, str | list) else _name_type(value)
        raise ValueError(f"field {name!r} (input.text) is {found}, but must be {WANTED}, or null.") from error


def _scalar(record: dict[str, Any], name: str, role: str) -> str | None:
    """A string or null as it is, a number or boolean as JSON writes it."""
    value = record.get(name)
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, dict | list):
        raise ValueError(f"field {name!r} (input.{role}) is {_name_type(value)}, but must be a string or number.")
    return json.dumps(value) if isinstance(value, bool | float) else str(value)


def _name_type(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def _count_newlines(file: InputFile, position: int, bounds: Bounds) -> int:
    """Newlines before a position of the file's content."""
    number = 0
    with open_decompressed(file, bounds) as stream:
        while position > 0 and (piece := stream.read(min(position, BUFFER_BYTES))):
            number += piece.count(b"\n")
            position -= len(piece)
    return number
