"""Token ids made elsewhere in (a column of parquet, MDS samples), documents with their mask and boundaries out."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from etl.inputs.files import InputFile, open_file
from etl.inputs.parquet import check_claims
from etl.inputs.spans import telling_damage
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
    """The row groups [first, last) of each part of a parquet file. Raises UserError for one that is damaged."""
    with _opened(file) as parquet:
        groups = [parquet.metadata.row_group(group) for group in range(parquet.num_row_groups)]
        sizes = [(group.num_rows, group.total_byte_size) for group in groups]
    check_claims(file, sizes)
    first = filled = 0
    for group, (_, num_bytes) in enumerate(sizes):
        filled += num_bytes
        if filled >= _GROUP_BYTES or group + 1 == len(sizes):
            yield first, group + 1
            first, filled = group + 1, 0


def rows_before(file: InputFile, group: int) -> int:
    """Rows in the row groups before one of a parquet file."""
    with _opened(file) as parquet:
        return sum(parquet.metadata.row_group(each).num_rows for each in range(group))


def read_columns(file: InputFile, first: int, last: int, names: Names, vocab_size: int) -> Iterator[Rows]:
    """The documents of the row groups first ... last - 1 of a parquet file, a row group at a time.

    Raises UserError, with file and row, for other columns, ids beyond the vocabulary, a mask of another length or other
    numbers, and boundaries that are no pairs.
    """
    with _opened(file) as parquet:
        there = parquet.schema_arrow.names
        wanted = [name for name in dict.fromkeys([names.ids, "mask", "indices", names.id, names.source]) if name]
        for name in wanted:
            if there.count(name) != 1 and (name in (names.ids, names.id, names.source) or name in there):
                raise UserError(
                    f"{file.name} has no column {name}, or has it twice; it has {', '.join(there)}. Name another one."
                )
        columns = [name for name in wanted if name in there]
        row = sum(parquet.metadata.row_group(group).num_rows for group in range(first))
        for group in range(first, last):
            table = parquet.read_row_group(group, columns=columns)
            yield _from_table(table, _Where(file.name, row), names, vocab_size)
            row += table.num_rows


def read_mds(folder: Path, number: int, names: Names, vocab_size: int) -> Rows:
    """The samples of an MDS shard; ids that stand in a plain file as uint32 stay there. Errors as for columns.

    The column `tokens` of LLM-Foundry is taken where there is no `input_ids`.
    """
    opened = MdsFolder(folder)
    shard, columns = opened.shard(number), opened.columns
    column = "tokens" if names.ids == "input_ids" and names.ids not in columns else names.ids
    where = _Where(str(shard.path), 0)
    if missing := [name for name in (column, names.id, names.source) if name and name not in columns]:
        name = names.ids if missing[0] == column else missing[0]
        raise UserError(f"{where.file} has no column {name}; it has {', '.join(columns)}. Name another one.")
    if columns[column].partition(":")[0] not in ("ndarray", "bytes"):
        raise UserError(f"{where.file}: column {column} is {columns[column]}, but must be lists of whole numbers.")
    arrays: list[NDArray[Any]] = []
    if (in_place := shard.lists(column)) is not None:
        lengths = in_place[1]
    else:
        arrays = [_list(each, where, row, column) for row, each in enumerate(_values(shard, column, columns[column]))]
        lengths = np.array([len(each) for each in arrays], np.int64)
    source = names.source or next((name for name in ("domain", "source") if name in columns), None)
    sources = [str(each) for each in shard.values(source)] if source else [folder.name] * len(shard)
    source_ids = [str(each) for each in shard.values(names.id)] if names.id else [None] * len(shard)
    table = pa.table([pa.array(np.arange(len(shard))), source_ids, sources], schema=DOCUMENTS)
    mask = pieces = None
    if "mask" in columns:
        masks = [_list(each, where, row, "mask") for row, each in enumerate(shard.values("mask"))]
        counts = np.array([len(each) for each in masks], np.int64)
        mask = _mask(np.concatenate([np.empty(0, np.uint8), *masks]), counts, lengths, where, np.arange(len(masks)))
    if "indices" in columns:
        pieces = [_pairs(each, where.row(row)) for row, each in enumerate(shard.values("indices"))]
    found = Rows(np.empty(0, np.uint32), lengths, table, len(shard), mask=mask, pieces=pieces)
    if in_place is not None:
        return found._replace(file=str(shard.path), begins=in_place[0])
    for row, each in enumerate(arrays):  # those in place are looked at when they are read
        _check_ids(each, lengths[row : row + 1], where, np.array([row]), vocab_size)
    return found._replace(ids=np.concatenate([found.ids, *[each.astype(np.uint32, copy=False) for each in arrays]]))


@contextmanager
def _opened(file: InputFile) -> Iterator[Any]:
    with (
        open_file(file) as stream,
        telling_damage(file, lambda: "or no parquet file"),
        pq.ParquetFile(file.path if file.is_local else stream) as parquet,
    ):
        yield parquet


class _Where(NamedTuple):
    file: str
    first_row: int

    def row(self, number: int) -> str:
        return f"{self.file}, row {self.first_row + number} (from 0)"


def _values(shard: MdsShard, column: str, encoding: str) -> Iterator[Any]:
    """Bytes are int64, as LLM-Foundry writes them."""
    return shard.values(column, encoding="ndarray:int64:-1" if encoding == "bytes" else encoding)


def _list(value: Any, where: "_Where", row: int, column: str) -> NDArray[Any]:
    """A list of whole numbers; True and False are 1 and 0."""
    if not isinstance(value, np.ndarray) or value.ndim != 1 or value.dtype.kind not in "iub":
        raise UserError(f"{where.row(row)}: column {column} is no list of whole numbers.")
    return value


def _pairs(value: Any, where: str) -> NDArray[np.int64]:
    """int64 [n, 2]: boundaries as a row holds them."""
    try:
        pairs = np.asarray(value)
        if not pairs.size:
            return np.empty((0, 2), np.int64)
        if pairs.ndim == 2 and pairs.shape[1] == 2 and pairs.dtype.kind in "iu":
            return pairs.astype(np.int64)  # what is beyond becomes negative, and is refused for that
    except (ValueError, OverflowError):  # lists of several lengths, numbers beyond all types
        pass
    raise UserError(
        f"{where}: its boundaries (indices) are no pairs of whole numbers, the start and end of each piece."
    )


def _from_table(table: pa.Table, where: _Where, names: Names, vocab_size: int) -> Rows:
    is_null = pc.is_null(table[names.ids]).to_numpy()
    num_read, table = table.num_rows, table.filter(~is_null)
    positions = np.flatnonzero(~is_null)
    ids, lengths = _flat(table, names.ids, where)
    _check_ids(ids, lengths, where, positions, vocab_size)
    mask = pieces = None
    if "mask" in table.column_names:
        mask = _mask(*_flat(table, "mask", where), lengths, where, positions)
    if "indices" in table.column_names:
        rows = zip(positions.tolist(), lengths.tolist(), table["indices"].to_pylist(), strict=True)
        pieces = [_pairs([[0, length]] if each is None else each, where.row(row)) for row, length, each in rows]
    columns = [
        pa.array(positions),
        _strings(table, names.id, where),
        pc.fill_null(_strings(table, names.source, where), where.file),
    ]
    return Rows(
        ids.astype(np.uint32, copy=False),
        lengths,
        pa.table(columns, schema=DOCUMENTS),
        num_read,
        num_null=int(is_null.sum()),
        mask=mask,
        pieces=pieces,
    )


def _strings(table: pa.Table, name: str | None, where: _Where) -> Any:
    if name is None:
        return pa.nulls(table.num_rows, pa.string())
    try:
        return table[name].cast(pa.string()).combine_chunks()
    except pa.ArrowException as error:
        kind = table.schema.field(name).type
        raise UserError(
            f"{where.file}: column {name} is {kind}, but must hold strings or numbers ({error})."
        ) from error


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


def _mask(
    mask: NDArray[Any],
    found: NDArray[np.int64],
    wanted: NDArray[np.int64],
    where: _Where,
    rows: NDArray[np.int64],
) -> NDArray[np.uint8]:
    """uint8: the mask of rows end to end. found, wanted: how many entries, and how many token ids, each row has."""
    if (other := np.flatnonzero(found != wanted)).size:
        row = int(other[0])
        raise UserError(f"{where.row(int(rows[row]))}: the mask has {found[row]} entries for {wanted[row]} token ids.")
    is_known = (mask == 0) | (mask == 1)
    if not is_known.all():
        place = int(np.argmin(is_known))
        row = int(rows[np.searchsorted(np.cumsum(wanted), place, "right")])
        raise UserError(
            f"{where.row(row)}: the mask holds {int(mask[place])}, but must be 1 where a token is a target of the "
            f"loss, and else 0."
        )
    return mask.astype(np.uint8, copy=False)
