"""The recipe's section on the corpus in; its files, splits of even size, and each split as an Arrow table out."""

import dataclasses
import logging
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain, groupby
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa

from etl.inputs.files import ENDINGS, IO_THREADS, InputFile, check_address, find_files, identify
from etl.inputs.parquet import RowGroup, read_parquet, read_row_groups
from etl.inputs.plain import read_lines, read_plain
from etl.inputs.spans import Bounds, Columns, ReadSplit, Span
from etl.schemas import DOCUMENTS
from nextlong.config import require
from nextlong.errors import UserError

__all__ = [
    "ChatInput",
    "Input",
    "InputFile",
    "ReadSplit",
    "Split",
    "identify",
    "list_files",
    "plan_splits",
    "read_split",
    "read_tables",
]

logger = logging.getLogger(__name__)

_LEAST_PART_BYTES = 2**20
_GREATEST_PART_BYTES = 64 * 2**20
_PARTS = 16
_UNITS_A_PART = 16  # a jsonl part is filled to within a sixteenth


@dataclasses.dataclass(frozen=True, kw_only=True)
class Input:
    """Where the corpus is and which of its columns are read."""

    path: str | list[str]
    """A file, glob, folder or fsspec URL (s3://bucket/folder, hf://datasets/owner/name), or a list of them; without
    credentials, which are taken from the environment."""
    format: Literal["auto", "parquet", "jsonl", "text"] = "auto"
    """auto: by the file's ending; in a folder parquet if there is any, else jsonl, else text."""
    text: str = "text"
    """Column of the document's text; a text file is one document."""
    id: str | None = None
    """Column of the document's id, read as a string. None: the position in the input; of a text file, its name."""
    source: str | None = None
    """Column of the document's source. None, or null in a row: the file's name; of a text file, its folder's name."""
    keep: list[str] = dataclasses.field(default_factory=list)
    """Further columns of strings or numbers to carry along (licence, url); as strings, so that all parts are alike."""
    part_bytes: int | None = None
    """Bytes of text a part; None: a sixteenth of the input, at least 1 MiB and at most 64 MiB."""
    part_rows: int | None = None
    """Rows a part, instead of part_bytes; jsonl files are then read once more to find their lines."""
    max_document_chars: int | None = 100_000_000
    """Characters of the longest document; one that is longer is dropped and counted as too_long. None: any length."""
    max_decompressed_bytes: int | None = 64 * 2**30
    """Bytes of content of the largest gzip or zstd file; one that is larger ends the run. None: any size."""

    def __post_init__(self) -> None:
        require(bool(self.addresses) and all(self.addresses), "input.path", self.path, "one address or several")
        for address in self.addresses:
            check_address(address)
        require(self.format in ("auto", *ENDINGS), "input.format", self.format, f"one of auto, {', '.join(ENDINGS)}")
        for name in ("text", "id", "source"):
            require(getattr(self, name) != "", f"input.{name}", "", "the name of a column")
        is_unique = len(set(self.keep)) == len(self.keep)
        require(is_unique and all(self.keep), "input.keep", self.keep, "names of columns, each once")
        is_free = not set(self.keep) & set(DOCUMENTS.names)
        require(is_free, "input.keep", self.keep, f"free of our own columns: {', '.join(DOCUMENTS.names)}")
        for name in ("part_bytes", "part_rows", "max_document_chars", "max_decompressed_bytes"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"input.{name}", value, "at least 1, or null")
        if self.part_bytes is not None and self.part_rows is not None:
            raise UserError("input.part_bytes and input.part_rows are both set. Set one of them to null.")

    @property
    def addresses(self) -> list[str]:
        """`path` as a list."""
        return [self.path] if isinstance(self.path, str) else self.path

    @property
    def columns(self) -> Columns:
        """The columns to read."""
        return Columns(self.text, self.id, self.source, tuple(self.keep))

    @property
    def bounds(self) -> Bounds:
        """What is not read."""
        return Bounds(self.max_document_chars, self.max_decompressed_bytes)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChatInput(Input):
    """Where chats are, one a row, and which of their columns are read; their text is JSON: the list of messages."""

    text: str = "messages"
    """Column of a chat's messages: a list of objects, or a string that holds one as JSON."""

    @property
    def columns(self) -> Columns:
        """The columns to read."""
        return super().columns._replace(structured=True)


class Split(NamedTuple):
    """What one task reads: consecutive spans of the input. It is small, and travels to workers."""

    spans: tuple[Span, ...]
    part_bytes: int | None = None
    """Bytes of text, or `part_rows` rows, at which a part is closed: large row groups and compressed files are
    read by one task, which writes several parts."""
    part_rows: int | None = None


def list_files(settings: Input) -> list[InputFile]:
    """The files of the input, sorted by name; see `find_files`."""
    return find_files(settings.addresses, settings.format)


