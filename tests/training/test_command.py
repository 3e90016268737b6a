"""`nextlong train` as a user meets it: real processes, exit codes, what is on the screen and in the run folder."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from filelock import FileLock

from tests.training.made import LENGTH, arguments, write_model, write_packed

NEXTLONG = [sys.executable, "-m", "etl.cli"]
ALONE = {"OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """model, packed and held."""
    folder = tmp_path_factory.mktemp("command")
    write_model(folder / "model")
    write_packed(folder / "packed", folder / "model", rows=40)
    write_packed(folder / "held", folder / "model", rows=3, seed=1)
    return folder


def of(made: Path, output: Path, *others: str) -> list[str]:
    return ["train", "tiny", *arguments(made / "model", made / "packed", output, *others)]


def nextlong(*words: object, status: int = 0) -> subprocess.CompletedProcess[str]:
    ran = subprocess.run(
        [*NEXTLONG, *map(str, words)], capture_output=True, text=True, timeout=200, env=os.environ | ALONE
    )
    assert ran.returncode == status, ran.stderr
    assert "Traceback" not in ran.stdout + ran.stderr
    return ran


def records(output: Path, kind: str) -> list[dict[str, Any]]:
    lines = (output / "metrics.jsonl").read_text().splitlines()
    return [record for record in map(json.loads, lines) if record["kind"] == kind]


@pytest.fixture(scope="module")
def trained(made: Path) -> Path:
    """The run folder of four steps of one rank, evaluated every two."""
    held = f"--evaluation.folders=[{made / 'held'}]"
    ran = nextlong(*of(made, made / "trained", held, "--evaluation.every_steps=2"))
    assert f"{made / 'trained' / 'model'}: the trained model" in ran.stdout
    assert "after step 4: held-out loss" in ran.stderr
    return made / "trained"


def test_a_run_folder_says_all(trained: Path, made: Path) -> None:
    recipe = yaml.safe_load((trained / "recipe.resolved.yaml").read_text())
    assert (recipe["model"]["path"], recipe["optimizer"]["beta2"]) == (str(made / "model"), 0.95)
    run = json.loads((trained / "run.json").read_text())
    assert {"torch", "transformers", "nextlong", "python"} <= run["starts"][0]["versions"].keys()
    assert (trained / "manifests" / "0.json").read_bytes() == (made / "packed" / "manifest.json").read_bytes()
    assert "held-out loss" in (trained / "run.log").read_text()
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {
        each.name for each in (trained / "model").iterdir()
    }
    losses = [record["loss"] for record in records(trained, "train")]
    assert len(losses) == 4
    assert losses[-1] < losses[0]


def test_held_out_loss_is_recorded_when_it_is_due_and_at_the_end(trained: Path) -> None:
    told = records(trained, "evaluation")
    assert [record["step"] for record in told] == [2, 4]
    assert told[1]["loss"] < told[0]["loss"]
    assert told[0]["targets"] == 3 * (LENGTH - 3) == told[0]["targets_meta"] + told[0]["targets_negative"]


def test_two_ranks_by_our_launcher_stop_by_a_signal_and_go_on(made: Path, tmp_path: Path) -> None:
    """Every step is done once; the stop writes a checkpoint, whatever saving.every_steps."""
    words = [*NEXTLONG, *of(made, tmp_path / "run", "--ranks=2", "--optimizer.steps=60", "--saving.every_steps=1000")]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=os.environ | ALONE)
    metrics, deadline = tmp_path / "run" / "metrics.jsonl", time.monotonic() + 120
    while (not metrics.exists() or not metrics.read_text()) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert errors.count("the last checkpoint is kept, run the same command again to go on") == 1
    (checkpoint,) = (tmp_path / "run" / "checkpoints").glob("step-*/complete.json")
    done = json.loads(checkpoint.read_text())["step"]
    assert 1 <= done < 60
    assert len(records(tmp_path / "run", "train")) == done
    again = subprocess.run(words, capture_output=True, text=True, timeout=200, env=os.environ | ALONE)
    assert again.returncode == 0, again.stderr
    assert f"going on after step {done}" in again.stderr
    assert [record["step"] for record in records(tmp_path / "run", "train")] == list(range(60))
    assert len(json.loads((tmp_path / "run" / "run.json").read_text())["starts"]) == 2


def test_torchrun_trains_as_one_rank_does(made: Path, trained: Path, tmp_path: Path) -> None:
    torchrun = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "training",
    ]
    words = [*torchrun, *of(made, tmp_path / "run", "--parallel.sp=2")[1:]]
    ran = subprocess.run(words, capture_output=True, text=True, timeout=200, env=os.environ | ALONE)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("the trained model") == 1
    assert ran.stderr.count("16 of its 40 rows, 0.40 passes") == 1, "rank 0 speaks"
    ours, theirs = ([record["loss"] for record in records(each, "train")] for each in (tmp_path / "run", trained))
    assert ours == pytest.approx(theirs, rel=1e-5)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["starts"][0]["ranks"] == 2


def test_a_folder_of_another_recipe_is_refused_with_the_remedy(made: Path, trained: Path) -> None:
    ran = nextlong(*of(made, trained, "--optimizer.learning_rate=0.5"), status=2)
    assert "optimizer.learning_rate was 0.001, is 0.5" in ran.stderr
    assert f"--saving.init_from {trained}" in ran.stderr


def test_a_mistake_on_several_ranks_is_said_once(made: Path, tmp_path: Path) -> None:
    ran = nextlong(*of(made, tmp_path / "run", "--ranks=2", "--batch.micro_rows=3"), status=2)
    assert ran.stderr.count("nextlong: an optimizer step has 4 rows, which 2 data-parallel ranks with 3") == 1


@pytest.mark.long
def test_a_folder_where_nothing_was_trained_takes_another_recipe(made: Path, tmp_path: Path) -> None:
    nextlong(*of(made, tmp_path / "run", "--batch.micro_rows=3"), status=2)
    nextlong(*of(made, tmp_path / "run", "--batch.micro_rows=3", f"--batch.global_tokens={6 * LENGTH}"))


def test_a_loss_that_is_no_number_ends_with_what_to_do(made: Path, tmp_path: Path) -> None:
    ran = nextlong(*of(made, tmp_path / "run", "--optimizer.learning_rate=1e30", "--optimizer.clip=1e30"), status=1)
    (told,) = [line for line in ran.stderr.splitlines() if line.startswith("nextlong: ")]
    assert re.match(
        r"nextlong: step \d: the loss is \S+, the gradient norm (inf|nan), on row .*lower optimizer.l", told
    )


def test_a_folder_at_which_another_training_is_at_work_is_refused(made: Path, trained: Path) -> None:
    held = f"--evaluation.folders=[{made / 'held'}]"
    with FileLock(trained / "run.lock"):
        ran = nextlong(*of(made, trained, held), status=2)
    assert f"another run is at work in {trained}" in ran.stderr


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["train"], "train needs a RECIPE.yaml; these come with the package: base, llama3-8b-128k"),
        (["train", "none.yaml"], "recipe none.yaml: there is no such file"),
        (["train", "tiny", "--optimiser.steps", "3"], "--optimiser.steps is no option and no field of a"),
        (["train", "tiny", "--optimizer.step", "3"], "optimizer.step"),
        (["train", "tiny", "--ranks", "0"], "--ranks is 0, but it must be at least 1"),
        (["train", "tiny", "--dry-run", "--length", "1"], "--length is 1, but it must be at least 2"),
    ],
)  # fmt: skip
def test_mistakes_end_in_one_sentence(words: list[str], sentence: str) -> None:
    ran = nextlong(*words, status=2)
    assert sentence in ran.stderr
    assert ran.stderr.strip().splitlines()[-1].startswith("nextlong: ")


@pytest.mark.parametrize(
    ("field", "sentence"),
    [
        ("--data.folders=[nowhere]", "data.folders: nowhere is no packed folder"),
        ("--batch.sequence_tokens=64", "sequences of 48 tokens, but batch.sequence_tokens is 64"),
    ],
)
def test_data_that_does_not_fit_is_refused_before_any_folder_is_made(
    field: str, sentence: str, made: Path, tmp_path: Path
) -> None:
    ran = nextlong(*of(made, tmp_path / "run", field), status=2)
    assert sentence in ran.stderr
    assert not (tmp_path / "run").exists()


def test_help_has_an_example_and_all_fields() -> None:
    assert "Example: nextlong train tiny" in nextlong("train", "--help").stdout
    assert "--optimizer.learning_rate" in nextlong("train", "--fields").stdout
