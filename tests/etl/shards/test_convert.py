"""Rows from elsewhere, one a sequence: truncated, discarded, both counted; their boundaries and masks kept."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from etl.engine import Engine
from etl.shards.verify import verify
from nextlong.errors import UserError
from tests.etl.shards.conftest import LENGTH, Pack
from tests.etl.test_cli import nextlong


def _table(path: Path, lengths: list[int], **columns: Any) -> list[list[int]]:
    rng = np.random.default_rng(0)
    ids = [rng.integers(0, 600, length).tolist() for length in lengths]
    pq.write_table(pa.table({"input_ids": pa.array(ids, pa.list_(pa.int32())), **columns}), path)
    return ids


def test_longer_rows_are_truncated_and_shorter_ones_discarded(pack: Pack, tmp_path: Path) -> None:
    ids = _table(tmp_path / "x.parquet", [LENGTH, LENGTH - 1, LENGTH + 7, 0, 3 * LENGTH])
    folder = pack(kind="tokens", path=tmp_path / "x.parquet", whole=True, fitting="truncate")
    assert folder.read(0, 3).input_ids.tolist() == [ids[row][:LENGTH] for row in (0, 2, 4)]
    account = folder.manifest["account"]
    assert account["documents"] == {"read": 5, "kept": 3, "dropped": {"shorter_than_sequence": 2}}
    dropped = {"shorter_than_sequence": LENGTH - 1, "truncated": 7 + 2 * LENGTH}
    assert account["tokens"] == {"read": 6 * LENGTH + 6, "kept": 3 * LENGTH, "dropped": dropped}


def test_boundaries_and_masks_stay_and_still_tile(pack: Pack, tmp_path: Path) -> None:
    indices = [
        [[0, 100], [100, LENGTH]],
        [[0, 100], [100, LENGTH - 1], [LENGTH - 1, LENGTH + 50]],  # the cut leaves one token alone
        [[10, 100], [150, LENGTH]],  # tokens that no boundaries hold
    ]
    lengths = [LENGTH, LENGTH + 50, LENGTH]
    mask = [[1] * length for length in lengths]
    ids = _table(tmp_path / "x.parquet", lengths, indices=pa.array(indices), mask=pa.array(mask))
    folder = pack(kind="tokens", path=tmp_path / "x.parquet", whole=True, fitting="truncate")
    rows = folder.read(0, 3)
    assert rows.mask is not None
    assert rows.input_ids.tolist() == [each[:LENGTH] for each in ids]
    assert rows.pieces(0).tolist() == indices[0]
    assert rows.pieces(1).tolist() == [[0, 100], [100, LENGTH]]
    assert rows.pieces(2).tolist() == [[0, 10], [10, 100], [100, 150], [150, LENGTH]]
    assert np.flatnonzero(rows.mask[1] == 0).tolist() == [LENGTH - 1]
    assert np.flatnonzero(rows.mask[2] == 0).tolist() == [*range(10), *range(100, 150)]
    assert verify(folder.path, Engine()).faults == []


def test_overlapping_boundaries_are_refused_with_file_and_row(pack: Pack, tmp_path: Path) -> None:
    indices = [[[0, LENGTH]], [[0, 100], [90, LENGTH]]]
    _table(tmp_path / "x.parquet", [LENGTH, LENGTH], indices=pa.array(indices))
    for whole, fitting in ((True, "truncate"), (False, "best-fit")):
        with pytest.raises(UserError, match=r"x\.parquet, row 1 .*boundaries .*overlap"):
            pack(kind="tokens", path=tmp_path / "x.parquet", whole=whole, fitting=fitting)


def test_texts_are_converted_by_the_command(corpus_file: Path, tokenizer_file: Path, tmp_path: Path) -> None:
    options = ["--tokenizer", tokenizer_file, "--length", 64, "--id", "id", "--source", "source", "--workers", 0]
    ran = nextlong("convert", corpus_file, *options, "--out", tmp_path / "out")
    assert "shorter_than_sequence" in ran.stdout
    assert "truncated" in ran.stdout
    assert re.search(r" of document doc-\d+ \(", nextlong("trace", tmp_path / "out", 0, 1).stdout)
