"""What a step cost, by hand, and what of it is told: in a file, in lines of a log, and nothing on other ranks."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from tests.training.made import LENGTH, SIZES, write_model, write_packed
from training import metrics, recorder
from training.config import Data, Model
from training.data import Batches, Rows
from training.metrics import Meter, StepMetrics
from training.model import build
from training.parallel import make_ranks
from training.recorder import Recorder
from training.step import Counts, Taken


@pytest.fixture(scope="module")
def _group() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("_group")
def test_a_step_costs_what_counting_every_multiplication_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_model(tmp_path / "model")
    write_packed(tmp_path / "packed", tmp_path / "model")
    rows = Rows(Data(folders=[str(tmp_path / "packed")]))
    [batch] = Batches(rows, rows_per_step=2, rows_per_micro_step=2, rank=0, size=1, multiple=1).step(0)
    lengths = torch.diff(batch.cu_seqlens).tolist()
    assert len(lengths) == 6
    monkeypatch.setattr(metrics, "peak_flops", lambda: 1e9)
    model = build(Model(path=str(tmp_path / "model"), from_scratch=True), make_ranks())
    counts = Counts(len(batch.input_ids), batch.num_targets, batch.total_weight, batch.squared_lengths)
    told = Meter(model).measure(0, Taken(2.0, 1.0, 1e-3, counts), seconds=0.5, waited_seconds=0.1)
    hidden, wide, layers = SIZES["hidden_size"], SIZES["intermediate_size"], SIZES["num_hidden_layers"]
    heads, width = SIZES["num_attention_heads"], hidden // SIZES["num_attention_heads"]
    kv = SIZES["num_key_value_heads"] * width
    matrices = layers * (2 * hidden * hidden + 2 * hidden * kv + 3 * hidden * wide) + SIZES["vocab_size"] * hidden
    norms = (2 * layers + 1) * hidden
    pairs = sum(place + 1 for length in lengths for place in range(length))  # a token sees itself and those before
    attention = layers * heads * pairs * 2 * (2 * width)  # scores and weighted values
    expected = 3 * (2 * (matrices + norms) * 2 * LENGTH + attention)
    assert told.flops == pytest.approx(expected, rel=0.02)  # a square counts half, not with its diagonal
    assert told.mfu == told.flops / 0.5 / 1e9
    assert (told.tokens, told.targets, told.tokens_per_second) == (2 * LENGTH, 2 * LENGTH - 6, 4 * LENGTH)


def step(number: int) -> StepMetrics:
    return StepMetrics(
        step=number, loss=2.5, gradient_norm=1.0, learning_rate=1e-3, tokens=100, targets=99, seconds=2.0,
        data_wait_seconds=0.1, tokens_per_second=50.0, flops=1e9, mfu=None, peak_memory_bytes=None,
    )  # fmt: skip


def test_lines_of_the_log_say_how_far_it_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "_LINE_SECONDS", 0)
    with caplog.at_level(logging.INFO), Recorder(tmp_path / "run", first=2, steps=5, progress=False) as told:
        told.step(step(2))
        told.evaluation(3, {"loss": 2.25, "targets": 10})
        told.saving(3, 0.5)
    assert "step 3 of 5: loss 2.5000, 50 tokens/s, 0:00:04 left" in caplog.text
    assert "after step 3: held-out loss 2.2500" in caplog.text
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [(line["kind"], line["step"]) for line in lines] == [("train", 2), ("evaluation", 3), ("saving", 3)]


def test_lines_are_far_apart(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), Recorder(tmp_path / "run", first=0, steps=50, progress=False) as told:
        for number in range(50):
            told.step(step(number))
    assert [line.split(":")[0] for line in caplog.messages if line.startswith("step ")] == [
        "step 1 of 50",
        "step 50 of 50",
    ]


def test_other_ranks_are_silent(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG), Recorder(None, first=0, steps=1, progress=True) as told:
        told.step(step(0))
        told.evaluation(1, {"loss": 1.0})
    assert caplog.text == ""
    assert not list(tmp_path.iterdir())


def test_tensorboard_shows_them(tmp_path: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with Recorder(tmp_path, first=0, steps=2, progress=False) as told:
        told.step(step(0))
        told.step(step(1))
        told.evaluation(2, {"loss": 2.25})
    found = events.EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    assert [each.step for each in found.Scalars("train/loss")] == [0, 1]
    assert [each.value for each in found.Scalars("evaluation/loss")] == [2.25]
    assert {"train/tokens_per_second", "train/gradient_norm"} <= set(found.Tags()["scalars"])
