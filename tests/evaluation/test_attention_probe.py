"""Shares of attention are those of a matrix made by hand, and of transformers' own over the whole length."""

from pathlib import Path

import pytest
import torch

from evaluation import blocks
from evaluation.attention_probe import attention_shares, over_texts, shares_of
from evaluation.model import load_model
from tests.evaluation.models_made import text, write_model


def test_shares_are_those_of_a_matrix_made_by_hand() -> None:
    one = [[0.5, 0.1, 0.1, 0.05, 0.05, 0.1, 0.1], [0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.4]]
    other = [[1.0, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 1.0]]
    found = shares_of(torch.tensor([one, other]))
    assert found[0].tolist() == pytest.approx(
        [(0.6 + 0.2) / 2, (0.2 + 0.3) / 2, (0.2 + 0.5) / 2, (0.5 + 0.1) / 2], abs=1e-7
    )
    assert found[1].tolist() == [0.5, 0.0, 0.5, 0.5]
    assert found[:, :3].sum(axis=1).tolist() == pytest.approx([1, 1], abs=1e-7)


@pytest.mark.parametrize(
    ("kind", "changed"),
    [
        ("Llama", {}),
        ("Llama", {"num_key_value_heads": 1}),
        ("Llama", {"num_key_value_heads": 4}),
        ("Qwen3", {"head_dim": 16}),
    ],
    ids=["gqa", "mqa", "mha", "qwen3"],
)
def test_shares_are_those_of_the_whole_matrix(
    kind: str, changed: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModelForCausalLM

    monkeypatch.setattr(blocks, "BLOCK_TOKENS", 32)
    folder = write_model(tmp_path / "model", kind, **changed)
    model = load_model(folder, device="cpu", dtype="float64")
    ids = model.prompt_ids(text(25))
    found = attention_shares(model, ids)
    whole = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64, attn_implementation="eager")
    with torch.no_grad():
        layers = whole(ids[None], output_attentions=True).attentions
    third = len(ids) // 3
    for shares, layer in zip(found, layers, strict=True):
        last = layer[0, :, -1].mean(0)
        expected = [last[:third].sum(), last[third:-third].sum(), last[-third:].sum(), last[0]]
        assert shares.tolist() == pytest.approx([float(each) for each in expected], abs=1e-6)
    assert found[:, 0].max() - found[:, 0].min() > 1e-4, "layers differ, so they are told apart"
    assert model.lm.config._attn_implementation == "sdpa"


def test_no_matrix_over_the_whole_length_is_made(tmp_path: Path) -> None:
    model = load_model(write_model(tmp_path / "model"), device="cpu")
    seen: list[tuple[int, ...]] = []
    for layer in model.lm.model.layers:
        layer.self_attn.register_forward_hook(lambda _, __, out: seen.append(None if out[1] is None else out[1].shape))
    ids = model.prompt_ids(text(25))
    attention_shares(model, ids)
    assert [shape for shape in seen if shape is not None] == [(1, 4, 1, len(ids))] * 2


def test_a_text_without_thirds_is_refused(tmp_path: Path) -> None:
    model = load_model(write_model(tmp_path / "model"), device="cpu")
    with pytest.raises(ValueError, match="three tokens"):
        attention_shares(model, model.as_ids([5, 6]))


def test_means_are_over_texts_and_layers() -> None:
    rows = [
        {"shares": [[0.2, 0.3, 0.5, 0.1], [0.4, 0.3, 0.3, 0.1]]},
        {"shares": [[0.4, 0.3, 0.3, 0.1], [0.6, 0.2, 0.2, 0.1]]},
    ]
    found = over_texts(rows)
    assert found["over_layers"]["first_third"]["mean"] == pytest.approx(0.4)
    assert found["by_layer"]["first_third"] == pytest.approx([0.3, 0.5])
    assert found["texts"] == 2
