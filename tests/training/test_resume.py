"""Runs of the trainer: on other ranks, in other micro-steps, stopped, killed and gone on with, they are one run."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.conftest import LENGTH, Recipe, metrics
from tests.training.ranks import ROOT, command, environment, launch

BOUND = {"float64": 1e-10, "float32": 1e-5}
STEPS = 6


def _weights(recipe: dict[str, Any]) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = torch.load(Path(recipe["output"]) / "weights.pt")
    return found


def _distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    assert one.keys() == other.keys()
    between = torch.stack([(one[name] - other[name]).norm() for name in one]).norm()
    return float(between / torch.stack([each.norm() for each in one.values()]).norm())


def assert_alike(found: dict[str, Any], expected: dict[str, Any], bound: float) -> None:
    """Losses, gradient norms and weights are the same; a bound of 0: to the last digit."""
    ours, theirs = metrics(found), metrics(expected)
    assert [each["step"] for each in ours] == [each["step"] for each in theirs] == list(range(STEPS))
    for one, other in zip(ours, theirs, strict=True):
        assert one["targets"] == other["targets"]
        for name in ("loss", "gradient_norm", "learning_rate"):
            assert abs(one[name] - other[name]) <= bound * abs(other[name]), (name, one, other)
    assert _distance(_weights(found), _weights(expected)) <= bound


@pytest.fixture
def variants(recipe: Recipe, packed: Callable[[str], str]) -> Callable[..., dict[str, Any]]:
    """variants(name, precision, sp=1, micro_rows=1, ...): a mixture in which ranks hold few targets or many."""

    def make(name: str, precision: str = "float64", *, sp: int = 1, micro_rows: int = 1, **more: Any) -> dict[str, Any]:
        return recipe(
            name,
            model={"precision": precision, "checkpointing": more.pop("checkpointing", True)},
            data={"folders": [packed("arrow"), packed("masked")], "proportions": [0.5, 0.5]},
            batch={"micro_rows": micro_rows},
            parallel={"sp": sp, "dp_replicate": more.pop("dp_replicate", 1)},
            saving={"every_steps": more.pop("every_steps", 2)},
            **more,
        )

    return make


def test_ranks_micro_steps_and_stops_change_nothing(variants: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    one = variants("one")
    stopped_one, from_two = variants("stopped-one"), variants("from-two")
    two, sequence = variants("two"), variants("sequence", sp=2)
    stopped_two, stopped_for_one, stopped_for_sequence = (variants(f"stopped-{name}") for name in ("two", "a", "b"))
    answers = launch(
        "train",
        [
            {"recipe": two},
            {"recipe": sequence},
            {"recipe": variants("two-by-two", micro_rows=2)},
            {"recipe": stopped_two, "signal_after": 3},
            {"recipe": stopped_two},
            {"recipe": stopped_for_one, "signal_after": 3},
            {"recipe": stopped_for_sequence, "signal_after": 3},
            {"recipe": stopped_for_sequence | {"parallel": {"sp": 2}}},
        ],
        tmp_path / "two-ranks",
        ranks=2,
    )
    stopped = [place for place, answer in enumerate(answers) if answer["error"] == "KeyboardInterrupt: "]
    assert stopped == [3, 5, 6]
    assert "going on after step 3" in answers[4]["log"]
    shutil.copytree(stopped_for_one["output"], from_two["output"])
    answers = launch(
        "train",
        [
            {"recipe": one},
            {"recipe": variants("one-by-four", micro_rows=4)},
            {"recipe": stopped_one, "signal_after": 3},
            {"recipe": stopped_one},
            {"recipe": from_two},
        ],
        tmp_path / "one-rank",
        ranks=1,
    )
    assert [answer["error"] for answer in answers] == [None, None, "KeyboardInterrupt: ", None, None]
    assert_alike(stopped_one, one, 0)
    assert_alike(stopped_two, two, 0)
    more = (variants("two-by-two"), variants("one-by-four"))
    for other in (two, sequence, from_two, stopped_for_sequence, *more):
        assert_alike(other, one, BOUND["float64"])
    assert metrics(one)[-1]["loss"] < metrics(one)[0]["loss"]


@pytest.mark.long
def test_checkpointing_replicas_and_float32_change_nothing(
    variants: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    one, narrow_one = variants("one"), variants("narrow-one", "float32")
    plain, replicas = variants("plain", sp=2, checkpointing=False), variants("replicas", dp_replicate=2)
    narrow_two, narrow_sequence = variants("narrow-two", "float32"), variants("narrow-sequence", "float32", sp=2)
    for ranks, told in ((2, [plain, replicas, narrow_two, narrow_sequence]), (1, [one, narrow_one])):
        answers = launch("train", [{"recipe": each} for each in told], tmp_path / f"{ranks}-ranks", ranks=ranks)
        assert [answer["error"] for answer in answers] == [None] * len(told)
    for other in (plain, replicas):
        assert_alike(other, one, BOUND["float64"])
    for other in (narrow_two, narrow_sequence):
        assert_alike(other, narrow_one, BOUND["float32"])


def test_a_run_that_is_killed_in_a_save_goes_on_from_the_last_whole_checkpoint(
    variants: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    killed, whole = variants("killed"), variants("whole")
    launch("train", [{"recipe": killed, "kill_in_save": 4}], tmp_path / "first", ranks=2, dies=True)
    checkpoints = Path(killed["output"]) / "checkpoints"
    assert [path.name for path in sorted(checkpoints.iterdir())] == ["step-00000002", "step-00000004"]
    assert not (checkpoints / "step-00000004" / "complete.json").exists()
    steps = len(metrics(killed))
    request = [{"recipe": killed}, {"recipe": whole, "whole_after": 3}]
    answers = launch("train", request, tmp_path / "second", ranks=2)
    assert answers[1]["whole"] == ["step-00000002"]  # it counts when it is written, not at the next save
    assert [answer["error"] for answer in answers] == [None, None]
    said = "checkpoint step-00000004 was not finished and is deleted; the last whole one is step-00000002"
    assert said in answers[0]["log"]
    assert "going on after step 2" in answers[0]["log"]
    lines = metrics(killed)
    assert [each["step"] for each in lines[steps:]] == [2, 3, 4, 5]
    assert [each["loss"] for each in lines[steps:]] == [each["loss"] for each in metrics(whole)[2:]]
    assert _distance(_weights(killed), _weights(whole)) == 0
    kept = sorted(path.parent.name for path in checkpoints.glob("*/complete.json"))
    assert kept == ["step-00000004", "step-00000006"]
    told = json.loads((checkpoints / kept[-1] / "complete.json").read_text())
    assert told["step"] == STEPS
    assert told["rows_per_step"] == 4


@pytest.mark.long
def test_sigterm_to_torchrun_saves_and_ends(recipe: Recipe, tmp_path: Path) -> None:
    told = recipe("long", optimizer={"steps": 100_000}, saving={"every_steps": 100_000})
    process = subprocess.Popen(
        command("train", [{"recipe": told}], tmp_path / "first", ranks=2),
        cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    lines = Path(told["output"]) / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None and not (lines.exists() and len(metrics(told)) > 3):
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGTERM)
    process.communicate(timeout=100)
    [path] = (Path(told["output"]) / "checkpoints").glob("*/complete.json")
    assert json.loads(path.read_text())["step"] == len(metrics(told)) > 3


def test_a_second_stage_starts_from_the_first(recipe: Recipe, packed: Callable[[str], str], tmp_path: Path) -> None:
    first = recipe("stage-1")
    other: dict[str, Any] = {
        "data": {"folders": [packed("masked")]},
        "optimizer": {"weight_decay": 0.0, "beta2": 0.9, "epsilon": 1e-6},
        "model": {"rope_theta": 1e6},
    }
    second, forgetful = (recipe(name, saving={"init_from": first["output"]}, **other) for name in ("stage-2", "poor"))
    fresh, none = recipe("fresh", **other), recipe("none", saving={"init_from": str(tmp_path)})
    request: list[dict[str, Any]] = [{"recipe": each} for each in (first, second, fresh, none, forgetful)]
    request[4] |= {"forgets_moments": True}
    answers = launch("train", request, tmp_path / "ranks", ranks=1)
    assert [answer["error"] for answer in answers if answer is not answers[3]] == [None] * 4
    assert "holds no whole checkpoint" in answers[3]["error"]
    assert any("weights and optimizer state of" in line for line in answers[1]["log"])
    ours, poor, new = (metrics(each) for each in (second, forgetful, fresh))
    assert ours[0]["loss"] == poor[0]["loss"] != new[0]["loss"]  # the weights
    assert ours[1]["loss"] != poor[1]["loss"]  # the moments
    assert [each["learning_rate"] for each in ours] == [each["learning_rate"] for each in new]
    assert ours[0]["tokens"] == 4 * LENGTH
    settings = {"betas": [0.9, 0.9], "eps": 1e-6, "weight_decay": 0.0}
    assert answers[1]["groups"] == answers[2]["groups"] == [settings, settings]
    exported = json.loads((Path(second["output"]) / "model" / "config.json").read_text())
    assert exported["rope_theta"] == exported["rope_parameters"]["rope_theta"] == 1e6


@pytest.mark.long
def test_a_signal_in_an_evaluation_ends_it_with_a_checkpoint(
    recipe: Recipe, packed: Callable[[str], str], tmp_path: Path
) -> None:
    told = recipe("run", evaluation={"folders": [packed("mds")], "every_steps": 2, "rows": 9})
    [answer] = launch("train", [{"recipe": told, "signal_in_evaluation": True}], tmp_path / "ranks", ranks=2)
    assert answer["error"] == "KeyboardInterrupt: "
    lines = (Path(told["output"]) / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["kind"] for line in lines] == ["train", "train", "saving"]
    [path] = (Path(told["output"]) / "checkpoints").glob("*/complete.json")
    assert json.loads(path.read_text())["step"] == 2
