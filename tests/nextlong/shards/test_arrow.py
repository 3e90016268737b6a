"""Arrow: a folder as `datasets.load_from_disk` opens it; token ids are views of the files."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from nextlong.errors import UserError
from nextlong.shards.arrow import Arrow, ArrowFolder, features
from nextlong.shards.table import MASK, SCHEMA, to_table
from tests.nextlong.shards.made import assert_equal, made, written


def _state(folder: Path) -> dict[str, Any]:
    state: dict[str, Any] = json.loads((folder / "state.json").read_text())
    return state


@pytest.mark.parametrize("has_mask", [False, True])
def test_files_are_streams_that_the_state_names_in_order(has_mask: bool, tmp_path: Path) -> None:
    sequences = made(7, has_mask=has_mask)
    names = written(Arrow(shard_tokens=48), tmp_path, sequences)
    assert names == [f"data-0000{number}-of-00003.arrow" for number in range(3)]
    assert [each["filename"] for each in _state(tmp_path)["_data_files"]] == names
    tables = [pa.ipc.open_stream((tmp_path / name).read_bytes()).read_all() for name in names]
    assert [table.num_rows for table in tables] == [3, 3, 1]
    schema = SCHEMA.append(MASK) if has_mask else SCHEMA
    assert all(table.schema.equals(schema) for table in tables)
    rows = pa.concat_tables(tables).to_pylist()
    assert [row["input_ids"] for row in rows] == sequences.input_ids.tolist()
    assert [row["domain"] for row in rows] == sequences.domains
    info = json.loads((tmp_path / "dataset_info.json").read_text())
    assert list(info["features"]) == schema.names
    assert info["features"] == features(has_mask)


@pytest.mark.parametrize("rows_each", [1, 3, 20])
def test_batches_are_of_the_size_asked_for_whatever_the_blocks(rows_each: int, tmp_path: Path) -> None:
    [name] = written(Arrow(batch_tokens=4 * 16 + 1), tmp_path, made(11), rows_each=rows_each)
    with pa.ipc.open_stream((tmp_path / name).read_bytes()) as stream:
        assert [batch.num_rows for batch in stream] == [4, 4, 3]


def test_token_ids_and_mask_are_views_of_the_file(tmp_path: Path) -> None:
    sequences = made(5, 4096, has_mask=True)
    names = written(Arrow(), tmp_path, sequences)
    before = pa.total_allocated_bytes()
    found = ArrowFolder(tmp_path, names).read(1, 4)
    assert_equal(found, sequences.rows(1, 4))
    assert not found.input_ids.flags.writeable
    assert not found.input_ids.flags.owndata
    assert pa.total_allocated_bytes() - before < found.input_ids.nbytes / 4


def test_other_content_has_another_fingerprint(tmp_path: Path) -> None:
    """`datasets` keeps what its transforms made by the fingerprint, and would take one data set's for another's."""
    seen = []
    for number, sequences in enumerate([made(5), made(5), made(5, seed=1), made(5, has_mask=True), made(4)]):
        written(Arrow(shard_tokens=32), tmp_path / str(number), sequences)
        seen.append(_state(tmp_path / str(number))["_fingerprint"])
    assert seen[0] == seen[1]
    assert len(set(seen)) == 4
    assert all(len(each) == 16 and int(each, 16) for each in seen)


def test_a_stream_cut_between_batches_is_short_of_rows(tmp_path: Path) -> None:
    """It opens without complaint, so that the number of rows must be compared."""
    sequences = made(6, 4096)
    [name] = written(Arrow(batch_tokens=2 * 4096), tmp_path, sequences)
    content = (tmp_path / name).read_bytes()
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, SCHEMA) as stream:
        stream.write_table(to_table(sequences.rows(0, 2)))
    part = len(sink.getvalue()) - 8  # without the end of the stream
    assert content[:part] == sink.getvalue().to_pybytes()[:part]
    (tmp_path / name).write_bytes(content[:part])
    folder = ArrowFolder(tmp_path, [name])
    assert len(folder) == 2
    with pytest.raises(UserError, match="has 2 sequences, so none are 0 to 5"):
        folder.read(0, 6)
    (tmp_path / name).write_bytes(content[: part + 2000])
    with pytest.raises(UserError, match=rf"{name} cannot be read as an arrow stream"):
        ArrowFolder(tmp_path, [name])


def test_offsets_that_lead_out_of_a_batch_are_told_and_not_followed(tmp_path: Path) -> None:
    """Followed, they end the process."""
    sequences = made(3)
    [name] = written(Arrow(), tmp_path, sequences)
    content = (tmp_path / name).read_bytes()
    offsets = np.array([0, 16, 32, 48], "<i4").tobytes()
    assert content.count(offsets) == 1
    wrong = np.array([0, 16, 32, 1 << 30], "<i4").tobytes()
    (tmp_path / name).write_bytes(content.replace(offsets, wrong))
    with pytest.raises(UserError, match=rf"{name} is damaged: "):
        ArrowFolder(tmp_path, [name]).read(0, 3)


@pytest.mark.parametrize("number", [0, -1])
def test_other_sizes_are_refused(number: int) -> None:
    with pytest.raises(UserError, match=f"a shard of {number} tokens cannot be written"):
        Arrow(shard_tokens=number)
    with pytest.raises(UserError, match=f"a batch of {number} tokens cannot be written"):
        Arrow(batch_tokens=number)
