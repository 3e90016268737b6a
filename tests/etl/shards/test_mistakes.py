"""What a user can get wrong around packed sequences ends in one sentence with a remedy; nothing is lost."""

import dataclasses
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from etl.engine import Engine
from etl.shards.export import export
from etl.shards.manifest import read_manifest
from etl.shards.of_mixture import Mixture
from etl.shards.of_work import WorkSource
from etl.work import Work
from nextlong.shards.mds import Mds
from nextlong.shards.parquet import Parquet
from tests.etl.shards.conftest import Pack
from tests.etl.shards.refusals import refused
from tests.etl.shards.test_export import FORMATS, _export, _hashes
from tests.etl.test_cli import nextlong


def _write(path: Path, columns: dict[str, Any]) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


@pytest.mark.parametrize("text", ["", "\n \n"], ids=["empty", "blank"])
@pytest.mark.parametrize("name", ["a.jsonl", "a.txt"])
def test_an_input_without_a_document(pack: Pack, tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    if (name, text) == ("a.txt", "\n \n"):
        assert len(pack(path=tmp_path / name)) == 1
    else:
        refused(lambda: pack(path=tmp_path / name), "there is no sequence")
    assert name in os.listdir(tmp_path)


@pytest.mark.parametrize("rows", [[], [None, None], ["", "a"]], ids=["no row", "nulls", "short"])
def test_nothing_is_left_of_the_input(pack: Pack, tmp_path: Path, rows: list[str | None]) -> None:
    path = _write(tmp_path / "a.parquet", {"text": pa.array(rows, pa.string())})
    refused(lambda: pack(path=path), "there is no sequence")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("length", [-1, 0, 3, 2**31, 2**40, 10**30])
def test_a_length_that_cannot_be(pack: Pack, length: int) -> None:
    refused(lambda: pack(length_tokens=length), "too short to pack|do not fit a list|is too long")


def test_a_seed_below_zero(pack: Pack) -> None:
    refused(lambda: pack(seed=-1), "seed is -1")


@pytest.fixture
def two(pack: Pack, work: Work, tmp_path: Path) -> list[Path]:
    return [pack("one").path, pack("two", seed=5).path]


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"proportions": ["0", "1"]}, "proportions are 0, 1, but each must be above 0"),
        ({"proportions": ["-1", "2"]}, "proportions are -1, 2, but each must be above 0"),
        ({"proportions": ["nan", "1"]}, "proportions are nan, 1, but they must be numbers"),
        ({"proportions": ["inf", "1"]}, "proportions are inf, 1, but they must be numbers"),
        ({"proportions": ["1/0", "1"]}, "proportions are 1/0, 1, but they must be numbers"),
        ({"proportions": ["", "1"]}, "proportions are , 1, but they must be numbers"),
        ({"proportions": ["1e999999999", "1"]}, "1e999999999 is no proportion. Give numbers such as"),
        ({"proportions": ["9" * 41, "1"]}, "is no proportion. Give numbers such as"),
        ({"proportions": ["1"]}, "there are 2 folders, but 1 numbers: give one for each"),
        ({"proportions": ["1", "1", "1"]}, "there are 2 folders, but 3 numbers"),
        ({"proportions": ["1", "1"], "num_rows": 0}, "--rows is 0, but a mixture must have a sequence or more"),
        ({"proportions": ["1", "1"], "num_rows": -1}, "--rows is -1, but"),
        ({"proportions": ["1", "1"], "num_rows": 10**15}, "would have 1,000,000,000,000,000 sequences, but"),
        ({"proportions": ["1", "1"], "seed": -1}, "--shuffle is -1, but a seed must be at least 0"),
        ({"repeats": ["0", "1"]}, "--repeats are 0, 1, but each must be above 0"),
        ({"repeats": ["nan", "1"]}, "--repeats are nan, 1, but they must be numbers"),
        ({"repeats": ["1e-9", "1e-9"]}, "the mixture has no row"),
        ({"repeats": ["1e20", "1"]}, "sequences, but 4,294,967,296 is the most"),
        ({"repeats": ["1", "1"], "num_rows": 5}, "either --proportions .* or --repeats"),
        ({}, "either --proportions .* or --repeats"),
    ],
    ids=str,
)
def test_a_mixture_that_cannot_be(two: list[Path], arguments: dict[str, Any], match: str) -> None:
    refused(lambda: Mixture.of(two, **arguments), match)


