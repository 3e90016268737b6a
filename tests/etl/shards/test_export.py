"""Exports: the run's sequences in every format, whatever the workers; and where every token of them came from."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from etl.engine import Engine
from etl.lookup import chunk_store, documents_of
from etl.shards.export import export
from etl.shards.of_folder import PackedFolder
from etl.shards.of_work import WorkSource
from etl.shards.trace import trace
from etl.shards.verify import verify
from etl.work import Work
from nextlong.errors import UserError
from nextlong.sequences import Sequences
from nextlong.shards.arrow import Arrow
from nextlong.shards.mds import Mds
from nextlong.shards.megatron import Megatron
from nextlong.shards.parquet import Parquet
from tests.conftest import TARGET
from tests.etl.test_cli import nextlong

FORMATS: dict[str, tuple[str, Any]] = {
    "mds": ("mds", Mds(hashes=("sha1",))),
    "mds-small": ("mds", Mds(shard_bytes=20_000)),
    "mds-zstd": ("mds", Mds(compression="zstd:7", shard_bytes=20_000)),
    "parquet": ("parquet", Parquet()),
    "parquet-small": ("parquet", Parquet(shard_tokens=5 * TARGET, group_tokens=2 * TARGET)),
    "arrow": ("arrow", Arrow()),
    "arrow-small": ("arrow", Arrow(shard_tokens=5 * TARGET)),
    "megatron": ("megatron", Megatron(vocab_size=600)),
    "megatron-small": ("megatron", Megatron(vocab_size=600, shard_tokens=5 * TARGET)),
}


def _export(work: Work, out: Path, name: str = "parquet", engine: Engine | None = None, **options: Any) -> PackedFolder:
    format_, how = FORMATS[name]
    export(WorkSource.open(work.path, **options), str(out), format_, how, engine or Engine())
    return PackedFolder.open(out)


def _rows(folder: PackedFolder) -> Sequences:
    return folder.read(0, len(folder))


def _expected(work: Work) -> list[list[int]]:
    """The token ids of the run's sequences of one long document each."""
    return [row for path, _ in work["interleave"].tables() for row in pq.read_table(path)["input_ids"].to_pylist()]


def _hashes(folder: Path) -> dict[str, str]:
    files = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_sequences_of_the_run(work: Work, tmp_path: Path, name: str) -> None:
    folder = _export(work, tmp_path / "out", name)
    rows = _rows(folder)
    assert rows.input_ids.tolist() == _expected(work)
    assert len(rows) >= 12
    assert rows.indices.tolist() == [[0, TARGET]] * len(rows)
    assert rows.mask is None
    [domains] = {tuple(pq.read_table(path)["domain"].to_pylist()) for path, _ in [_one_table(work)]}
    assert tuple(rows.domains[: len(domains)]) == domains
    assert (len(folder.manifest["shards"]) > 1) == ("small" in name or "zstd" in name)
    assert verify(tmp_path / "out", Engine()).faults == []


def _one_table(work: Work) -> tuple[Path, int]:
    return work["pack"].tables()[0]


@pytest.mark.parametrize("name", ["mds-small", "parquet-small", "megatron-small"])
def test_workers_change_no_byte(work: Work, tmp_path: Path, name: str, two_workers: Engine) -> None:
    _export(work, tmp_path / "alone", name)
    _export(work, tmp_path / "together", name, two_workers)
    assert _hashes(tmp_path / "alone") == _hashes(tmp_path / "together")
    assert len(_hashes(tmp_path / "alone")) > 6


def test_nothing_but_the_export_is_left(work: Work, tmp_path: Path) -> None:
    folder = _export(work, tmp_path / "out", "mds")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert _hashes(tmp_path / "out").keys() - folder.manifest["files"].keys() == {"README.md", "manifest.json"}


def test_the_same_export_again_does_nothing(work: Work, tmp_path: Path) -> None:
    _export(work, tmp_path / "out", "mds")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    _export(work, tmp_path / "out", "mds")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before


def test_another_export_is_not_written_over_it(work: Work, tmp_path: Path) -> None:
    _export(work, tmp_path / "out", "mds")
    before = _hashes(tmp_path / "out")
    with pytest.raises(UserError, match="holds another export"):
        _export(work, tmp_path / "out", "mds-small")
    assert _hashes(tmp_path / "out") == before


