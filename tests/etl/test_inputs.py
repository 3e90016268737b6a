"""Every format read to the last row, however the input is cut, and every mistake told in one sentence."""

import gzip
import json
import logging
import os
import pickle
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given
from hypothesis import strategies as st

from etl.inputs import Input, identify, list_files, plan_splits, read_split, read_tables
from nextlong.errors import UserError

Rows = list[dict[str, Any]]
TEXTS = ["one", "zwei\nZeilen", "三つ", "", "\N{GRINNING FACE} four", "  ", "seven " * 9]
COMPRESS: dict[str, Callable[[bytes], bytes]] = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.compress}


def read_table(**settings: Any) -> tuple[pa.Table, int]:
    """All splits concatenated, and the number of documents with replaced characters."""
    inputs = Input(**settings)
    parts = [read_split(split, inputs) for split in plan_splits(inputs, list_files(inputs))]
    assert parts
    return pa.concat_tables([part.table for part in parts]), sum(part.num_replaced for part in parts)


def read(**settings: Any) -> Rows:
    rows: Rows = read_table(**settings)[0].to_pylist()
    return rows


def texts_of(**settings: Any) -> list[str | None]:
    return [row["text"] for row in read(**settings)]


def names_of(**settings: Any) -> list[str]:
    return [file.name for file in list_files(Input(**settings))]


def write_parquet(path: Path, columns: dict[str, Any], **options: Any) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, **options)
    return str(path)


