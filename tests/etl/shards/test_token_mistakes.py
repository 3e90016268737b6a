"""Token ids made elsewhere: what cannot be is told with file and row, all else is accounted for."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from etl.engine import Engine
from etl.shards.of_folder import PackedFolder
from etl.shards.verify import verify
from nextlong.errors import UserError
from nextlong.shards.mds import INDEX, Mds
from tests.etl.shards.conftest import Pack
from tests.etl.shards.refusals import refused
from tests.etl.test_cli import nextlong

IDS = [[1, 2, 3, 4, 5] * 4] * 3
WHOLE = [[0, 20]]


def _lists(rows: list[Any], of: pa.DataType) -> pa.Array:
    return pa.array(rows, pa.list_(of))


def _columns(ids: Any = None, mask: Any = None, indices: Any = None) -> dict[str, Any]:
    columns = {"input_ids": _lists(IDS, pa.uint32()) if ids is None else ids}
    columns |= {} if mask is None else {"mask": mask}
    return columns | ({} if indices is None else {"indices": indices})


def _pairs(second: Any, of: pa.DataType | None = None) -> pa.Array:
    return pa.array([WHOLE, second, WHOLE], pa.list_(pa.list_(of or pa.int64())))


def _after_null(**columns: Any) -> dict[str, Any]:
    """The same columns with a null row before: the rows that messages name move on by one."""
    return {name: pa.concat_arrays([pa.nulls(1, each.type), each]) for name, each in columns.items()}


OTHER_TYPES = {
    "text": pa.array(["1 2 3"]),
    "numbers": pa.array([1, 2, 3]),
    "floats": _lists([[1.5] * 20], pa.float32()),
    "words": _lists([["1", "2"]], pa.string()),
    "nulls alone": pa.nulls(3),
    "lists of nulls": _lists([[None, None]], pa.null()),
    "nested": pa.array([[[1, 2], [3]]]),
    "categories": pa.array(["a", "b"]).dictionary_encode(),
}
TOKENS: dict[str, tuple[dict[str, Any], str]] = {
    "beyond the vocabulary": (
        _columns(_lists([[1] * 20, [1] * 5 + [600]], pa.uint32())),
        r"ids\.parquet, row 1 \(from 0\): there is the token id 600, but the vocabulary has 600\. Give the tokenizer",
    ),
    "negative": (_columns(_lists([[1] * 20, [1, -1]], pa.int32())), r"row 1 \(from 0\): there is the token id -1, but"),
    "beyond 2^32": (_columns(_lists([[1, 2**32 + 3]], pa.int64())), r"row 0 \(from 0\): .* token id 4294967299, but"),
    "beyond 2^63": (_columns(_lists([[1, 2**64 - 1]], pa.uint64())), "token id 18446744073709551615, but"),
    "after a null row": (
        _after_null(**_columns(_lists([[1] * 20, [600]], pa.uint32()))),
        r"row 2 \(from 0\): there is the token id 600",
    ),
    "a null in a list": (
        _columns(_lists([[1] * 20, [1, None]], pa.uint32())),
        r"row 1 \(from 0\): the list in column input_ids has a null",
    ),
    "a shorter mask": (
        _columns(mask=_lists([[1] * 20, [1] * 19, [1] * 20], pa.uint8())),
        r"ids\.parquet, row 1 \(from 0\): the mask has 19 entries for 20 token ids",
    ),
    "no mask in a row": (
        _columns(mask=_lists([[1] * 20, None, [1] * 20], pa.uint8())),
        r"row 1 \(from 0\): the mask has 0 entries for 20 token ids",
    ),
    "a mask of 2": (
        _columns(mask=_lists([[1] * 20, [1] * 19 + [2], [1] * 20], pa.uint8())),
        r"row 1 \(from 0\): the mask holds 2, but must be 1 where a token is a target",
    ),
    "a mask of 256": (
        _columns(mask=_lists([[256] * 20] * 3, pa.int32())),
        r"row 0 \(from 0\): the mask holds 256, but",
    ),
    "labels as mask": (_columns(mask=_lists([[-100] * 20] * 3, pa.int64())), "the mask holds -100, but"),
    "a mask of floats": (_columns(mask=_lists([[0.5] * 20] * 3, pa.float32())), "column mask is of the type list<"),
    "boundaries that overlap": (
        _columns(indices=_pairs([[0, 10], [9, 20]])),
        r"ids\.parquet, row 1 \(from 0\): its boundaries \(indices\) overlap, .* row of 20 tokens at \[9, 20\]",
    ),
    "backwards": (_columns(indices=_pairs([[10, 5], [10, 20]])), r"row 1 \(from 0\): .* run backwards .* at \[10, 5\]"),
    "beyond the row": (_columns(indices=_pairs([[0, 21]])), r"row 1 .* leave the row of 20 tokens at \[0, 21\]"),
    "far beyond the row": (_columns(indices=_pairs([[0, 2**62]])), r"row 1 .* leave the row of 20 tokens at \[0, 46"),
    "before the row": (_columns(indices=_pairs([[-1, 10]])), r"row 1 .* leave the row of 20 tokens at \[-1, 10\]"),
    "overlap after a null row": (
        _after_null(**_columns(indices=_pairs([[0, 10], [9, 20]]))),
        r"row 2 \(from 0\): its boundaries",
    ),
    "a null pair": (_columns(indices=_pairs([None])), r"row 1 \(from 0\): its boundaries \(indices\) are no pairs"),
    "a null number": (_columns(indices=_pairs([[0, None]])), r"row 1 \(from 0\): .* are no pairs"),
    "triples": (_columns(indices=_pairs([[0, 10, 20], [1, 2, 3]])), r"row 1 \(from 0\): .* are no pairs"),
    "beyond all numbers": (_columns(indices=_pairs([[0, 2**64 - 1]], pa.uint64())), r"row 1 \(from 0\): .* no pairs"),
    "fractions": (_columns(indices=_pairs([[0.0, 9.5]], pa.float64())), r"row 0 \(from 0\): .* are no pairs"),
    "strings": (_columns(indices=pa.array([[["0", "20"]]] * 3)), r"row 0 \(from 0\): .* are no pairs"),
    "flat": (_columns(indices=_lists([[0, 10, 10, 20]] * 3, pa.int32())), r"row 0 \(from 0\): .* are no pairs"),
    "records": (_columns(indices=pa.array([[{"start": 0, "end": 20}]] * 3)), r"row 0 \(from 0\): .* are no pairs"),
    **{
        f"ids of another type: {name}": (_columns(each), r"ids\.parquet: column input_ids is of the type .* whole numb")
        for name, each in OTHER_TYPES.items()
    },
}


def _write(path: Path, columns: dict[str, Any]) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


@pytest.mark.parametrize("whole", [False, True], ids=["pack", "convert"])
@pytest.mark.parametrize(("columns", "match"), TOKENS.values(), ids=TOKENS)
def test_token_ids_that_cannot_be(pack: Pack, tmp_path: Path, columns: dict[str, Any], match: str, whole: bool) -> None:
    path = _write(tmp_path / "ids.parquet", columns)
    fitting = {"fitting": "truncate"} if whole else {}
    refused(lambda: pack(kind="tokens", path=path, whole=whole, length_tokens=16, **fitting), match)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("columns", "num_documents", "dropped"),
    [
        (_columns(), 3, 0),
        (_columns(_lists(IDS, pa.uint8())), 3, 0),
        (_columns(pa.array(IDS, pa.large_list(pa.int64()))), 3, 0),
        (_columns(pa.array(IDS, pa.list_(pa.int32(), 20))), 3, 0),
        (_after_null(**_columns(pa.array(IDS, pa.list_(pa.int32(), 20)))), 3, 0),
        (_columns(indices=_pairs([[10, 20], [0, 10]])), 4, 0),
        (_columns(indices=_pairs(None)), 3, 0),
        (_columns(indices=_pairs([])), 2, 20),
        (_columns(indices=_pairs([[3, 13]])), 3, 10),
        (_after_null(**_columns(mask=_lists(IDS, pa.uint8()), ids=_lists([[1] * 20] * 3, pa.uint32()))), 0, 0),
    ],
    ids=[
        *("plain", "uint8", "large lists", "fixed lists", "nulls", "pieces", "no pieces", "none of a row", "gaps"),
        "mask of ids",
    ],
)
def test_token_ids_of_any_type_with_or_without_boundaries_and_nulls_are_accounted_for(
    pack: Pack, tmp_path: Path, columns: dict[str, Any], num_documents: int, dropped: int
) -> None:
    path = _write(tmp_path / "ids.parquet", columns)
    if not num_documents:  # a mask of token ids
        refused(lambda: pack(kind="tokens", path=path, length_tokens=16), r"row 1 \(from 0\): the mask holds 2")
        return
    folder = pack(kind="tokens", path=path, length_tokens=16)
    account = folder.manifest["account"]
    for unit, count in account.items():
        assert unit == "notes" or count["read"] == count["kept"] + sum(count["dropped"].values())
    assert account["documents"]["read"] == num_documents
    assert account["tokens"] == {
        "read": 60,
        "kept": 60 - dropped,
        "dropped": {"outside_boundaries": dropped} if dropped else {},
    }
    assert account["rows"]["dropped"] == ({"null": 1} if pa.table(columns)["input_ids"].null_count else {})
    assert verify(folder.path, Engine()).faults == []


def test_a_parquet_file_that_is_damaged_anywhere(pack: Pack, tmp_path: Path) -> None:
    path = tmp_path / "ids.parquet"
    rng = np.random.default_rng(0)
    pq.write_table(pa.table(_columns(_lists(rng.integers(0, 600, (50, 100)).tolist(), pa.uint32()))), path)
    whole = path.read_bytes()
    told: list[str] = []
    for place in [0, *range(4, len(whole), len(whole) // 20), len(whole) - 1]:
        for damage in (bytes([whole[place] ^ 255]) + whole[place + 1 :], b""):  # a byte, or all that follows
            path.write_bytes(whole[:place] + damage)
            try:
                pack(f"out-{place}-{len(damage)}", kind="tokens", path=path)
            except UserError as error:
                told.append(str(error))
    assert len(told) > 25
    for each in told:
        assert re.search(r"^ids\.parquet( is damaged|, row \d+|: column| has no column)", each)


def test_columns_that_are_not_there_or_there_twice(pack: Pack, tmp_path: Path) -> None:
    ids = _lists(IDS, pa.uint32())
    path = _write(tmp_path / "ids.parquet", {"other": ids, "id": pa.array([[1]] * 3)})
    refused(lambda: pack(kind="tokens", path=path), r"ids\.parquet has no column input_ids, .*; it has other, id")
    _write(path, {"input_ids": ids, "id": pa.array([[1]] * 3)})
    for role in ("id", "source"):
        refused(lambda role=role: pack(kind="tokens", path=path, columns={role: "none"}), "has no column none, or has")
        match = r"ids\.parquet: column id is list<.*, but must hold strings or numbers"
        refused(lambda role=role: pack(kind="tokens", path=path, columns={role: "id"}), match)
    pq.write_table(pa.Table.from_arrays([ids, ids], ["input_ids", "input_ids"]), path)
    refused(lambda: pack(kind="tokens", path=path), "has no column input_ids, or has it twice")


def test_more_rows_than_a_file_can_hold_are_not_read(pack: Pack, tmp_path: Path) -> None:
    path = tmp_path / "ids.parquet"
    rows = pa.table({"input_ids": pa.nulls(1 << 23, pa.list_(pa.uint32()))})
    with pq.ParquetWriter(path, rows.schema) as writer:
        for _ in range(9):
            writer.write_table(rows, row_group_size=1 << 23)
    refused(lambda: pack(kind="tokens", path=path), r"ids\.parquet has 75,497,472 rows in [\d,]+ bytes")


def _mds(pack: Pack, tmp_path: Path) -> Path:
    folder = pack("mds", format_=("mds", Mds(shard_bytes=20_000)), length_tokens=64).path
    (folder / "manifest.json").unlink()
    return folder


def _set(**facts: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda index: index["shards"][0].update(facts)


def _raw(**facts: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda index: index["shards"][0]["raw_data"].update(facts)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda index: index.update(shards=None), "is no MDS folder"),
        (lambda index: index.update(shards=[]), "there is no sequence"),
        (lambda index: index.update(shards=[1]), "is no MDS folder"),
        (_set(samples=-1), "is no MDS folder"),
        (_set(samples=1.5), "is no MDS folder"),
        (_set(samples=2**40), "is no MDS folder"),
        (_set(samples=3), r"shard\.00000\.mds is no whole MDS shard"),
        (_set(column_names=["a", "b", "c", "d", "e"]), r"shard\.00000\.mds has no column input_ids; it has a, b, c"),
        (_set(column_names=["domain"]), "is no MDS folder"),
        (_set(column_sizes=[None, None, None, -8, None]), "is no MDS folder"),
        (_set(column_encodings=["str", "pkl", "ndarray:uint32", "int", "ndarray:uint8"]), r"row 0 .* are no pairs"),
        (
            _set(column_encodings=["str", "ndarray:int64", "pkl", "int", "ndarray:uint8"]),
            "row 0.*the token id|input_ids",
        ),
        (
            _set(column_encodings=["str", "ndarray:int64", "ndarray:float32", "int", "ndarray:uint8"]),
            r"row 0 \(from 0\): column input_ids is no list of whole numbers",
        ),
        (_raw(basename="../secret"), "'../secret' as one of its files, which is none inside it"),
        (_raw(basename="/etc/passwd"), "'/etc/passwd' as one of its files, which is none inside it"),
        (_raw(basename=5), "'5' as one of its files, which is none inside it"),
        (_raw(basename="none.mds"), r"none\.mds is named by the index\.json beside it, but is not there"),
        (_raw(bytes=5), r"shard\.00000\.mds is no whole MDS shard"),
        (_set(raw_data=None), "is no MDS folder"),
    ],
)
def test_an_mds_index_that_lies(
    pack: Pack, tmp_path: Path, change: Callable[[dict[str, Any]], Any], match: str
) -> None:
    folder = _mds(pack, tmp_path)
    index = json.loads((folder / INDEX).read_text())
    assert index["shards"][0]["column_names"] == ["domain", "indices", "input_ids", "length", "mask"]
    change(index)
    (folder / INDEX).write_text(json.dumps(index))
    for whole in (False, True):
        fitting = {"fitting": "truncate"} if whole else {}
        refused(lambda whole=whole, f=fitting: pack(kind="mds", path=folder, whole=whole, length_tokens=32, **f), match)


def test_mds_shards_that_are_cut_gone_or_exchanged(pack: Pack, tmp_path: Path) -> None:
    folder = _mds(pack, tmp_path)
    first, second = folder / "shard.00000.mds", folder / "shard.00001.mds"
    whole = {path: path.read_bytes() for path in (first, second)}
    for damage, match in (
        (lambda: os.truncate(first, 100), r"shard\.00000\.mds is no whole MDS shard"),
        (lambda: os.truncate(first, 0), r"shard\.00000\.mds cannot be read"),
        (first.unlink, r"shard\.00000\.mds is named by the index\.json beside it, but is not there"),
        (lambda: first.write_bytes(b"\xff" * len(whole[first])), r"shard\.00000\.mds"),
    ):
        damage()
        refused(lambda: pack(kind="mds", path=folder), match)
        first.write_bytes(whole[first])
    before = pack("before", kind="mds", path=folder)
    content = bytearray(whole[second])
    content[-70] ^= 1  # a token id
    second.write_bytes(content)
    assert pack("after", kind="mds", path=folder).fingerprint != before.fingerprint


def test_a_folder_that_is_named_twice_is_read_once(pack: Pack, tokenizer_file: Path, tmp_path: Path) -> None:
    folder = _mds(pack, tmp_path)
    for name, inputs in (("once", [folder]), ("twice", [folder, folder])):
        arguments = ["--tokenizer", tokenizer_file, "--length", 64, "--out", tmp_path / name, "--workers", 0]
        nextlong("pack", *inputs, *arguments)
    once, twice = (PackedFolder.open(tmp_path / name) for name in ("once", "twice"))
    assert once.manifest["account"] == twice.manifest["account"]
