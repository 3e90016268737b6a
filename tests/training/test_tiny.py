"""The recipe `tiny` on what the demo makes, smaller: docstrings, extended, exported, learned and generated from."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from etl.docstrings import train_tokenizer, write_corpus
from training.config import Data
from training.data import Rows

LENGTH = 1024
VOCABULARY = 1024
SIZES = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": VOCABULARY,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": LENGTH,
    "tie_word_embeddings": True,
}


def nextlong(folder: Path, *words: object) -> str:
    """A verb's output, run in a folder."""
    ran = subprocess.run(
        [sys.executable, "-m", "etl.cli", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=280,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tiny (configuration and tokenizer), shards, and trained by two processes of torchrun."""
    folder = tmp_path_factory.mktemp("tiny")
    write_corpus(folder / "docstrings.parquet", num_documents=150, num_chars=None, seed=0)
    (folder / "tiny").mkdir()
    texts = pq.read_table(folder / "docstrings.parquet")["text"].to_pylist()
    train_tokenizer(texts, folder / "tiny" / "tokenizer.json", VOCABULARY)
    (folder / "tiny" / "config.json").write_text(json.dumps(SIZES))
    nextlong(
        folder, "run", "default", "--input.path=docstrings.parquet", "--tokenizer=tiny", "--output=work", "--workers=0",
        "--mining.retrieval=bm25",
        "--chunking.granularity_chars=512", f"--synthesis.target_length_tokens={LENGTH}", "--synthesis.num_samples=200",
    )  # fmt: skip
    nextlong(folder, "export", "work", "--format=arrow", "--out=shards", "--workers=0")
    nextlong(
        folder, "train", "tiny", "--model.path=tiny", "--data.folders=[shards]", "--output=trained", "--ranks=2",
        "--batch.global_tokens=4096", "--optimizer.steps=40", "--optimizer.learning_rate=0.01",
    )  # fmt: skip
    return folder


def entropy_of(shards: Path) -> float:
    """Of its tokens' frequencies, in nats: the least loss of a model that knows nothing of what comes before."""
    rows = Rows(Data(folders=[str(shards)]))
    ids = np.concatenate([rows.read(number).input_ids.reshape(-1) for number in range(len(rows))])
    shares = np.bincount(ids)[np.unique(ids)] / len(ids)
    return float(-(shares * np.log(shares)).sum())


def losses_of(run: Path) -> list[float]:
    records: list[dict[str, Any]] = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [record["loss"] for record in records if record["kind"] == "train"]


def test_the_loss_falls_below_the_entropy_of_single_tokens(made: Path) -> None:
    losses, entropy = losses_of(made / "trained"), entropy_of(made / "shards")
    assert len(losses) == 40
    assert 4 < entropy < losses[0]
    assert np.mean(losses[-5:]) < entropy


def test_the_exported_model_generates_through_transformers(made: Path) -> None:
    import torch
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(made / "trained" / "model")
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(made / "trained" / "model" / "tokenizer.json"))
    asked = tokenizer("Returns the sum of", return_tensors="pt").input_ids
    with torch.no_grad():
        given = model.generate(asked, attention_mask=torch.ones_like(asked), max_new_tokens=20, do_sample=False)
    assert given[0, : asked.shape[1]].tolist() == asked[0].tolist()
    assert 1 <= given.shape[1] - asked.shape[1] <= 20
    assert set(given[0].tolist()) <= set(range(VOCABULARY))
