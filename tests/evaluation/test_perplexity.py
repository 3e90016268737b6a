"""The loss by position is that of the plain model in one pass, and every target is in one bucket."""

import gzip
import json
import logging
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from evaluation import blocks
from evaluation.blocks import token_losses
from evaluation.config import Evaluation
from evaluation.documents import Document, read_documents
from evaluation.measures import long_documents
from evaluation.model import Model, load_model
from evaluation.perplexity import edges, loss_by_position, over_documents
from nextlong.errors import UserError
from tests.evaluation.models_made import text, write_model, write_packed


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load_model(write_model(tmp_path_factory.mktemp("models") / "llama"), device="cpu", dtype="float64")


def _plain(model: Model, ids: "np.ndarray[tuple[int], np.dtype[np.int64]]") -> torch.Tensor:
    tokens = torch.from_numpy(ids)
    with torch.inference_mode():
        logits = model.lm(tokens[None], use_cache=False).logits[0]
    return torch.nn.functional.cross_entropy(logits[:-1], tokens[1:], reduction="none")


@pytest.mark.parametrize("block_tokens", [1, 7, 1024])
def test_losses_in_blocks_are_those_of_one_pass(
    model: Model, block_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "BLOCK_TOKENS", block_tokens)
    ids = model.prompt_ids(text(12)).numpy()
    assert token_losses(model, torch.from_numpy(ids)) == pytest.approx(_plain(model, ids).numpy(), abs=1e-10)


def test_every_target_is_in_one_bucket(model: Model) -> None:
    ids = np.random.default_rng(0).integers(2, 258, 300)
    found = loss_by_position(model, Document("made", ids, np.empty((0, 2), np.int64)))
    assert [(each["first"], each["last"]) for each in found] == [(0, 74), (75, 149), (150, 299)]
    assert sum(each["targets"] for each in found) == 299
    mean = np.average([each["loss"] for each in found], weights=[each["targets"] for each in found])
    assert mean == pytest.approx(float(_plain(model, ids).mean()), rel=1e-10)
    assert found[1]["loss"] == pytest.approx(float(_plain(model, ids)[74:149].mean()), rel=1e-10)


def test_special_tokens_before_a_text_are_no_targets(model: Model) -> None:
    ids = np.random.default_rng(0).integers(2, 258, 100)
    (found,) = loss_by_position(model, Document("made", ids, np.empty((0, 2), np.int64), num_special=2))
    assert found["targets"] == 98
    assert found["loss"] == pytest.approx(float(_plain(model, ids)[1:].mean()), rel=1e-10)


def test_buckets_double_up_to_the_length() -> None:
    assert edges(512) == [0, 64, 128, 256, 512]
    assert edges(10) == [0, 10]
    assert len(edges(524_288)) == 13


def test_means_over_documents_have_intervals() -> None:
    told = [{"positions": [{"first": 0, "last": 9, "loss": loss, "targets": 9}]} for loss in (1.0, 2.0, 3.0)]
    (found,) = over_documents(told)
    assert found["mean"] == 2.0
    assert found["high"] - 2.0 == pytest.approx(4.3027 / np.sqrt(3), rel=1e-3)  # Student's t of two degrees
    assert found["documents"] == 3


def test_texts_are_read_from_every_kind_of_file(model: Model, tmp_path: Path) -> None:
    texts = ["One text.", "", "Another."]
    rows = "".join(json.dumps({"text": each}) + "\n" for each in texts)
    (tmp_path / "a.jsonl").write_text(rows)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(rows.encode()))
    pq.write_table(pa.table({"text": [*texts, None]}), tmp_path / "a.parquet")
    for name in ("a.jsonl", "a.jsonl.gz", "a.parquet"):
        found = list(read_documents(tmp_path / name, model))
        assert [model.tokenizer.decode(each.ids.tolist()) for each in found[:3]] == texts
        assert [len(each.ids) for each in found[3:]] == [0] * (name == "a.parquet")
        assert [each.name for each in found][:3] == ["row 0", "row 1", "row 2"]


def test_what_became_of_every_document_is_told(model: Model, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": "word " * number}) + "\n" for number in (100, 0, 3, 100, 100)))
    asked = Evaluation(model=model.folder, out=tmp_path / "out", documents=path, num_documents=2)
    caplog.set_level(logging.INFO)
    assert [len(each.ids) for each in long_documents(asked, model, [16, 32])] == [32, 32]
    assert "documents: 4 read, 2 measured at 32 tokens, 2 shorter" in caplog.text
    assert long_documents(asked, model, []) == []


def test_documents_that_cannot_be_read_are_refused(model: Model, tmp_path: Path) -> None:
    def read(name: str) -> None:
        list(read_documents(tmp_path / name, model))

    (tmp_path / "a.jsonl").write_text('{"text": "good"}\n{"other": 1}\n')
    (tmp_path / "b.jsonl").write_text('{"text": 7}\n')
    (tmp_path / "a.doc").write_text("")
    (tmp_path / "a.parquet").write_text("no parquet")
    pq.write_table(pa.table({"other": [1]}), tmp_path / "b.parquet")
    (tmp_path / "folder").mkdir()
    write_packed(tmp_path / "packed", write_model(tmp_path / "other", has_ends=True) / "tokenizer.json", [("meta", 9)])
    for name, said in (
        ("nothing", "there is no file or folder"),
        ("a.jsonl", "line 2 of .* is no JSON object with a text"),
        ("b.jsonl", "row 0 of .* a text that is a int"),
        ("a.doc", "is no .jsonl"),
        ("a.parquet", "cannot be read"),
        ("b.parquet", "has no column text"),
        ("folder", "is no packed folder"),
        ("packed", "made with another tokenizer"),
    ):
        with pytest.raises(UserError, match=said):
            read(name)