def write(path: Path, data: bytes | bytearray | str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return str(path)


def to_jsonl(texts: list[str]) -> bytes:
    return b"".join(json.dumps({"text": text}, ensure_ascii=False).encode() + b"\n" for text in texts)


# Listing


def test_a_folder_is_searched_for_parquet_then_jsonl_then_text_and_what_is_ignored_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    write(tmp_path / "README.md", "about")
    write(tmp_path / "notes" / "b.TXT.gz", gzip.compress(b"b"))
    write(tmp_path / "LICENSE", "free")
    assert names_of(path=str(tmp_path)) == ["README.md", "notes/b.TXT.gz"]
    assert "reading text, ignored 1 without ending" in caplog.text
    for number, ending in enumerate([".jsonl", ".ndjson.gz", ".json.zst"]):
        write(tmp_path / f"{number}{ending}", "")
    assert names_of(path=str(tmp_path)) == ["0.jsonl", "1.ndjson.gz", "2.json.zst"]
    assert "reading jsonl, ignored 1 .md, 1 .txt.gz, 1 without ending" in caplog.text
    write_parquet(tmp_path / "z.parquet", {"text": ["a"]})
    assert names_of(path=str(tmp_path)) == ["z.parquet"]
    assert names_of(path=str(tmp_path), format="text") == ["README.md", "notes/b.TXT.gz"]


def test_hidden_files_and_folders_are_skipped_below_the_input_but_not_above_it(tmp_path: Path) -> None:
    for name in ("a.txt", ".b.txt", ".git/c.txt", "d/.e/f.txt", "d/g.txt"):
        write(tmp_path / ".cache" / name, "x")
    assert names_of(path=str(tmp_path / ".cache")) == ["a.txt", "d/g.txt"]
    assert names_of(path=str(tmp_path / ".cache" / "**")) == ["a.txt", "d/g.txt"]
    assert names_of(path=str(tmp_path / ".cache" / ".b.txt")) == [".b.txt"]


def test_a_hub_dataset_in_a_folder_is_its_parquet_files(tmp_path: Path) -> None:
    write(tmp_path / "README.md", "---\nlicense: mit\n---\n")
    write(tmp_path / ".gitattributes", "")
    for number in range(2):
        write_parquet(tmp_path / "data" / f"train-0000{number}-of-00002.parquet", {"text": [f"text {number}"]})
    rows = read(path=str(tmp_path))
    assert [row["text"] for row in rows] == ["text 0", "text 1"]
    assert [row["source"] for row in rows] == [f"data/train-0000{number}-of-00002.parquet" for number in range(2)]


def test_names_are_relative_to_the_input_and_sorted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("b/x.jsonl", "a/x.jsonl", "a/y.jsonl"):
        write(tmp_path / "in" / name, '{"text": "t"}')
    monkeypatch.chdir(tmp_path)
    assert names_of(path="in/a/x.jsonl") == ["x.jsonl"]
    assert names_of(path="in/*/x.jsonl") == ["a/x.jsonl", "b/x.jsonl"]
    assert names_of(path="in/**/*.jsonl") == ["a/x.jsonl", "a/y.jsonl", "b/x.jsonl"]
    assert names_of(path=["in/b", "in/a/*.jsonl"]) == ["a/x.jsonl", "a/y.jsonl", "b/x.jsonl"]
    assert names_of(path=["in/a", "in/a/x.jsonl"]) == ["x.jsonl", "y.jsonl"]  # listed once
    assert all(Path(file.path).is_absolute() for file in list_files(Input(path="in")))


def test_equal_folder_names_are_told_apart_by_what_is_above_them(tmp_path: Path) -> None:
    folders = [str(tmp_path / name / "data") for name in ("wiki", "books")]
    for folder in folders:
        write(Path(folder) / "x.txt", "t")
    assert names_of(path=folders) == ["books/data/x.txt", "wiki/data/x.txt"]


def test_an_existing_path_with_brackets_is_no_glob(tmp_path: Path) -> None:
    path = write(tmp_path / "a[1].txt", "x")
    assert names_of(path=path) == ["a[1].txt"]
    write(tmp_path / "a1.txt", "y")
    assert names_of(path=path) == ["a[1].txt"]


def test_a_given_format_holds_for_any_name_that_a_file_or_glob_matches(tmp_path: Path) -> None:
    path = write(tmp_path / "part-00000", to_jsonl(["a"]))
    assert texts_of(path=path, format="jsonl") == ["a"]
    assert texts_of(path=str(tmp_path / "part-*"), format="jsonl") == ["a"]
    assert texts_of(path=path, format="text") == ['{"text": "a"}\n']


def test_links_to_files_are_followed_and_other_links_refused(tmp_path: Path) -> None:
    write(tmp_path / "blobs" / "a", to_jsonl(["a"]))
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jsonl").symlink_to(tmp_path / "blobs" / "a")
    os.utime(tmp_path / "in" / "a.jsonl", (0, 0), follow_symlinks=False)
    assert texts_of(path=str(tmp_path / "in")) == ["a"]
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    with pytest.raises(UserError, match=r"in/loop is a link to a folder or to nothing"):
        list_files(Input(path=str(tmp_path / "in")))
    (tmp_path / "in" / "loop").unlink()
    (tmp_path / "in" / "b.jsonl").symlink_to(tmp_path / "nothing")
    with pytest.raises(UserError, match=r"b\.jsonl is a link to a folder or to nothing"):
        list_files(Input(path=str(tmp_path / "in" / "*.jsonl")))


@pytest.mark.parametrize(
    ("path", "options", "message"),
    [
        ("nothing", {}, r"input\.path .*nothing does not exist\. Give a file, a glob"),
        ("*.parquet", {}, r"input\.path .*\*\.parquet matches no file"),
        ("empty", {}, r"empty is a folder without files"),
        (
            "tables",
            {},
            r"tables holds no file with a known ending, only 2 \.csv, 1 \.tar\.gz\. Looked for parquet: \.p",
        ),
        ("tables/a.csv", {}, r"only 1 \.csv\. .* name them by a glob and set input\.format"),
        ("tables", {"format": "parquet"}, r"Looked for parquet: \.parquet \("),
        ("no-such-protocol://a", {}, r"Protocol not known: no-such-protocol"),
        ("zip://a.jsonl::b.zip", {}, r"chain of addresses"),
    ],
)
def test_an_address_that_gives_nothing_is_refused(
    tmp_path: Path, path: str, options: dict[str, Any], message: str
) -> None:
    (tmp_path / "empty" / ".hidden").mkdir(parents=True)
    for name in ("a.csv", "b.csv", "c.tar.gz"):
        write(tmp_path / "tables" / name, "x")
    address = path if "://" in path else str(tmp_path / path)
    with pytest.raises(UserError, match=message):
        list_files(Input(path=address, **options))


def test_a_protocol_without_its_package_says_which_to_install() -> None:
    fsspec.register_implementation("bucket", "no_such_package.FileSystem", errtxt="Install buckets", clobber=True)
    with pytest.raises(UserError, match=r"bucket://a needs a package that is not installed: Install buckets"):
        list_files(Input(path="bucket://a"))


def test_a_server_that_fails_or_tells_no_size_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: object, path: str) -> None:
        raise RuntimeError("no route to host")

    with monkeypatch.context() as patched:
        patched.setattr(MemoryFileSystem, "info", fail)
        with pytest.raises(UserError, match=r"cannot be listed: RuntimeError: no route to host\. Check .* network"):
            list_files(Input(path="memory://remote/a.jsonl"))
    monkeypatch.setattr(MemoryFileSystem, "info", lambda *_: {"name": "/a.jsonl", "type": "file", "size": None})
    with pytest.raises(UserError, match="does not tell its size"):
        list_files(Input(path="memory://a.jsonl"))


