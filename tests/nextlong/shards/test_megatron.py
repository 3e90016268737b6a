"""Megatron: the reference builder's bytes; boundaries and labels lie beside, row for row."""

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nextlong.errors import UserError
from nextlong.sequences import Sequences, Shapes
from nextlong.shards.megatron import Megatron
from nextlong.shards.megatron_folder import MegatronFolder
from tests.nextlong.shards.made import assert_equal, assert_read_back, files_of, golden_rows, made, written

GOLDEN = Path(__file__).parents[2] / "golden" / "megatron"
VOCABULARIES = {"uint16": 65_499, "int32": 65_500}


@pytest.mark.parametrize("rows_each", [1, 2, 5])
@pytest.mark.parametrize("dtype", VOCABULARIES)
def test_every_byte_is_the_reference_builders(dtype: str, rows_each: int, tmp_path: Path) -> None:
    """Its golden rows are those with padding, which a mask does not change."""
    for has_mask in (False, True):
        folder = tmp_path / str(has_mask)
        written(Megatron(vocab_size=VOCABULARIES[dtype]), folder, golden_rows(has_mask=has_mask), rows_each=rows_each)
        expected = files_of(GOLDEN / dtype)
        assert set(expected) == {"sequences.bin", "sequences.idx"}
        found = files_of(folder)
        assert {name: found[name] for name in expected} == expected


def test_all_golden_folders_are_compared() -> None:
    assert {path.name for path in GOLDEN.iterdir()} == set(VOCABULARIES)


@pytest.mark.parametrize("dtype", VOCABULARIES)
def test_labels_are_the_ids_with_minus_100_where_the_mask_is_0(dtype: str, tmp_path: Path) -> None:
    sequences = made(7, has_mask=True)
    names = written(Megatron(vocab_size=VOCABULARIES[dtype]), tmp_path, sequences)
    assert sorted(names) == sorted(files_of(tmp_path))
    labels = np.fromfile(tmp_path / "sequences_label.bin", "<i4").reshape(7, 16)
    assert sequences.mask is not None
    assert {0, 1} == set(sequences.mask.ravel().tolist())
    np.testing.assert_array_equal(labels, np.where(sequences.mask, sequences.input_ids.astype(int), -100))
    index = (tmp_path / "sequences_label.idx").read_bytes()
    assert struct.unpack_from("<QBQQ", index, 9) == (1, 4, 7, 8)
    assert (tmp_path / "sequences.idx").stat().st_size == len(index)


@pytest.mark.parametrize("rows_each", [1, 3, 20])
def test_boundaries_are_an_array_of_row_start_and_end_that_numpy_opens(rows_each: int, tmp_path: Path) -> None:
    sequences = made(11)
    written(Megatron(vocab_size=97), tmp_path, sequences, rows_each=rows_each)
    found = np.load(tmp_path / "sequences.boundaries.npy", allow_pickle=False)
    assert found.dtype == np.int64
    assert found.tolist() == [[row, *pair] for row in range(11) for pair in sequences.pieces(row).tolist()]
    np.save(tmp_path / "again.npy", found)
    assert (tmp_path / "again.npy").read_bytes() == (tmp_path / "sequences.boundaries.npy").read_bytes()


def test_the_index_is_the_last_file_named_for_without_it_nothing_opens(tmp_path: Path) -> None:
    for has_mask in (False, True):
        assert written(Megatron(vocab_size=97), tmp_path, made(2, has_mask=has_mask))[-1] == "sequences.idx"
    (tmp_path / "sequences.idx").unlink()
    with pytest.raises(UserError, match=r"sequences cannot be read as a Megatron dataset .*FileNotFoundError"):
        MegatronFolder(tmp_path, ["sequences.idx"])


def test_several_shards_are_several_prefixes_read_in_the_order_named(tmp_path: Path) -> None:
    sequences = made(7)
    names = written(Megatron(vocab_size=97, shard_tokens=32), tmp_path, sequences)
    prefixes = [name.removesuffix(".idx") for name in names if name.endswith(".idx")]
    assert prefixes == [f"sequences_0000{number}" for number in range(4)]
    assert_read_back("megatron", tmp_path, names, sequences, has_domains=False)
    for path in tmp_path.glob("sequences_00003*"):  # as the shard 100,000 is named, which sorts before 99,999
        path.rename(path.with_name(path.name.replace("00003", "000001")))
    names = [name.replace("00003", "000001") for name in names]
    assert names != sorted(names)
    assert_read_back("megatron", tmp_path, names, sequences, has_domains=False)


@pytest.mark.parametrize(
    ("vocab_size", "dtype"), [(97, "<u2"), (65_499, "<u2"), (65_500, "<i4"), (65_536, "<i4"), (1 << 31, "<i4")]
)
def test_ids_up_to_the_last_of_the_vocabulary_are_kept_and_no_more(vocab_size: int, dtype: str, tmp_path: Path) -> None:
    def of(last: int) -> Sequences:
        ids = np.array([[0, 1, last, last]], np.uint32)
        return Sequences(ids, np.array([[0, 4]]), np.array([0, 1]), [""])

    names = written(Megatron(vocab_size=vocab_size), tmp_path, of(vocab_size - 1))
    assert np.fromfile(tmp_path / "sequences.bin", dtype).tolist() == [0, 1, vocab_size - 1, vocab_size - 1]
    assert_equal(MegatronFolder(tmp_path, names).read(0, 1), of(vocab_size - 1))
    with pytest.raises(UserError, match=f"row 0: token 2 has the id {vocab_size}, but the vocabulary has {vocab_size}"):
        written(Megatron(vocab_size=vocab_size), tmp_path / "beyond", of(vocab_size))


