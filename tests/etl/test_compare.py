"""Comparing strategies: one corpus, one table, nothing computed twice, and the same data as a run of its own."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from etl import pipeline
from etl.compare import Compared, as_table, compare, prepare_all, recipe_of
from etl.engine import Engine
from etl.recipe import Recipe, resolved_yaml
from etl.strategies import DEFAULT_STRATEGIES, STRATEGIES, check_names
from etl.work import Work
from nextlong.errors import UserError
from tests.etl.test_cli import nextlong
from tests.etl.test_pipeline import run, table
from tests.marks import in_soak

MakeRecipe = Callable[..., Recipe]


def _compare(recipe: Recipe, names: Sequence[str], out: Path) -> list[Compared]:
    return compare(prepare_all(recipe, names, out), out, Engine())


@pytest.mark.parametrize("names", [["nextlong-tail", "nextlong-bm25", "iclm", "quest"], *in_soak(list(STRATEGIES))])
def test_every_strategy_gives_what_a_run_of_its_own_gives(
    make_recipe: MakeRecipe, tmp_path: Path, names: list[str]
) -> None:
    recipe, out = make_recipe(), tmp_path / "compared"
    outcomes = _compare(recipe, names, out)
    assert [each.name for each in outcomes] == names
    assert not [each.error for each in outcomes if each.error]
    for each in outcomes:
        alone, summary = run(recipe_of(recipe, each.name, tmp_path / "alone"))
        compared = Work.open(out / each.name)
        for stage in ("mine", "interleave", "pack"):
            if alone[stage].tables():
                assert table(alone, stage).equals(table(compared, stage)), (each.name, stage)
        assert each.facts is not None
        assert each.facts["long docs"] == summary["stages"]["interleave"]["rows"] > 0
        assert each.facts["similarity"] == summary["stages"]["interleave"]["values"]["mean_similarity"]
    assert json.loads((out / "compare.json").read_text()).keys() == set(names)
    lines = as_table(outcomes).splitlines()
    assert [line.split()[0] for line in lines[1 : len(names) + 1]] == names


def test_stages_that_strategies_share_are_computed_once(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    out = tmp_path / "out"
    _compare(make_recipe(), ["nextlong", "nextlong-tail", "knn", "iclm"], out)
    for name, stages in {
        "nextlong-tail": ("1-documents", "2-chunks", "3-embeddings", "4-index", "5-negatives"),
        "knn": ("1-documents", "2-chunks", "3-embeddings"),
    }.items():
        for stage in stages:
            manifests = [(out / each / stage / "manifest.json").stat().st_ino for each in ("nextlong", name)]
            assert manifests[0] == manifests[1], (name, stage)  # a hard link: not computed, shared
    assert (out / "iclm/4-index/manifest.json").samefile(out / "knn/4-index/manifest.json")


def test_an_unchanged_comparison_computes_nothing_again(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = _compare(make_recipe(), ["nextlong", "standard"], tmp_path / "out")

    def refuse(*_: object) -> None:
        raise AssertionError("a finished stage was computed again")

    monkeypatch.setattr(pipeline, "RUNS", dict.fromkeys(pipeline.RUNS, refuse))
    assert _compare(make_recipe(), ["nextlong", "standard"], tmp_path / "out") == first


def test_a_strategy_that_the_corpus_cannot_serve_is_told_and_the_others_go_on(
    make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    recipe = make_recipe(synthesis={"keyword_min_score": 10**6})
    outcomes = _compare(recipe, ["quest", "standard"], tmp_path / "out")
    assert [each.facts is None for each in outcomes] == [True, False]
    text = as_table(outcomes)
    assert "quest: synthesis.strategy=quest gives no long document of 1,024 tokens" in text
    assert "no_keyword" in text


def test_a_mistake_in_the_recipe_is_told_before_any_strategy_runs(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = make_recipe(embedding={"model": None})
    with pytest.raises(UserError, match=r"embedding\.model is not set, but synthesis\.strategy=knn"):
        _compare(recipe, ["standard", "knn"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_another_recipe_in_a_comparisons_folder_is_refused_and_leaves_it_as_it_is(
    make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    _compare(make_recipe(), ["standard"], tmp_path / "out")
    before = (tmp_path / "out" / "compare.json").read_bytes()
    with pytest.raises(UserError, match=r"holds another recipe: .*seed.* --out .*/out-2$"):
        _compare(make_recipe(synthesis={"seed": 5}), ["standard"], tmp_path / "out")
    assert (tmp_path / "out" / "compare.json").read_bytes() == before


def test_other_folders_are_refused(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = make_recipe()
    run(recipe)
    (tmp_path / "file").write_text("")
    for out, message in (("work", "is no comparison"), (".", "is no comparison"), ("file", "is a file")):
        with pytest.raises(UserError, match=f"--out .*{message}"):
            prepare_all(recipe, ["standard"], tmp_path / out)


def test_the_paper_table_is_the_default() -> None:
    check_names(DEFAULT_STRATEGIES)
    assert DEFAULT_STRATEGIES == ("nextlong", "standard", "knn", "iclm", "quest")


@pytest.mark.parametrize(("names", "message"), [(["foo"], "among nextlong, "), (["knn", "knn"], "twice")])
def test_names_that_are_none_are_refused(names: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_names(names)


@pytest.mark.long
def test_from_the_command_line(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = make_recipe()
    recipe = dataclasses.replace(recipe, mining=dataclasses.replace(recipe.mining, near_duplicate_overlap=0.3))
    (tmp_path / "recipe.yaml").write_text(resolved_yaml(recipe))
    ran = nextlong("compare", tmp_path / "recipe.yaml", "--strategies", "nextlong", "quest", "--workers", 2)
    assert ran.stdout.startswith("strategy ")
    assert "\nnextlong " in ran.stdout
    assert "\nquest " in ran.stdout
    shown = nextlong("peek", tmp_path / "work-compare" / "nextlong", "--near-duplicates").stdout
    assert "0.95" in shown
    assert "<- this run drops them" in shown
    assert "overlap of word 5-grams: mining.near_duplicate_overlap = 0.3" in shown
    assert "kept, nearest the threshold:\n    0." in shown
    assert "doc-" in shown
    assert "whole documents" in nextlong("peek", tmp_path / "work-compare" / "quest").stdout
    refused = nextlong("peek", tmp_path / "work-compare" / "quest", "--near-duplicates", status=2)
    assert "no rule against near-duplicates" in refused.stderr
