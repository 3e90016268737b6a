"""Every format: what is written is read back; the same sequences are the same bytes; blocks are streamed."""

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nextlong.errors import UserError
from nextlong.sequences import Sequences, Shapes
from nextlong.shards import FORMATS, Format, open_shards
from nextlong.shards.arrow import Arrow
from nextlong.shards.mds import Mds
from nextlong.shards.megatron import Megatron
from nextlong.shards.parquet import Parquet
from tests.nextlong.shards.made import (
    assert_damage_is_told,
    assert_read_back,
    assert_streamed,
    blocks_of,
    files_of,
    golden_rows,
    made,
    written,
)

PLAIN: dict[str, Format] = {
    "mds": Mds(),
    "parquet": Parquet(),
    "arrow": Arrow(),
    "megatron": Megatron(vocab_size=97),
}
ALL: dict[str, Format] = PLAIN | {
    "mds of small shards": Mds(shard_bytes=700),
    "mds compressed": Mds(compression="zstd", shard_bytes=1500),
    "parquet of small shards and groups": Parquet(shard_tokens=50, group_tokens=33),
    "parquet of small groups": Parquet(group_tokens=33),
    "arrow of small shards": Arrow(shard_tokens=50),
    "arrow of small batches": Arrow(batch_tokens=33),
    "megatron of int32": Megatron(vocab_size=65_500),
    "megatron of small shards": Megatron(vocab_size=97, shard_tokens=50),
}


def _format(name: str) -> str:
    return name.partition(" ")[0]


def test_every_format_is_tried() -> None:
    assert sorted(PLAIN) == sorted(FORMATS)


@pytest.mark.parametrize("has_mask", [False, True])
@pytest.mark.parametrize("length", [4, 16, 300])
@pytest.mark.parametrize("name", ALL)
def test_what_is_written_is_read_back_from_any_row_to_any_other(
    name: str, length: int, has_mask: bool, tmp_path: Path
) -> None:
    sequences = made(11, length, has_mask=has_mask)
    names = written(ALL[name], tmp_path, sequences)
    if "shards" in name and length >= 16:
        assert len(names) > 3
    assert_read_back(_format(name), tmp_path, names, sequences, has_domains=_format(name) != "megatron")


