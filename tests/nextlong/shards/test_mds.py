"""MDS: the reference writer's bytes, whatever the blocks; sizes, hashes and frames as the index states them."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from nextlong.errors import UserError
from nextlong.sequences import Sequences, Shapes, concatenate
from nextlong.shards.hashed_file import HASHES, HashedFile
from nextlong.shards.mds import MOST_BYTES, Mds
from nextlong.shards.mds_folder import MdsFolder
from tests.golden import rows as golden
from tests.nextlong.shards import foreign
from tests.nextlong.shards.made import assert_equal, assert_read_back, files_of, golden_rows, made, of_rows, written

GOLDEN = Path(__file__).parents[2] / "golden" / "mds"
MANY_PIECES = of_rows(golden.without_mask(golden.many_pieces()))
# As tests/golden/make_mds.py has the reference writer make them.
MADE: dict[str, tuple[Mds, Sequences]] = {
    "plain": (Mds(), golden_rows()),
    "hashes": (Mds(hashes=("sha1", "sha256")), golden_rows()),
    "shards": (Mds(hashes=("sha256", "sha1"), shard_bytes=553), golden_rows()),
    "mask": (Mds(shard_bytes=640), golden_rows(has_mask=True)),
    "many-pieces": (Mds(), MANY_PIECES),
    "llm-foundry": (Mds(columns="llm-foundry"), golden_rows()),
}


def _index(folder: Path) -> list[dict[str, Any]]:
    shards: list[dict[str, Any]] = json.loads((folder / "index.json").read_text())["shards"]
    assert shards
    return shards


@pytest.mark.parametrize("rows_each", [1, 2, 5])
@pytest.mark.parametrize("name", MADE)
def test_every_byte_is_the_reference_writers(name: str, rows_each: int, tmp_path: Path) -> None:
    written(*MADE[name][:1], tmp_path, MADE[name][1], rows_each=rows_each)
    assert files_of(tmp_path) == files_of(GOLDEN / name)


def test_all_golden_folders_are_compared() -> None:
    assert {path.name for path in GOLDEN.iterdir()} == set(MADE)


@pytest.mark.parametrize("name", MADE)
def test_what_the_reference_writer_made_is_read(name: str) -> None:
    expected = MADE[name][1]
    if name == "llm-foundry":  # which holds tokens alone
        ones = np.array([[0, expected.length_tokens]] * len(expected))
        expected = Sequences(expected.input_ids, ones, np.arange(len(expected) + 1), [""] * len(expected))
    assert_read_back("mds", GOLDEN / name, [], expected)


@pytest.mark.parametrize("compression", [None, "zstd:1"])
@pytest.mark.parametrize("number", [1, 255, 256, 65_535, 65_536, 70_001])
def test_any_number_of_pieces_is_counted_in_the_least_bytes(
    number: int, compression: str | None, tmp_path: Path
) -> None:
    ends = [*range(2, 2 * number, 2), 2 * 70_001]
    indices = np.stack([[0, *ends[:-1]], ends], axis=1).astype(np.int64)
    ids = np.arange(2 * 70_001, dtype=np.uint32)[None]
    sequences = Sequences(ids, indices, np.array([0, number]), ["表"])
    assert len(indices) == number
    [name] = written(Mds(compression=compression), tmp_path, sequences)
    assert_equal(MdsFolder(tmp_path).read(0, 1), sequences)
    if compression is None:
        arrays = foreign.array(indices), foreign.array(ids[0])
        sizes = np.array([3, len(arrays[0]), len(arrays[1])], "<u4").tobytes()
        sample = sizes + "表".encode() + arrays[0] + arrays[1] + np.array(ids.size, "<i8").tobytes()
        assert (tmp_path / name).read_bytes().endswith(sample)
        assert _index(tmp_path)[0]["raw_data"]["bytes"] - len(sample) < 700


@given(
    st.lists(st.tuples(st.integers(1, 300), st.integers(0, 400)), min_size=1, max_size=40),
    st.integers(1, 20_000),
    st.booleans(),
)
def test_a_shard_ends_before_the_sample_that_would_make_it_too_large(
    rows: list[tuple[int, int]], shard_bytes: int, has_mask: bool
) -> None:
    format_ = Mds(shard_bytes=shard_bytes)
    shapes = Shapes(600, np.array([row[0] for row in rows]), np.array([row[1] for row in rows]), has_mask)
    spans = format_.shards(shapes)
    assert [row for start, stop in spans for row in range(start, stop)] == list(range(len(rows)))

    def size(start: int, stop: int) -> int:
        return 8 + len(format_._config(has_mask)) + int((format_._sizes(shapes)[start:stop] + 4).sum())

    for start, stop in spans:
        assert size(start, stop) <= shard_bytes or stop == start + 1
        assert stop == len(rows) or size(start, stop + 1) > shard_bytes


@pytest.mark.parametrize("has_mask", [False, True])
@pytest.mark.parametrize("length", [4, 254, 256, 70_000])
@pytest.mark.parametrize("columns", ["sequences", "llm-foundry"])
def test_the_sizes_counted_on_are_those_written(columns: Any, length: int, has_mask: bool, tmp_path: Path) -> None:
    sequences, format_ = made(7, length, has_mask=has_mask), Mds(columns=columns, shard_bytes=1 << 20)
    written(format_, tmp_path, sequences)
    shapes, row = Shapes.of(sequences), 0
    for entry in _index(tmp_path):
        sizes = format_._sizes(shapes)[row : row + entry["samples"]] + 4
        found = (tmp_path / entry["raw_data"]["basename"]).stat().st_size
        assert found == entry["raw_data"]["bytes"] == 8 + len(format_._config(has_mask)) + sizes.sum()
        row += entry["samples"]
    assert row == 7


@pytest.mark.parametrize("level", ["", ":1", ":7", ":22"])
def test_a_compressed_shard_is_one_frame_that_states_its_size(level: str, tmp_path: Path) -> None:
    sequences = made(9, 64, has_mask=True)
    names = written(Mds(compression=f"zstd{level}", shard_bytes=2000, hashes=("sha1",)), tmp_path, sequences)
    assert len(names) > 2
    assert sorted([*names, "index.json"]) == sorted(files_of(tmp_path))
    for name, entry in zip(names, _index(tmp_path), strict=True):
        packed = (tmp_path / name).read_bytes()
        assert name == entry["zip_data"]["basename"] == f"{entry['raw_data']['basename']}.zstd"
        assert zstandard.frame_content_size(packed) == entry["raw_data"]["bytes"]
        raw = zstandard.decompress(packed)
        assert len(raw) == entry["raw_data"]["bytes"] < 2000
        assert entry["compression"] == f"zstd{level}"
        assert entry["raw_data"]["hashes"] == {"sha1": hashlib.sha1(raw).hexdigest()}
        assert entry["zip_data"]["hashes"] == {"sha1": hashlib.sha1(packed).hexdigest()}
        assert entry["zip_data"]["bytes"] == len(packed)


def test_a_compressed_shard_holds_the_samples_of_a_plain_one(tmp_path: Path) -> None:
    sequences = made(9, 64)
    [plain] = written(Mds(), tmp_path / "plain", sequences)
    [packed] = written(Mds(compression="zstd"), tmp_path / "packed", sequences)
    raw, expected = zstandard.decompress((tmp_path / "packed" / packed).read_bytes()), tmp_path / "plain" / plain
    start = int(np.frombuffer(raw, "<u4", 2)[1])
    assert raw[start:] == expected.read_bytes()[start - 2 :]  # "zstd" is two longer than null
    assert (tmp_path / "packed" / packed).stat().st_size < expected.stat().st_size


@pytest.mark.parametrize("name", HASHES)
def test_every_hash_offered_is_that_of_the_file(name: str, tmp_path: Path) -> None:
    written(Mds(hashes=(name, "sha1", name)), tmp_path, made(3))
    [entry] = _index(tmp_path)
    content = (tmp_path / "shard.00000.mds").read_bytes()
    assert entry["hashes"] == sorted({name, "sha1"}) == sorted(entry["raw_data"]["hashes"])
    assert entry["raw_data"]["hashes"][name] == hashlib.new(name, content).hexdigest()


@pytest.mark.parametrize("most", [1, 7, 100])
def test_a_system_that_takes_a_few_bytes_a_call_gets_all(
    most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def few(number: int, buffers: list[Any]) -> int:
        calls.append(len(buffers))
        return os.write(number, b"".join(map(bytes, buffers))[:most])

    monkeypatch.setattr("nextlong.shards.hashed_file.os.writev", few)
    written(*MADE["hashes"][:1], tmp_path, MADE["hashes"][1])
    assert files_of(tmp_path) == files_of(GOLDEN / "hashes")
    assert len(calls) > 10


def test_more_buffers_than_one_call_takes_are_written(tmp_path: Path) -> None:
    buffers = [b"", *(bytes([number % 251]) * (number % 3) for number in range(3000)), b""]
    with HashedFile(tmp_path / "file", ["sha1"]) as file:
        file.write(iter(buffers))
        file.write([])
        file.write([b"end"])
    content = b"".join(buffers) + b"end"
    assert (tmp_path / "file").read_bytes() == content
    sha1 = hashlib.sha1(content).hexdigest()
    assert file.facts(["sha1"]) == {"basename": "file", "bytes": len(content), "hashes": {"sha1": sha1}}


@pytest.mark.parametrize("domain", ["", "märkte", "表" * 100, "a\n\0b", "\U0001f600"])
def test_any_label_is_read_back(domain: str, tmp_path: Path) -> None:
    one = made(1)
    sequences = concatenate([one, Sequences(one.input_ids, one.indices, one.offsets, [domain]), one])
    written(Mds(), tmp_path, sequences)
    assert_equal(MdsFolder(tmp_path).read(0, 3), sequences)


def test_sizes_up_to_the_last_byte_of_u32_are_shards_and_none_beyond() -> None:
    """A sequence of 2^29 tokens takes 2 GiB: one and no more, and none of 2^30."""
    format_ = Mds(shard_bytes=MOST_BYTES)
    fixed = 8 + len(format_._config(False)) + 4
    length = (1 << 30) - 1000
    shapes = Shapes(length, np.array([1]), np.array([0]))
    free = MOST_BYTES - fixed - int(format_._sizes(shapes)[0])
    assert 0 < free < 10_000
    assert format_.shards(Shapes(length, np.array([1]), np.array([free]))) == [(0, 1)]
    with pytest.raises(UserError, match=r"sequence 0 alone would make a shard of 4,294,967,296 bytes, but MDS takes"):
        format_.shards(Shapes(length, np.array([1]), np.array([free + 1])))
    with pytest.raises(UserError, match="sequence 2 alone would make"):
        format_.shards(Shapes(1 << 20, np.array([1, 1, 1 << 28]), np.zeros(3, np.int64)))
    assert format_.shards(Shapes(1 << 29, np.ones(3, np.int64), np.zeros(3, np.int64))) == [(0, 1), (1, 2), (2, 3)]


def test_no_shard_of_many_sequences_passes_u32() -> None:
    format_ = Mds(shard_bytes=MOST_BYTES)
    number = 200_000
    spans = format_.shards(Shapes(131_072, np.full(number, 9), np.full(number, 5), True))
    sample = int(format_._sizes(Shapes(131_072, np.array([9]), np.array([5]), True))[0]) + 4
    assert {stop - start for start, stop in spans[:-1]} == {(MOST_BYTES - 8 - len(format_._config(True))) // sample}
    assert [start for start, _ in spans[1:]] == [stop for _, stop in spans[:-1]]
    assert (spans[0][0], spans[-1][1]) == (0, number)


def test_a_shard_beyond_u32_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    shapes = Shapes(1 << 20, np.ones(1100, np.int64), np.zeros(1100, np.int64))
    with pytest.raises(
        UserError, match=r"one shard would have 4,6\d\d,\d\d\d,\d\d\d bytes, but MDS takes 4,294,967,295"
    ):
        Mds().write(tmp_path, 0, 1, shapes, iter([]))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "compression", ["", "zstd:", "zstd:0", "zstd:23", "zstd:03", "zstd:-1", "zstd:3\n", "gz", "ZSTD"]
)
def test_other_compressions_are_refused(compression: str) -> None:
    with pytest.raises(UserError, match=r"compression is '.*', but it must be zstd, or zstd:1 to zstd:22"):
        Mds(compression=compression)


@pytest.mark.parametrize("hash_", ["sha0", "", "shake_128", "SHA1"])
def test_other_hashes_are_refused(hash_: str) -> None:
    with pytest.raises(UserError, match=f"there is no hash {hash_}; there are blake2b, .*sha512"):
        Mds(hashes=("sha1", hash_))


@pytest.mark.parametrize("number", [0, -1, 1 << 32])
def test_other_sizes_of_shards_are_refused(number: int) -> None:
    with pytest.raises(
        UserError, match=rf"a shard of {number:,} bytes cannot be written: MDS takes 1 to 4,294,967,295"
    ):
        Mds(shard_bytes=number)
