"""Token ids made elsewhere in (a column of parquet, MDS samples), documents with their mask and boundaries out."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from etl.inputs.files import InputFile
from nextlong.errors import UserError
from nextlong.shards.mds_folder import MdsFolder, MdsShard

DOCUMENTS = pa.schema([("position", pa.int64()), ("source_id", pa.string()), ("source", pa.string())])
"""position: place among the rows read."""
_GROUP_BYTES = 1 << 26


class Rows(NamedTuple):
    """Some documents with their token ids."""

    ids: NDArray[np.uint32]
    """uint32 [tokens]: of all documents, end to end; empty where they are read in place."""
    lengths: NDArray[np.int64]
    """int64 [documents]"""
    documents: pa.Table
    """Columns of DOCUMENTS; position counted from 0 here."""
    num_read: int
    num_null: int = 0
    """Rows read that hold nothing."""
    num_too_long: int = 0
    mask: NDArray[np.uint8] | None = None
    """uint8 [tokens]"""
    pieces: list[NDArray[np.int64]] | None = None
    """int64 [n, 2] of each document: its boundaries."""
    num_outside: int = 0
    """Token ids that no boundaries hold, which are left out."""
    num_masked: int = 0
    """Token ids of pieces without any target, such as padding, which are left out."""
    file: str = ""
    """Where the ids are read in place; empty: they are in `ids`."""
    begins: NDArray[np.int64] | None = None
    """int64 [documents]: where the ids of each begin in that file, in bytes."""


class Names(NamedTuple):
    """Columns to read; a mask and boundaries (indices) are taken along where there are any."""

    ids: str
    id: str | None
    source: str | None


def row_groups(file: InputFile) -> Iterator[tuple[int, int]]:
    """The row groups [first, last) of each part of a parquet file."""
    try:
        footer = pq.read_metadata(file.path)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{file.name} is no whole parquet file ({error}). Fetch it again.") from error
    first = filled = 0
    for group in range(footer.num_row_groups):
        filled += footer.row_group(group).total_byte_size
        if filled >= _GROUP_BYTES or group + 1 == footer.num_row_groups:
            yield first, group + 1
            first, filled = group + 1, 0


def read_columns(file: InputFile, first: int, last: int, names: Names, vocab_size: int) -> Iterator[Rows]:
    """The documents of the row groups first ... last - 1 of a parquet file, a row group at a time.

    Raises UserError, with file and row, for other columns, ids beyond the vocabulary and a mask of another length.
    """
    with pq.ParquetFile(file.path) as parquet:
        there = parquet.schema_arrow.names
        wanted = [names.ids, "mask", "indices", names.id, names.source]
        if missing := [name for name in (names.ids, names.id, names.source) if name and name not in there]:
            raise UserError(f"{file.name} has no column {missing[0]}; it has {', '.join(there)}.")
        columns = [name for name in dict.fromkeys(wanted) if name in there]
        row = sum(parquet.metadata.row_group(group).num_rows for group in range(first))
        for group in range(first, last):
            table = parquet.read_row_group(group, columns=columns)
            yield _from_table(table, _Where(file.name, row), names, vocab_size)
            row += table.num_rows


def read_mds(folder: Path, number: int, names: Names, vocab_size: int) -> Rows:
    """The samples of an MDS shard; ids that stand in a plain file as uint32 stay there. Errors as for columns.

    The column `tokens` of LLM-Foundry is taken where there is no other.
    """
    opened = MdsFolder(folder)
    shard, columns = opened.shard(number), opened.columns
    column = names.ids if names.ids in columns else "tokens"
    where = _Where(str(shard.path), 0)
    if column not in columns:
        raise UserError(f"{shard.path} has no column {names.ids}; it has {', '.join(columns)}.")
    arrays = [_ids(value, columns[column]) for value in shard.values(column)]
    lengths = np.array([len(each) for each in arrays], np.int64)
    source = next((name for name in (names.source, "domain", "source") if name in columns), None)
    sources = [str(each) for each in shard.values(source)] if source else [folder.name] * len(arrays)
    source_ids = [str(each) for each in shard.values(names.id)] if names.id else [None] * len(arrays)
    table = pa.table([pa.array(np.arange(len(arrays))), source_ids, sources], schema=DOCUMENTS)
    mask = None
    if "mask" in columns:
        masks = [np.asarray(each).astype(np.uint8) for each in shard.values("mask")]
        _check_mask(np.array([len(each) for each in masks]), lengths, where, np.arange(len(masks)))
        mask = np.concatenate([np.empty(0, np.uint8), *masks])
    pieces = None
    if "indices" in columns:
        pieces = [np.asarray(each).astype(np.int64).reshape(-1, 2) for each in shard.values("indices")]
    found = Rows(np.empty(0, np.uint32), lengths, table, len(arrays), mask=mask, pieces=pieces)
    if _in_place(shard, arrays):
        return found._replace(file=str(shard.path), begins=shard.places(column)[:, 1] - 4 * lengths)
    for row, each in enumerate(arrays):  # those in place are looked at when they are read
        _check_ids(each, lengths[row : row + 1], where, np.array([row]), vocab_size)
    return found._replace(ids=np.concatenate([found.ids, *[each.astype(np.uint32, copy=False) for each in arrays]]))


def split_at_boundaries(rows: Rows, file: str, first_row: int) -> Rows:
    """Every piece as a document of its own; token ids outside all boundaries are left out and counted.

    Raises UserError, with file and row, for boundaries that overlap, run backwards or leave their row.
    """
    if rows.pieces is None:
        return rows
    owner = np.repeat(np.arange(len(rows.pieces)), [len(each) for each in rows.pieces])
    flat = np.concatenate([np.empty((0, 2), np.int64), *rows.pieces])
    lengths = flat[:, 1] - flat[:, 0]
    bad = (flat[:, 0] < 0) | (flat[:, 1] > rows.lengths[owner]) | (lengths < 0)
    bad[1:] |= (flat[1:, 0] < flat[:-1, 1]) & (owner[1:] == owner[:-1])
    if bad.any():
        row = first_row + int(rows.documents["position"][int(owner[np.argmax(bad)])].as_py())
        raise UserError(
            f"{file}, row {row} (from 0): its boundaries (indices) overlap, run backwards or leave the row."
        )
    firsts = np.cumsum(rows.lengths) - rows.lengths
    is_whole = int(lengths.sum()) == int(rows.lengths.sum())
    spans = [slice(first, last) for first, last in (flat + firsts[owner, None]).tolist()]
    return rows._replace(
        ids=rows.ids if is_whole or rows.file else _parts(rows.ids, spans),
        mask=rows.mask if is_whole or rows.mask is None else _parts(rows.mask, spans),
        lengths=lengths,
        documents=rows.documents.take(owner),
        pieces=None,
        num_outside=int(rows.lengths.sum() - lengths.sum()),
        begins=None if rows.begins is None else rows.begins[owner] + 4 * flat[:, 0],
    )


def without_masked(rows: Rows) -> Rows:
    """Without the documents that hold no target, such as the padding of sequences; their tokens are counted."""
    if rows.mask is None or not len(rows.lengths):
        return rows
    firsts = np.cumsum(rows.lengths) - rows.lengths
    targets = np.concatenate([[0], np.cumsum(rows.mask, dtype=np.int64)])
    kept = targets[firsts + rows.lengths] > targets[firsts]
    if kept.all():
        return rows
    is_kept = np.repeat(kept, rows.lengths)
    return rows._replace(
        ids=rows.ids if rows.file else rows.ids[is_kept],
        mask=rows.mask[is_kept],
        lengths=rows.lengths[kept],
        documents=rows.documents.filter(kept),
        num_masked=int((~is_kept).sum()),
        begins=None if rows.begins is None else rows.begins[kept],
    )


class _Where(NamedTuple):
    file: str
    first_row: int

    def row(self, number: int) -> str:
        return f"{self.file}, row {self.first_row + number} (from 0)"


def _parts(array: NDArray[Any], spans: list[slice]) -> NDArray[Any]:
    return np.concatenate([array[:0], *[array[span] for span in spans]])


def _in_place(shard: MdsShard, arrays: list[NDArray[Any]]) -> bool:
    return shard.path.suffix == ".mds" and all(each.dtype == np.dtype("<u4") for each in arrays)


def _ids(value: Any, encoding: str) -> NDArray[Any]:
    """Token ids of a sample; bytes are int64, as LLM-Foundry writes them."""
    ids: NDArray[Any] = value.view("<i8") if encoding == "bytes" else np.asarray(value).reshape(-1)
    return ids


def _from_table(table: pa.Table, where: _Where, names: Names, vocab_size: int) -> Rows:
    is_null = pc.is_null(table[names.ids]).to_numpy()
    num_read, table = table.num_rows, table.filter(~is_null)
    positions = np.flatnonzero(~is_null)
    ids, lengths = _flat(table, names.ids, where)
    _check_ids(ids, lengths, where, positions, vocab_size)
    mask = pieces = None
    if "mask" in table.column_names:
        mask, mask_lengths = _flat(table, "mask", where)
        _check_mask(mask_lengths, lengths, where, positions)
    if "indices" in table.column_names:
        pieces = [np.array(each or [], np.int64).reshape(-1, 2) for each in table["indices"].to_pylist()]
    columns = [
        pa.array(positions),
        _strings(table, names.id),
        pc.fill_null(_strings(table, names.source), where.file),
    ]
    return Rows(
        ids.astype(np.uint32, copy=False),
        lengths,
        pa.table(columns, schema=DOCUMENTS),
        num_read,
        num_null=int(is_null.sum()),
        mask=None if mask is None else mask.astype(np.uint8, copy=False),
        pieces=pieces,
    )


def _strings(table: pa.Table, name: str | None) -> Any:
    return pa.nulls(table.num_rows, pa.string()) if name is None else table[name].cast(pa.string()).combine_chunks()


def _flat(table: pa.Table, name: str, where: _Where) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """All numbers of a column of lists, and how many each row has."""
    kind = table.schema.field(name).type
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    if not is_list or not pa.types.is_integer(kind.value_type):
        raise UserError(f"{where.file}: column {name} is of the type {kind}, but it must be lists of whole numbers.")
    flat = pc.list_flatten(table[name]).combine_chunks()
    lengths = pc.fill_null(pc.list_value_length(table[name]), 0).to_numpy().astype(np.int64)
    if flat.null_count:
        place = int(np.argmax(pc.is_null(flat).to_numpy(zero_copy_only=False)))
        row = int(np.searchsorted(np.cumsum(lengths), place, "right"))
        raise UserError(f"{where.row(row)}: the list in column {name} has a null in it.")
    return flat.to_numpy(zero_copy_only=False), lengths


def _check_ids(
    ids: NDArray[Any], lengths: NDArray[np.int64], where: _Where, rows: NDArray[np.int64], vocab_size: int
) -> None:
    if ids.size and (int(ids.max()) >= vocab_size or int(ids.min()) < 0):
        place = int(np.argmax((ids >= vocab_size) | (ids < 0)))
        row = int(rows[np.searchsorted(np.cumsum(lengths), place, "right")])
        raise UserError(
            f"{where.row(row)}: there is the token id {int(ids[place])}, but the vocabulary has {vocab_size:,}. Give "
            f"the tokenizer that the ids were made with."
        )


def _check_mask(found: NDArray[np.int64], wanted: NDArray[np.int64], where: _Where, rows: NDArray[np.int64]) -> None:
    if (other := np.flatnonzero(found != wanted)).size:
        row = int(other[0])
        raise UserError(f"{where.row(int(rows[row]))}: the mask has {found[row]} entries for {wanted[row]} token ids.")