def test_a_folder_that_cannot_be_read_is_an_error_and_not_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    write(tmp_path / "a.txt", "x")
    write(tmp_path / "secret" / "b.txt", "x")
    scandir = os.scandir

    def refuse(path: str) -> Any:
        if "secret" in str(path):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError, match=r"cannot be listed: PermissionError: .*secret"):
        list_files(Input(path=str(tmp_path)))


def test_a_file_that_is_gone_or_locked_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path(write(tmp_path / "a.jsonl", to_jsonl(["a"])))
    settings = Input(path=str(path))
    [split] = plan_splits(settings, list_files(settings))
    path.unlink()
    with pytest.raises(UserError, match=r"a\.jsonl was in the input when it was listed, but .* is gone"):
        read_split(split, settings)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("fsspec.implementations.local.LocalFileSystem.open", refuse)
    with pytest.raises(UserError, match=r"a\.jsonl: you may not read "):
        read_split(split, settings)


def test_any_fsspec_file_system_is_read() -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe(
        {"/corpus/a.jsonl": to_jsonl(["a", "b"]), "/corpus/deep/c.jsonl.zst": zstandard.compress(to_jsonl(["c"]))}
    )
    with memory.open("/tables/t.parquet", "wb") as file:
        pq.write_table(pa.table({"text": TEXTS}), file, row_group_size=2)
    for path in ("memory://corpus", "memory://corpus/**"):
        assert texts_of(path=path) == ["a", "b", "c"]
    assert names_of(path="memory://corpus/*.jsonl") == ["a.jsonl"]
    assert texts_of(path="memory://tables/t.parquet", part_rows=1) == TEXTS
    assert [file.path for file in list_files(Input(path="memory://tables"))] == ["memory:///tables/t.parquet"]
    assert texts_of(path=["memory://tables", "memory://corpus"]) == ["a", "b", "c", *TEXTS]


# Identity


def test_the_identity_moves_with_the_input_and_changes_with_its_content(tmp_path: Path) -> None:
    data = bytearray(random.Random(0).randbytes(300_000))
    write(tmp_path / "here" / "a.jsonl", data)
    here = identify(list_files(Input(path=str(tmp_path / "here"))))
    assert [set(each) for each in here] == [{"name", "bytes", "sha256"}]
    assert str(tmp_path) not in json.dumps(here)
    (tmp_path / "here").rename(tmp_path / "there")
    there = Input(path=str(tmp_path / "there"))
    assert identify(list_files(there)) == here
    for place in (0, 65_535, len(data) - 65_536, len(data) - 1):
        changed = data.copy()
        changed[place] ^= 1
        write(tmp_path / "there" / "a.jsonl", changed)
        assert identify(list_files(there)) != here
    write(tmp_path / "there" / "a.jsonl", data[:10])
    assert identify(list_files(there))[0]["bytes"] == 10


# Splits


FORMATS = ["parquet", "jsonl", "packed", "text"]


@pytest.fixture
def texts(tmp_path: Path) -> list[str]:
    """90 texts, written to a folder of each of FORMATS: in several files, one of them empty, but for text."""
    rng = random.Random(0)
    texts = [f"{number}\n" + rng.choice(TEXTS) * rng.randint(1, 3) for number in range(90)]
    for number, (start, stop) in enumerate([(0, 10), (10, 10), (10, 60), (60, 90)]):
        columns = {"text": pa.array(texts[start:stop], pa.string())}
        write_parquet(tmp_path / "parquet" / f"{number}.parquet", columns, row_group_size=3)
        write(tmp_path / "jsonl" / f"{number}.jsonl", to_jsonl(texts[start:stop]))
        write(tmp_path / "packed" / f"{number}.jsonl.gz", gzip.compress(to_jsonl(texts[start:stop])))
    for number, text in enumerate(texts):
        write(tmp_path / "text" / f"{number:02}.txt", text)
    return texts


@pytest.mark.parametrize("name", FORMATS)
def test_any_part_size_gives_the_same_rows_in_input_order(tmp_path: Path, texts: list[str], name: str) -> None:
    numbers = []
    for size in (1, 2, 77, 500, 3_000, 10**9):
        for unit in ("part_bytes", "part_rows"):
            settings = Input(path=str(tmp_path / name), **{unit: size})  # type: ignore[arg-type]
            splits = plan_splits(settings, list_files(settings))
            read = [read_split(split, settings).table["text"].to_pylist() for split in splits]
            assert [text for part in read for text in part] == texts
            numbers.append(len(splits))
    assert numbers[-1] == 1 < len(set(numbers))


