"""The whole experiment, small: the same tokens and steps for every method; what is done is kept."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from etl.engine import Engine
from experiments.data import Folders, make_data
from experiments.effect import experiment, main
from experiments.train import long_run, short_run, train_long, train_short
from nextlong.errors import UserError
from tests.experiments.plans import MICRO


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, corpus_file: Path, model_folder: Path) -> Path:
    """Data of two seeds and two methods, and the trainings of one seed."""
    out = tmp_path_factory.mktemp("experiment")
    plan = dataclasses.replace(MICRO, seeds=(0, 1))
    make_data(plan, out, Engine(), corpus=corpus_file, model=str(model_folder))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    train_short(plan, out, 0)
    for method in plan.methods:
        train_long(plan, out, method, 0)
    torch.set_num_threads(threads)
    return out


def _steps(run: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == "train"]


def test_every_method_is_trained_on_as_many_tokens_at_every_step(trained: Path) -> None:
    by_method = {method: _steps(long_run(trained, method, 0)) for method in MICRO.methods}
    for steps in by_method.values():
        assert [step["tokens"] for step in steps] == [MICRO.batch_tokens] * MICRO.long_steps
    rates = {tuple(step["learning_rate"] for step in steps) for steps in by_method.values()}
    assert len(rates) == 1
    assert by_method["standard"][0]["loss"] != by_method["nextlong"][0]["loss"]  # other documents


def test_every_method_starts_from_the_seeds_short_stage(trained: Path) -> None:
    assert [step["tokens"] for step in _steps(short_run(trained, 0))] == [MICRO.batch_tokens] * MICRO.short_steps
    for method in MICRO.methods:
        recipe = (long_run(trained, method, 0) / "recipe.resolved.yaml").read_text()
        assert str(short_run(trained, 0) / "model") in recipe
        config = json.loads((long_run(trained, method, 0) / "model" / "config.json").read_text())
        assert config["max_position_embeddings"] == MICRO.long_tokens
        assert config["rope_theta"] == MICRO.long_theta
        ends = json.loads((long_run(trained, method, 0) / "model" / "generation_config.json").read_text())
        assert ends["eos_token_id"] == 0


def test_long_documents_are_of_the_plan_and_other_ones_by_each_seed(trained: Path) -> None:
    facts = json.loads((trained / "data" / "data.json").read_text())
    folders = Folders(trained)
    for method in MICRO.methods:
        manifests = [json.loads((folders.long(method, seed) / "manifest.json").read_text()) for seed in (0, 1)]
        for seed, manifest in enumerate(manifests):
            assert manifest["sequence_length_tokens"] == MICRO.long_tokens
            assert facts["long"][str(seed)][method]["rows"] == manifest["rows"] == MICRO.long_rows
        assert len({manifest["fingerprint"] for manifest in manifests}) == 2
    first, second = (folders.work(seed) / "nextlong" / "3-embeddings" / "manifest.json" for seed in (0, 1))
    assert first.samefile(second)  # a hard link: embedded once


def test_no_held_out_text_is_trained_on(trained: Path) -> None:
    import pyarrow.parquet as pq

    folders = Folders(trained)
    held_out = [json.loads(line)["text"] for line in folders.held_out.read_text().splitlines()]
    assert len(held_out) == MICRO.held_out
    for path in (folders.documents, folders.passages, folders.repeats):
        texts = pq.read_table(path)["text"].to_pylist()
        assert texts
        assert not [text for text in texts for other in held_out if len(text) > 100 and text in other]


@pytest.mark.long
def test_the_whole_runs_and_goes_on_where_it_was(tmp_path: Path, corpus_file: Path, model_folder: Path) -> None:
    out = tmp_path / "experiment"
    states = []
    for _ in range(2):
        experiment(MICRO, out, corpus=corpus_file, model=str(model_folder), workers=1)
        rows = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
        assert {(row["method"], row["seed"]) for row in rows} == {(method, 0) for method in MICRO.methods}
        states.append([path.stat().st_mtime_ns for path in _written(out)])
    assert states[0] == states[1]
    named = {row["measure"] for row in rows}
    assert set(MICRO.headline) <= named
    assert "| nextlong |" in (out / "analysis.md").read_text()
    other = dataclasses.replace(MICRO, long_rate=2e-3)
    with pytest.raises(UserError, match="another experiment"):
        experiment(other, out, corpus=corpus_file, model=str(model_folder), workers=1)


def _written(out: Path) -> Iterator[Path]:
    yield from sorted(
        [*(out / "measured").iterdir(), *out.glob("trained/*/model/config.json"), out / "data" / "data.json"]
    )


def test_the_plan_is_printed_before_anything_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("experiments.estimate._TIMED_SECONDS", 0.1)
    assert main(["--scale", "toy", "--out", str(tmp_path / "none"), "--dry-run"]) == 0
    told = capsys.readouterr().out
    for word in ("nextlong-self-repeat", "6,144,000 tokens", "128 steps", "minutes"):
        assert word in told
    assert not (tmp_path / "none").exists()


def test_a_corpus_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--corpus"):
        experiment(MICRO, tmp_path / "out", corpus=tmp_path / "none.parquet", model="none", workers=1)
