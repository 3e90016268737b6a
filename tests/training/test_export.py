"""A tiny run from documents to a model that transformers loads: it learns, and what is exported is what was trained."""

import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.training.conftest import LENGTH, Recipe, metrics
from tests.training.ranks import launch
from training.config import Data
from training.data import Rows


@pytest.fixture
def trained(recipe: Recipe, packed: Callable[[str], str], tmp_path: Path) -> list[dict[str, Any]]:
    """Recipes that two ranks trained: one that learns, one of tied embeddings, one with another RoPE base."""
    batch = {"global_tokens": 8 * LENGTH}
    told = [
        recipe("learns", batch=batch, optimizer={"steps": 12, "learning_rate": 5e-3}),
        recipe("tied", kind="qwen2", optimizer={"steps": 2}),
        recipe("short", kind="llama-short", model={"rope_theta": 123456.0}, optimizer={"steps": 2}),
        recipe("extended", kind="llama-short", model={"extend_positions": True}, optimizer={"steps": 2}),
        recipe("scaled", kind="llama-3", model={"rope_theta": 1e6}, optimizer={"steps": 2}),
        recipe("scratch", model={"from_scratch": True, "precision": "bfloat16"}, optimizer={"steps": 2}),
    ]
    answers = launch("train", [{"recipe": each} for each in told], tmp_path / "ranks", ranks=2)
    assert [answer["error"] for answer in answers] == [None] * len(told)
    assert [answer["folder"] for answer in answers] == [str(Path(each["output"]) / "model") for each in told]
    return told


def test_a_tiny_run_learns_and_its_model_is_a_plain_folder(
    trained: list[dict[str, Any]], packed: Callable[[str], str], tokenizer_file: Path
) -> None:
    learns, tied, short, extended, scaled, scratch = trained
    rows = Rows(Data(folders=[packed("arrow")]))
    losses = [each["loss"] for each in metrics(learns)]
    assert np.mean(losses[-3:]) < losses[0] - 0.2
    for each in trained:
        _assert_loads(each)
        config = json.loads((Path(each["output"]) / "model" / "config.json").read_text())
        assert config["rope_theta"] == config["rope_parameters"]["rope_theta"]
        assert config["max_position_embeddings"] == max(LENGTH, _config(each)["max_position_embeddings"])
        assert config["dtype"] == "bfloat16"
    assert _exported(short)["rope_theta"] == 123456.0
    assert _exported(extended)["rope_theta"] == _config(extended)["rope_parameters"]["rope_theta"]
    assert _exported(scaled)["rope_scaling"]["rope_type"] == "llama3"
    assert _exported(scaled)["rope_parameters"]["rope_theta"] == 1e6
    assert _exported(tied)["tie_word_embeddings"]
    assert metrics(short)[0]["loss"] != metrics(extended)[0]["loss"]
    assert abs(metrics(scratch)[0]["loss"] - math.log(_config(scratch)["vocab_size"])) < 0.5
    ours = Path(learns["output"]) / "model"
    assert (
        hashlib.sha256((ours / "tokenizer.json").read_bytes()).digest()
        == hashlib.sha256(tokenizer_file.read_bytes()).digest()
    )
    assert not list(ours.glob("*.py")) + list(ours.glob("*.bin")) + list(ours.parent.glob(".*.partial"))
    _assert_trained_loss(learns, rows)


def _config(recipe: dict[str, Any]) -> dict[str, Any]:
    told: dict[str, Any] = json.loads((Path(recipe["model"]["path"]) / "config.json").read_text())
    return told


def _exported(recipe: dict[str, Any]) -> dict[str, Any]:
    told: dict[str, Any] = json.loads((Path(recipe["output"]) / "model" / "config.json").read_text())
    return told


def _assert_loads(recipe: dict[str, Any]) -> None:
    """The folder gives the logits of the trained weights in bfloat16, bit by bit, and generates."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = Path(recipe["output"]) / "model"
    model, loading = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert not any(loading.values()), loading
    weights = torch.load(folder.parent / "weights.pt")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = torch.tensor([tokenizer("The market and the price of demand.")["input_ids"]])
    with torch.no_grad():
        found = model(ids).logits
        model.load_state_dict({name: each.bfloat16().float() for name, each in weights.items()}, strict=False)
        rounded = model(ids).logits
        model.load_state_dict({name: each.float() for name, each in weights.items()}, strict=False)
        trained = model(ids).logits
    assert torch.equal(found, rounded)
    assert not torch.equal(found, trained)
    assert (found - trained).norm() < 2e-2 * trained.norm()
    width = model.config.hidden_size // model.config.num_attention_heads
    expected = _exported(recipe)["rope_theta"] ** -(torch.arange(0, width, 2) / width)
    if model.config.rope_parameters["rope_type"] == "default":
        assert torch.allclose(model.model.rotary_emb.inv_freq, expected)
    generated = model.generate(ids, max_new_tokens=4, do_sample=False)
    assert generated.shape[1] > ids.shape[1]
    assert model.generation_config.eos_token_id == 0


def _assert_trained_loss(recipe: dict[str, Any], rows: Rows) -> None:
    """The exported model has the low loss through transformers alone, on a document of its data."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(Path(recipe["output"]) / "model", dtype=torch.float32)
    sequence = rows.read(3)
    start, end = max(sequence.pieces(0).tolist(), key=lambda piece: piece[1] - piece[0])
    ids = torch.from_numpy(sequence.input_ids[:, start:end].astype(np.int64))
    with torch.no_grad():
        loss = float(model(ids, labels=ids).loss)
    assert loss < metrics(recipe)[0]["loss"] - 0.2