def plan_splits(settings: Input, files: Sequence[InputFile]) -> list[Split]:
    """The input cut into splits that follow from files and settings alone, from parquet footers and file sizes.

    A split reaches the part's size unless it is the last, and exceeds it by less than its last row group, line or
    whole file: a row group, a line, a text file and a compressed file are read by one task, and small files share one.
    Raises UserError for a damaged parquet file and for columns that are missing or of another type.
    """
    columns = settings.columns
    _check_kinds(columns, files)
    with ThreadPoolExecutor(IO_THREADS) as pool:
        groups = list(pool.map(partial(_row_groups, columns=columns), files))
    sizes = [_text_bytes(file, each) for file, each in zip(files, groups, strict=True)]
    part_bytes = settings.part_bytes or min(max(sum(sizes) // _PARTS, _LEAST_PART_BYTES), _GREATEST_PART_BYTES)
    if settings.part_rows is not None:
        count = partial(_units_by_rows, bounds=settings.bounds)
        splits = _fill(chain.from_iterable(map(count, files, groups)), settings.part_rows)
        return [split._replace(part_rows=settings.part_rows) for split in splits]
    cut = partial(_units_by_bytes, step=max(1, part_bytes // _UNITS_A_PART))
    splits = _fill(chain.from_iterable(map(cut, files, groups)), part_bytes)
    return [split._replace(part_bytes=part_bytes) for split in splits]


def check_columns(settings: Input, files: Sequence[InputFile]) -> None:
    """A first look: UserError for columns that files of a kind never have, or that the first parquet file lacks."""
    _check_kinds(settings.columns, files)
    for file in [file for file in files if file.format == "parquet"][:1]:
        read_row_groups(file, settings.columns)


def _check_kinds(columns: Columns, files: Sequence[InputFile]) -> None:
    text_file = next((file.name for file in files if file.format == "text"), None)
    if text_file and columns.structured:
        raise UserError(f"{text_file} is a text file, but chats are read from parquet and jsonl files. Leave it out.")
    if text_file and (columns.id or columns.source or columns.keep):
        raise UserError(
            "input.id, input.source and input.keep name columns, but text files have none. Leave them out, or set "
            "them to null."
        )


def estimate_text_bytes(settings: Input, files: Sequence[InputFile]) -> int:
    """About how many bytes of text the input holds; a compressed file is taken for three times its size."""
    columns = settings.columns
    sizes = [_text_bytes(file, _row_groups(file, columns)) * (3 if file.compression else 1) for file in files]
    return sum(sizes)


def read_split(split: Split, settings: Input) -> ReadSplit:
    """Read one split whole. Raises UserError, with the file and its line or row, for what cannot be read."""
    read = list(read_tables(split, settings))
    tables = [settings.columns.schema.empty_table(), *[each.table for each in read]]
    is_too_long = np.concatenate([np.zeros(0, bool), *[each.is_too_long for each in read]])
    return ReadSplit(pa.concat_tables(tables), sum(each.num_replaced for each in read), is_too_long)


def read_tables(split: Split, settings: Input) -> Iterator[ReadSplit]:
    """Read one split a few MiB at a time, whatever its size; errors as for `read_split`."""
    for is_parquet, spans in groupby(split.spans, key=lambda span: span.file.format == "parquet"):
        if is_parquet:
            yield from chain.from_iterable(read_parquet(span, settings.columns, settings.bounds) for span in spans)
        else:
            yield from read_plain(spans, settings.columns, settings.bounds)


_Unit = tuple[Span, int]  # what is not cut further, and its size in bytes or rows


def _row_groups(file: InputFile, columns: Columns) -> list[RowGroup]:
    return read_row_groups(file, columns) if file.format == "parquet" else []


def _text_bytes(file: InputFile, groups: Sequence[RowGroup]) -> int:
    return sum(group.text_bytes for group in groups) if file.format == "parquet" else file.bytes


def _units_by_rows(file: InputFile, groups: Sequence[RowGroup], bounds: Bounds) -> Iterator[_Unit]:
    whole = Span(file, 0, None)
    if file.format == "parquet":
        for number, group in enumerate(groups):
            yield Span(file, number, number + 1), group.num_rows
    elif file.format == "jsonl":
        lines = read_lines(whole, bounds)
        if file.compression:
            yield whole, sum(line.is_row for line in lines)
        else:
            yield from ((Span(file, line.start, line.stop), int(line.is_row)) for line in lines)
    else:
        yield whole, 1


def _units_by_bytes(file: InputFile, groups: Sequence[RowGroup], step: int) -> Iterator[_Unit]:
    """step: bytes of jsonl a unit; where they end inside a line, the line belongs to the unit in which it begins."""
    if file.format == "parquet":
        for number, group in enumerate(groups):
            yield Span(file, number, number + 1), group.text_bytes
    elif file.format == "jsonl" and not file.compression:
        for start in range(0, file.bytes, step):
            stop = min(start + step, file.bytes)
            yield Span(file, start, stop), stop - start
    else:
        yield Span(file, 0, None), file.bytes


def _fill(units: Iterable[_Unit], limit: int) -> Iterator[Split]:
    """Consecutive units until they reach the limit; those that touch become one span."""
    spans: list[Span] = []
    filled = 0
    for span, size in units:
        if spans and spans[-1].file == span.file:
            spans[-1] = spans[-1]._replace(stop=span.stop)
        else:
            spans.append(span)
        filled += size
        if filled >= limit:
            yield Split(tuple(spans))
            spans, filled = [], 0
    if spans:
        yield Split(tuple(spans))