def test_folders_that_do_not_mix(two: list[Path], pack: Pack, work: Work, tmp_path: Path) -> None:
    def mix(*names: str) -> Mixture:
        return Mixture.of([tmp_path / name for name in names], proportions=["1"] * len(names))

    shutil.copytree(tmp_path / "one", tmp_path / "sub" / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "copy")
    (tmp_path / "link").symlink_to("one")
    pack("longer", length_tokens=512)
    _export(work, tmp_path / "tokens", "mds")
    for names, match in (
        (("one",), "a mixture needs two folders or more"),
        (
            ("one", "one"),
            "two of the folders are called one: .* Rename one; to take a folder more often, use --repeats",
        ),
        (("one", "sub/one"), "two of the folders are called one"),
        (("one", "copy"), "one and .*copy are the same export. To take it more often, use --repeats"),
        (("one", "link"), "one and .*link are the same export"),
        (("one", "longer"), "longer has sequences of 512 tokens, but .*one of 256: pack them to one length"),
        (("one", "none"), "none is no folder"),
        (("one", "sub"), "sub is no export"),
    ):
        refused(lambda names=names: mix(*names), match)
    specification = json.loads((tmp_path / "two" / "tokenizer.json").read_text())
    (tmp_path / "other.json").write_text(json.dumps(specification, indent=3))
    masked = pack("llm", format_=("mds", Mds(columns="llm-foundry")))
    assert masked.about.has_mask
    refused(lambda: mix("one", "llm"), "llm holds tokens only, without their mask. Take what it was exported from")


def test_a_folder_of_another_tokenizer_is_not_mixed(two: list[Path], model_folder: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text('{"text": "the cell of a market and its force"}\n' * 200)
    arguments = ["--tokenizer", model_folder / "tokenizer.json", "--length", 256, "--workers", 0]
    nextlong("pack", corpus, *arguments, "--out", tmp_path / "other")
    match = "were made with different tokenizers"
    refused(lambda: Mixture.of([two[0], tmp_path / "other"], proportions=["1", "1"]), match)


def test_a_run_that_is_not_finished(work: Work, tmp_path: Path) -> None:
    unfinished = tmp_path / "work"
    shutil.copytree(work.path, unfinished)
    (unfinished / "7-packed" / "manifest.json").unlink()
    refused(lambda: WorkSource.open(unfinished), r"work holds no packed sequences yet: run 'nextlong run .*first")


@pytest.mark.parametrize("stage", ["6-long-documents", "7-packed"])
def test_a_run_that_was_damaged_says_to_run_it_again(work: Work, tmp_path: Path, stage: str) -> None:
    damaged = tmp_path / "work"
    shutil.copytree(work.path, damaged)
    [part, *_] = sorted((damaged / stage).glob("*.parquet"))
    content = bytearray(part.read_bytes())
    content[len(content) // 3] ^= 1
    part.write_bytes(content)
    match = rf"{part.name} is not as .*nextlong run"
    refused(lambda: export(WorkSource.open(damaged), str(tmp_path / "out"), *FORMATS["mds"], Engine()), match)


def test_other_part_sizes_give_the_same_bytes(pack: Pack, corpus_file: Path, tmp_path: Path) -> None:
    from etl.inputs import Input
    from etl.shards.laid_out import PackSettings
    from etl.shards.of_documents import PackSource
    from etl.shards.tokens import Documents
    from nextlong.tokenizing import Tokenizer

    tokenizer = Tokenizer(pack("first").path / "tokenizer.json")
    for rows in (7, 50):
        reading = Input(path=str(corpus_file), source="source", part_rows=rows)
        source = PackSource.of(
            Documents(kind="text", input=reading), PackSettings(length_tokens=256), tokenizer, "pack"
        )
        source = dataclasses.replace(source, tokenizer_file=tmp_path / "first" / "tokenizer.json")
        export(source, str(tmp_path / f"of-{rows}"), "parquet", Parquet(), Engine())
    assert _hashes(tmp_path / "of-7") == _hashes(tmp_path / "of-50") == _hashes(tmp_path / "first")


def test_the_command_says_it_in_one_sentence_and_leaves_what_is_there(
    work: Work, tokenizer_file: Path, tmp_path: Path
) -> None:
    path = _write(tmp_path / "ids.parquet", {"input_ids": [[1] * 20] * 3, "mask": [[1] * 20, [1] * 19, [1] * 20]})
    packing = ["--tokenizer", tokenizer_file, "--length", 16, "--workers", 0]
    for arguments, told in (
        (["pack", path, "--ids", *packing, "--out", tmp_path / "out"], "row 1 (from 0): the mask has 19 entries"),
        (
            ["export", work.path, "--format", "csv", "--out", tmp_path / "out"],
            "invalid choice: 'csv' (choose from 'mds'",
        ),
        (["export", work.path, "--out", tmp_path, "--workers", 0], "exists and is no export. Nothing is written over"),
        (["mix", tmp_path / "a", tmp_path / "b", "--out", tmp_path / "out"], "--proportions --repeats is required"),
        (["verify", tmp_path, "--workers", 0], "is no export: it has no manifest.json of one"),
        (["trace", tmp_path / "none", 0], "is no folder"),
    ):
        ran = nextlong(*arguments, status=2)
        assert told in ran.stderr.splitlines()[-1]
    assert read_manifest(tmp_path) is None
    assert not (tmp_path / "out").exists()
