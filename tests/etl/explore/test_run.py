"""A run opened is what lies in its folder: the same rows lazily, single ones by bounded reads, and clear refusals."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from etl import pipeline
from etl.engine import Engine
from etl.explore import Run
from etl.schemas import CHUNKS, DOCUMENTS, LONG_DOCUMENTS, NEGATIVES, PACKED, to_table
from etl.work import Work
from nextlong.errors import UserError
from tests.conftest import TARGET
from tests.etl.explore.conftest import made
from tests.etl.test_pipeline import table

FRAMES = {
    "documents": ("read", DOCUMENTS),
    "chunks": ("chunk", CHUNKS),
    "negatives": ("mine", NEGATIVES),
    "long_documents": ("interleave", LONG_DOCUMENTS),
    "packed": ("pack", PACKED),
}


@pytest.mark.parametrize("name", FRAMES)
def test_a_stage_as_a_dataframe_is_what_its_files_hold(run: Run, name: str) -> None:
    stage, schema = FRAMES[name]
    frame, work = getattr(run, name), Work.open(run.path)
    assert frame.columns.tolist() == schema.names
    assert frame.npartitions == len(work[stage].tables()) > 0
    assert to_table(frame.compute(), schema).equals(table(work, stage))


def test_no_file_is_opened_before_a_dataframe_is_computed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Path] = []
    real = pq.read_table

    def noted(path: Path, **options: Any) -> pa.Table:
        opened.append(path)
        return real(path, **options)

    monkeypatch.setattr("etl.stage_rows.pq.read_table", noted)
    chunks = run.chunks
    assert (opened, chunks.npartitions > 5) == ([], True)
    chunks.partitions[3].compute()
    assert len(opened) == 1


def test_segments_are_those_of_the_long_documents(run: Run) -> None:
    flat = run.segments.compute()
    whole = run.long_documents.compute()
    assert len(flat) == sum(map(len, whole["segments"])) > 100
    for row in whole.itertuples():
        own = flat[flat["sample_id"] == row.sample_id]
        assert own["chunk_id"].tolist() == [each["chunk_id"] for each in row.segments]
        assert own["end"].tolist()[-1] == TARGET


def test_a_sample_is_spread_over_the_run_and_repeats_by_its_seed(run: Run) -> None:
    ids = run.sample_ids.tolist()
    for seed in range(4):
        places = [ids.index(each.sample_id) for each in run.sample(3, seed=seed)]
        assert [place // 8 for place in places] == [0, 1, 2]
    assert [each.sample_id for each in run.sample(3)] == [each.sample_id for each in run.sample(3, seed=0)]
    assert len({tuple(each.sample_id for each in run.sample(3, seed=seed)) for seed in range(4)}) > 1
    assert [each.sample_id for each in run.sample(1000)] == ids


def test_every_long_document_is_found_by_its_sample_id_with_the_origins_of_its_chunks(run: Run) -> None:
    chunks = run.chunks.compute().set_index("chunk_id")
    for row in run.long_documents.compute().itertuples():
        found = run.long_document(row.sample_id)
        assert (found.doc_id, found.source_id, found.num_tokens) == (row.doc_id, row.source_id, TARGET)
        assert found.input_ids.tolist() == list(row.input_ids)
        for segment in found.segments.itertuples():
            chunk = chunks.loc[segment.chunk_id]
            assert (segment.doc_id, segment.chunk_index, segment.text) == (chunk.doc_id, chunk.chunk_index, chunk.text)


def test_one_long_document_is_read_from_one_row_group(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    groups: list[int] = []
    real = pq.ParquetFile.read_row_group

    def noted(file: Any, group: int, **options: Any) -> pa.Table:
        groups.extend([group] * (not options))  # those with options are of chunks' texts
        return real(file, group, **options)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", noted)
    run.long_document(int(run.sample_ids[-1]))
    assert len(groups) == 1


def test_every_document_is_found_by_its_number_and_by_its_name(run: Run) -> None:
    chunks = run.chunks.compute()
    for row in run.documents.compute().iloc[::9].itertuples():
        for found in (run.document(row.doc_id), run.document(np.int64(row.doc_id)), run.document(row.source_id)):
            assert (found.doc_id, found.source_id, found.text) == (row.doc_id, row.source_id, row.text)
            assert found.chunks["chunk_id"].tolist() == chunks.loc[chunks.doc_id == row.doc_id, "chunk_id"].tolist()
            assert "".join(found.chunks["text"] + found.chunks["joiner"]) == row.text


def test_a_packed_row_is_its_long_documents_end_to_end(run: Run) -> None:
    packed = run.packed.compute()
    for number, row in enumerate(packed.itertuples()):
        found = run.packed_row(number)
        assert found.indices.tolist() == [list(map(int, pair)) for pair in row.indices]
        assert [each.sample_id for each in found.long_documents] == list(row.sample_ids)
        assert found.input_ids.tolist() == list(row.input_ids)


def test_accounts_are_those_of_the_manifests(run: Run) -> None:
    accounts = run.accounts
    whole = accounts.groupby(["stage", "unit"]).agg(
        read=("read", "first"), kept=("kept", "first"), lost=("dropped", "sum")
    )
    assert len(whole) > 10
    assert (whole["read"] == whole["kept"] + whole["lost"]).all()
    assert accounts.query("reason == 'exact_copy' and unit == 'documents'")["dropped"].tolist() == [1]
    assert run.summary["stages"]["read"]["account"]["documents"]["read"] == whole.loc[("read", "documents"), "read"]


def test_what_an_unfinished_run_has_can_be_read_and_the_rest_says_how_to_finish(recipe_of: Any, tmp_path: Path) -> None:
    job = pipeline.start(recipe_of(tmp_path / "work"))
    for stage in ("read", "chunk"):
        pipeline.run(job, Engine(), only=stage)
    run = Run(tmp_path / "work")
    assert run.finished == ["read", "chunk"]
    assert len(run.document(run.documents.compute()["source_id"].iloc[-1]).chunks)
    assert "not finished: embed, index, mine, interleave, pack" in repr(run)
    for look in (
        lambda: run.negatives,
        lambda: run.long_documents,
        lambda: run.sample(1),
        lambda: run.packed_row(0),
        lambda: run.neighbours("a"),
        lambda: run.index,
    ):
        with pytest.raises(UserError, match=r"no finished stage .*finished: read, chunk.*Finish it: nextlong run"):
            look()


@pytest.mark.parametrize(
    ("look", "match"),
    [
        (lambda run: run.document(10**6), r"no document with doc_id 1000000\. It has doc_ids from 0 to 119"),
        (lambda run: run.document(11), r"no document with doc_id 11\..* dropped"),
        (lambda run: run.document(-1), r"no document with doc_id -1\."),
        (lambda run: run.document("17"), r"source_id '17'.* such as 'doc-0'.* run\.document\(17\)"),
        (lambda run: run.long_document(10**6), r"no long document with sample_id 1000000\. It has 24: from \d+ to \d+"),
        (lambda run: run.packed_row(12), r"no packed sequence 12\. It has 12, numbered from 0"),
        (lambda run: run.packed_row(-1), r"no packed sequence -1"),
        (lambda run: run.sample(0), r"a sample of 0 .*at least 1"),
        (lambda run: run.neighbours("a", k=0), r"k is 0, .*at least 1"),
        (lambda run: run.judged_neighbours(10**6), r"no chunk 1000000\. It has [\d,]+, numbered from 0"),
    ],
)
def test_what_is_not_there_is_refused_with_what_is(run: Run, look: Any, match: str) -> None:
    with pytest.raises(UserError, match=match):
        look(run)


def test_a_folder_that_no_run_made_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no work folder"):
        Run(tmp_path)


def test_a_moved_folder_opens(run: Run, tmp_path: Path) -> None:
    shutil.copytree(run.path, tmp_path / "moved")
    assert Run.open(tmp_path / "moved").sample_ids.tolist() == run.sample_ids.tolist()


def test_methods_that_look_up_nothing_or_documents_say_so(recipe_of: Any, tmp_path: Path) -> None:
    standard = made(recipe_of(tmp_path / "standard", synthesis={"strategy": "standard"}))
    for look in (lambda: standard.negatives, lambda: standard.neighbours("a")):
        with pytest.raises(UserError, match="looked up nothing"):
            look()
    with pytest.raises(UserError, match="no FAISS index"):
        _ = standard.index
    assert len(standard.sample(1)[0].segments)
    knn = made(recipe_of(tmp_path / "knn", synthesis={"strategy": "knn"}))
    assert knn.negatives.columns.tolist() == ["doc_id", "ids", "scores"]
    document = knn.document(0)
    assert knn.neighbours(document.chunks["text"].iloc[0], k=5)["doc_id"].is_unique
    with pytest.raises(UserError, match="looked up no chunks"):
        knn.judged_neighbours(0)
