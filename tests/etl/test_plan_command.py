"""`nextlong plan` as a user meets it, and its bytes against those of real runs."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from etl import pipeline
from etl.capacity.plan import plan
from etl.engine import Engine
from etl.inputs import Input
from etl.recipe import Recipe, resolved_yaml
from etl.strategies import STRATEGIES
from etl.work import FOLDERS
from nextlong.errors import UserError
from tests.conftest import make_texts
from tests.etl.test_cli import nextlong, refused
from tests.marks import in_soak

MakeRecipe = Callable[..., Recipe]
MEASURED: dict[str, str] = {}


@pytest.fixture
def recipe_file(make_recipe: MakeRecipe, tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(resolved_yaml(make_recipe()))
    return path


@pytest.fixture
def rates_file(recipe_file: Path, shared: Path) -> Path:
    """Rates measured once, by the command; MEASURED holds the page that it printed."""
    path = shared / "rates.json"
    if not path.exists():
        MEASURED["page"] = nextlong("plan", recipe_file, "--workers", 2, "--write-rates", path).stdout
    return path


def without_source(text: str) -> list[str]:
    """A page's lines, but for the one that says where its rates are from."""
    return [line for line in text.splitlines() if not line.startswith("rates ")]


def test_rates_that_were_written_give_the_same_page_without_measuring(
    rates_file: Path, recipe_file: Path, tmp_path: Path
) -> None:
    again = nextlong(
        "plan", recipe_file, "--workers", 2, "--rates", rates_file, "--write-rates", tmp_path / "copy.json"
    )
    measured = MEASURED["page"]
    assert without_source(again.stdout)[:20] == without_source(measured)[:20]
    assert "measured here: " in measured
    assert f"of {rates_file}: " in again.stdout
    assert json.loads((tmp_path / "copy.json").read_text()) == json.loads(rates_file.read_text())
    for word in ("input", "chunks", "disk", "time on 2 workers", "worker-hours", "GPU-hours", "largest", "memory"):
        assert word in measured
    assert measured.endswith("Nothing was written.\n")
    assert not (tmp_path / "work").exists()


def stage_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"mining": {"retrieval": "bm25", "near_duplicate_overlap": 0.8}},
        *in_soak(
            {"synthesis": {"negatives": "self_repeat"}},
            {"synthesis": {"strategy": "knn"}},
            {"synthesis": {"strategy": "quest"}},
        ),
        {"synthesis": {"target_length_tokens": [512, 2048], "num_samples": [30, 10]}},
    ],
    ids=lambda sections: str(sections),
)
def test_bytes_are_those_of_a_real_run(
    sections: dict[str, dict[str, Any]], rates_file: Path, make_recipe: MakeRecipe, larger_corpus: Path
) -> None:
    """On a corpus large enough that markers and manifests are little of it."""
    sections = {"input": {"path": str(larger_corpus), "part_rows": 400}} | sections
    # Texts of the same few words: the rule would drop most candidates, which no plan can know.
    sections["mining"] = {"near_duplicate_similarity": None} | sections.get("mining", {})
    sections["synthesis"] = {"docs_per_part": 100, "num_samples": 120} | sections.get("synthesis", {})
    recipe = make_recipe(**sections)
    found = plan(recipe, rates_file=rates_file)
    job = pipeline.start(recipe)
    pipeline.run(job, Engine())
    real = {name: stage_bytes(job.work.path / folder) for name, folder in FOLDERS.items()}
    assert found.num_bytes == pytest.approx(sum(real.values()), rel=0.25)
    for stage in found.stages:
        if real[stage.name] > 50_000:
            nearness = 0.4 if stage.name == "mine" else 0.25  # these scores are nearer each other than those of prose
            assert stage.num_bytes == pytest.approx(real[stage.name], rel=nearness), stage.name


@pytest.fixture
def larger_corpus(shared: Path) -> Path:
    """800 documents in eight row groups."""
    path = shared / "larger.parquet"
    if not path.exists():
        rows = [
            {"id": f"doc-{place}", "text": text, "source": topic} for place, (topic, text) in enumerate(make_texts(800))
        ]
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=100)
    return path


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_is_planned(name: str, rates_file: Path, make_recipe: MakeRecipe) -> None:
    recipe = make_recipe(**STRATEGIES[name])
    found = plan(recipe, rates_file=rates_file)
    assert sum(each.number for each in found.workload.long_documents) > 0
    assert found.shortest_seconds(2, 1) > 0


