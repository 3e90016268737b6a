"""Tables: sequences and back, of a slice or of several chunks; other columns are told."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from nextlong.errors import UserError
from nextlong.shards.table import from_table, pieces_of, read_sequences, to_table
from tests.nextlong.shards.made import assert_equal, made

LISTS = pa.list_(pa.uint32())


@pytest.mark.parametrize("has_mask", [False, True])
def test_a_table_is_its_sequences_whole_sliced_and_in_chunks(has_mask: bool) -> None:
    sequences = made(9, has_mask=has_mask)
    table = to_table(sequences)
    assert_equal(from_table(table, "here"), sequences)
    for start, stop in [(0, 4), (2, 5), (8, 9)]:
        assert_equal(from_table(table.slice(start, stop - start), "here"), sequences.rows(start, stop))
    chunks = pa.concat_tables([table.slice(0, 4), table.slice(4)])
    assert chunks["input_ids"].num_chunks == 2
    assert_equal(from_table(chunks, "here"), sequences)
    assert len(from_table(table.slice(0, 0), "here")) == 0


def test_token_ids_are_not_copied() -> None:
    sequences = made(9)
    assert np.shares_memory(from_table(to_table(sequences), "here").input_ids, sequences.input_ids)


def test_boundaries_of_a_slice_are_its_own() -> None:
    sequences = made(9)
    column = to_table(sequences)["indices"]
    for start, stop in [(0, 9), (2, 5), (8, 9)]:
        indices, offsets = pieces_of(column.slice(start, stop - start))
        part = sequences.rows(start, stop)
        np.testing.assert_array_equal(indices, part.indices)
        np.testing.assert_array_equal(offsets, part.offsets)
    several = pa.chunked_array([column.chunk(0).slice(0, 4), column.chunk(0).slice(4)])
    np.testing.assert_array_equal(pieces_of(several)[0], sequences.indices)
    empty = pieces_of(column.slice(0, 0))
    assert (empty[0].shape, empty[1].tolist()) == ((0, 2), [0])


def _with(table: pa.Table, name: str, values: list[Any], type_: Any = None) -> pa.Table:
    place = table.column_names.index(name)
    return table.set_column(place, name, pa.array(values, type_ or table[name].type))


@pytest.mark.parametrize(
    ("column", "told"),
    [
        ("input_ids", r"here: column input_ids is list<.*> or has nulls, but it must be lists of uint32"),
        ("indices", r"here: column indices is list<.*> or has nulls, but it must be lists of two numbers"),
        ("domain", r"here: column domain is .* or has nulls, but it must be text"),
        ("mask", r"here: column mask is list<.*> or has nulls, but it must be lists of uint8"),
    ],
)
def test_a_column_of_another_type_or_with_nulls_is_told(column: str, told: str) -> None:
    table = to_table(made(3, has_mask=True))
    values = table[column].to_pylist()
    from_table(_with(table, column, values), "here")
    for other in (
        _with(table, column, [None, *values[1:]]),
        _with(table, column, [[[1.5, 2.5]]] * 3, pa.list_(pa.list_(pa.float32()))),
    ):
        with pytest.raises(UserError, match=told):
            from_table(other, "here")


@pytest.mark.parametrize("column", ["input_ids", "indices", "domain"])
def test_a_column_that_is_gone_is_told_with_those_that_are_there(column: str) -> None:
    with pytest.raises(UserError, match=rf"^here has no column {column}; it has .*length"):
        from_table(to_table(made(3)).drop_columns([column]), "here")


@pytest.mark.parametrize("column", ["input_ids", "mask"])
def test_rows_of_several_lengths_and_nulls_in_a_row_are_told(column: str) -> None:
    table = to_table(made(3, has_mask=True))
    values = table[column].to_pylist()
    told = f"here, row 1: {column} has 15 entries, but that of the first row has 16. .* 'nextlong convert'"
    with pytest.raises(UserError, match=told):
        from_table(_with(table, column, [values[0], values[1][1:], values[2]]), "here")
    with pytest.raises(UserError, match=f"here: column {column} has nulls in its lists"):
        from_table(_with(table, column, [values[0], [None, *values[1][1:]], values[2]]), "here")


@pytest.mark.parametrize("pieces", [[[0, 2, 16]], [[0]], [[0, 2], [2]], [[0, None]], [None, [0, 16]]])
def test_boundaries_that_are_no_pairs_are_told(pieces: list[Any]) -> None:
    table = _with(to_table(made(2)), "indices", [[[0, 16]], pieces], pa.list_(LISTS))
    with pytest.raises(UserError, match=r"here: column indices is list<.*> or has nulls"):
        from_table(table, "here")


def test_boundaries_as_lists_of_lists_are_read() -> None:
    sequences = made(3)
    table = to_table(sequences)
    values = table["indices"].to_pylist()
    assert_equal(from_table(_with(table, "indices", values, pa.list_(LISTS)), "here"), sequences)


def _raise(error: Exception) -> Callable[[], pa.Table]:
    def read() -> pa.Table:
        raise error

    return read


@pytest.mark.parametrize(
    "error", [OSError("Corrupt"), pa.ArrowInvalid("Bad"), ValueError("codec"), pa.ArrowKeyError("x")]
)
def test_a_file_that_cannot_be_read_is_damaged(error: Exception) -> None:
    with pytest.raises(UserError, match=r"^file.parquet is damaged: ") as raised:
        read_sequences(_raise(error), Path("file.parquet"))
    assert raised.value.__cause__ is error


def test_a_users_error_is_told_as_it_is() -> None:
    with pytest.raises(UserError, match=r"^as it is$"):
        read_sequences(_raise(UserError("as it is")), Path("file.parquet"))
