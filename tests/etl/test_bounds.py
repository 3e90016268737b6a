"""What is too large is dropped and counted, or ends in one sentence, and memory stays bounded: hostile files, all."""

import gzip
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from etl.inputs import Input, list_files, plan_splits, read_split
from etl.recipe import Recipe
from nextlong.errors import UserError
from tests.conftest import make_texts
from tests.etl.test_pipeline import run, table
from tests.marks import in_soak

MakeRecipe = Callable[..., Recipe]
MIB = 2**20
_READ = """
import resource, sys
from etl.inputs import Input, list_files, plan_splits, read_tables
from nextlong.errors import UserError

def peak_kib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

settings = Input(path=sys.argv[1], **eval(sys.argv[2]))
before = peak_kib()
rows = too_long = 0
try:
    for split in plan_splits(settings, list_files(settings)):
        for read in read_tables(split, settings):
            rows += read.table.num_rows
            too_long += int(read.is_too_long.sum())
except UserError as error:
    print(error, file=sys.stderr)
print(rows, too_long, (peak_kib() - before) * 1024)
"""


def read_apart(path: Path, **options: Any) -> tuple[int, int, int, str]:
    """Read a file in a process of its own: rows, those too long, bytes by which its peak memory rose, its sentence."""
    ran = subprocess.run(
        [sys.executable, "-c", _READ, path, repr(options)], capture_output=True, text=True, timeout=200
    )
    assert ran.returncode == 0, ran.stderr
    assert "Traceback" not in ran.stderr
    rows, too_long, num_bytes = map(int, ran.stdout.split())
    return rows, too_long, num_bytes, ran.stderr


def sparse(path: Path, num_bytes: int, *, start: bytes = b"", end: bytes = b"") -> Path:
    """A file of zeros, which take no disk, between a start and an end."""
    with open(path, "wb") as file:
        file.write(start)
        file.truncate(num_bytes - len(end))
        file.seek(0, io.SEEK_END)
        file.write(end)
    return path