def test_jsonl_has_the_characters_of_its_texts(
    rates_file: Path, make_recipe: MakeRecipe, corpus_file: Path, tmp_path: Path
) -> None:
    rows = [row for row in pq.read_table(corpus_file).to_pylist() if row["text"]]
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps(row | {"other": "x" * 2_000}) + "\n" for row in rows))
    recipe = dataclasses.replace(make_recipe(), input=Input(path=str(path), id="id", source="source"))
    kept = {row["text"] for row in rows if not row["text"].isspace()}
    chars = plan(recipe, rates_file=rates_file).workload.corpus.num_chars
    assert chars == pytest.approx(sum(map(len, kept)), rel=0.01)


def test_an_input_without_documents_is_refused(rates_file: Path, make_recipe: MakeRecipe, tmp_path: Path) -> None:
    for name, rows in (("none", []), ("blank", [None, "", " "])):
        path = tmp_path / f"{name}.parquet"
        pq.write_table(pa.table({"text": pa.array(rows, pa.string())}), path)
        recipe = dataclasses.replace(make_recipe(), input=Input(path=str(path)))
        with pytest.raises(UserError, match=r"no document is left|has no rows"):
            plan(recipe, rates_file=rates_file)


def test_a_recipe_s_input_is_a_sample_of_a_larger_corpus(rates_file: Path, make_recipe: MakeRecipe) -> None:
    small, large = (plan(make_recipe(), rates_file=rates_file, num_chars=chars) for chars in (1e8, 1e10))
    assert large.workload.num_chunks == pytest.approx(100 * small.workload.num_chunks)
    assert large.stages[2].num_bytes == pytest.approx(100 * small.stages[2].num_bytes, rel=0.01)


@pytest.mark.long
def test_the_published_corpus_needs_neither_recipe_nor_corpus(rates_file: Path) -> None:
    shown = nextlong(
        "plan", "--chunks", 644_275_250, "--dimensions", 256, "--granularity", 2048, "--samples", 32000,
        "--target", 131072, "--embedding.max_tokens", 512, "--workers", 64, "--gpus", 8, "--rates", rates_file,
    ).stdout  # fmt: skip
    assert "644,275,250 chunks of 1,024 float32 numbers: 928 GPU-hours (193 chunks/s a GPU) and 2.4 TB" in shown
    assert "for 644.3 M chunks: 927 GPU-hours, 2.64 TB; this plan: 927 GPU-hours, 329.9" in shown
    assert "32,000 of 131,072 tokens" in shown
    assert "docstrings of installed packages stand in" in shown


def test_bad_options_end_in_one_sentence(recipe_file: Path, tmp_path: Path) -> None:
    size = ("--chars", "1e9")
    for arguments, sentence in [
        ([], "plan needs a RECIPE.yaml, or --chars and --target"),
        (size, "plan needs a RECIPE.yaml, or --chars and --target"),
        (["--chars", "0", "--target", "1024"], "--chars is 0, but it must be at least 1"),
        (["--chars", "nan", "--target", "1024"], "--chars is nan"),
        ([recipe_file, "--gpus", "-1"], "--gpus is -1"),
        ([recipe_file, "--workers", "-1"], "--workers is -1"),
        ([recipe_file, "--synthesis.sed", "1"], "synthesis.sed"),
        ([*size, "--target", "64K"], "synthesis.target_length_tokens is 64K"),
        ([*size, "--target", "1024"], "needs --dimensions"),
        ([*size, "--target", "1024", "--dimensions", "64"], "how fast workers embed is not known"),
        ([*size, "--target", "1024", "--model", "./none"], "there is no such folder"),
        ([recipe_file, "--rates", tmp_path / "none.json"], "--rates"),
        ([recipe_file, "--rates", recipe_file], "Write such a file with nextlong plan --write-rates FILE"),
    ]:
        said = refused("plan", *arguments)
        assert sentence in said
        assert said.strip().splitlines()[-1].startswith("nextlong: ")
