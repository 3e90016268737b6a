"""Neighbours of any text are those that mining finds for a chunk of that text, and each is judged as mining judges."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from etl.explore import Run
from etl.search import open_retriever
from etl.work import Work
from nextlong.errors import UserError
from tests.etl.explore.conftest import made


@pytest.fixture(scope="module")
def bm25(recipe_of: Any, tmp_path_factory: pytest.TempPathFactory) -> Run:
    mining = {"retrieval": "bm25", "near_duplicate_overlap": 0.5, "near_duplicate_similarity": None}
    return made(recipe_of(tmp_path_factory.mktemp("bm25") / "work", mining=mining))


@pytest.mark.parametrize("name", ["run", "bm25"])
def test_the_neighbours_of_a_chunks_text_are_those_of_the_chunk(name: str, request: pytest.FixtureRequest) -> None:
    run: Run = request.getfixturevalue(name)
    work = Work.open(run.path)
    retriever, chunks = open_retriever(work["index"], work["embed"]), run.chunks.compute()
    for chunk in chunks.iloc[::150].itertuples():
        found = run.neighbours(chunk.text, k=7)
        wanted = retriever.neighbours_of(np.array([chunk.chunk_id]), 7)
        assert found["chunk_id"].tolist() == wanted.ids[0].tolist()
        assert found["score"].to_numpy() == pytest.approx(wanted.scores[0], abs=1e-6)
        assert found["rank"].tolist() == list(range(7))
        rows = chunks.set_index("chunk_id").loc[found["chunk_id"]]
        assert found["text"].tolist() == rows["text"].tolist()
        assert found["doc_id"].tolist() == rows["doc_id"].tolist()


@pytest.mark.parametrize("name", ["run", "bm25"])
def test_what_is_judged_a_candidate_is_what_was_mined(name: str, request: pytest.FixtureRequest) -> None:
    run: Run = request.getfixturevalue(name)
    verdicts: set[str] = set()
    for mined in run.negatives.compute().iloc[::9].itertuples():
        judged = run.judged_neighbours(int(mined.chunk_id), k=60)
        kept = judged.loc[judged["verdict"] == "candidate", "chunk_id"].tolist()
        assert kept == list(mined.ids)[: len(kept)]
        verdicts |= set(judged["verdict"])
    assert verdicts >= {"candidate", "own_document"}
    assert len(verdicts) > 2


def test_a_text_without_known_words_has_no_neighbours_by_words(bm25: Run) -> None:
    assert bm25.neighbours("xylophone", k=5).empty


def test_a_model_that_is_gone_or_another_is_refused(recipe_of: Any, model_folder: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(model_folder, model)
    run = made(recipe_of(tmp_path / "work"))
    text = (run.path / "recipe.resolved.yaml").read_text()
    (run.path / "recipe.resolved.yaml").write_text(text.replace(str(model_folder), str(model)))
    run = Run(run.path)
    assert len(run.neighbours("cell membrane", k=3)) == 3
    (model / "config.json").write_text((model / "config.json").read_text() + " ")
    with pytest.raises(UserError, match="another model than the one that made"):
        Run(run.path).neighbours("cell membrane")
    shutil.rmtree(model)
    with pytest.raises(UserError, match=r"is needed to embed a text, and is not there.*change embedding\.model in"):
        Run(run.path).neighbours("cell membrane")
    assert len(run.sample(2)) == 2
