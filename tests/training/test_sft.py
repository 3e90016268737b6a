"""Fine-tuning on chats: the loss is that of the assistant's tokens alone, whatever the ranks."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from nextlong.chats import ChatTemplate
from nextlong.tokenizing import Tokenizer
from tests.chat_templates import TEMPLATES, write_chat_tokenizer
from tests.etl.test_cli import nextlong
from tests.training.conftest import LENGTH, metrics
from tests.training.ranks import launch


def chats(number: int) -> list[list[dict[str, str]]]:
    rng = np.random.default_rng(0)
    words = "cell membrane market price force velocity index frame the of and".split()
    return [
        [
            {"role": role, "content": " ".join(rng.choice(words, rng.integers(2, 6)))}
            for _ in range(rng.integers(1, 3))
            for role in ("user", "assistant")
        ]
        for _ in range(number)
    ]


def made(folder: Path) -> tuple[str, list[Any]]:
    """A model with a chat template, its chats packed beside it; [(ids, mask)] of the chats."""
    tokenizer = write_chat_tokenizer(folder / "model", TEMPLATES["chatml"])
    told = chats(24)
    (folder / "chats.jsonl").write_text("".join(json.dumps({"messages": chat}) + "\n" for chat in told))
    nextlong(
        "pack", folder / "chats.jsonl", "--chat", "--tokenizer", tokenizer, "--length", LENGTH, "--workers", 0,
        "--format", "arrow", "--out", folder / "packed",
    )  # fmt: skip
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=Tokenizer(Path(tokenizer) / "tokenizer.json").vocab_size, hidden_size=32, intermediate_size=48,
        num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, initializer_range=0.3,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(tokenizer)
    return str(tokenizer), [ChatTemplate.load(tokenizer).encode(chat, "") for chat in told]


def mean_loss(model: str, encoded: list[Any]) -> tuple[float, int]:
    """Of the assistant's tokens of all chats, each alone through plain transformers, and their number."""
    plain = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=torch.float64)
    losses = []
    for ids, mask in encoded:
        given = torch.from_numpy(ids.astype(np.int64))
        with torch.no_grad():
            logits = plain(given[None]).logits[0]
        every = torch.nn.functional.cross_entropy(logits[:-1], given[1:], reduction="none")
        losses += every[torch.from_numpy(mask[1:] == 1)].tolist()
    return float(np.mean(losses)), len(losses)


def test_only_the_assistants_tokens_carry_loss(tmp_path: Path) -> None:
    model, encoded = made(tmp_path)
    rows = json.loads((tmp_path / "packed" / "manifest.json").read_text())["rows"] // 2 * 2
    told = {
        "output": str(tmp_path / "run"),
        "model": {"path": model, "precision": "float64"},
        "data": {"folders": [str(tmp_path / "packed")]},
        "batch": {"global_tokens": rows * LENGTH},
        "optimizer": {"steps": 1, "learning_rate": 1e-9},
    }
    sequence = told | {"output": str(tmp_path / "sequence"), "parallel": {"sp": 2}}
    launch("train", [{"recipe": told}, {"recipe": sequence}], tmp_path / "ranks", ranks=2)
    expected, targets = mean_loss(model, encoded)
    assert 50 < targets < sum(len(ids) for ids, _ in encoded) - 50
    for run in (told, sequence):
        [step] = metrics(run)
        assert step["targets"] == targets
        assert abs(step["loss"] - expected) < 1e-10 * expected
