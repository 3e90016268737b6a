"""MDS that we export, read and compared by mosaicml-streaming."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.readers.conftest import Export
from tests.readers.equal import TYPES, assert_same, assert_same_files
from tests.readers.programs import FailedError, read, run
from tests.readers.scripts.rows_file import save

HASHES = ("sha1", "sha256")
SHARD_BYTES = 640
UNCOMPRESSED: dict[str, dict[str, Any]] = {
    "plain": {},
    "masked": {"of": "masked"},
    "long": {"of": "long"},
    "shards": {"shard_bytes": SHARD_BYTES, "hashes": HASHES},
}
COMPRESSED: dict[str, dict[str, Any]] = {
    "zstd": {"compression": "zstd", "of": "long"},
    "zstd-shards": {"compression": "zstd:7", "shard_bytes": SHARD_BYTES, "hashes": HASHES, "of": "masked"},
}
ALL = UNCOMPRESSED | COMPRESSED


@pytest.mark.parametrize("name", ALL)
def test_a_streaming_dataset_gives_the_rows_and_their_types(exported: Export, name: str, tmp_path: Path) -> None:
    made = exported("mds", **ALL[name])
    shutil.copytree(made.folder, tmp_path / "local")  # what is compressed is unpacked beside
    rows, types = read("streaming", "read_mds", tmp_path / "local")
    assert_same(rows, made.rows)
    assert types == {column: TYPES[column] for column in made.rows[0]}


@pytest.mark.parametrize("name", UNCOMPRESSED)
def test_a_local_dataset_gives_the_rows_and_their_types(exported: Export, name: str) -> None:
    made = exported("mds", **ALL[name])
    rows, types = read("streaming", "read_mds", made.folder, by="local")
    assert_same(rows, made.rows)
    assert types == {column: TYPES[column] for column in made.rows[0]}


@pytest.mark.parametrize("hash_", HASHES)
@pytest.mark.parametrize("name", ["shards", "zstd-shards"])
def test_a_copy_of_a_remote_folder_has_the_hashes(exported: Export, name: str, hash_: str, tmp_path: Path) -> None:
    made = exported("mds", **ALL[name])
    assert len(list(made.folder.glob("shard.*"))) > 1
    rows, _ = read("streaming", "read_mds", made.folder, copy_to=tmp_path / "local", validate_hash=hash_)
    assert_same(rows, made.rows)


@pytest.mark.parametrize("name", ["shards", "zstd-shards"])
def test_a_changed_remote_shard_is_refused(exported: Export, name: str, tmp_path: Path) -> None:
    shutil.copytree(exported("mds", **ALL[name]).folder, tmp_path / "remote")
    [shard] = (tmp_path / "remote").glob("shard.00001.*")
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    with pytest.raises(FailedError, match="Checksum failure"):
        read("streaming", "read_mds", tmp_path / "remote", copy_to=tmp_path / "local", validate_hash="sha1")


@pytest.mark.parametrize("name", [*UNCOMPRESSED, "llm-foundry"])
def test_mds_is_byte_for_byte_what_the_reference_writer_makes(exported: Export, name: str, tmp_path: Path) -> None:
    made = exported("mds", **(settings := {"columns": "llm-foundry"} if name == "llm-foundry" else ALL[name]))
    assert_same_files(made.folder, _by_the_reference(made.rows, settings, tmp_path))


@pytest.mark.parametrize("name", COMPRESSED)
def test_compressed_mds_has_the_index_of_the_reference_writer(exported: Export, name: str, tmp_path: Path) -> None:
    """Less the files' sizes and hashes: versions of zstd make other bytes."""
    made = exported("mds", **ALL[name])
    folders = made.folder, _by_the_reference(made.rows, ALL[name], tmp_path)
    ours, theirs = (json.loads((folder / "index.json").read_text()) for folder in folders)
    for shard in [*ours["shards"], *theirs["shards"]]:
        packed = shard["zip_data"]
        shard["zip_data"] = packed["basename"], sorted(packed), sorted(packed["hashes"])
    assert ours == theirs


def test_tokens_for_llm_foundry_are_int64_in_bytes(exported: Export) -> None:
    made = exported("mds", columns="llm-foundry")
    rows, types = read("streaming", "read_mds", made.folder, by="local")
    assert types == {"tokens": ["bytes"]}
    assert_same(
        [{"input_ids": row["tokens"].view("<i8")} for row in rows],
        [{"input_ids": row["input_ids"]} for row in made.rows],
    )


def _by_the_reference(rows: list[dict[str, Any]], settings: dict[str, Any], folder: Path) -> Path:
    save(folder / "rows.npz", rows)
    options = {name: value for name, value in settings.items() if name != "of"}
    run("streaming", "readers.scripts.write_mds", folder / "rows.npz", folder / "reference", **options)
    return folder / "reference"