@pytest.mark.parametrize("name", ["parquet", "jsonl", "text"])
def test_every_split_but_the_last_holds_the_rows_asked_for(tmp_path: Path, texts: list[str], name: str) -> None:
    settings = Input(path=str(tmp_path / name), part_rows=7)
    sizes = [read_split(split, settings).table.num_rows for split in plan_splits(settings, list_files(settings))]
    spare = 3 if name == "parquet" else 1  # a row group is not cut
    assert len(sizes) > 10
    assert all(7 <= size < 7 + spare for size in sizes[:-1])
    assert sum(sizes) == len(texts)


def test_a_jsonl_split_holds_the_bytes_asked_for_to_within_a_sixteenth(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", to_jsonl(["x" * 87] * 10_000))
    settings = Input(path=str(tmp_path), part_bytes=100_000)
    sizes = [read_split(split, settings).table.num_rows for split in plan_splits(settings, list_files(settings))]
    assert len(sizes) > 5
    assert all(abs(size - 1_000) <= 1_000 / 16 for size in sizes[:-1])


def test_the_default_is_a_sixteenth_of_the_input_and_at_least_one_mebibyte(tmp_path: Path) -> None:
    write(tmp_path / "small.jsonl", to_jsonl(["x" * 1000] * 1_500))
    write(tmp_path / "large.jsonl", to_jsonl(["x" * 1000] * 40_000))
    number = {
        name: len(plan_splits(each, list_files(each)))
        for name in ("small", "large")
        for each in [Input(path=str(tmp_path / f"{name}.jsonl"))]
    }
    assert number["small"] == 2
    assert 15 <= number["large"] <= 16


def test_splits_are_small_and_travel(tmp_path: Path, texts: list[str]) -> None:
    for name in FORMATS:
        settings = Input(path=str(tmp_path / name), part_rows=20)
        splits = plan_splits(settings, list_files(settings))
        data = pickle.dumps(splits[0])
        assert len(data) < 4_000
        assert read_split(pickle.loads(data), settings).table.equals(read_split(splits[0], settings).table)


@given(
    lines=st.lists(
        st.text(st.sampled_from("a\u00e9\u4e09\U0001f600 \r")) | st.sampled_from(["", " ", "\r"]), max_size=12
    ),
    ends=st.sampled_from(["", "\n", "\r\n", "\n\n"]),
    has_mark=st.booleans(),
    size=st.integers(1, 60),
    unit=st.sampled_from(["part_bytes", "part_rows"]),
)
def test_a_line_is_read_once_wherever_jsonl_is_cut(
    lines: list[str], ends: str, has_mark: bool, size: int, unit: str
) -> None:
    written = [line if not line.strip() else json.dumps({"text": line}, ensure_ascii=False) for line in lines]
    data = b"\xef\xbb\xbf" * has_mark + "\n".join(written).encode() + ends.encode()
    fsspec.filesystem("memory").pipe("/cut/a.jsonl", data)
    settings = Input(path="memory://cut/a.jsonl", **{unit: size})  # type: ignore[arg-type]
    splits = plan_splits(settings, list_files(settings))
    read = [text for split in splits for text in read_split(split, settings).table["text"].to_pylist()]
    assert read == [line for line in lines if line.strip()]


@pytest.mark.parametrize("length", [70, 140])
def test_a_file_that_changes_during_a_run_is_noticed(tmp_path: Path, length: int) -> None:
    path = Path(write(tmp_path / "a.jsonl", to_jsonl(["a"] * 10)))
    settings = Input(path=str(path), part_bytes=50)
    splits = plan_splits(settings, list_files(settings))
    assert len(splits) > 2
    assert read_split(splits[0], settings).table.num_rows
    path.write_bytes(path.read_bytes()[:length])
    os.utime(path, (0, 0))  # whatever the clock's resolution
    for split in splits:
        with pytest.raises(UserError, match=r"a\.jsonl was changed after it was listed: /.*Start again"):
            read_split(split, settings)


def test_a_large_row_group_is_read_a_few_mebibytes_at_a_time(tmp_path: Path) -> None:
    texts = [f"{number} " + "x" * 100_000 for number in range(400)]
    path = write_parquet(tmp_path / "a.parquet", {"text": texts})
    (split,) = plan_splits(Input(path=str(path)), list_files(Input(path=str(path))))
    tables = [read.table for read in read_tables(split, Input(path=str(path)))]
    assert max(table["text"].nbytes for table in tables) < 20_000_000
    assert [text for table in tables for text in table["text"].to_pylist()] == texts


# Parquet


def test_parquet_columns_come_out_as_strings(tmp_path: Path) -> None:
    columns = {
        "other": [[1], [2], [3]],
        "url": pa.array(["x", None, "y"], pa.string_view()),
        "body": ["a", None, "c"],
        "stars": [1, None, 3],
        "kind": pa.array(["book", None, "wiki"]).dictionary_encode(),
        "number": pa.array([7, 8, 9], pa.uint64()),
    }
    path = write_parquet(tmp_path / "a.parquet", columns, row_group_size=2)
    table, _ = read_table(path=path, text="body", id="number", source="kind", keep=["url", "stars"])
    assert table.schema == pa.schema(
        [
            ("source_id", pa.string()),
            ("text", pa.large_string()),
            ("source", pa.string()),
            ("url", pa.string()),
            ("stars", pa.string()),
        ]
    )
    assert [tuple(row.values()) for row in table.to_pylist()] == [
        ("7", "a", "book", "x", "1"),
        ("8", None, "a.parquet", None, None),
        ("9", "c", "wiki", "y", "3"),
    ]
    assert read(path=path, text="body")[0] == {"source_id": None, "text": "a", "source": "a.parquet"}
    assert texts_of(path=path, text="url", id="number", keep=["number", "body"]) == ["x", None, "y"]


@pytest.mark.parametrize(
    "kind",
    [
        pa.string(),
        pa.large_string(),
        pa.string_view(),
        pa.binary(),
        pa.large_binary(),
        pa.dictionary(pa.int32(), pa.string()),
        pa.dictionary(pa.int8(), pa.large_string()),
    ],
    ids=str,
)
def test_every_string_type_is_text(tmp_path: Path, kind: pa.DataType) -> None:
    values = pa.array([*TEXTS, None]).cast(kind) if not pa.types.is_dictionary(kind) else pa.array([*TEXTS, None], kind)
    path = write_parquet(tmp_path / "a.parquet", {"text": values, "kept": values})
    rows = read(path=path, source="kept", id=None, keep=["kept"])
    assert [row["text"] for row in rows] == [row["kept"] for row in rows] == [*TEXTS, None]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1], "int64"),
        ([["a"]], "list<element: string>"),
        ([{"a": "b"}], "struct<a: string>"),
        (pa.array([None], pa.null()), "null"),
    ],
)
def test_a_text_column_of_another_type_is_refused(tmp_path: Path, values: Any, kind: str) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"text": values})
    with pytest.raises(UserError, match=rf"a\.parquet: column 'text' \(input\.text\) is {kind}.* must hold strings\."):
        read(path=path)