@pytest.mark.parametrize("name", ["mds", "arrow", "megatron", "parquet-small"])
def test_an_export_can_be_exported_to_another_format(work: Work, tmp_path: Path, name: str) -> None:
    first = _export(work, tmp_path / "first", name)
    export(first, str(tmp_path / "second"), *FORMATS["mds-zstd"], Engine())
    second = PackedFolder.open(tmp_path / "second")
    assert _rows(second).input_ids.tolist() == _rows(first).input_ids.tolist()
    assert second.provenance(0, 12).equals(first.provenance(0, 12))
    assert verify(tmp_path / "second", Engine()).faults == []


@pytest.mark.parametrize("name", ["mds", "mds-zstd", "arrow", "megatron", "parquet-small"])
def test_nothing_is_made_of_a_folder_with_a_flipped_bit(work: Work, tmp_path: Path, name: str) -> None:
    """It would have valid checksums."""
    folder = _export(work, tmp_path / "first", name)
    files = [each for each in folder.manifest["files"] if each != "tokenizer.json" and not each.endswith(".json")]
    assert len(files) > 2
    for place, each in enumerate(files):
        path = tmp_path / "first" / each
        whole = path.read_bytes()
        content = bytearray(whole)
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        with pytest.raises(UserError, match=f"{path.name}|{folder.path} is not as"):
            export(PackedFolder.open(tmp_path / "first"), str(tmp_path / f"{place}"), *FORMATS["mds"], Engine())
        assert not (tmp_path / f"{place}").exists()
        path.write_bytes(whole)


@pytest.mark.parametrize("length", [4 * TARGET])
def test_long_documents_that_share_a_sequence(packed_work: Work, tmp_path: Path, length: int) -> None:
    folder = _export(packed_work, tmp_path / "out", "mds-small")
    rows = _rows(folder)
    expected = [row for path, _ in packed_work["pack"].tables() for row in pq.read_table(path)["input_ids"].to_pylist()]
    assert rows.input_ids.tolist() == expected
    assert rows.length_tokens == length
    assert {len(rows.pieces(row)) for row in range(len(rows))} == {2, 4}
    assert verify(tmp_path / "out", Engine()).faults == []


