"""The index: however it is built and searched, the same bytes and negatives; its recall and its refusals are told."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import faiss
import pytest

from etl import pipeline
from etl.engine import Engine
from etl.lookup import embedding_store
from etl.parts import Part
from etl.recipe import Recipe
from etl.work import Work
from nextlong.config import Indexing
from nextlong.errors import UserError
from nextlong.indexing import add, merge_lists
from tests.etl.test_pipeline import data_files, run, table
from tests.marks import in_soak

MakeRecipe = Callable[..., Recipe]
SMALL_PARTS = {"part_rows": 10}
"""Twelve parts of the corpus' documents."""


class Watched(Engine):
    """Notes the parts it is given, and may stop before some work, as if it were killed there."""

    def __init__(self, stop_before: str | None = None) -> None:
        super().__init__()
        self.names: list[str] = []
        self._stop_before = stop_before

    def run(self, parts: Sequence[Part], *, doing: str, **options: Any) -> list[dict[str, Any]]:
        if doing == self._stop_before:
            raise KeyboardInterrupt
        self.names += [part.name for part in parts]
        return super().run(parts, doing=doing, **options)

    def number_of(self, prefix: str) -> int:
        return sum(name.startswith(f"{prefix}-") for name in self.names)


@pytest.fixture
def always_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Vectors are added a part a task, however few they are."""
    monkeypatch.setattr("etl.index.VECTORS_A_TASK", 0)


def indexed(recipe: Recipe, **settings: Any) -> Recipe:
    return dataclasses.replace(recipe, index=Indexing(**settings))


def facts_of(work: Work) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((work["index"].path / "index.json").read_text())
    return facts


def shard_files(work: Work) -> list[Path]:
    return [work["index"].path / name for name in facts_of(work)["shards"]]


def scratch_files(work: Work) -> list[Path]:
    return [path for prefix in ("trained", "added", "found") for path in work.path.rglob(f"{prefix}-*")]


@pytest.mark.usefixtures("always_spread")
@pytest.mark.parametrize(
    ("factory", "max_shard_bytes"), [("IVF8_HNSW8,SQ8", 14_000), *in_soak(("IVF8,Flat", 40_000), ("IVF8,PQ4x4", 7_000))]
)
def test_parts_added_by_tasks_of_their_own_give_the_bytes_of_a_single_build(
    make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch, factory: str, max_shard_bytes: int
) -> None:
    engine, joined = Watched(), []

    def merge(shard: Any, path: Path) -> None:
        joined.append(path.stem)
        merge_lists(shard, path)

    monkeypatch.setattr("etl.index.merge_lists", merge)
    recipe = indexed(make_recipe(input=SMALL_PARTS), factory=factory, max_shard_bytes=max_shard_bytes)
    work, _ = run(recipe, engine)
    arrays = embedding_store(work["embed"])
    assert engine.number_of("added") == len(arrays.arrays) == 12
    assert joined == [name for name in engine.names if name.startswith("added-")]
    assert not scratch_files(work)
    shards = [faiss.read_index(str(path)) for path in shard_files(work)]
    assert len(shards) > 1
    place = 0
    for path, shard in zip(shard_files(work), shards, strict=True):
        assert path.stat().st_size <= max_shard_bytes
        single = faiss.clone_index(shard)
        single.reset()
        while single.ntotal < shard.ntotal:
            add(single, arrays.arrays[place], arrays.firsts[place])
            place += 1
        assert faiss.serialize_index(single).tobytes() == path.read_bytes()
    assert place == 12


@pytest.mark.parametrize("factory", ["Flat", "IVF8,SQ8"])
def test_few_vectors_are_added_by_the_shards_task(make_recipe: MakeRecipe, factory: str) -> None:
    engine = Watched()
    work, _ = run(indexed(make_recipe(), factory=factory), engine)
    assert (engine.number_of("added"), engine.number_of("shard")) == (0, 1)
    assert not scratch_files(work)


@pytest.mark.usefixtures("always_spread")
def test_spread_and_sharded_on_two_workers_gives_the_same_bytes(make_recipe: MakeRecipe, two_workers: Engine) -> None:
    def recipe(name: str, search: str) -> Recipe:
        settings = {"factory": "IVF8,SQ8", "max_shard_bytes": 14_000, "nprobe": 3}
        return indexed(make_recipe(name, input=SMALL_PARTS), search=search, **settings)

    mapped, _ = run(recipe("mapped", "mapped"))
    sharded, _ = run(recipe("sharded", "sharded"), two_workers)
    assert data_files(mapped) == data_files(sharded)
    assert not scratch_files(sharded)


@pytest.mark.parametrize(
    ("synthesis", "factory", "max_shard_bytes"),
    [
        ({"strategy": "nextlong"}, "IVF8,PQ4x4", 8_000),
        # Some documents fall short, so that more are mined.
        ({"budget": "paper", "overshoot_ratio": 1.3, "num_samples": 12, "docs_per_part": 4}, "IVF8,SQ8", 14_000),
        *in_soak(
            ({"target_length_tokens": [512, 1024], "num_samples": [5, 4]}, "Flat", 40_000),
            ({"strategy": "nextlong"}, "Flat", 40_000),
            ({"strategy": "nextlong"}, "IVF8,Flat", 40_000),
            ({"strategy": "knn"}, "IVF8,SQ8", 4_000),
        ),
    ],
    ids=str,
)
def test_a_search_shard_by_shard_finds_what_a_mapped_index_finds(
    make_recipe: MakeRecipe, synthesis: dict[str, Any], factory: str, max_shard_bytes: int
) -> None:
    works = {}
    for search in ("mapped", "sharded"):
        engine = Watched()
        recipe = make_recipe(search, input=SMALL_PARTS, synthesis=synthesis, mining={"num_candidates": 40})
        works[search], _ = run(
            indexed(recipe, factory=factory, nprobe=3, max_shard_bytes=max_shard_bytes, search=search), engine
        )
        num_shards, num_parts = len(shard_files(works[search])), len(works[search]["mine"].tables())
        assert num_shards > 1
        assert engine.number_of("found") == (num_parts * num_shards if search == "sharded" else 0)
    assert data_files(works["mapped"]) == data_files(works["sharded"])
    assert table(works["sharded"], "mine").num_rows > 20
    assert not scratch_files(works["sharded"])


def test_an_index_is_mapped_up_to_a_size_and_random_negatives_search_nothing(make_recipe: MakeRecipe) -> None:
    fingerprints = set()
    for name, settings, synthesis, is_searched in (
        ("small", {}, {}, False),
        ("large", {"max_mapped_bytes": 1000}, {}, True),
        ("mapped", {"max_mapped_bytes": 1000, "search": "mapped"}, {}, False),
        ("random", {"search": "sharded"}, {"negatives": "random"}, False),
    ):
        engine = Watched()
        work, _ = run(indexed(make_recipe(name, synthesis=synthesis), **settings), engine)
        fingerprints.add(work["index"].fingerprint)
        assert (engine.number_of("found") > 0) == is_searched, name
        assert engine.number_of("shard") == 1
    assert len(fingerprints) == 1


def test_how_an_index_is_searched_may_change_between_runs(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe()
    with pytest.raises(KeyboardInterrupt):
        run(indexed(recipe, search="sharded"), Watched("mine negatives"))
    work, _ = run(indexed(recipe, search="mapped"))
    assert data_files(work) == data_files(run(make_recipe("undisturbed"))[0])
    assert not scratch_files(work)


@pytest.mark.usefixtures("always_spread")
@pytest.mark.parametrize(("stop_before", "prefix"), [("mine negatives", "found"), *in_soak(("build index", "added"))])
def test_a_rerun_makes_only_the_scratch_that_is_gone(make_recipe: MakeRecipe, stop_before: str, prefix: str) -> None:
    def recipe(name: str) -> Recipe:
        settings = {"factory": "IVF8,SQ8", "max_shard_bytes": 14_000, "search": "sharded"}
        return indexed(make_recipe(name, input=SMALL_PARTS), **settings)

    undisturbed, _ = run(recipe("undisturbed"))
    with pytest.raises(KeyboardInterrupt):
        run(recipe("killed"), Watched(stop_before))
    markers = sorted(undisturbed.path.with_name("killed").rglob(f"{prefix}-*.ok.json"))
    assert len(markers) > 4
    gone, kept = markers[:2], {path: path.stat().st_mtime_ns for path in markers[2:]}
    for path in gone:
        path.unlink()
    with pytest.raises(KeyboardInterrupt):
        run(recipe("killed"), Watched(stop_before))
    assert all(path.exists() for path in gone)
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())
    work, _ = run(recipe("killed"))
    assert data_files(work) == data_files(undisturbed)
    assert not scratch_files(work)


@pytest.mark.usefixtures("always_spread")
@pytest.mark.parametrize(("stage", "pattern"), [("index", "shard-*.faiss"), ("mine", "part-*.parquet")])
def test_a_part_damaged_after_its_scratch_is_gone_is_made_again(
    make_recipe: MakeRecipe, stage: str, pattern: str
) -> None:
    recipe = indexed(
        make_recipe(input=SMALL_PARTS), factory="IVF8,SQ8", max_shard_bytes=14_000, search="sharded", nprobe=3
    )
    work, _ = run(recipe)
    before = data_files(work)
    victim = sorted(work[stage].path.glob(pattern))[0]
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(content)
    work[stage].reopen()
    run(recipe)
    assert data_files(work) == before


def test_re_ranking_raises_the_recall_of_a_compressed_index_and_is_told(
    make_recipe: MakeRecipe, caplog: pytest.LogCaptureFixture
) -> None:
    work, summary = run(indexed(make_recipe(), factory="IVF8,PQ4x4", nprobe=8, recall_top_k=32))
    facts = facts_of(work)
    assert facts == summary["stages"]["index"]["values"] == (work["index"].manifest() or {})["values"]
    assert facts["recall_before_reranking"] < 0.8
    assert facts["recall"] > facts["recall_before_reranking"] + 0.15
    assert facts["rerank_ratio"] in (2, 4, 8, 16)
    assert (facts["recall"] < 0.95) == ("is below index.target_recall" in caplog.text)

    given, _ = run(indexed(make_recipe("given"), factory="IVF8,PQ4x4", nprobe=8, recall_top_k=32, rerank_ratio=1.0))
    assert facts_of(given)["rerank_ratio"] == 1
    assert facts_of(given)["recall"] == pytest.approx(facts["recall_before_reranking"], abs=0.03)
    assert "is below index.target_recall" in caplog.text


def test_the_ratio_and_nprobe_are_the_smallest_that_reach_the_target(make_recipe: MakeRecipe) -> None:
    chosen = {}
    for target in (0.5, 0.8, 0.95):
        settings = {"factory": "IVF8,PQ4x4", "recall_top_k": 32, "target_recall": target}
        work, _ = run(indexed(make_recipe(f"to-{target}"), **settings), only=None)
        chosen[target] = facts_of(work)
        assert chosen[target]["recall"] >= target
    costs = [(facts["rerank_ratio"], facts["nprobe"]) for facts in chosen.values()]
    assert costs == sorted(costs)
    assert costs[0] < costs[-1]


@pytest.mark.parametrize("factory", ["Flat", "IVF8,Flat", "IVF8,SQ8"])
def test_vectors_kept_whole_are_proposed_with_a_small_margin(make_recipe: MakeRecipe, factory: str) -> None:
    work, _ = run(indexed(make_recipe(), factory=factory))
    facts = facts_of(work)
    assert facts["rerank_ratio"] == 1.05
    assert facts["recall"] >= facts["recall_before_reranking"] > 0.9


@pytest.mark.parametrize(
    ("sections", "top_k", "expected"),
    [
        ({"mining": {"num_candidates": 40}}, "auto", 40),
        ({"mining": {"num_candidates": 40}}, 8, 8),
        ({}, "auto", 512),
    ],
)
def test_recall_is_measured_for_as_many_neighbours_as_are_looked_up(
    make_recipe: MakeRecipe, sections: dict[str, Any], top_k: Any, expected: int
) -> None:
    recipe = indexed(make_recipe(**sections), factory="IVF8,Flat", recall_top_k=top_k)
    work, _ = run(recipe)
    assert facts_of(work)["recall_top_k"] == expected


def test_more_neighbours_take_more_lists(make_recipe: MakeRecipe) -> None:
    nprobes = []
    for candidates in (2, 60):
        recipe = make_recipe(f"for-{candidates}", mining={"num_candidates": candidates})
        work, _ = run(indexed(recipe, factory="IVF16,Flat"), only=None)
        nprobes.append(facts_of(work)["nprobe"])
    assert nprobes[0] < nprobes[1]


def test_too_little_memory_is_told_before_anything_is_built(
    make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("etl.index.psutil.virtual_memory", lambda: SimpleNamespace(available=100_000))
    with pytest.raises(UserError, match=r"index.factory Flat needs .* available: set index.max_shard_bytes to \d+ or"):
        run(make_recipe(input=SMALL_PARTS))
    work = pipeline.start(make_recipe(input=SMALL_PARTS)).work
    assert work["embed"].manifest() is not None
    assert not list(work["index"].path.glob("*.faiss"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"factory": "IVFx,Foo"}, "index.factory is 'IVFx,Foo', which FAISS cannot build for 32 dimensions"),
        ({"factory": "IVF16,PQ5"}, "should be a multiple of the number of subquantizers"),
        ({"factory": "IVF16,PQ4,RFlat"}, "Leave its last part out"),
        ({"factory": "IVF600,SQ8", "training_chunks": 512}, "600 inverted lists, but index.training_chunks is 512"),
        ({"rerank_ratio": 0.5}, "index.rerank_ratio is 0.5, but it must be at least 1, or null"),
        ({"search": "split"}, "index.search is 'split', but it must be one of auto, mapped, sharded"),
        ({"max_mapped_bytes": 0}, "index.max_mapped_bytes is 0, but it must be at least 1"),
    ],
)
def test_what_cannot_work_is_refused_before_the_first_stage(
    make_recipe: MakeRecipe, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        pipeline.start(indexed(make_recipe(), **settings))
