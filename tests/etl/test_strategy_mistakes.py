"""What a corpus or a setting cannot give ends in one sentence that names the setting which can; nothing is silent."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from etl.recipe import Recipe
from nextlong.config import Decontamination, Mining, Packing, Synthesis
from nextlong.errors import UserError
from tests.etl.test_cli import nextlong
from tests.etl.test_pipeline import run

MakeRecipe = Callable[..., Recipe]


@pytest.mark.parametrize("strategy", ["nextlong", "standard", "knn", "iclm", "quest"])
def test_a_corpus_without_rows(make_recipe: MakeRecipe, tmp_path: Path, strategy: str) -> None:
    pq.write_table(
        pa.table({"id": pa.array([], pa.string()), "text": pa.array([], pa.string())}), tmp_path / "0.parquet"
    )
    (tmp_path / "0.jsonl").write_text("")
    for name in ("0.parquet", "0.jsonl"):
        recipe = make_recipe(f"{name}-work", input={"path": str(tmp_path / name), "source": None, "id": None})
        with pytest.raises(UserError, match=r"the input has no rows\. Check input\.path"):
            run(recipe)


@pytest.mark.parametrize("strategy", ["nextlong", "standard", "knn", "iclm", "quest"])
def test_fewer_long_documents_than_wanted_are_told(
    make_recipe: MakeRecipe, caplog: pytest.LogCaptureFixture, strategy: str
) -> None:
    _, summary = run(make_recipe(synthesis={"strategy": strategy, "num_samples": 5000}))
    rows = summary["stages"]["interleave"]["rows"]
    assert 0 < rows < 5000
    assert f"gives {rows:,} long documents of 1,024 tokens, not the 5,000 of synthesis.num_samples" in caplog.text
    assert "several lengths" not in caplog.text


def test_a_length_that_the_draw_starves_is_told(make_recipe: MakeRecipe, caplog: pytest.LogCaptureFixture) -> None:
    run(make_recipe(synthesis={"target_length_tokens": [512, 1024], "num_samples": [2, 9000]}))
    assert "each document is drawn for one of the target lengths, in proportion to their numbers" in caplog.text


def test_long_documents_that_fill_no_sequence_are_told(
    make_recipe: MakeRecipe, caplog: pytest.LogCaptureFixture
) -> None:
    import dataclasses

    recipe = dataclasses.replace(
        make_recipe(synthesis={"num_samples": 5}), packing=Packing(sequence_length_tokens=4096)
    )
    _, summary = run(recipe)
    assert summary["stages"]["pack"]["account"]["documents"]["dropped"] == {"incomplete_sequence": 1}
    assert "1 of 5 long documents of 1,024 tokens are left out" in caplog.text
    recipe = dataclasses.replace(
        make_recipe("none", synthesis={"num_samples": 3}), packing=Packing(sequence_length_tokens=4096)
    )
    with pytest.raises(UserError, match=r"no sequence of packing\.sequence_length_tokens = 4,096 is full"):
        run(recipe)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"synthesis": {"skip_top": 9999}}, "or lower synthesis.skip_top"),
        (
            {"mining": {"num_candidates": 1}, "synthesis": {"target_length_tokens": 9999}},
            "or raise mining.num_candidates",
        ),
        ({"synthesis": {"target_length_tokens": 3}}, "are longer than synthesis.max_meta_ratio = 0.5 of it. To have"),
        ({"synthesis": {"strategy": "quest", "keyword_min_score": 10**6}}, "Lower synthesis.keyword_min_score"),
        ({"synthesis": {"strategy": "knn", "target_length_tokens": 10**8}}, "Lower synthesis.target_length_tokens"),
    ],
    ids=str,
)
def test_no_long_document_at_all_names_the_setting(
    make_recipe: MakeRecipe, sections: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError) as error:
        run(make_recipe(**sections))
    assert message in str(error.value)
    assert "reach 0 tokens" not in str(error.value)


def test_a_corpus_that_is_its_own_evaluation_text(make_recipe: MakeRecipe, corpus_file: Path) -> None:
    import dataclasses

    recipe = dataclasses.replace(make_recipe(), decontamination=Decontamination(path=str(corpus_file), ngram_words=1))
    with pytest.raises(UserError, match=r"contaminated by corpus\.parquet.*Check decontamination\.path and decont"):
        run(recipe)


def test_evaluation_files_without_text_are_told(
    make_recipe: MakeRecipe, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import dataclasses

    (tmp_path / "evaluation.jsonl").write_text('{"text": null}\n')
    evaluation = Decontamination(path=str(tmp_path / "evaluation.jsonl"))
    run(dataclasses.replace(make_recipe(), decontamination=evaluation), only="read")
    assert "decontamination: evaluation.jsonl has no text, and matches no document" in caplog.text


def test_bm25_says_that_similarity_does_not_apply(make_recipe: MakeRecipe, caplog: pytest.LogCaptureFixture) -> None:
    run(make_recipe(mining={"retrieval": "bm25"}), only="read")
    assert "mining.near_duplicate_similarity does not apply to BM25 scores" in caplog.text


def test_a_query_model_is_tried_before_any_work(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    with pytest.raises(UserError, match=r"synthesis\.query_model is .* which cannot be used"):
        run(make_recipe(synthesis={"strategy": "quest", "query_model": str(tmp_path / "model")}))
    assert not (tmp_path / "work" / "1-documents").exists()


@pytest.mark.parametrize(
    ("section", "settings", "name"),
    [
        (Synthesis, {"target_length_tokens": 10**23}, "synthesis.target_length_tokens"),
        (Synthesis, {"target_length_tokens": 8, "skip_top": 10**23}, "synthesis.skip_top"),
        (Synthesis, {"target_length_tokens": 8, "overshoot_ratio": float("inf")}, "synthesis.overshoot_ratio"),
        (Synthesis, {"target_length_tokens": 8, "overshoot_ratio": 1e308}, "synthesis.overshoot_ratio"),
        (Synthesis, {"target_length_tokens": 8, "keyword_min_score": float("nan")}, "synthesis.keyword_min_score"),
        (Synthesis, {"target_length_tokens": 8, "keyword_oversampling": 10**11}, "synthesis.keyword_oversampling"),
        (Synthesis, {"target_length_tokens": 8, "query_model": ""}, "synthesis.query_model"),
        (Mining, {"num_candidates": 10**23}, "mining.num_candidates"),
        (Packing, {"sequence_length_tokens": 10**23}, "packing.sequence_length_tokens"),
        (Decontamination, {"path": ""}, "decontamination.path"),
        (Decontamination, {"text": ["a", "a"]}, "decontamination.text"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_numbers_beyond_any_use_are_refused(section: Callable[..., Any], settings: dict[str, Any], name: str) -> None:
    with pytest.raises(UserError, match=f"^{name} is .*, but it must be "):
        section(**settings)


def test_a_sample_that_no_integer_can_be(make_recipe: MakeRecipe) -> None:
    work, _ = run(make_recipe())
    refused = nextlong("peek", work.path, "--sample", 10**30, status=2)
    assert f"no long document with sample_id {10**30}" in refused.stderr
