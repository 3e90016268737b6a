"""MDS folders of others: every encoding and split; what is damaged, or leads out of the folder, ends in a sentence."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard

from nextlong.errors import UserError
from nextlong.sequences import Sequences
from nextlong.shards.mds import Mds
from nextlong.shards.mds_folder import MdsFolder
from nextlong.shards.mds_shard import MdsShard
from tests.nextlong.shards import foreign
from tests.nextlong.shards.made import assert_equal, assert_read_back, files_of, made, written

TYPES = ["u1", "i1", "u2", "i2", "f2", "u4", "i4", "f4", "u8", "i8", "f8"]
NAMES = {letter: np.dtype(letter).name for letter in TYPES}
COLUMNS: dict[str, tuple[str, int | None]] = {
    "input_ids": ("ndarray:uint32", None),
    "indices": ("ndarray:int64", None),
    "domain": ("str", None),
}


def _shard(tmp_path: Path, encoding: str, size: int | None, *values: bytes) -> MdsShard:
    """A shard with the values in a column `it`, between two others, at places that are aligned to nothing."""
    columns = {"a": ("str", None), "it": (encoding, size), "z": ("str", None)}
    samples = [{"a": b"x" * (2 * row + 1), "it": value, "z": b"z"} for row, value in enumerate(values)]
    return MdsFolder(foreign.write(tmp_path, columns, [samples])).shard(0)


def _sample(ids: np.ndarray[Any, Any], *, has_type: bool = False, domain: str = "") -> dict[str, bytes]:
    indices = foreign.array(np.array([[0, len(ids)]], np.int64))
    return {"input_ids": foreign.array(ids, has_type=has_type), "indices": indices, "domain": domain.encode()}


def _sequences(*rows: np.ndarray[Any, Any], domains: list[str] | None = None) -> Sequences:
    ids = np.stack(rows).astype(np.uint32)
    ones = np.array([[0, ids.shape[1]]] * len(ids))
    return Sequences(ids, ones, np.arange(len(ids) + 1), domains or [""] * len(ids))


@pytest.mark.parametrize("letter", TYPES)
@pytest.mark.parametrize("shape", [(1,), (3,), (255,), (256,), (65_536,), (2, 3), (300, 2), (2, 1, 3)])
def test_arrays_of_every_type_and_shape_are_views_of_the_file(
    letter: str, shape: tuple[int, ...], tmp_path: Path
) -> None:
    value = (np.arange(np.prod(shape)) % 100).reshape(shape).astype(letter)
    fixed = ",".join(map(str, shape))
    for number, (encoding, size, data) in enumerate(
        [
            ("ndarray", None, foreign.array(value, has_type=True)),
            (f"ndarray:{NAMES[letter]}", None, foreign.array(value)),
            (f"ndarray:{NAMES[letter]}:{fixed}", value.nbytes, value.tobytes()),
        ]
    ):
        shard = _shard(tmp_path / str(number), encoding, size, data, data)
        found = list(shard.values("it"))
        assert len(found) == len(shard) == 2
        for each in found:
            assert each.dtype == value.dtype
            np.testing.assert_array_equal(each, value)
            assert np.shares_memory(each, shard._data)


@pytest.mark.parametrize("letter", TYPES)
def test_numbers_of_every_type_are_pythons(letter: str, tmp_path: Path) -> None:
    info = np.iinfo(letter) if letter[0] in "iu" else np.finfo(letter)
    values = [info.min, info.max, 0, 1]
    shard = _shard(tmp_path, NAMES[letter], np.dtype(letter).itemsize, *(np.array(v, letter).tobytes() for v in values))
    found = list(shard.values("it"))
    assert found == [np.array(value, letter).item() for value in values]
    assert {type(each) for each in found} == {float if letter[0] == "f" else int}


def test_int_is_of_eight_bytes(tmp_path: Path) -> None:
    values = [-(1 << 63), (1 << 63) - 1, 131_072]
    assert list(_shard(tmp_path, "int", 8, *(struct.pack("<q", each) for each in values)).values("it")) == values


def test_text_is_utf_8_and_other_encodings_are_bytes(tmp_path: Path) -> None:
    assert list(_shard(tmp_path / "s", "str", None, b"", "märkte 表".encode()).values("it")) == ["", "märkte 表"]
    for encoding in ("bytes", "jpeg", "pkl"):
        found = list(_shard(tmp_path / encoding, encoding, None, b"\x80\x04.", b"").values("it"))
        assert [each.tobytes() for each in found] == [b"\x80\x04.", b""]


def test_values_are_given_from_start_to_stop_and_at_their_places(tmp_path: Path) -> None:
    shard = _shard(tmp_path, "str", None, *(bytes([65 + row]) * row for row in range(5)))
    assert list(shard.values("it", 2)) == ["CC", "DDD", "EEEE"]
    assert list(shard.values("it", 1, 3)) == ["B", "CC"]
    content = shard.path.read_bytes()
    assert [content[first:last] for first, last in shard.places("it").tolist()] == [
        bytes([65 + row]) * row for row in range(5)
    ]


@pytest.mark.parametrize("count", [1, 255, 256, 65_536])
@pytest.mark.parametrize("is_fixed", [True, False])
def test_lists_of_uint32_are_found_where_they_stand(count: int, is_fixed: bool, tmp_path: Path) -> None:
    rows = [np.arange(row, row + count, dtype=np.uint32) for row in range(3)]
    if is_fixed:
        shard = _shard(tmp_path, f"ndarray:uint32:{count}", 4 * count, *(row.tobytes() for row in rows))
    else:
        rows.append(np.arange(9, dtype=np.uint32))
        shard = _shard(tmp_path, "ndarray:uint32", None, *map(foreign.array, rows))
    found = shard.lists("it")
    assert found is not None
    assert found[1].tolist() == [len(row) for row in rows]
    content = shard.path.read_bytes()
    for begin, row in zip(found[0].tolist(), rows, strict=True):
        assert content[begin : begin + row.nbytes] == row.tobytes()


@pytest.mark.parametrize(
    ("encoding", "size", "value"),
    [
        ("ndarray:int32", None, foreign.array(np.arange(8, dtype="<i4"))),
        ("ndarray", None, foreign.array(np.arange(8, dtype="<u4"), has_type=True)),
        ("ndarray:uint32:2,4", 32, bytes(32)),
        ("ndarray:uint32:x", 32, bytes(32)),
        ("ndarray:uint32:7", 32, bytes(32)),
        ("ndarray:uint32", None, foreign.array(np.ones((2, 4), "<u4"))),
        ("ndarray:uint32", None, b""),
        ("ndarray:uint32", None, b"\x06"),  # whose shape would end behind it
        ("ndarray:uint32", None, b"\x07"),
        ("ndarray:uint32", None, b"\x04\x02" + bytes(4)),  # fewer numbers than are stated
        ("ndarray:uint32", None, b"\x04\x01" + bytes(8)),
        ("ndarray:uint32", None, b"\x07" + bytes([255] * 8) + bytes(4)),
        ("bytes", None, bytes(32)),
    ],
)
def test_other_values_are_not_found_in_place(encoding: str, size: int | None, value: bytes, tmp_path: Path) -> None:
    assert _shard(tmp_path, encoding, size, value).lists("it") is None


def test_lists_of_a_compressed_file_and_of_no_column_are_not_found_in_place(tmp_path: Path) -> None:
    for compression in (None, "zstd"):
        written(Mds(compression=compression), tmp_path / str(compression), made(3))
    shards = [MdsFolder(tmp_path / str(compression)).shard(0) for compression in (None, "zstd")]
    assert [shard.lists("input_ids") is None for shard in shards] == [False, True]
    assert shards[0].lists("another") is None


def test_a_file_of_columns_of_fixed_size_has_no_sizes_in_it(tmp_path: Path) -> None:
    columns = {"a": ("ndarray:uint32:3", 12), "b": ("int", 8)}
    samples = [{"a": np.arange(3, dtype="<u4").tobytes(), "b": struct.pack("<q", row)} for row in range(4)]
    shard = MdsFolder(foreign.write(tmp_path, columns, [samples])).shard(0)
    assert list(shard.values("b")) == [0, 1, 2, 3]
    assert [each.tolist() for each in shard.values("a")] == [[0, 1, 2]] * 4


@pytest.mark.parametrize("compression", [None, "zstd", "zstd:9"])
@pytest.mark.parametrize("prefix", ["", "sub/", "a/b/"])
def test_shards_of_no_sample_of_folders_merged_and_compressed_are_read(
    prefix: str, compression: str | None, tmp_path: Path
) -> None:
    """The reference writer makes an empty shard where the first sample is above its limit; merging adds folders."""
    rows = [np.arange(row, row + 8, dtype=np.uint32) for row in range(5)]
    samples = [_sample(each, domain=f"表{row}") for row, each in enumerate(rows)]
    shards = [[], samples[:1], samples[1:3], [], samples[3:], []]
    foreign.write(tmp_path, COLUMNS, shards, compression=compression, prefix=prefix)
    folder = MdsFolder(tmp_path)
    assert [len(folder.shard(number)) for number in range(6)] == [0, 1, 2, 0, 2, 0]
    assert list(folder.shard(0).values("domain")) == []
    assert folder.columns == {name: encoding for name, (encoding, _) in sorted(COLUMNS.items())}
    assert_read_back("mds", tmp_path, [], _sequences(*rows, domains=[f"表{row}" for row in range(5)]))


def test_a_compressed_shard_that_lies_there_unpacked_is_read_as_it_lies(tmp_path: Path) -> None:
    sequences = made(3)
    [name] = written(Mds(compression="zstd"), tmp_path / "packed", sequences)
    raw = zstandard.decompress((tmp_path / "packed" / name).read_bytes())
    (tmp_path / "packed" / name.removesuffix(".zstd")).write_bytes(raw)
    folder = MdsFolder(tmp_path / "packed")
    assert [path.suffix for path in folder.shards] == [".mds"]
    (tmp_path / "packed" / name).unlink()
    assert_equal(folder.read(0, 3), sequences)


@pytest.mark.parametrize("letter", ["u1", "u2", "i4", "i8", "u8"])
@pytest.mark.parametrize("has_type", [True, False])
def test_ids_of_any_type_of_whole_number_are_sequences(letter: str, has_type: bool, tmp_path: Path) -> None:
    rows = [np.arange(row, row + 8).astype(letter) for row in range(3)]
    columns = COLUMNS | {"input_ids": ("ndarray" if has_type else f"ndarray:{NAMES[letter]}", None)}
    foreign.write(tmp_path, columns, [[_sample(each, has_type=has_type) for each in rows]])
    assert_equal(MdsFolder(tmp_path).read(0, 3), _sequences(*rows))


@pytest.mark.parametrize(
    ("encoding", "as_bytes"),
    [
        ("bytes", lambda row: row.astype("<i8").tobytes()),
        ("ndarray:uint32", lambda row: foreign.array(row.astype("<u4"))),
        ("ndarray:int64:8", lambda row: row.astype("<i8").tobytes()),
    ],
)
def test_tokens_are_int64_in_bytes_or_an_array(
    encoding: str, as_bytes: Callable[[np.ndarray[Any, Any]], bytes], tmp_path: Path
) -> None:
    rows = [np.arange(row, row + 8) for row in range(3)]
    size = 64 if encoding.endswith(":8") else None
    foreign.write(tmp_path, {"tokens": (encoding, size)}, [[{"tokens": as_bytes(row)} for row in rows]])
    assert_equal(MdsFolder(tmp_path).read(0, 3), _sequences(*rows))


def test_a_mask_of_another_type_is_read_and_one_of_other_numbers_told(tmp_path: Path) -> None:
    columns = COLUMNS | {"mask": ("ndarray:int64", None)}
    for number, name in ((1, "right"), (256, "wrong")):
        mask = np.array([1, 0, 1, number] * 2)
        samples = [_sample(np.arange(8, dtype=np.uint32)) | {"mask": foreign.array(mask)}]
        foreign.write(tmp_path / name, columns, [samples])
    found = MdsFolder(tmp_path / "right").read(0, 1)
    assert found.mask is not None
    assert (found.mask.tolist(), found.mask.dtype) == ([[1, 0, 1, 1] * 2], np.uint8)
    with pytest.raises(UserError, match="row 0: column mask holds numbers that are no uint8"):
        MdsFolder(tmp_path / "wrong").read(0, 1)


LINE = np.arange(8, dtype=np.uint32)


@pytest.mark.parametrize(
    ("columns", "sample", "told"),
    [
        ({}, {"input_ids": foreign.array(LINE[:7])}, r"row 1: column input_ids has 7 entries, but .* before 8"),
        ({}, {"input_ids": foreign.array(LINE[:1])}, r"row 1: column input_ids has 1 entries, but .* before 8"),
        ({}, {"input_ids": foreign.array(LINE[None])}, "row 1: column input_ids is no list of whole numbers"),
        ({}, {"input_ids": b""}, r"row 1: column input_ids is no ndarray:uint32 \(IndexError"),
        ({}, {"input_ids": foreign.array(LINE)[:-1]}, r"row 1: column input_ids is no ndarray:uint32 \(ValueError"),
        ({}, {"input_ids": foreign.array(LINE)[:-4]}, r"row 1: column input_ids is no ndarray:uint32 \(ValueError"),
        ({}, {"input_ids": bytes([40 << 2]) + bytes(40)}, r"row 1: .* \(ValueError: an array of 40 dimensions"),
        ({}, {"input_ids": bytes([2 << 2 | 3]) + bytes([255] * 16)}, "row 1: column input_ids is no ndarray:uint32"),
        ({}, {"indices": foreign.array(np.arange(4))}, r"row 1: the boundaries \(indices\) are no pairs"),
        ({}, {"indices": foreign.array(np.ones((2, 3), np.int64))}, r"row 1: the boundaries \(indices\) are no pairs"),
        ({}, {"domain": b"\xff"}, r"row 1: column domain is no str \(UnicodeDecodeError"),
        ({"input_ids": ("str", None)}, {"input_ids": b"text"}, "row [01]: column input_ids is no list of whole"),
        ({"input_ids": ("ndarray", None)}, {"input_ids": b"\x07\x04\x01a"}, r"column input_ids is no ndarray \(KeyErr"),
        ({"input_ids": ("ndarray:object", None)}, {}, r"row 0: .* \(ValueError: there is no type object"),
        ({"input_ids": ("ndarray:uint32:x", None)}, {}, "row 0: column input_ids is no ndarray:uint32:x"),
        ({"input_ids": ("ndarray:float32", None)}, {}, "row 0: column input_ids is no list of whole numbers"),
        (
            {"input_ids": ("ndarray:int32", None)},
            {"input_ids": foreign.array(np.array([-1] * 8, "i4"))},
            "are no uint32",
        ),
        ({"input_ids": ("int", 8)}, {"input_ids": bytes(8)}, "row [01]: .*(no list of whole numbers|it is damaged)"),
    ],
)
def test_other_values_are_told_with_file_row_and_column(
    columns: dict[str, tuple[str, int | None]], sample: dict[str, bytes], told: str, tmp_path: Path
) -> None:
    foreign.write(tmp_path, COLUMNS | columns, [[_sample(LINE), _sample(LINE) | sample]])
    with pytest.raises(UserError, match=rf"shard.00000.mds, .*{told}"):
        MdsFolder(tmp_path).read(0, 2)


def test_a_column_that_is_not_there_is_told_with_those_that_are(tmp_path: Path) -> None:
    columns = {name: COLUMNS[name] for name in ("input_ids", "domain")}
    sample = {name: _sample(LINE)[name] for name in columns}
    folder = MdsFolder(foreign.write(tmp_path, columns, [[sample]]))
    with pytest.raises(UserError, match=r"shard.00000.mds has no column indices; it has domain, input_ids\."):
        folder.read(0, 1)


def test_shards_of_several_lengths_are_told(tmp_path: Path) -> None:
    folder = MdsFolder(foreign.write(tmp_path, COLUMNS, [[_sample(LINE)], [_sample(LINE[:6])]]))
    assert folder.read(1, 2).length_tokens == 6
    with pytest.raises(UserError, match="sequences of 6 and of 8 tokens stand in one folder"):
        folder.read(0, 2)


def _change(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    index = json.loads((folder / "index.json").read_text())
    for entry in index["shards"]:
        change(entry)
    (folder / "index.json").write_text(json.dumps(index))


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/../../b", "", ".", 7, ["x"], "a\0b"])
@pytest.mark.parametrize("kind", ["raw_data", "zip_data"])
def test_an_index_that_names_a_file_outside_is_refused(name: Any, kind: str, tmp_path: Path) -> None:
    written(Mds(compression="zstd"), tmp_path, made(3))
    _change(tmp_path, lambda entry: entry[kind].update(basename=name))
    with pytest.raises(UserError, match="as one of its files, which is none inside it"):
        MdsFolder(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        *(lambda entry, name=name: entry.pop(name) for name in ("samples", "raw_data", "column_names", "format")),
        *(lambda entry, number=number: entry.update(samples=number) for number in (-1, 2.0, True, "3", None, 1 << 40)),
        *(lambda entry, number=number: entry["raw_data"].update(bytes=number) for number in (-1, 1.5, None, 1 << 32)),
        lambda entry: entry.update(column_sizes=[None, None]),
        lambda entry: entry.update(column_sizes=[None, None, None, -8]),
        lambda entry: entry.update(column_names=["domain"] * 4),
        lambda entry: entry.update(column_encodings=["str"]),
        lambda entry: entry.update(format="json"),
        lambda entry: entry.update(version=1),
        lambda entry: entry.update(raw_data=None),
        lambda entry: entry.update(zip_data={}),
        lambda entry: entry.update(zip_data=["name"]),
    ],
)
def test_an_index_of_anything_else_is_refused(change: Callable[[dict[str, Any]], None], tmp_path: Path) -> None:
    written(Mds(), tmp_path, made(3))
    MdsFolder(tmp_path).read(0, 3)
    _change(tmp_path, change)
    with pytest.raises(UserError, match=r"is no MDS folder: its index.json cannot be read"):
        MdsFolder(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "7", '{"version": 2}', '{"shards": 5}', "[" * 100_000, "\xff"])
def test_what_is_no_index_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "index.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=r"is no MDS folder: its index.json cannot be read"):
        MdsFolder(tmp_path)


def test_a_folder_without_an_index_or_without_shards_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is no MDS folder: its index.json cannot be read \(FileNotFoundError"):
        MdsFolder(tmp_path)
    (tmp_path / "index.json").write_text('{"version": 2, "shards": []}')
    folder = MdsFolder(tmp_path)
    assert len(folder) == 0
    with pytest.raises(UserError, match="is an MDS folder without a shard"):
        _ = folder.columns
    with pytest.raises(UserError, match="has 0 sequences, so none are 0 to 0"):
        folder.read(0, 1)


def test_a_compression_that_is_not_read_is_named(tmp_path: Path) -> None:
    written(Mds(compression="zstd"), tmp_path, made(3))
    _change(tmp_path, lambda entry: entry.update(compression="br:11"))
    with pytest.raises(UserError, match="it is compressed by br:11, but only zstd is read here: unpack it"):
        MdsFolder(tmp_path).read(0, 3)


@pytest.mark.parametrize(
    ("place", "value", "told"),
    [
        (0, 2, "has not the size or the samples"),  # how many samples
        (4, 8, "has not the size or the samples"),  # the first begins inside the offsets
        (8, 1 << 31, "has not the size or the samples"),  # the second begins behind the end
        (16, 12, "has not the size or the samples"),  # the file ends elsewhere
    ],
)
def test_offsets_that_lead_astray_are_told(place: int, value: int, told: str, tmp_path: Path) -> None:
    [name] = written(Mds(), tmp_path, made(3))
    content = bytearray((tmp_path / name).read_bytes())
    content[place : place + 4] = struct.pack("<I", value)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=rf"shard.00000.mds is no whole MDS shard: it {told}"):
        MdsFolder(tmp_path).read(0, 3)


def test_sizes_that_do_not_fill_a_sample_are_told_with_its_row(tmp_path: Path) -> None:
    [name] = written(Mds(), tmp_path, made(3))
    content = bytearray((tmp_path / name).read_bytes())
    [second] = struct.unpack_from("<I", content, 8)
    content[second] += 1
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=r"shard.00000.mds, row 1: the sample has not the size of its values"):
        MdsFolder(tmp_path).read(0, 1)


def test_a_shard_is_unpacked_once_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(Mds(compression="zstd", shard_bytes=800), tmp_path, made(9))
    folder, opened = MdsFolder(tmp_path), []
    monkeypatch.setattr(
        "nextlong.shards.mds_folder.MdsShard", lambda *given: opened.append(given[0]) or MdsShard(*given)
    )
    for row in range(9):
        folder.read(row, row + 1)
    assert opened == folder.shards
    assert len(opened) > 2
    assert len(files_of(tmp_path)) == len(opened) + 1
