"""The loss of a token is that of the plain model on its document alone, and moves with no other document's tokens."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nextlong.errors import UserError
from tests.training.made import VOCABULARY, write_model, write_packed
from training.inspection import largest_changes, loss_by_place, read_rows, token_losses, with_random_document
from training.tiny_model import write_tiny_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """model: its configuration with random weights; packed: rows of three documents."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("inspection")
    write_packed(folder / "packed", write_model(folder / "model"))
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder / "model")).save_pretrained(folder / "model")
    return folder


def test_a_tokens_loss_is_that_of_its_document_alone(folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    rows = read_rows(folder / "packed", 2)
    losses = token_losses(folder / "model", rows)
    model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32).eval()
    for row in range(2):
        for start, end in rows.pieces(row).tolist():
            ids = torch.from_numpy(rows.input_ids[row, start:end].astype(np.int64))
            with torch.no_grad():
                logits = model(input_ids=ids[None]).logits[0]
            wanted = torch.nn.functional.cross_entropy(logits[:-1], ids[1:], reduction="none").numpy()
            assert np.isnan(losses[row, start])
            assert losses[row, start + 1 : end] == pytest.approx(wanted, abs=1e-4)


def test_only_the_replaced_documents_losses_move(folder: Path) -> None:
    rows = read_rows(folder / "packed")
    replaced = with_random_document(rows, 1, vocab_size=VOCABULARY)
    before, after = (token_losses(folder / "model", each) for each in (rows, replaced))
    changes = largest_changes(before, after, rows)
    assert changes[1] > 0.01
    assert changes[0] == changes[2] == 0.0
    assert np.array_equal(rows.indices, replaced.indices)


def test_what_is_not_there_is_refused(folder: Path) -> None:
    rows = read_rows(folder / "packed")
    with pytest.raises(UserError, match="has 12 rows, but 13"):
        read_rows(folder / "packed", 13)
    with pytest.raises(UserError, match=r"has 3 documents, .*no document 3"):
        with_random_document(rows, 3, vocab_size=VOCABULARY)


def test_losses_by_place_are_in_order_and_without_gaps() -> None:
    told = {"loss": 1.0, "loss_at_512_1023": 2.0, "loss_at_0_511": 3.0, "loss_at_1024_2047": float("nan")}
    assert loss_by_place(told) == [("0-511", 3.0), ("512-1023", 2.0)]


def test_a_tiny_model_is_of_the_tokenizers_size(tokenizer_file: Path, tmp_path: Path) -> None:
    from transformers import AutoConfig

    made = write_tiny_model(tmp_path / "tiny", tokenizer_file, positions=256, hidden_size=64)
    config = AutoConfig.from_pretrained(made)
    assert (config.hidden_size, config.max_position_embeddings) == (64, 256)
    assert (made / "tokenizer.json").read_bytes() == tokenizer_file.read_bytes()


def test_the_command_for_one_is_as_the_page_shows_it(tokenizer_file: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "training.tiny_model", str(tokenizer_file), str(tmp_path / "tiny")]
    subprocess.run([*command, "--positions", "2048"], check=True)
    assert json.loads((tmp_path / "tiny" / "config.json").read_text())["max_position_embeddings"] == 2048
