"""Parquet and arrow that we export, read by Hugging Face's datasets."""

import pytest

from tests.readers.conftest import Export
from tests.readers.equal import TYPES, assert_same
from tests.readers.programs import read

STORED = TYPES | {"indices": ["ndarray:uint32"]}
BY = {"load_dataset": "parquet", "streaming": "parquet", "load_from_disk": "arrow", "from_file": "arrow"}


@pytest.mark.parametrize("of", ["plain", "masked", "long"])
@pytest.mark.parametrize("by", BY)
def test_datasets_gives_the_rows_and_their_types(exported: Export, by: str, of: str) -> None:
    made = exported(BY[by], of=of)
    rows, types = read("datasets", "read_huggingface", made.folder, by=by, format="arrow")
    assert_same(rows, made.rows)
    assert types == {column: STORED[column] for column in made.rows[0]}


@pytest.mark.parametrize("format_", ["python", "numpy"])
@pytest.mark.parametrize("by", BY)
def test_lists_and_arrays_are_the_rows(exported: Export, by: str, format_: str) -> None:
    """Of int64, for NumPy: what is stored as uint32 becomes so unless a type is asked for."""
    made = exported(BY[by], of="masked")
    rows, types = read("datasets", "read_huggingface", made.folder, by=by, format=format_)
    assert_same(rows, made.rows)
    assert types["input_ids"] == [{"python": "list", "numpy": "ndarray:int64"}[format_]]


@pytest.mark.parametrize("by", ["load_dataset", "load_from_disk"])
def test_uint32_stays_when_asked_for(exported: Export, by: str) -> None:
    made = exported(BY[by])
    rows, types = read("datasets", "read_huggingface", made.folder, by=by, format="numpy-uint32")
    assert_same(rows, made.rows)
    assert types["input_ids"] == ["ndarray:uint32"]
