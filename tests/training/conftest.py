"""Tiny models of real architectures, and packed folders made as users make them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from etl.engine import Engine
from etl.inputs import Input
from etl.shards.export import export
from etl.shards.laid_out import PackSettings
from etl.shards.of_documents import PackSource
from etl.shards.tokens import Documents
from nextlong.shards.arrow import Arrow
from nextlong.shards.mds import Mds
from nextlong.shards.parquet import Parquet
from nextlong.tokenizing import Tokenizer

LENGTH = 96
_FORMATS: dict[str, Any] = {"arrow": Arrow, "parquet": Parquet, "mds": Mds}
_SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.1,
    "eos_token_id": 0,
    "bos_token_id": None,
}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {}),
    "llama-mqa": ("Llama", {"num_key_value_heads": 1}),
    "llama-tied": ("Llama", {"tie_word_embeddings": True}),
    "llama-3": ("Llama", {"rope_parameters": {
        "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }}),
    "qwen2": ("Qwen2", {"tie_word_embeddings": True}),
    "qwen3": ("Qwen3", {"head_dim": 32}),
    "mistral": ("Mistral", {"sliding_window": None}),
    "llama-odd": ("Llama", {"hidden_size": 48, "num_attention_heads": 3, "num_key_value_heads": 3}),
    "llama-short": ("Llama", {"max_position_embeddings": 64}),
    "llama-dropout": ("Llama", {"attention_dropout": 0.1}),
    "mistral-window": ("Mistral", {"sliding_window": 32}),
}  # fmt: skip


@pytest.fixture(scope="session")
def models(tokenizer_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """models(kind): a folder of random weights, its norms and biases too, with the tokenizer of the corpus."""
    import torch
    import transformers

    root = tmp_path_factory.mktemp("models")
    vocab_size = Tokenizer(tokenizer_file).vocab_size

    def make(kind: str) -> str:
        folder = root / kind
        if not folder.exists():
            name, sizes = KINDS[kind]
            torch.manual_seed(len(kind))
            config = getattr(transformers, f"{name}Config")(**(_SIZES | sizes), vocab_size=vocab_size)
            model = getattr(transformers, f"{name}ForCausalLM")(config)
            for each in model.parameters():
                if each.ndim == 1:
                    torch.nn.init.normal_(each, 1.0 if each.mean() else 0.0, 0.2)
            model.save_pretrained(folder)
            fast = transformers.PreTrainedTokenizerFast(tokenizer_file=str(tokenizer_file), eos_token="<|endoftext|>")
            fast.save_pretrained(folder)
            shutil.copy(tokenizer_file, folder / "tokenizer.json")  # save_pretrained writes it anew
        return str(folder)

    return make


def pack(out: Path, tokenizer: Path, *, kind: Any, path: Path, name: str = "arrow", **settings: Any) -> str:
    """A packed folder."""
    columns = {"source": "source"} if kind == "text" else {}
    documents = Documents(kind=kind, input=Input(path=str(path), **columns))
    how = PackSettings(**({"length_tokens": LENGTH, "eos": 0} | settings))
    export(PackSource.of(documents, how, Tokenizer(tokenizer), "pack"), str(out), name, _FORMATS[name](), Engine())
    return str(out)


@pytest.fixture(scope="session")
def packed(corpus_file: Path, tokenizer_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """packed(name): the corpus as arrow, parquet or mds; or other documents, most of them no targets, as masked."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    root = tmp_path_factory.mktemp("packed")

    def make(name: str) -> str:
        out = root / name
        if not out.exists() and name != "masked":
            pack(out, tokenizer_file, kind="text", path=corpus_file, name=name)
        elif not out.exists():
            rng = np.random.default_rng(5)
            rows = [{"input_ids": rng.integers(1, 300, n), "mask": np.arange(n) >= n - n // 5} for n in range(9, 90)]
            table = pa.table({
                "input_ids": [each["input_ids"].tolist() for each in rows],
                "mask": [each["mask"].astype(np.uint8).tolist() for each in rows],
            })  # fmt: skip
            pq.write_table(table, root / "masked.parquet")
            pack(out, tokenizer_file, kind="tokens", path=root / "masked.parquet")
        return str(out)

    return make


Recipe = Callable[..., dict[str, Any]]


@pytest.fixture
def recipe(models: Callable[[str], str], packed: Callable[[str], str], tmp_path: Path) -> Recipe:
    """recipe(name, kind="llama", **sections): six steps of four rows, of the corpus."""

    def make(name: str = "run", *, kind: str = "llama", **sections: dict[str, Any]) -> dict[str, Any]:
        plain: dict[str, Any] = {
            "model": {"path": models(kind), "precision": "float32"},
            "data": {"folders": [packed("arrow")]},
            "batch": {"global_tokens": 4 * LENGTH},
            "optimizer": {"steps": 6, "learning_rate": 1e-3},
        }
        told = {each: plain.get(each, {}) | sections.get(each, {}) for each in plain.keys() | sections.keys()}
        return {"output": str(tmp_path / name), **told}

    return make


def metrics(recipe: dict[str, Any]) -> list[dict[str, Any]]:
    """The steps of a run, in the order in which they were made."""
    lines = (Path(recipe["output"]) / "metrics.jsonl").read_text().splitlines()
    return [told for told in map(json.loads, lines) if told["kind"] == "train"]
