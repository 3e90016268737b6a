"""The gain is the difference of two plain losses on the same tokens, and is there where distant context tells more."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from evaluation.documents import Document, read_documents
from evaluation.gain import gain_of, over_documents
from evaluation.model import Model, load_model
from tests.evaluation.models_made import write_model, write_packed

LAYOUT = [("special", 1), ("meta", 20), ("negative", 15), ("negative", 10), ("meta", 20), ("meta", 20), ("negative", 5)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load_model(write_model(tmp_path_factory.mktemp("models") / "llama"), device="cpu", dtype="float64")


@pytest.fixture(scope="module")
def documents(model: Model, tmp_path_factory: pytest.TempPathFactory) -> list[Document]:
    packed = write_packed(tmp_path_factory.mktemp("packed") / "shards", model.folder / "tokenizer.json", LAYOUT)
    return list(read_documents(packed, model))


def _loss(model: Model, context: NDArray[np.int64], targets: NDArray[np.int64]) -> float:
    """Mean loss of targets after a context, by one pass of the plain model."""
    ids = torch.from_numpy(np.concatenate([context, targets]))
    with torch.inference_mode():
        logits = model.lm(ids[None], use_cache=False).logits[0]
    losses = torch.nn.functional.cross_entropy(logits[:-1], ids[1:], reduction="none")
    return float(losses[len(context) - 1 :].mean())


def test_both_losses_are_of_the_same_tokens_after_what_is_said(model: Model, documents: list[Document]) -> None:
    document = documents[0]
    ids = document.ids
    assert document.num_special == 1
    assert document.meta_chunks.tolist() == [[1, 21], [46, 66], [66, 86]]
    second, third = gain_of(model, document)
    assert (second["start"], second["distance"], second["targets"]) == (46, 25, 20)
    assert second["whole"] == pytest.approx(_loss(model, ids[:46], ids[46:66]), rel=1e-9)
    assert second["near"] == pytest.approx(_loss(model, np.concatenate([ids[:1], ids[21:46]]), ids[46:66]), rel=1e-9)
    assert (third["start"], third["distance"]) == (66, 0)
    assert third["near"] == pytest.approx(_loss(model, ids[:1], ids[66:86]), rel=1e-9)


def test_a_chunk_with_nothing_before_it_leaves_out_its_first_token(model: Model, documents: list[Document]) -> None:
    bare = documents[0]._replace(num_special=0)
    third = gain_of(model, bare)[1]
    assert third["targets"] == 19
    assert third["near"] == pytest.approx(_loss(model, bare.ids[66:67], bare.ids[67:86]), rel=1e-9)
    assert third["whole"] == pytest.approx(_loss(model, bare.ids[:67], bare.ids[67:86]), rel=1e-9)


def test_a_document_with_one_meta_chunk_has_no_gain(model: Model, documents: list[Document]) -> None:
    assert documents[0].first(60).meta_chunks.tolist() == [[1, 21]]
    assert gain_of(model, documents[0].first(60)) == []


def test_a_document_counts_as_one() -> None:
    def chunk(start: int, gain: float, targets: int = 10) -> dict[str, Any]:
        return {"start": start, "distance": 5, "targets": targets, "whole": 1.0, "near": 1.0 + gain}

    rows = [{"chunks": [chunk(40, 0.2), chunk(80, 0.4, targets=30)]}, {"chunks": [chunk(100, 0.55)]}]
    found = over_documents(rows)
    assert found["mean"] == pytest.approx((0.35 + 0.55) / 2)
    assert found["high"] - found["mean"] == pytest.approx(12.706 * 0.1, rel=1e-3)  # Student's t of one degree
    assert (found["documents"], found["meta_chunks"]) == (2, 3)
    assert [(each["first"], each["last"], each["meta_chunks"]) for each in found["by_start"]] == [(26, 50, 1), (76, 100, 2)]


def test_a_model_that_learned_to_copy_gains_where_the_past_repeats(tmp_path: Path) -> None:
    """A few steps of training on repetition: the gain is of what repeats, and of nothing else."""
    folder = write_model(tmp_path / "copies", num_hidden_layers=2, hidden_size=64, initializer_range=0.05)
    _teach_to_copy(folder)
    model = load_model(folder, device="cpu")
    layout = [("meta", 16), ("negative", 16), ("meta", 16), ("negative", 16), ("meta", 16)]
    tokenizer = folder / "tokenizer.json"
    gains = {}
    for name, repeats in (("repeats", True), ("differs", False)):
        packed = write_packed(tmp_path / name, tokenizer, layout, rows=6, repeats=repeats)
        rows = [{"chunks": gain_of(model, each)} for each in read_documents(packed, model)]
        gains[name] = over_documents(rows)
    assert gains["repeats"]["low"] > 0.5
    assert abs(gains["differs"]["mean"]) < 0.3


def _teach_to_copy(folder: Path) -> None:
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    lm = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    optimizer = torch.optim.AdamW(lm.parameters(), lr=3e-3)
    for _ in range(250):
        once = torch.randint(2, 258, (16, 32))
        ids = torch.cat([once, once], 1)
        logits = lm(ids, use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits[:, 31:-1].flatten(0, 1), ids[:, 32:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print("loss of the copy", float(loss))
    lm.save_pretrained(folder)