@pytest.mark.parametrize("values", [[["a"]], [{"a": "b"}], pa.array([b"ab"], pa.binary(2))])
@pytest.mark.parametrize("role", ["id", "source", "keep"])
def test_other_columns_must_hold_strings_or_numbers(tmp_path: Path, values: Any, role: str) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"text": ["a"], "x": values})
    with pytest.raises(UserError, match=rf"column 'x' \(input\.{role}\) is .* must hold strings or numbers\."):
        read(path=path, **{role: ["x"] if role == "keep" else "x"})


@pytest.mark.parametrize("role", ["text", "id", "source", "keep"])
def test_a_missing_column_is_named_with_the_file_and_its_columns(tmp_path: Path, role: str) -> None:
    write_parquet(tmp_path / "a.parquet", {"text": ["a"], "url": ["u"], "body": ["b"]})
    write_parquet(tmp_path / "b.parquet", {"text": ["a"], "url": ["u"]})
    message = rf"b\.parquet has no column 'body' \(input\.{role}\), .*its columns: text, url\. Set input\.{role}"
    with pytest.raises(UserError, match=message):
        read(path=str(tmp_path), **{role: ["body"] if role == "keep" else "body"})


def test_parquet_files_without_rows_are_fine(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"text": pa.array([], pa.string())})
    assert texts_of(path=path) == []
    write_parquet(tmp_path / "b.parquet", {"text": ["b"]})
    assert texts_of(path=str(tmp_path), part_rows=1) == ["b"]


