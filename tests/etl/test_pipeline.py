"""The whole chain: the same bytes however it is run, nothing lost, and what a long document must be."""

import dataclasses
import gzip
import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from etl import pipeline
from etl.engine import Engine
from etl.lookup import chunk_store, embedding_store
from etl.recipe import Recipe
from etl.work import FOLDERS, STAGES, Work
from nextlong.errors import UserError
from nextlong.tokenizing import Tokenizer
from tests.conftest import TARGET, make_texts
from tests.marks import in_soak

MakeRecipe = Callable[..., Recipe]


def run(recipe: Recipe, engine: Engine | None = None, **options: Any) -> tuple[Work, dict[str, Any]]:
    job = pipeline.start(recipe)
    return job.work, pipeline.run(job, engine or Engine(), **options)


def table(work: Work, stage: str) -> pa.Table:
    return pa.concat_tables([pq.read_table(path) for path, _ in work[stage].tables()])


def data_files(work: Work) -> dict[str, str]:
    """sha256 of every data file of a work folder."""
    hashes = {
        str(path.relative_to(work.path)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(work.path.rglob("*"))
        if path.suffix in (".parquet", ".npy", ".tokens", ".faiss") or path.name in ("index.json", "manifest.json")
    }
    assert len(hashes) > 20
    return hashes


@pytest.fixture
def finished(make_recipe: MakeRecipe) -> tuple[Work, dict[str, Any]]:
    return run(make_recipe())


def test_one_worker_two_workers_and_threads_give_the_same_bytes(make_recipe: MakeRecipe, two_workers: Engine) -> None:
    from distributed import Client

    alone, _ = run(make_recipe("alone"))
    processes, _ = run(make_recipe("processes"), two_workers)
    with Client(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=":0") as client:
        threads, _ = run(make_recipe("threads"), Engine(client))
    assert data_files(alone) == data_files(processes) == data_files(threads)


def test_other_part_sizes_give_the_same_rows(make_recipe: MakeRecipe) -> None:
    one, _ = run(make_recipe("one"))
    other, _ = run(make_recipe("other", input={"part_rows": 20}, synthesis={"docs_per_part": 3}))
    assert len(one["chunk"].tables()) != len(other["chunk"].tables())
    for stage in ("read", "chunk", "mine", "interleave", "pack"):
        assert table(one, stage).equals(table(other, stage)), stage
    vectors = [np.concatenate(embedding_store(work["embed"]).arrays) for work in (one, other)]
    assert vectors[0].tobytes() == vectors[1].tobytes()


def test_one_large_row_group_or_compressed_file_becomes_several_parts(
    make_recipe: MakeRecipe, corpus_file: Path, tmp_path: Path
) -> None:
    many, _ = run(make_recipe("many"))
    rows = pq.read_table(corpus_file)
    pq.write_table(rows, tmp_path / "one.parquet")
    with gzip.open(tmp_path / "one.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows.to_pylist())
    for name in ("one.parquet", "one.jsonl.gz"):
        work, _ = run(make_recipe(name + "-work", input={"path": str(tmp_path / name)}))
        assert len(work["chunk"].tables()) == 3
        for stage in ("read", "chunk", "mine", "interleave"):
            assert table(work, stage).equals(table(many, stage)), stage


def test_long_documents_are_what_the_method_says(finished: tuple[Work, dict[str, Any]], tokenizer_file: Path) -> None:
    work, _ = finished
    chunks = table(work, "chunk").to_pandas().set_index("chunk_id")
    documents = table(work, "interleave").to_pylist()
    assert len(documents) == 24
    store = chunk_store(work["chunk"])
    tokenizer = Tokenizer(tokenizer_file)
    for document in documents:
        segments = document["segments"]
        assert len(document["input_ids"]) == TARGET
        assert [each["start"] for each in segments] == [0, *[each["end"] for each in segments[:-1]]]
        assert segments[-1]["end"] == TARGET
        meta = [each["chunk_id"] for each in segments if each["role"] == "meta"]
        assert meta == chunks.index[chunks.doc_id == document["doc_id"]].tolist()
        negatives = [each["chunk_id"] for each in segments if each["role"] == "negative"]
        assert len(set(negatives)) == len(negatives) > 0
        assert (chunks.loc[negatives, "doc_id"] != document["doc_id"]).all()
        texts = chunks.loc[[each["chunk_id"] for each in segments], "text"]
        assert texts.nunique() == len(texts)
        for place, each in enumerate(segments):
            length = each["end"] - each["start"]
            whole = int(store.num_tokens(np.array([each["chunk_id"]]))[0])
            last = place + 1 == len(segments) or segments[place + 1]["role"] == "meta"
            assert length == whole or (each["role"] == "negative" and last and 0 < length < whole)
            assert (each["score"] is None) == (each["rank"] == -1) == (each["role"] == "meta")
            if length == whole:
                row = chunks.loc[each["chunk_id"]]
                assert tokenizer.decode(document["input_ids"][each["start"] : each["end"]]) == row.text + row.joiner


def test_chunks_give_their_documents_back(finished: tuple[Work, dict[str, Any]]) -> None:
    work, _ = finished
    chunks = table(work, "chunk").to_pandas()
    assert chunks.chunk_id.tolist() == list(range(len(chunks)))
    rebuilt = (chunks.text + chunks.joiner).groupby(chunks.doc_id).sum()
    documents = table(work, "read").to_pandas().set_index("doc_id")
    assert len(documents) == 116
    pd.testing.assert_series_equal(rebuilt, documents.text, check_names=False)


def test_copies_and_empty_texts_are_dropped_and_counted(finished: tuple[Work, dict[str, Any]]) -> None:
    work, summary = finished
    assert summary["stages"]["read"]["account"]["documents"] == {
        "read": 120,
        "kept": 116,
        "dropped": {"null_text": 1, "empty_text": 1, "blank_text": 1, "exact_copy": 1},
    }
    ids = table(work, "read")["source_id"].to_pylist()
    assert "doc-7" in ids
    assert not {"doc-50", "doc-10", "doc-11", "doc-12"} & set(ids)


@pytest.mark.parametrize("budget", ["exact", "paper"])
def test_everything_read_is_kept_or_dropped_for_a_reason(make_recipe: MakeRecipe, budget: str) -> None:
    work, summary = run(make_recipe(synthesis={"budget": budget}))
    units = Counter()
    for stage in STAGES:
        for unit, count in summary["stages"][stage]["account"].items():
            if unit != "notes":
                assert count["read"] == count["kept"] + sum(count["dropped"].values()), (stage, unit)
                units[unit] += 1
    assert units["documents"] >= 3
    assert units["chunks"] >= 3
    assert units["tokens"] >= 3
    interleave = summary["stages"]["interleave"]["account"]
    assert interleave["documents"]["read"] == summary["stages"]["chunk"]["account"]["documents"]["kept"]
    assert interleave["tokens"]["kept"] == table(work, "interleave").num_rows * TARGET


def test_the_papers_budget_loses_meta_chunks_to_truncation_and_the_exact_one_none(make_recipe: MakeRecipe) -> None:
    lost = {}
    for budget in ("paper", "exact"):
        _, summary = run(make_recipe(budget, synthesis={"budget": budget}))
        notes = summary["stages"]["interleave"]["account"]["notes"]
        lost[budget] = notes.get("meta_chunks_lost_to_truncation", 0)
        assert notes["meta_chunks"] > 24
    assert lost["exact"] == 0
    assert lost["paper"] > 0


@pytest.mark.parametrize("stage", ["chunk", "mine", *in_soak("read", "embed", "index", "interleave", "pack")])
def test_stopped_after_any_stage_a_rerun_gives_the_same_bytes(make_recipe: MakeRecipe, stage: str) -> None:
    whole, _ = run(make_recipe("whole"))
    recipe = make_recipe("stopped")
    for name in STAGES[: STAGES.index(stage) + 1]:
        work, _ = run(recipe, only=name)
    times = {path: path.stat().st_mtime_ns for path in work.path.rglob("*.parquet")}
    work, _ = run(recipe)
    assert data_files(work) == data_files(whole)
    assert times
    assert all(path.stat().st_mtime_ns == time for path, time in times.items() if path.exists())


@pytest.mark.parametrize("stage", STAGES)
def test_lost_parts_are_made_again_and_finished_ones_are_not(make_recipe: MakeRecipe, stage: str) -> None:
    work, _ = run(make_recipe())
    before = data_files(work)
    folder = work[stage].path
    (folder / "manifest.json").unlink()
    markers = sorted(folder.glob("*.ok.json"))
    lost = markers[0]
    kept = {path: path.stat().st_mtime_ns for path in markers[1:] if not path.name.startswith("index")}
    lost.unlink()
    run(make_recipe())
    assert data_files(work) == before
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())


def test_a_part_of_another_size_than_its_marker_says_is_made_again(make_recipe: MakeRecipe) -> None:
    work, _ = run(make_recipe())
    before = data_files(work)
    (work["embed"].path / "manifest.json").unlink()
    part = work["embed"].path / "part-00000.npy"
    part.write_bytes(part.read_bytes()[:-2])
    run(make_recipe())
    assert data_files(work) == before


def test_a_finished_run_does_nothing_again(make_recipe: MakeRecipe) -> None:
    work, first = run(make_recipe())
    files = {path: path.stat().st_mtime_ns for path in work.path.rglob("part-*")}
    _, second = run(make_recipe())
    assert first == second
    assert files == {path: path.stat().st_mtime_ns for path in work.path.rglob("part-*")}


def test_a_work_folder_can_be_moved(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    work, _ = run(make_recipe("here"))
    before = data_files(work)
    os.rename(work.path, tmp_path / "there")
    moved, _ = run(make_recipe("there"))
    assert data_files(moved) == before


def test_another_recipe_is_refused_and_told_how_to_reuse(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    old, _ = run(make_recipe())
    before = data_files(old)
    changed = make_recipe(synthesis={"seed": 1})
    with pytest.raises(UserError, match=r"stage 'mine' on it differs \(seed was 0, is 1\).*--output .*-2 --reuse"):
        run(changed)
    assert data_files(old) == before
    job = pipeline.start(dataclasses.replace(changed, output=str(tmp_path / "new")), reuse=old.path)
    summary = pipeline.run(job, Engine())
    assert [job.work[stage].manifest() is not None for stage in STAGES] == [True] * len(STAGES)
    shared = job.work["embed"].path / "part-00000.npy"
    assert shared.samefile(old["embed"].path / "part-00000.npy")
    assert summary["stages"]["embed"]["seconds"] == 0.0
    fresh, _ = run(dataclasses.replace(changed, output=str(tmp_path / "fresh")))
    assert data_files(job.work) == data_files(fresh)
    assert data_files(old) == before


def test_a_stage_that_failed_before_its_first_part_binds_nobody(make_recipe: MakeRecipe) -> None:
    from nextlong.config import Indexing

    with pytest.raises(UserError, match="4,096 inverted lists"):
        run(dataclasses.replace(make_recipe(), index=Indexing(factory="IVF4096,Flat")))
    mended, _ = run(make_recipe())
    fresh, _ = run(make_recipe("fresh"))
    assert data_files(mended) == data_files(fresh)


def test_only_needs_the_stages_before_it(make_recipe: MakeRecipe) -> None:
    with pytest.raises(UserError, match="--only mine needs the stage 'read', which is not finished"):
        run(make_recipe(), only="mine")


def test_more_documents_are_mined_when_some_fall_short(make_recipe: MakeRecipe) -> None:
    """With the paper's budget and few candidates many fall short: draws go on until enough are kept."""
    short = {"budget": "paper", "overshoot_ratio": 1.3, "num_samples": 12, "docs_per_part": 4}
    work, summary = run(make_recipe(synthesis=short))
    documents = summary["stages"]["interleave"]["account"]["documents"]
    assert documents["kept"] == 12
    assert documents["dropped"]["too_short"] > 0
    assert summary["stages"]["mine"]["values"]["num_draws"][0] > 12
    other, _ = run(make_recipe("other", synthesis=short | {"docs_per_part": 64}))
    assert table(work, "interleave").equals(table(other, "interleave"))


def test_too_few_documents_are_told(make_recipe: MakeRecipe, caplog: pytest.LogCaptureFixture) -> None:
    work, _ = run(make_recipe(synthesis={"num_samples": 5000}))
    assert "not the 5,000 of synthesis.num_samples" in caplog.text
    every, _ = run(make_recipe("every", synthesis={"num_samples": None}))
    assert table(work, "interleave").equals(table(every, "interleave"))


def test_sequences_of_several_documents_carry_their_boundaries(make_recipe: MakeRecipe) -> None:
    from nextlong.config import Packing

    recipe = make_recipe(synthesis={"num_samples": 11})
    work, summary = run(dataclasses.replace(recipe, packing=Packing(sequence_length_tokens=4 * TARGET)))
    packed, documents = table(work, "pack").to_pylist(), table(work, "interleave").to_pylist()
    assert len(packed) == 2
    for number, row in enumerate(packed):
        members = documents[4 * number : 4 * number + 4]
        assert row["sample_ids"] == [member["sample_id"] for member in members]
        assert row["input_ids"] == [token for member in members for token in member["input_ids"]]
        assert row["indices"] == [[TARGET * place, TARGET * (place + 1)] for place in range(4)]
        assert row["length"] == 4 * TARGET
    assert summary["stages"]["pack"]["account"]["documents"]["dropped"] == {"incomplete_sequence": 3}


def test_a_sequence_of_one_document_points_to_it(finished: tuple[Work, dict[str, Any]]) -> None:
    work, _ = finished
    packed, documents = table(work, "pack"), table(work, "interleave")
    assert packed["input_ids"].null_count == 24
    assert [row[0] for row in packed["sample_ids"].to_pylist()] == documents["sample_id"].to_pylist()
    assert packed["domain"].to_pylist() == documents["source"].to_pylist()


def test_every_stage_has_its_folder_and_manifest(finished: tuple[Work, dict[str, Any]]) -> None:
    work, summary = finished
    assert list(summary["stages"]) == list(STAGES)
    for stage in STAGES:
        assert (work.path / FOLDERS[stage] / "manifest.json").is_file()
    assert (work.path / "recipe.resolved.yaml").is_file()
    assert not list(work.path.rglob("*.tmp"))
    assert not [
        path
        for folder in FOLDERS.values()
        for prefix in ("scan", "cut", "plan")
        for path in (work.path / folder).glob(f"{prefix}-*")
    ]


@pytest.mark.parametrize("factory", ["IVF16,Flat", "IVF16,SQ8"])
def test_an_approximate_index_carries_its_recall(make_recipe: MakeRecipe, factory: str) -> None:
    from nextlong.config import Indexing

    recipe = dataclasses.replace(make_recipe(), index=Indexing(factory=factory, max_shard_bytes=6000))
    _, summary = run(recipe)
    facts = summary["stages"]["index"]["values"]
    assert facts["recall"] >= 0.9
    assert 1 <= facts["nprobe"] <= 16
    assert len(facts["shards"]) > 1


def test_the_published_rule_counts_what_it_loses(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    texts = ["\n\n" + "long paragraph " * 40 + "\n" + text for _, text in make_texts(40)]
    pq.write_table(pa.table({"text": texts}), tmp_path / "blank.parquet")
    recipe = make_recipe(
        input={"path": str(tmp_path / "blank.parquet"), "id": None, "source": None},
        chunking={"long_paragraphs": "keep"},
    )
    run(recipe, only="read")
    work, summary = run(recipe, only="chunk")
    chars = summary["stages"]["chunk"]["account"]["chars"]
    kept = sum(len(row["text"]) + len(row["joiner"]) for row in table(work, "chunk").to_pylist())
    assert chars["read"] == sum(map(len, texts))
    assert chars["kept"] == kept
    assert chars["dropped"]["blank_lines_of_published_rule"] >= 2 * 40


def test_granularity_in_tokens(make_recipe: MakeRecipe) -> None:
    work, _ = run(make_recipe(chunking={"granularity_tokens": 40}))
    lengths = table(work, "chunk")["num_tokens"].to_numpy()
    assert 30 < lengths.max() <= 40
