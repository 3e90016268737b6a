"""What is read of the input: columns of a stretch of a file; and how a file is opened and its damage told."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BufferedReader, RawIOBase
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from etl.inputs.files import InputFile, open_file
from etl.schemas import DOCUMENTS
from nextlong.errors import UserError

BUFFER_BYTES = 64 * 1024
"""Bytes of content read at a time."""
SURROGATES = re.compile("[\ud800-\udfff]")
"""Halves of characters, which alone are none, and which no file can be written with."""
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
"""What is read instead."""


class Columns(NamedTuple):
    """Names of the columns to read."""

    text: str
    id: str | None
    source: str | None
    keep: tuple[str, ...]
    structured: bool = False
    """Whether the text is not a string but a list of objects, which is carried as its JSON text."""

    @property
    def roles(self) -> list[tuple[str, str]]:
        """(setting, column) of every column wanted."""
        single = [("text", self.text), ("id", self.id), ("source", self.source)]
        return [(role, name) for role, name in single if name is not None] + [("keep", name) for name in self.keep]

    @property
    def schema(self) -> pa.Schema:
        """source_id, text, source and the kept columns, strings all."""
        own = [field for field in DOCUMENTS if field.name != "doc_id"]
        return pa.schema(own + [pa.field(name, pa.string()) for name in self.keep])


class Span(NamedTuple):
    """Part of a file, or all of it."""

    file: InputFile
    start: int
    """parquet: first row group; jsonl: first byte, a line belonging to the span in which its own first byte lies."""
    stop: int | None
    """The row group or byte after the last; None: to the end, as for compressed and text files."""


class Bounds(NamedTuple):
    """What is not read, however large a file claims or proves to be; None: no bound."""

    document_chars: int | None
    """Longest text; one that is longer is dropped, and not loaded whole where its size can be told before."""
    decompressed_bytes: int | None
    """Largest content of a compressed file; one that is larger is refused."""


class ReadSplit(NamedTuple):
    """Rows of a split."""

    table: pa.Table
    """source_id (null without an id column), text, source and the kept columns; every row, in input order."""
    num_replaced: int
    """Rows in which lone surrogates or bytes that are no UTF-8 became U+FFFD."""
    is_too_long: NDArray[np.bool_]
    """[rows] whose text is null because it is longer than the bound."""


@contextmanager
def open_decompressed(file: InputFile, bounds: Bounds) -> Iterator[BufferedReader]:
    """The file's content. Arrow decompresses, since it notices a zstd file that is cut short and needs no package.

    Raises UserError when a compressed file holds more than the bound; what was decompressed is never held.
    """
    if file.compression and not file.bytes:
        raise UserError(f"{file.name} is empty, not even a {file.compression} header. Fetch it again.")
    with (
        open_file(file) as raw,
        pa.input_stream(raw, compression=file.compression) as stream,
        BufferedReader(_Bounded(stream, file, bounds) if file.compression else stream, BUFFER_BYTES) as buffered,
    ):
        yield buffered


class _Bounded(RawIOBase):
    """A stream of decompressed bytes that ends in UserError at the bound."""

    def __init__(self, stream: Any, file: InputFile, bounds: Bounds) -> None:
        self._stream, self._file, self._bound = stream, file, bounds.decompressed_bytes
        self._num_bytes = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(len(buffer))
        self._num_bytes += len(data)
        if self._bound is not None and self._num_bytes > self._bound:
            raise UserError(
                f"{self._file.name}, {self._file.bytes:,} bytes, holds more than {self._bound:,} bytes when it is "
                "decompressed, the largest that input.max_decompressed_bytes accepts. Leave the file out, split it, "
                "or raise input.max_decompressed_bytes."
            )
        buffer[: len(data)] = data
        return len(data)


@contextmanager
def telling_damage(file: InputFile, where: Callable[[], str]) -> Iterator[None]:
    """Turn a decoder's error into UserError; `where` is called then. Errors of disk and network pass."""
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        is_of_file = not isinstance(error, OSError) or (type(error) is OSError and error.errno is None)
        if not is_of_file or not (file.compression or file.format == "parquet"):
            raise
        if "too much memory" in str(error):
            raise UserError(
                f"{file.name} was compressed with a zstd window above 128 MiB, which cannot be read. Decompress it: "
                "zstd -d --long=31 FILE"
            ) from error
        reason = " ".join(str(error).split())
        raise UserError(f"{file.name} is damaged or cut short, {where()} ({reason}). Fetch it again.") from error


def decode_utf8(data: bytes | bytearray) -> tuple[str, bool]:
    """Text, and whether bytes that are no UTF-8 became U+FFFD."""
    try:
        return data.decode(), False
    except UnicodeDecodeError:
        return data.decode(errors="replace"), True


def without_id(name: str) -> str:
    """What to say of a document that has no id."""
    return f"{name!r} (input.id) is missing or null. Give every document an id, or leave input.id out to number them."
