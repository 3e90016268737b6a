"""Plain files, jsonl and text, compressed or not, in; their documents as Arrow tables of strings out."""

import json
import posixpath
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

import pyarrow as pa

from etl.inputs.files import InputFile
from etl.inputs.spans import BUFFER_BYTES, Columns, Span, decode_utf8, open_decompressed, telling_damage, without_id
from nextlong.errors import UserError

_TABLE_CHARS = 4 * 1024 * 1024  # Python strings alive at a time: they take up to four bytes a character
_BOM = b"\xef\xbb\xbf"
_SURROGATES = re.compile("[\ud800-\udfff]")
_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_JSON = json.JSONDecoder(strict=False)  # keeps control characters inside strings, such as tabs and NUL
_JSONL = "A jsonl file has one object a line; a file that is one JSON list is rewritten by: jq -c '.[]' OLD > NEW.jsonl"

_Row = tuple[list[str | None], bool]  # values in the schema's order; whether a character was replaced


def read_plain(spans: Iterable[Span], columns: Columns) -> Iterator[tuple[pa.Table, int]]:
    """Tables of some MiB, and in how many of their rows characters became U+FFFD.

    Raises UserError, with file and line, for what cannot be read.
    """
    rows = chain.from_iterable(_read_rows(span, columns) for span in spans)
    yield from _tables(rows, columns.schema)


def read_lines(span: Span) -> Iterator[tuple[int, bytes]]:
    """(position of the first byte, line with its end) of the lines that begin in a span; decompressed on the way."""
    position = span.start
    with (
        open_decompressed(span.file) as stream,
        telling_damage(span.file, lambda: f"soon after the first {position:,} bytes of its content"),
    ):
        if position:
            stream.seek(position - 1)
            position += len(stream.readline()) - 1
        while (span.stop is None or position < span.stop) and (line := stream.readline()):
            yield position, line
            position += len(line)
        if span.stop is not None and position < span.stop:
            raise UserError(
                f"{span.file.name} ends before byte {span.stop:,}, but was longer when it was listed. Start again, and "
                "do not change the input during a run."
            )


def _tables(rows: Iterable[_Row], schema: pa.Schema) -> Iterator[tuple[pa.Table, int]]:
    """Rows gathered into tables of some MiB."""
    held: list[_Row] = []
    chars = 0
    for row in rows:
        held.append(row)
        chars += sum(len(value) for value in row[0] if value is not None)
        if chars >= _TABLE_CHARS:
            yield _table(held, schema)
            held, chars = [], 0
    if held:
        yield _table(held, schema)


def _table(rows: Sequence[_Row], schema: pa.Schema) -> tuple[pa.Table, int]:
    values = zip(*[values for values, _ in rows], strict=True)
    arrays = [pa.array(column, field.type) for column, field in zip(values, schema, strict=True)]
    return pa.table(arrays, schema=schema), sum(is_replaced for _, is_replaced in rows)


def _read_rows(span: Span, columns: Columns) -> Iterator[_Row]:
    if span.file.format == "text":
        yield _read_text(span.file)
    else:
        yield from _read_jsonl(span, columns)


def _read_text(file: InputFile) -> _Row:
    """A text file is one document: its id is its name, its source the folder it is in."""
    data = bytearray()
    with (
        open_decompressed(file) as stream,
        telling_damage(file, lambda: f"soon after the first {len(data):,} bytes of its content"),
    ):
        while piece := stream.read(BUFFER_BYTES):
            data += piece
    text, is_replaced = decode_utf8(data)
    folder = posixpath.dirname(file.name) or posixpath.basename(posixpath.dirname(file.path))
    return [file.name, text.removeprefix("\ufeff"), folder], is_replaced


def _read_jsonl(span: Span, columns: Columns) -> Iterator[_Row]:
    for position, line in read_lines(span):
        line = line.removeprefix(_BOM)
        if not line.strip():
            continue
        string, is_replaced = decode_utf8(line)
        try:
            values = _values(_parse(string), span.file, columns)
        except ValueError as error:
            number = _count_newlines(span.file, position) + 1
            raise UserError(f"{span.file.name}, line {number}: {error}") from error
        is_replaced = is_replaced and any(_REPLACEMENT in value for value in values if value)
        if _SURROGATE_ESCAPE.search(line):
            mended = [value and _SURROGATES.sub(_REPLACEMENT, value) for value in values]
            is_replaced = is_replaced or mended != values
            values = mended
        yield values, is_replaced


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
    if not (text is None or isinstance(text, str)):
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


def _count_newlines(file: InputFile, position: int) -> int:
    """Newlines before a position of the file's content."""
    number = 0
    with open_decompressed(file) as stream:
        while position > 0 and (piece := stream.read(min(position, BUFFER_BYTES))):
            number += piece.count(b"\n")
            position -= len(piece)
    return number