@pytest.mark.parametrize("which", ["work", "packed_work"])
def test_every_segment_is_where_it_says_in_its_document(
    which: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    work: Work = request.getfixturevalue(which)
    folder = _export(work, tmp_path / "out")
    documents = _document_tokens(work)
    names = pa.concat_tables(folder.documents(np.array(sorted(documents)))).to_pylist()
    assert {each["doc_id"]: each["source_id"] for each in names}.items() <= _source_ids(work).items()
    rows, checked = _rows(folder), 0
    for told, ids in zip(folder.provenance(0, len(folder)).to_pylist(), rows.input_ids.tolist(), strict=True):
        assert told["segments"][0]["start"] == 0
        assert told["segments"][-1]["end"] == rows.length_tokens
        for each in told["segments"]:
            first, number = each["first_token"], each["end"] - each["start"]
            assert ids[each["start"] : each["end"]] == documents[each["doc_id"]][first : first + number]
            assert each["doc_id"] in {name["doc_id"] for name in names}
            checked += 1
    assert checked > 100
    assert {each["role"] for each in told["segments"]} == {"meta", "negative"}


def _document_tokens(work: Work) -> dict[int, list[int]]:
    store, found = chunk_store(work["chunk"]), {}
    for path, _ in work["chunk"].tables():
        for row in pq.read_table(documents_of(path)).to_pylist():
            chunks = np.arange(row["first_chunk_id"], row["first_chunk_id"] + row["num_chunks"])
            found[row["doc_id"]] = store.read_tokens(chunks, store.num_tokens(chunks).tolist()).tolist()
    return found


def _source_ids(work: Work) -> dict[int, str]:
    tables = [pq.read_table(documents_of(path), columns=["doc_id", "source_id"]) for path, _ in work["chunk"].tables()]
    return {row["doc_id"]: row["source_id"] for row in pa.concat_tables(tables).to_pylist()}


def test_trace_names_the_document_of_a_token(work: Work, tmp_path: Path) -> None:
    folder = _export(work, tmp_path / "out", "megatron")
    [told] = folder.provenance(5, 6).to_pylist()
    segment = told["segments"][3]
    name = _source_ids(work)[segment["doc_id"]]
    shown = trace(tmp_path / "out", 5, segment["start"] + 1)
    assert f"token {segment['first_token'] + 1:,} of document {name} " in shown
    assert f"chunk_id {segment['chunk_id']}" in shown
    every = trace(tmp_path / "out", 5)
    assert len(every.splitlines()) == len(told["segments"]) + 2
    with pytest.raises(UserError, match="its rows are 0 to"):
        trace(tmp_path / "out", 10**6)
    with pytest.raises(UserError, match=f"its tokens are 0 to {TARGET - 1:,}"):
        trace(tmp_path / "out", 0, TARGET)


def test_the_manifest_says_how_it_was_made(work: Work, tmp_path: Path, tokenizer_file: Path) -> None:
    told = _export(work, tmp_path / "out", "mds").manifest
    assert told["made_by"]["recipe"]["synthesis"]["target_length_tokens"] == TARGET
    assert told["tokenizer_sha256"] == hashlib.sha256(tokenizer_file.read_bytes()).hexdigest()
    assert told["tokens"] == told["rows"] * TARGET
    assert told["account"]["sequences"]["kept"] == told["rows"]
    assert json.loads((tmp_path / "out" / "manifest.json").read_text()) == told
    assert {"nextlong", "pyarrow"} <= told["versions"].keys()
    assert told["made_by"]["recipe"]["input"]["path"] == "corpus.parquet"
    for name in ("manifest.json", "README.md"):
        assert "/tmp" not in (tmp_path / "out" / name).read_text()
        assert str(work.path.parent) not in (tmp_path / "out" / name).read_text()


def test_the_card_has_what_a_hub_needs(work: Work, tmp_path: Path) -> None:
    import yaml

    folder = _export(work, tmp_path / "out")
    head = yaml.safe_load((tmp_path / "out" / "README.md").read_text().split("---")[1])
    assert head["configs"][0]["data_files"] == [{"split": "train", "path": "data/train-*.parquet"}]
    assert [each["name"] for each in head["dataset_info"]["features"]] == ["input_ids", "indices", "length", "domain"]
    assert head["dataset_info"]["splits"][0]["num_examples"] == len(folder)


def test_a_run_of_several_lengths_needs_a_choice(
    corpus_file: Path, tokenizer_file: Path, model_folder: Path, tmp_path: Path
) -> None:
    from tests.etl.shards.conftest import _run

    work = _run(corpus_file, tokenizer_file, model_folder, tmp_path, [TARGET, 2 * TARGET], None)
    with pytest.raises(UserError, match=r"several lengths \(1,024, 2,048\): choose one with --length"):
        WorkSource.open(work.path)
    with pytest.raises(UserError, match="no sequences of --length 7, only of 1,024, 2,048"):
        WorkSource.open(work.path, length_tokens=7)
    folder = _export(work, tmp_path / "out", length_tokens=2 * TARGET)
    assert folder.about.length_tokens == 2 * TARGET
    assert len(folder) == 12


def test_a_tokenizer_that_moved_or_changed(work: Work, tokenizer_file: Path, tmp_path: Path) -> None:
    other = tmp_path / "tokenizer.json"
    specification = json.loads(tokenizer_file.read_text())
    other.write_text(json.dumps(specification, indent=1))
    with pytest.raises(UserError, match="is not the one that made the token ids"):
        WorkSource.open(work.path, tokenizer=str(other))
    with pytest.raises(UserError, match="say where it is now with --tokenizer"):
        WorkSource.open(work.path, tokenizer=str(tmp_path / "gone"))


def test_the_command_exports_verifies_and_traces(work: Work, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ran = nextlong("export", work.path, "--format", "mds", "--hashes", "sha1", "--out", out, "--workers", 0)
    assert "sequences of 1,024 tokens, mds" in ran.stdout
    assert "as it was written" in nextlong("verify", out, "--workers", 0).stdout
    assert "META" not in nextlong("trace", out, 0).stdout
    assert "negative" in nextlong("trace", out, 0).stdout
    shard = out / "shard.00000.mds"
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    assert "shard.00000.mds is not as it was written" in nextlong("verify", out, "--workers", 0, status=1).stdout
    refused = nextlong("export", work.path, "--format", "arrow", "--hashes", "sha1", "--out", tmp_path / "x", status=2)
    assert "--hashes is an option of --format mds" in refused.stderr
    assert "invalid choice: 'csv'" in nextlong("export", work.path, "--format", "csv", "--out", out, status=2).stderr