@pytest.mark.parametrize("name", ALL)
@given(number=st.integers(1, 9), half=st.integers(2, 40), seed=st.integers(0, 99), has_mask=st.booleans())
@settings(max_examples=15, deadline=None)
def test_any_sequences_are_read_back(
    name: str, number: int, half: int, seed: int, has_mask: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    sequences, folder = made(number, 2 * half, seed=seed, has_mask=has_mask), tmp_path_factory.mktemp("shards")
    names = written(ALL[name], folder, sequences, rows_each=1 + seed % 4)
    assert_read_back(_format(name), folder, names, sequences, has_domains=_format(name) != "megatron")


@pytest.mark.parametrize("has_mask", [False, True])
@pytest.mark.parametrize("name", ALL)
def test_the_same_sequences_are_the_same_bytes_whatever_their_blocks(name: str, has_mask: bool, tmp_path: Path) -> None:
    sequences = made(11, has_mask=has_mask)
    found = []
    for number, rows_each in enumerate([1, 2, 3, 11, 11]):
        written(ALL[name], tmp_path / str(number), sequences, rows_each=rows_each)
        found.append(files_of(tmp_path / str(number)))
    assert all(each == found[0] for each in found)
    changed = dataclasses.replace(sequences, input_ids=(sequences.input_ids + 1) % 97)
    written(ALL[name], tmp_path / "changed", changed)
    assert files_of(tmp_path / "changed") != found[0]


@pytest.mark.parametrize(
    "name", ["mds", "parquet of small groups", "arrow of small batches", "megatron", "megatron of int32"]
)
def test_blocks_are_written_as_they_come_and_let_go(name: str, tmp_path: Path) -> None:
    assert_streamed(ALL[name], tmp_path)


@pytest.mark.parametrize("name", ALL)
def test_a_checksum_that_comes_with_the_writing_is_that_of_the_file(name: str, tmp_path: Path) -> None:
    sequences = made(5, has_mask=True)
    shapes = Shapes.of(sequences)
    for number, with_sha256 in enumerate((True, False)):
        folder = tmp_path / str(with_sha256)
        folder.mkdir()
        shard = ALL[name].write(folder, number, 2, shapes, blocks_of(sequences, 2), with_sha256=with_sha256)
        told = shard.get("sha256", {})
        assert set(told) <= set(shard["files"])
        for each, digest in told.items():
            assert digest == hashlib.sha256((folder / each).read_bytes()).hexdigest()
        if _format(name) in ("mds", "arrow") and with_sha256:
            assert list(told) == shard["files"]


@pytest.mark.parametrize("name", ALL)
def test_shards_follow_one_another_and_hold_every_sequence(name: str) -> None:
    for number in (0, 1, 2, 11, 1000):
        spans = ALL[name].shards(Shapes(16, np.ones(number, np.int64), np.zeros(number, np.int64)))
        assert [row for start, stop in spans for row in range(start, stop)] == list(range(number))
        assert all(start < stop for start, stop in spans)


@pytest.mark.parametrize("name", ["mds", "parquet", "arrow", "megatron"])
def test_sequences_longer_than_a_shard_are_one_each(name: str) -> None:
    small: dict[str, Format] = {
        "mds": Mds(shard_bytes=1),
        "parquet": Parquet(shard_tokens=1),
        "arrow": Arrow(shard_tokens=1),
        "megatron": Megatron(vocab_size=97, shard_tokens=1),
    }
    shapes = Shapes(16, np.ones(3, np.int64), np.zeros(3, np.int64))
    assert small[name].shards(shapes) == [(0, 1), (1, 2), (2, 3)]


@pytest.mark.parametrize(
    ("name", "length"), [("mds", 1 << 30), ("parquet", 1 << 31), ("arrow", 1 << 31), ("megatron", 1 << 31)]
)
def test_a_sequence_that_the_format_cannot_hold_is_refused_by_its_shape(name: str, length: int) -> None:
    with pytest.raises(
        UserError, match=r"(2,147,483,648 tokens do not fit|would make a shard of 4,294,967,\d\d\d bytes)"
    ):
        PLAIN[name].shards(Shapes(length, np.ones(1, np.int64), np.zeros(1, np.int64)))
    PLAIN[name].shards(Shapes(length - 1000, np.ones(1, np.int64), np.zeros(1, np.int64)))


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("change", ["fewer", "more", "no mask", "label"])
def test_other_sequences_than_were_counted_on_are_refused(name: str, change: str, tmp_path: Path) -> None:
    """The sizes of a shard are decided by shapes that were read before: another input would be silently mislaid."""
    sequences = made(6, has_mask=True)
    others = {
        "fewer": sequences.rows(0, 5),
        "more": made(7, has_mask=True),
        "no mask": dataclasses.replace(sequences, mask=None),
        "label": dataclasses.replace(sequences, domains=["a longer label", *sequences.domains[1:]]),
    }
    with pytest.raises(UserError, match="Was the input changed meanwhile"):
        ALL[name].write(tmp_path, 0, 1, Shapes.of(sequences), blocks_of(others[change], 2))


@pytest.mark.parametrize("name", ["mds", "mds compressed", "parquet", "arrow", "megatron"])
def test_a_damaged_shard_ends_in_a_sentence(name: str, tmp_path: Path) -> None:
    names = written(ALL[name], tmp_path, golden_rows(has_mask=True))
    for damaged in [*names, *(["index.json"] if _format(name) == "mds" else [])]:
        if damaged != "sequences_label.idx":  # which only trainers read
            assert_damage_is_told(_format(name), tmp_path, names, damaged, step=7)


@pytest.mark.parametrize("name", PLAIN)
def test_a_shard_that_is_gone_is_told(name: str, tmp_path: Path) -> None:
    names = written(PLAIN[name], tmp_path, made(3))
    (tmp_path / names[0]).unlink()
    with pytest.raises(UserError, match=f"{tmp_path}"):
        open_shards(tmp_path, name, names).read(0, 3)


@pytest.mark.parametrize("name", ["parquet", "arrow", "megatron"])
def test_a_folder_of_no_shard_has_no_sequence(name: str, tmp_path: Path) -> None:
    reader = open_shards(tmp_path, name, [])
    assert len(reader) == 0
    with pytest.raises(UserError, match=f"{tmp_path} has 0 sequences, so none are 0 to 0"):
        reader.read(0, 1)


def test_an_unknown_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is of the format 'tar', but this version reads mds, parquet, arrow, megatron"):
        open_shards(tmp_path, "tar", [])


@pytest.mark.parametrize("name", ["mds", "parquet", "arrow"])
def test_ids_up_to_the_last_of_uint32_are_kept(name: str, tmp_path: Path) -> None:
    ids = np.array([[0, 1, (1 << 31) - 1, 1 << 31, (1 << 32) - 2, (1 << 32) - 1]], np.uint32)
    sequences = Sequences(ids, np.array([[0, 6]]), np.array([0, 1]), ["a"])
    names = written(PLAIN[name], tmp_path, sequences)
    assert_read_back(name, tmp_path, names, sequences)
