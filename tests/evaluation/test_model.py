"""A folder is read as it is, or refused in one sentence; nothing in it is run."""

import json
from pathlib import Path

import pytest
import torch

from evaluation import memory
from evaluation.memory import check_length_fits, kv_bytes_a_token, most_tokens
from evaluation.model import identity, load_model
from nextlong.errors import UserError
from tests.evaluation.models_made import POSITIONS, write_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "llama")


def _change(folder: Path, name: str, **changed: object) -> None:
    told = json.loads((folder / name).read_text())
    told |= changed
    (folder / name).write_text(json.dumps({key: value for key, value in told.items() if value is not None}))


def test_a_model_reads_in_the_precision_asked_for(folder: Path) -> None:
    model = load_model(folder, device="cpu", dtype="float64")
    assert model.lm.dtype == torch.float64
    assert not model.lm.training
    assert not any(each.requires_grad for each in model.lm.parameters())
    assert model.positions == POSITIONS
    assert model.eos_ids() == {0}


def test_special_tokens_are_put_before_a_prompt_and_read_from_no_text(tmp_path: Path) -> None:
    model = load_model(write_model(tmp_path / "ends", has_ends=True), device="cpu")
    ids = model.prompt_ids("ab<|end|>").tolist()
    assert ids[0] == 1
    assert 0 not in ids
    assert model.tokenizer.decode(ids, skip_special_tokens=True) == "ab<|end|>"


def test_what_a_model_is_depends_on_weights_and_precision_but_not_on_its_place(folder: Path, tmp_path: Path) -> None:
    ours = identity(load_model(folder, device="cpu"))
    assert identity(load_model(write_model(tmp_path / "same"), device="cpu")) == ours
    assert identity(load_model(write_model(tmp_path / "other", seed=1), device="cpu")) != ours
    assert identity(load_model(folder, device="cpu", dtype="float64")) != ours


def test_what_is_no_model_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no folder"):
        load_model(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"no exported model: it has no config\.json"):
        load_model(tmp_path)
    other = write_model(tmp_path / "other")
    _change(other, "config.json", model_type="never_heard_of", auto_map={"AutoConfig": "code.Config"})
    (other / "code.py").write_text("raise SystemExit('it was run')")
    with pytest.raises(UserError, match="no causal LM that transformers can read"):
        load_model(other)
    (write_model(tmp_path / "bare") / "model.safetensors").unlink()
    with pytest.raises(UserError, match="no safetensors"):
        load_model(tmp_path / "bare")
    (write_model(tmp_path / "cut") / "model.safetensors").write_bytes(b"\x10")
    with pytest.raises(UserError, match="cannot be read"):
        load_model(tmp_path / "cut")
    _change(write_model(tmp_path / "deeper"), "config.json", num_hidden_layers=3)
    with pytest.raises(UserError, match=r"lacks 9 of its model's weights, such as model\.layers\.2"):
        load_model(tmp_path / "deeper")


@pytest.mark.filterwarnings("ignore:.*generation")
def test_a_model_without_an_end_of_text_is_refused(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "endless", eos_token_id=None)
    with pytest.raises(UserError, match="has no end-of-text token"):
        load_model(folder, device="cpu").eos_ids()
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [0, 999]}))
    with pytest.raises(UserError, match="token 999 ends a text"):
        load_model(folder, device="cpu").eos_ids()
    (folder / "generation_config.json").unlink()
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|end|>"}))
    assert load_model(folder, device="cpu").eos_ids() == {0}


def test_a_length_beyond_the_positions_is_refused_with_both_numbers(folder: Path) -> None:
    model = load_model(folder, device="cpu")
    model.check_length(POSITIONS)
    with pytest.raises(UserError, match=r"length of 513 tokens .* has 512 positions"):
        model.check_length(POSITIONS + 1)


def test_a_length_that_does_not_fit_is_refused_beforehand_with_the_longest_that_does(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_model(folder, device="cpu")
    assert kv_bytes_a_token(model.lm) == 2 * 2 * 2 * 8 * 4  # keys and values, layers, heads, width, bytes
    monkeypatch.setattr(memory, "free_bytes", lambda _: 2_000_000)
    most = most_tokens(model.lm)
    check_length_fits(model.lm, most)
    with pytest.raises(UserError, match=rf"does not fit into memory.* longest that fits is of about {most:,} tokens"):
        check_length_fits(model.lm, 100 * most)
    monkeypatch.setattr(memory, "free_bytes", lambda _: 1000)
    with pytest.raises(UserError, match=r"weights of .* take 0\.1 MB in float32, but 0\.0 MB of memory are free"):
        load_model(folder, device="cpu")
