"""Numbers about negatives are those of the segments; recall rises with nprobe; figures show what they are given."""

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from etl.explore import Preview, Run, figures
from etl.explore.hardness import (
    chunks_by_uses,
    compare_runs,
    near_duplicates,
    nearest_pairs,
    similarity_by_rank,
    uses_by_chunk,
)
from etl.explore.recall import recall_by_nprobe
from etl.lookup import embedding_store
from etl.schemas import vectors_of
from etl.work import Work
from nextlong.errors import UserError


def test_similarity_and_uses_are_counted_from_the_segments(run: Run) -> None:
    rows = [each for segments in run.long_documents.compute()["segments"] for each in segments]
    by_rank = similarity_by_rank(run.segments).set_index("rank")
    for rank in (0, 2):
        scores = [each["score"] for each in rows if each["rank"] == rank]
        assert (by_rank.loc[rank, "count"], by_rank.loc[rank, "mean"]) == (len(scores), pytest.approx(np.mean(scores)))
    counted = Counter(each["chunk_id"] for each in rows if each["role"] == "negative")
    uses = uses_by_chunk(run.segments)
    assert dict(zip(uses["chunk_id"], uses["uses"], strict=True)) == counted
    assert uses["uses"].is_monotonic_decreasing
    by_uses = chunks_by_uses(uses, len(run.chunks))
    assert by_uses["chunks"].sum() == len(run.chunks)
    assert (by_uses["uses"] * by_uses["chunks"]).sum() == len([each for each in rows if each["role"] == "negative"])


def test_near_duplicates_are_those_that_mining_met(run: Run) -> None:
    facts = run.summary["stages"]["mine"]["values"]["near_duplicates"]["similarity"]
    shares = near_duplicates(run)
    assert shares["share"].is_monotonic_decreasing
    assert (shares["share"] * facts["compared"]).round().tolist() == list(facts["at_or_above"].values())
    assert len(nearest_pairs(run)) == len(facts["just_below"]) > 0
    with pytest.raises(UserError, match=r"without mining\.near_duplicate_overlap"):
        near_duplicates(run, "overlap")


def test_runs_are_compared_by_their_summaries(run: Run) -> None:
    compared = compare_runs({"one": run, "same": run})
    assert compared["run"].tolist() == ["one", "same"]
    assert compared["long documents"].tolist() == [24, 24]


def test_embeddings_are_the_stored_ones_and_recall_rises_to_one(run: Run) -> None:
    vectors = vectors_of(run.embeddings.compute())
    assert np.array_equal(vectors, np.concatenate(embedding_store(Work.open(run.path)["embed"]).arrays))
    measured = recall_by_nprobe(vectors, factory="IVF8,Flat", top_k=10, num_queries=32)
    assert measured["nprobe"].tolist() == [1, 2, 4, 8]
    assert measured["recall"].is_monotonic_increasing
    assert measured["recall"].iloc[0] < measured["recall"].iloc[-1] == 1.0
    with pytest.raises(UserError, match="no lists to visit"):
        recall_by_nprobe(vectors, factory="Flat")


def test_figures_hold_the_numbers_they_are_given(run: Run) -> None:
    frame = pd.DataFrame({"x": [1, 2, 4], "y": [3.0, 2.0, 1.0], "z": [1.0, 1.0, 2.0]})
    assert list(figures.bars(frame, x="x", y="y", title="t").data[0].y) == [3.0, 2.0, 1.0]
    assert [list(each.y) for each in figures.lines(frame, x="x", y=["y", "z"], title="t", unit="u").data] == [
        [3.0, 2.0, 1.0],
        [1.0, 1.0, 2.0],
    ]
    assert sum(figures.histogram(frame["x"], title="t", unit="u").data[0].y) == 3
    assert "meta-documents" in str(figures.flow(run, "documents").data[0].node.label)
    assert figures.similarities(np.eye(2, dtype=np.float16), title="t").data[0].z.tolist() == [[1, 0], [0, 1]]
    with pytest.raises(UserError, match=r"unit is 'rows', .*documents"):
        figures.flow(run, "rows")


def test_a_preview_escapes_shortens_and_leaves_out_what_is_missing() -> None:
    frame = pd.DataFrame({"n": [1234, 5], "score": [0.5, np.nan], "text": ["<b>\x1b[2J" + "x" * 200, "a\nb"]})
    shown, plain = Preview(frame, chars=40)._repr_html_(), repr(Preview(frame, chars=40))
    assert all(words in shown for words in ("1,234", "0.500", "&lt;b&gt;", "a b"))
    assert "<b>" not in shown
    assert not any(words in shown + plain for words in ("\x1b", "nan", "x" * 60))


@pytest.mark.parametrize("name", ["arrow", "parquet", "mds"])
def test_a_run_exports_what_a_trainer_reads(run: Run, name: str, tmp_path: Path) -> None:
    from training.inspection import read_rows

    shards = run.export(tmp_path / "shards", format=name)
    assert run.export(shards, format=name) == shards
    found = read_rows(shards, 2)
    assert found.input_ids[1].tolist() == run.packed_row(1).input_ids.tolist()
    with pytest.raises(UserError, match="format is 'csv'"):
        run.export(tmp_path / "other", format="csv")
