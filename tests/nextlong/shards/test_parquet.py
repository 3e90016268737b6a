"""Parquet: names, columns and row groups as `datasets` reads them."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nextlong.errors import UserError
from nextlong.shards.parquet import Parquet, ParquetFolder
from nextlong.shards.table import MASK, SCHEMA
from tests.nextlong.shards.made import assert_equal, made, written


@pytest.mark.parametrize("has_mask", [False, True])
def test_columns_and_names_are_those_documented(has_mask: bool, tmp_path: Path) -> None:
    sequences = made(7, has_mask=has_mask)
    names = written(Parquet(shard_tokens=48), tmp_path, sequences)
    assert names == [f"data/train-0000{number}-of-00003.parquet" for number in range(3)]
    row = 0
    for name in names:
        table = pq.read_table(tmp_path / name)
        assert table.schema.equals(SCHEMA.append(MASK) if has_mask else SCHEMA)
        for each in table.to_pylist():
            assert each["input_ids"] == sequences.input_ids[row].tolist()
            assert each["indices"] == sequences.pieces(row).tolist()
            assert (each["length"], each["domain"]) == (16, sequences.domains[row])
            assert not has_mask or each["mask"] == sequences.mask[row].tolist()
            row += 1
    assert row == 7


@pytest.mark.parametrize("rows_each", [1, 3, 4, 20])
def test_row_groups_are_of_the_size_asked_for_whatever_the_blocks(rows_each: int, tmp_path: Path) -> None:
    [name] = written(Parquet(group_tokens=4 * 16 + 1), tmp_path, made(11), rows_each=rows_each)
    footer = pq.read_metadata(tmp_path / name)
    assert [footer.row_group(group).num_rows for group in range(footer.num_row_groups)] == [4, 4, 3]


def test_a_row_group_below_one_sequence_is_one_sequence(tmp_path: Path) -> None:
    [name] = written(Parquet(group_tokens=1), tmp_path, made(3))
    assert pq.read_metadata(tmp_path / name).num_row_groups == 3


def test_values_are_compressed_by_zstd_without_dictionaries(tmp_path: Path) -> None:
    [name] = written(Parquet(), tmp_path, made(3, has_mask=True))
    group = pq.read_metadata(tmp_path / name).row_group(0)
    for number in range(group.num_columns):
        column = group.column(number)
        assert column.compression == "ZSTD"
        assert not {"PLAIN_DICTIONARY", "RLE_DICTIONARY"} & set(column.encodings)


def test_only_the_row_groups_asked_for_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sequences = made(12)
    folder = ParquetFolder(tmp_path, written(Parquet(shard_tokens=64, group_tokens=32), tmp_path, sequences))
    read = []

    class Watched(pq.ParquetFile):  # type: ignore[misc]
        def __init__(self, path: Path) -> None:
            self.name = path.name
            super().__init__(path)

        def read_row_group(self, group: int) -> pa.Table:
            read.append((self.name, group))
            return super().read_row_group(group)

    monkeypatch.setattr(pq, "ParquetFile", Watched)
    assert_equal(folder.read(3, 6), sequences.rows(3, 6))
    assert read == [("train-00000-of-00003.parquet", 1), ("train-00001-of-00003.parquet", 0)]


def test_rows_of_files_of_several_lengths_are_told(tmp_path: Path) -> None:
    names = []
    for length in (16, 32):
        [name] = written(Parquet(), tmp_path / str(length), made(2, length))
        names.append(f"{length}/{name}")
    folder = ParquetFolder(tmp_path, names)
    assert len(folder) == 4
    assert folder.read(2, 4).length_tokens == 32
    with pytest.raises(UserError, match="sequences of 16 and of 32 tokens stand in one folder"):
        folder.read(0, 4)


def test_a_file_without_rows_is_passed_over(tmp_path: Path) -> None:
    sequences = made(3)
    [name] = written(Parquet(), tmp_path, sequences)
    pq.write_table(SCHEMA.empty_table(), tmp_path / "empty.parquet")
    folder = ParquetFolder(tmp_path, ["empty.parquet", name, "empty.parquet"])
    assert_equal(folder.read(0, 3), sequences)


def test_a_footer_of_fewer_rows_than_none_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which one other bit makes of it."""
    footer = SimpleNamespace(num_row_groups=1, row_group=lambda _: SimpleNamespace(num_rows=-1))
    monkeypatch.setattr(pq, "read_metadata", lambda _: footer)
    with pytest.raises(UserError, match=r"x.parquet cannot be read as parquet: a row group has fewer rows than none"):
        ParquetFolder(tmp_path, ["x.parquet"])


@pytest.mark.parametrize("number", [0, -1, 1 << 31])
def test_other_sizes_are_refused(number: int) -> None:
    with pytest.raises(UserError, match=rf"a shard of {number:,} tokens cannot be written: parquet lists take"):
        Parquet(shard_tokens=number)
    with pytest.raises(UserError, match=rf"a row group of {number:,} tokens cannot be written"):
        Parquet(group_tokens=number)


def test_indices_are_uint32_and_length_int32(tmp_path: Path) -> None:
    [name] = written(Parquet(), tmp_path, made(1))
    table = pq.read_table(tmp_path / name)
    assert table["indices"].type.value_type.value_type == pa.uint32()
    assert table["indices"].type.value_type.list_size == 2
    assert np.issubdtype(table["length"].to_numpy().dtype, np.int32)