def test_a_broken_parquet_file_is_named_before_anything_is_read(tmp_path: Path) -> None:
    path = Path(write_parquet(tmp_path / "a.parquet", {"text": TEXTS}))
    whole = path.read_bytes()
    for data in (
        b"",
        b"PAR1",
        whole[:-1],
        whole[: len(whole) // 2],
        b"<html>not found</html>",
        whole[:-200] + whole[-8:],
    ):
        path.write_bytes(data)
        settings = Input(path=str(path))
        files = list_files(settings)
        with pytest.raises(
            UserError, match=r"a\.parquet is damaged or cut short, or no parquet file \(.*Fetch it again"
        ):
            plan_splits(settings, files)


def test_a_damaged_row_group_is_named(tmp_path: Path) -> None:
    path = Path(write_parquet(tmp_path / "a.parquet", {"text": TEXTS}))
    whole = path.read_bytes()
    path.write_bytes(whole[:4] + b"\xff" * 40 + whole[44:])
    with pytest.raises(UserError, match=r"a\.parquet is damaged or cut short, in row group 0 \("):
        read(path=str(path))


def test_a_null_id_in_parquet_is_an_error_with_its_row(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", {"text": ["a"] * 9, "id": [*range(8), None]}, row_group_size=2)
    with pytest.raises(UserError, match=r"a\.parquet, row 8 \(from 0\): 'id' \(input\.id\) is missing or null\. Give"):
        read(path=path, id="id", part_rows=1)


def test_bytes_in_parquet_that_are_no_utf8_are_replaced_and_counted(tmp_path: Path) -> None:
    values = [f"text {number}".encode() for number in range(3_000)]
    values[7], values[2_500], values[2_501] = b"caf\xe9", b"\xed\xa0\x80", "\ufffd".encode()
    claimed = pa.array(values).cast(pa.large_binary()).buffers()
    text = pa.Array.from_buffers(pa.large_string(), len(values), claimed)  # what a careless writer leaves in a file
    path = write_parquet(tmp_path / "a.parquet", {"text": text, "b": pa.array(values), "i": range(3_000)})
    expected = [value.decode(errors="replace") for value in values]
    for column in ("text", "b"):
        table, num_replaced = read_table(path=path, text=column, source="b", id="i")
        assert table["text"].to_pylist() == expected == table["source"].to_pylist()
        assert num_replaced == 2
        table.validate(full=True)


# Jsonl


@pytest.mark.parametrize("ending", COMPRESS)
@pytest.mark.parametrize("size", [1, 10, 10**6])
def test_jsonl_rows_come_out_as_strings(tmp_path: Path, ending: str, size: int) -> None:
    lines = [
        '{"text": "a", "id": 1, "source": "s", "url": "u", "stars": 1.5, "x": {"y": [1]}}',
        "",
        '{"text": null, "id": "two", "source": null, "stars": true, "url": null}',
        ' {"id": 3, "text": "c"} ',
        "  \t",
        '{"id": 12345678901234567890, "text": "d", "source": 4}',
    ]
    for eol in ("\n", "\r\n"):
        data = b"\xef\xbb\xbf" + eol.join(lines).encode()
        path = write(tmp_path / f"a.jsonl{ending}", COMPRESS[ending](data))
        table, _ = read_table(path=path, id="id", source="source", keep=["url", "stars"], part_bytes=size)
        assert [tuple(row.values()) for row in table.to_pylist()] == [
            ("1", "a", "s", "u", "1.5"),
            ("two", None, f"a.jsonl{ending}", None, "true"),
            ("3", "c", f"a.jsonl{ending}", None, None),
            ("12345678901234567890", "d", "4", None, None),
        ]
        assert {str(field.type) for field in table.schema} == {"string", "large_string"}


def test_text_is_kept_to_the_letter(tmp_path: Path) -> None:
    texts = ["a\0b", "\0", "tab\there", "\u2028\x85\x0b\x0c", "\r\n", "\ufeffmark", "\ufffd", "\N{GRINNING FACE}"]
    escaped = b"".join(json.dumps({"text": text}).encode() + b"\n" for text in texts)
    for data in (to_jsonl(texts), escaped, b'{"text": "raw\0nul\tand tab"}\n' + escaped):
        table, num_replaced = read_table(path=write(tmp_path / "a.jsonl", data))
        assert table["text"].to_pylist()[-len(texts) :] == texts
        assert num_replaced == 0
    assert table["text"][0].as_py() == "raw\0nul\tand tab"


def test_lone_surrogates_and_bytes_that_are_no_utf8_are_replaced_and_counted(tmp_path: Path) -> None:
    lines = {
        b'{"text": "\\ud800 alone"}': "\ufffd alone",
        b'{"text": "\\uDFFF\\ud83d\\ude00"}': "\ufffd\N{GRINNING FACE}",
        b'{"text": "caf\xe9 \xe2\x82!"}': b"caf\xe9 \xe2\x82!".decode(errors="replace"),
        b'{"text": "\\ud83d\\ude00 \\ufffd"}': "\N{GRINNING FACE} \ufffd",
        b'{"text": "intact", "unread": "\xff"}': "intact",
    }
    table, num_replaced = read_table(path=write(tmp_path / "a.jsonl", b"\n".join(lines)))
    assert table["text"].to_pylist() == list(lines.values())
    assert num_replaced == 3
    path = write(tmp_path / "b.jsonl", b'{"text": "a", "id": "\\ud800"}')
    assert read(path=path, id="id", keep=["id"])[0] == {
        "source_id": "\ufffd",
        "text": "a",
        "source": "b.jsonl",
        "id": "\ufffd",
    }


@pytest.mark.parametrize("ending", COMPRESS)
@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{oops", r"not JSON \(Expecting property name enclosed in double quotes at column 2\)\. A jsonl file has one"),
        ('{"text": "a"', r"not JSON \(.*column \d+\)"),
        ('["a"]', r"a list, not an object\. .* jq -c '\.\[\]' OLD"),
        ('"a"', "a string, not an object"),
        ("12", "a number, not an object"),
        ("null", "null, not an object"),
        ('{"body": "a", "id": 1}', r"no field 'text' \(input\.text\); its fields: body, id\. Set input\.text"),
        ("{}", "its fields: none"),
        ('{"text": 1, "id": 1}', r"field 'text' \(input\.text\) is a number, but must be a string or null"),
        ('{"text": ["a"], "id": 1}', "is a list, but must be a string or null"),
        ('{"text": true, "id": 1}', "is a boolean, but must be a string or null"),
        ('{"text": "a"}', r"'id' \(input\.id\) is missing or null\. Give every document an id"),
        ('{"text": "a", "id": null}', r"'id' \(input\.id\) is missing or null"),
        ('{"text": "a", "id": [1]}', r"field 'id' \(input\.id\) is a list, but must be a string or number"),
        ('{"text": "a", "id": 1, "source": {}}', r"field 'source' \(input\.source\) is an object, but must be"),
        ('{"text": "a", "id": 1, "url": []}', r"field 'url' \(input\.keep\) is a list, but must be a string or number"),
        ("[" * 20_000, "(nested too deeply|not JSON)"),
        ('{"text": "a", "id": ' + "1" * 5_000 + "}", "Exceeds the limit"),
        ("\0\0\0", "not JSON"),
    ],
    ids=range(19),
)
def test_a_bad_line_is_named_with_its_number_wherever_the_file_is_cut(
    tmp_path: Path, ending: str, line: str, message: str
) -> None:
    good = '{"text": "a", "id": 1}\n'
    data = (good * 50 + "\n" + good * 4_000 + line + "\n" + good).encode()
    path = write(tmp_path / f"a.jsonl{ending}", COMPRESS[ending](data))
    settings = Input(path=path, id="id", source="source", keep=["url"], part_bytes=30_000)
    splits = plan_splits(settings, list_files(settings))
    assert len(splits) == (1 if ending else 4)
    assert sum(read_split(split, settings).table.num_rows for split in splits[:-2]) == (0 if ending else 2_609)
    with pytest.raises(UserError, match=rf"^a\.jsonl{ending}, line 4052: .*{message}"):
        list(map(partial(read_split, settings=settings), splits[-2:]))


def test_a_json_list_over_many_lines_says_how_to_rewrite_it(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", json.dumps([{"text": "a"}], indent=1))
    with pytest.raises(UserError, match=r"a\.json, line 1: not JSON .* jq -c"):
        read(path=path)


@pytest.mark.parametrize("ending", COMPRESS)
def test_a_line_of_twenty_megabytes_is_read(tmp_path: Path, ending: str) -> None:
    texts = ["before", "\u4e09 " * 5_000_000, "after"]
    path = write(tmp_path / f"a.jsonl{ending}", COMPRESS[ending](to_jsonl(texts)))
    assert texts_of(path=path, part_bytes=2**20) == texts


# Compression


@pytest.mark.parametrize("ending", [".gz", ".zst"])
def test_files_of_several_members_or_frames_are_read_to_the_end(tmp_path: Path, ending: str) -> None:
    compress = COMPRESS[ending]
    data = to_jsonl(["a", "b"])
    members = [compress(data[:5]), compress(b""), compress(data[5:]), compress(to_jsonl(["c"]))]
    assert texts_of(path=write(tmp_path / f"a.jsonl{ending}", b"".join(members))) == ["a", "b", "c"]


@pytest.mark.parametrize("name", ["a.jsonl", "a.txt"])
@pytest.mark.parametrize("ending", [".gz", ".zst"])
def test_a_compressed_file_that_is_cut_short_or_damaged_never_passes(tmp_path: Path, name: str, ending: str) -> None:
    compress = COMPRESS[ending]
    rng = random.Random(0)
    content = to_jsonl([f"{rng.random()}" * 20 for _ in range(2_000)])
    whole = compress(content)
    lengths = [
        1,
        3,
        4,
        10,
        20,
        *(len(whole) * tenth // 10 for tenth in range(1, 10)),
        *range(len(whole) - 9, len(whole)),
    ]
    damaged = [whole[:length] for length in lengths]
    damaged += [whole + whole[:length] for length in (3, 100)]
    damaged += [whole + b"rubbish, not a frame", b"plain text, not compressed"]
    for data in damaged:
        path = write(tmp_path / f"{name}{ending}", data)
        message = (
            rf"^{name}{ending} is damaged or cut short, soon after the first [\d,]+ bytes of its content \(.+\)\. Fetch"
        )
        with pytest.raises(UserError, match=message):
            read(path=path)
    with pytest.raises(UserError, match=r"is empty, not even a (gzip|zstd) header\. Fetch it again"):
        read(path=write(tmp_path / f"{name}{ending}", b""))
    read(path=write(tmp_path / f"{name}{ending}", whole))


def test_the_error_says_how_much_could_be_read(tmp_path: Path) -> None:
    whole = gzip.compress(random.Random(0).randbytes(500_000).hex().encode())
    path = write(tmp_path / "a.txt.gz", whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"soon after the first (4|5)\d\d,\d\d\d bytes"):
        read(path=path)


def test_a_zstd_window_that_cannot_be_read_says_what_to_do(tmp_path: Path) -> None:
    parameters = zstandard.ZstdCompressionParameters.from_level(1, window_log=28)
    stream = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    path = write(tmp_path / "a.jsonl.zst", stream.compress(to_jsonl(["a"])) + stream.flush())
    with pytest.raises(UserError, match=r"zstd window above 128 MiB, .* zstd -d --long=31"):
        read(path=path)


def test_a_failing_disk_is_not_called_a_damaged_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    class Failing(io.BytesIO):
        def read(self, *_: Any) -> bytes:
            raise OSError(5, "Input/output error")

    for name in ("a.jsonl", "a.jsonl.gz"):
        settings = Input(path=write(tmp_path / name, gzip.compress(b"{}")))
        [split] = plan_splits(settings, list_files(settings))
        with monkeypatch.context() as patched:
            patched.setattr("fsspec.implementations.local.LocalFileSystem.open", lambda *_, **__: Failing(b"x"))
            with pytest.raises(OSError, match="Input/output error"):
                read_split(split, settings)


# Text


def test_a_text_file_is_a_document_with_its_folder_as_source(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    write(corpus / "a.txt", b"\xef\xbb\xbfmark\r\nand\rlines\n")
    write(corpus / "books" / "b.md.gz", gzip.compress(b"b\0"))
    write(corpus / "books" / "old" / "c.rst.zst", zstandard.compress(b"caf\xe9"))
    write(corpus / "d.txt", b"")
    table, num_replaced = read_table(path=str(corpus))
    assert [tuple(row.values()) for row in table.to_pylist()] == [
        ("a.txt", "mark\r\nand\rlines\n", "corpus"),
        ("books/b.md.gz", "b\0", "books"),
        ("books/old/c.rst.zst", "caf\ufffd", "books/old"),
        ("d.txt", "", "corpus"),
    ]
    assert num_replaced == 1
    assert read(path=str(corpus / "a.txt"))[0]["source"] == "corpus"


@pytest.mark.parametrize("options", [{"id": "x"}, {"source": "x"}, {"keep": ["x"]}])
def test_text_files_have_no_columns(tmp_path: Path, options: dict[str, Any]) -> None:
    path = write(tmp_path / "a.txt", "x")
    with pytest.raises(UserError, match="name columns, but text files have none"):
        read(path=path, **options)


def test_formats_can_be_mixed_when_each_is_named(tmp_path: Path) -> None:
    paths = [
        write_parquet(tmp_path / "a.parquet", {"text": ["a"]}),
        write(tmp_path / "b.jsonl", to_jsonl(["b"])),
        write(tmp_path / "c.txt", "c"),
        write_parquet(tmp_path / "d.parquet", {"text": ["d"]}),
    ]
    for size in (1, 10**6):
        assert texts_of(path=paths, part_bytes=size) == ["a", "b", "c", "d"]


# Settings


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": ""}, r"input\.path is ''"),
        ({"path": []}, r"input\.path is \[\]"),
        ({"path": ["a", ""]}, r"input\.path is \['a', ''\]"),
        ({"format": "csv"}, r"input\.format is 'csv', but it must be one of auto, parquet, jsonl, text"),
        ({"text": ""}, r"input\.text is ''"),
        ({"id": ""}, r"input\.id is ''"),
        ({"source": ""}, r"input\.source is ''"),
        ({"keep": ["url", "url"]}, r"input\.keep is .* names of columns, each once"),
        ({"keep": [""]}, r"input\.keep is \[''\]"),
        ({"keep": ["url", "source"]}, r"input\.keep is .* free of our own columns: doc_id, source_id, text, source"),
        ({"part_bytes": 0}, r"input\.part_bytes is 0, but it must be at least 1, or null"),
        ({"part_rows": -1}, r"input\.part_rows is -1"),
        ({"part_bytes": 1, "part_rows": 1}, r"part_bytes and input\.part_rows are both set\. Set one of them to null"),
    ],
)
def test_settings_are_checked_at_construction(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Input(**({"path": "a"} | options))
