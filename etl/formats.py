"""A stretch of a parquet, jsonl or text file in; its documents as an Arrow table of strings out."""

import json
import posixpath
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import BufferedReader
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from etl.files import InputFile, open_file
from nextlong.errors import UserError

_BUFFER_BYTES = 1024 * 1024
_TABLE_CHARS = 4 * 1024 * 1024  # Python strings alive at a time: they take up to four bytes a character
_CHECKED_ROWS = 1024  # texts that are decoded in Python when one of them is no UTF-8
_BOM = b"\xef\xbb\xbf"
_SURROGATES = re.compile("[\ud800-\udfff]")
_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")
_JSON = json.JSONDecoder(strict=False)  # keeps control characters inside strings, such as tabs and NUL
_REWRITE = "A file that is one JSON list, or objects over several lines, is rewritten by: jq -c '.[]?' or jq -c ."


class Columns(NamedTuple):
    """Names of the columns to read."""

    text: str
    id: str | None
    source: str | None
    keep: tuple[str, ...]

    @property
    def roles(self) -> list[tuple[str, str]]:
        """(setting, column) of every column wanted."""
        single = [("text", self.text), ("id", self.id), ("source", self.source)]
        return [(role, name) for role, name in single if name is not None] + [("keep", name) for name in self.keep]

    @property
    def schema(self) -> pa.Schema:
        """The columns of what is read, strings all."""
        own = [("source_id", pa.string()), ("text", pa.large_string()), ("source", pa.string())]
        return pa.schema(own + [(name, pa.string()) for name in self.keep])


class Span(NamedTuple):
    """Part of a file, or all of it."""

    file: InputFile
    start: int
    """parquet: first row group; jsonl: first byte, a line belonging to the span in which its own first byte lies."""
    stop: int | None
    """The row group or byte after the last; None: to the end, as for compressed and text files."""


class RowGroup(NamedTuple):
    """Size of a parquet row group."""

    num_rows: int
    text_bytes: int


type _Row = tuple[list[str | None], bool]  # values in schema order; whether a character was replaced