def test_sizes_and_offsets_of_many_long_rows_are_counted_in_64_bits(tmp_path: Path) -> None:
    """Of 3 rows of 2^30 tokens of int32, the last begins at 8 GiB; the .idx alone is made here."""
    from nextlong.shards.megatron import _index

    index = _index(3, 1 << 30, np.dtype("<i4"))
    assert np.frombuffer(index, "<i4", 3, 34).tolist() == [1 << 30] * 3
    assert np.frombuffer(index, "<i8", 3, 46).tolist() == [0, 1 << 32, 1 << 33]
    assert np.frombuffer(index, "<i8", 4, 70).tolist() == [0, 1, 2, 3]
    assert len(index) == 102


def test_everything_is_one_shard_unless_a_size_is_asked_for() -> None:
    shapes = Shapes(131_072, np.ones(100_000, np.int64), np.zeros(100_000, np.int64))
    assert Megatron(vocab_size=97).shards(shapes) == [(0, 100_000)]
    assert Megatron(vocab_size=97, shard_tokens=1 << 30).shards(shapes)[1] == (8192, 16384)


def _rows_of_two_lengths(folder: Path) -> None:
    index = bytearray((folder / "sequences.idx").read_bytes())
    index[34:38] = struct.pack("<i", 15)
    (folder / "sequences.idx").write_bytes(index)


def _other_type(folder: Path) -> None:
    index = bytearray((folder / "sequences.idx").read_bytes())
    index[17] = 6
    (folder / "sequences.idx").write_bytes(index)


def _broken_head(folder: Path) -> None:
    boundaries = bytearray((folder / "sequences.boundaries.npy").read_bytes())
    boundaries[10] = 0x84
    (folder / "sequences.boundaries.npy").write_bytes(boundaries)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (_broken_head, "Error: "),
        (
            lambda folder: (folder / "sequences.idx").write_bytes(b"TNTIDX\0\0" + bytes(100)),
            "its .idx begins otherwise",
        ),
        (lambda folder: (folder / "sequences.idx").write_bytes(b"MMIDIDX\0\0"), "error: "),
        (_rows_of_two_lengths, "its .idx states 2 lengths of a row"),
        (_other_type, "KeyError: 6"),
        (lambda folder: (folder / "sequences.bin").write_bytes(bytes(64)), r"has 32 numbers, but .* states 3 times 16"),
        (lambda folder: (folder / "sequences.bin").write_bytes(bytes(95)), "ValueError"),
        (lambda folder: (folder / "sequences.bin").write_bytes(b""), "ValueError: cannot mmap an empty file"),
        (lambda folder: (folder / "sequences_label.bin").write_bytes(bytes(64)), "sequences_label.bin has 16 numbers"),
        (lambda folder: (folder / "sequences.boundaries.npy").write_bytes(b""), "EOFError"),
        (lambda folder: (folder / "sequences.boundaries.npy").unlink(), "FileNotFoundError"),
        (lambda folder: np.save(folder / "sequences.boundaries.npy", np.zeros((3, 2), np.int64)), "no rows of three"),
        (lambda folder: np.save(folder / "sequences.boundaries.npy", np.zeros(3, np.int64)), "no rows of three"),
        (lambda folder: np.save(folder / "sequences.boundaries.npy", np.zeros((3, 3))), "no rows of three numbers"),
        (
            lambda folder: np.save(folder / "sequences.boundaries.npy", np.array([{}]), allow_pickle=True),
            "ValueError: Array can't be memory-mapped: Python objects in dtype",
        ),
    ],
)
def test_files_that_do_not_belong_together_are_told(
    change: Callable[[Path], object], told: str, tmp_path: Path
) -> None:
    names = written(Megatron(vocab_size=97), tmp_path, made(3, has_mask=True))
    assert len(MegatronFolder(tmp_path, names)) == 3
    change(tmp_path)
    with pytest.raises(UserError, match=rf"sequences cannot be read as a Megatron dataset of equal rows \(.*{told}"):
        MegatronFolder(tmp_path, names)


def test_a_row_without_boundaries_is_told_when_it_is_checked(tmp_path: Path) -> None:
    names = written(Megatron(vocab_size=97), tmp_path, made(3))
    boundaries = np.load(tmp_path / "sequences.boundaries.npy")
    np.save(tmp_path / "sequences.boundaries.npy", boundaries[boundaries[:, 0] != 1])
    found = MegatronFolder(tmp_path, names).read(0, 3)
    with pytest.raises(UserError, match="row 1: there are no boundaries"):
        found.check("here")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"vocab_size": (1 << 31) + 1}, "a vocabulary of 2,147,483,649 does not fit the int32"),
        ({"vocab_size": 97, "shard_tokens": 0}, "a shard of 0 tokens cannot be written"),
    ],
)
def test_other_settings_are_refused(settings: dict[str, int], told: str) -> None:
    with pytest.raises(UserError, match=told):
        Megatron(**settings)