def gzip_bomb(path: Path, num_bytes: int, *, start: bytes = b"", piece: bytes = bytes(MIB)) -> Path:
    member = gzip.compress(piece * (64 * MIB // len(piece)))
    path.write_bytes(gzip.compress(start) + member * (num_bytes // (64 * MIB)))
    return path


def zstd_bomb(path: Path, num_bytes: int, *, start: bytes = b"", piece: bytes = bytes(MIB)) -> Path:
    parameters = zstandard.ZstdCompressionParameters.from_level(3, window_log=27)  # the largest that is read
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    with open(path, "wb") as file:
        file.write(packer.compress(start))
        for _ in range(num_bytes // len(piece)):
            file.write(packer.compress(piece))
        file.write(packer.flush())
    return path


BOMBS = {"gz": gzip_bomb, "zst": zstd_bomb}


def lines_of(texts: list[str]) -> bytes:
    return b"".join(json.dumps({"text": text}).encode() + b"\n" for text in texts)


@pytest.mark.parametrize("ending", ["parquet", "jsonl", "jsonl.gz", "jsonl.zst", "txt", "txt.gz"])
@pytest.mark.parametrize("part", [{"part_bytes": 1000}, {"part_rows": 2}, {}], ids=str)
def test_a_document_above_the_limit_is_dropped_and_one_at_the_limit_kept(
    ending: str, part: dict[str, int], tmp_path: Path
) -> None:
    texts = [
        "short",
        "\N{GRINNING FACE}" * 300,
        "e" * 301,
        "\N{LATIN SMALL LETTER E WITH ACUTE}" * 301,
        "x" * 5000,
        "end",
    ]
    pack = gzip.compress if ending.endswith("gz") else zstandard.compress if ending.endswith("zst") else bytes
    if ending == "parquet":
        pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet", row_group_size=2)
    elif ending.startswith("jsonl"):
        (tmp_path / f"a.{ending}").write_bytes(pack(lines_of(texts)))
    else:
        for number, text in enumerate(texts):
            (tmp_path / f"{number}.{ending}").write_bytes(pack(text.encode()))
    settings = Input(path=str(tmp_path), max_document_chars=300, **part)  # type: ignore[arg-type]
    reads = [read_split(split, settings) for split in plan_splits(settings, list_files(settings))]
    found = [text for read in reads for text in read.table["text"].to_pylist()]
    assert found == [texts[0], texts[1], None, None, None, "end"]
    assert [bool(each) for read in reads for each in read.is_too_long] == [text is None for text in found]
    whole = Input(path=str(tmp_path), max_document_chars=None, **part)  # type: ignore[arg-type]
    reads = [read_split(split, whole) for split in plan_splits(whole, list_files(whole))]
    assert [text for read in reads for text in read.table["text"].to_pylist()] == texts


def test_dropped_documents_are_counted_in_a_run_and_told(
    make_recipe: MakeRecipe, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    texts = [text for _, text in make_texts(60)]
    (tmp_path / "a.jsonl").write_bytes(lines_of([*texts[:30], "word " * 5000, "word " * 5000, *texts[30:], ""]))
    fields = {"path": str(tmp_path / "a.jsonl"), "id": None, "source": None, "max_document_chars": 20_000}
    work, summary = run(make_recipe(input=fields), only="read")
    documents = summary["stages"]["read"]["account"]["documents"]
    assert documents["dropped"] == {"too_long": 2, "empty_text": 1}
    assert documents["read"] == 63
    assert table(work, "read")["doc_id"].to_pylist() == [*range(30), *range(32, 62)]
    assert (
        "2 documents are longer than input.max_document_chars=20,000 and are dropped, the first is document 30 of the "
        "input, in a.jsonl"
    ) in caplog.text


def test_a_text_file_that_is_too_long_is_not_opened(tmp_path: Path) -> None:
    rows, too_long, num_bytes, _ = read_apart(sparse(tmp_path / "a.txt", 2**42))
    assert (rows, too_long) == (1, 1)
    assert num_bytes < 20 * MIB


@pytest.mark.parametrize("part", [{"part_bytes": 10 * MIB}, *in_soak({"part_rows": 1}, {})], ids=str)
def test_a_line_that_is_too_long_is_passed_over_and_never_held(tmp_path: Path, part: dict[str, int]) -> None:
    path = tmp_path / "a.jsonl"
    sparse(path, 512 * MIB, start=lines_of(["before"]) + b'{"text": "', end=b'"}\n' + lines_of(["after", "end"]))
    rows, too_long, num_bytes, told = read_apart(path, max_document_chars=1000, **part)
    assert (rows, too_long, told) == (4, 1, "")
    assert num_bytes < 40 * MIB


@pytest.mark.parametrize("ending", BOMBS)
@pytest.mark.parametrize("name", ["a.jsonl", *in_soak("a.txt", "lines.jsonl")])
def test_a_bomb_ends_in_one_sentence_and_not_in_swap(tmp_path: Path, name: str, ending: str) -> None:
    start = b'{"text": "' if name == "a.jsonl" else b""
    piece = lines_of(["word " * 200] * 1000) if name == "lines.jsonl" else bytes(MIB)
    path = BOMBS[ending](tmp_path / f"{name}.{ending}", 512 * MIB, start=start, piece=piece)
    assert path.stat().st_size < 512 * MIB / 100
    limits = {"max_document_chars": None if name == "a.txt" else 1000, "max_decompressed_bytes": 100 * MIB}
    for part in ({}, {"part_rows": 1000}):
        rows, _, num_bytes, told = read_apart(path, **limits, **part)
        assert rows == 0 or name == "lines.jsonl"
        assert told.startswith(f"{name}.{ending}, {path.stat().st_size:,} bytes, holds more than 104,857,600 bytes")
        assert "or raise input.max_decompressed_bytes." in told
        assert len(told.splitlines()) == 1
        assert num_bytes < 400 * MIB  # a.txt holds what it may, a zstd window is 128 MiB


@pytest.mark.long
@pytest.mark.parametrize("ending", BOMBS)
def test_a_bomb_is_bounded_by_default_too(tmp_path: Path, ending: str) -> None:
    for name, start in (("a.jsonl", b'{"text": "'), ("a.txt", b"")):
        path = BOMBS[ending](tmp_path / f"{name}.{ending}", 704 * MIB, start=start)
        rows, too_long, num_bytes, _ = read_apart(path)
        assert (rows, too_long) == (1, 1)
        assert num_bytes < 1300 * MIB  # a line may have 600 MB


def test_a_bomb_that_is_cut_short_is_damaged(tmp_path: Path) -> None:
    for ending, bomb in BOMBS.items():
        path = bomb(tmp_path / f"a.txt.{ending}", 64 * MIB)
        path.write_bytes(path.read_bytes()[:-9])
        assert "is damaged or cut short" in read_apart(path)[3]


def test_compressed_files_within_the_limit_are_read(tmp_path: Path) -> None:
    content = lines_of(["some text"] * 100)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(content))
    settings = Input(path=str(tmp_path), max_decompressed_bytes=len(content))
    [split] = plan_splits(settings, list_files(settings))
    assert read_split(split, settings).table.num_rows == 100
    lower = Input(path=str(tmp_path), max_decompressed_bytes=len(content) - 1)
    with pytest.raises(
        UserError, match=r"a\.jsonl\.gz, \d+ bytes, holds more than 2,199 bytes when it is decompressed"
    ):
        read_split(split, lower)


@pytest.mark.parametrize("name", ["text", *in_soak("id")])
def test_a_million_equal_values_of_a_small_parquet_file_are_not_held_at_once(tmp_path: Path, name: str) -> None:
    values = pa.DictionaryArray.from_arrays(pa.array([0] * 1_000_000, pa.int32()), pa.array(["x y " * 2500]))
    columns = {"text": ["a"] * 1_000_000, "id": ["a"] * 1_000_000} | {name: values}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet", row_group_size=2_000_000)
    assert (tmp_path / "a.parquet").stat().st_size < MIB
    rows, _, num_bytes, told = read_apart(tmp_path / "a.parquet", id="id")
    assert (rows, told) == (1_000_000, "")
    assert num_bytes < 1500 * MIB


def test_more_rows_than_bytes_could_hold_are_refused(tmp_path: Path) -> None:
    rows = 2**26 + 1
    values = pa.DictionaryArray.from_arrays(np.zeros(rows, np.int8), ["same"])
    with pq.ParquetWriter(tmp_path / "a.parquet", pa.schema({"text": values.type})) as writer:
        writer.write_table(pa.table({"text": values}), row_group_size=2**24)
    settings = Input(path=str(tmp_path))
    with pytest.raises(
        UserError, match=r"a\.parquet has 67,108,865 rows in [\d,]+ bytes.*Leave the file out, or write"
    ):
        plan_splits(settings, list_files(settings))


@pytest.mark.parametrize("brackets", ["[]", "{}"])
def test_json_nested_a_hundred_thousand_deep_is_named_with_its_line(tmp_path: Path, brackets: str) -> None:
    opening = "[" if brackets == "[]" else '{"a":'
    deep = opening * 100_000 + "1" + brackets[1] * 100_000
    (tmp_path / "a.jsonl").write_text(f'{{"text": "fine"}}\n{{"text": "deep", "other": {deep}}}\n')
    rows, _, _, told = read_apart(tmp_path / "a.jsonl")
    assert told == "a.jsonl, line 2: nested too deeply to be read. Remove the line.\n"
    assert rows == 0


def test_a_footer_that_is_damaged_in_its_names_or_offsets_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(
        pa.table({"text": ["a"] * 50, "other": ["b"] * 50}), path, write_statistics=False, store_schema=False
    )
    whole = path.read_bytes()
    damaged = [
        whole.replace(b"other", b"oth\xffr"),
        whole[:-8] + b"\xff\xff\xff\x7fPAR1",
        whole[:-8] + bytes(4) + b"PAR1",
    ]
    for data in damaged:
        assert data != whole
        path.write_bytes(data)
        assert "a.parquet is damaged or cut short" in read_apart(path)[3]
