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
    assert [(each["first"], each["last"], each["meta_chunks"]) for each in found["by_start"]] == [
        (26, 50, 1),
        (76, 100, 2),
    ]


def test_a_model_that_names_what_it_has_seen_gains_where_the_past_repeats(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "names", **NAMES_WHAT_IT_HAS_SEEN)
    model = load_model(folder, device="cpu")
    _name_what_was_seen(model)
    layout = [("meta", 16), ("negative", 16), ("meta", 16), ("negative", 16), ("meta", 16)]
    gains = {}
    for name, repeats in (("repeats", True), ("differs", False)):
        packed = write_packed(tmp_path / name, folder / "tokenizer.json", layout, rows=6, repeats=repeats)
        rows = [{"chunks": gain_of(model, each)} for each in read_documents(packed, model)]
        gains[name] = over_documents(rows)
    assert gains["repeats"]["low"] > 0.3
    assert abs(gains["differs"]["mean"]) < 0.1


NAMES_WHAT_IT_HAS_SEEN = {"num_hidden_layers": 1, "hidden_size": 256, "num_key_value_heads": 4}


def _name_what_was_seen(model: Model) -> None:
    """Set weights so that attention is the mean of all tokens so far, and each of these is likely to come next."""
    lm = model.lm
    (layer,) = lm.model.layers
    with torch.no_grad():
        lm.model.embed_tokens.weight.copy_(torch.randn(258, 256, generator=torch.Generator().manual_seed(0)).sign())
        lm.lm_head.weight.copy_(lm.model.embed_tokens.weight / 32)  # it is not too sure of it
        for part in (layer.self_attn.q_proj, layer.self_attn.k_proj, layer.mlp.down_proj):
            part.weight.zero_()
        layer.self_attn.v_proj.weight.copy_(torch.eye(256))
        layer.self_attn.o_proj.weight.copy_(100 * torch.eye(256))
