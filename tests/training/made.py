"""Models, tokenizers and packed folders for the trainer's tests, made here: real formats, small enough for seconds."""

import hashlib
import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

VOCABULARY = 64
LENGTH = 48
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "tie_word_embeddings": False,
}


def write_model(folder: Path, kind: str = "llama", **changed: Any) -> Path:
    """A transformers folder: a configuration and a tokenizer, no weights (model.from_scratch)."""
    folder.mkdir(parents=True, exist_ok=True)
    names = {"llama": "Llama", "qwen2": "Qwen2", "qwen3": "Qwen3", "mistral": "Mistral"}
    config = SIZES | {"model_type": kind, "architectures": [f"{names[kind]}ForCausalLM"]} | changed
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text(json.dumps({"made": "for tests"}))
    return folder


def write_packed(
    folder: Path,
    tokenizer: Path,
    *,
    rows: int = 12,
    length: int = LENGTH,
    seed: int = 0,
    roles: Sequence[str] = ("meta", "negative", "negative"),
) -> Path:
    """A packed folder of arrow: rows of several documents that count upwards, each of segments with these roles.

    Token n + 1 of a document follows token n by the document's own step, so there is something to learn.
    """
    from nextlong.sequences import Sequences, Shapes
    from nextlong.shards.arrow import Arrow

    rng = np.random.default_rng(seed)
    ids = np.zeros((rows, length), np.uint32)
    pieces, offsets, segments = [], [0], []
    for row in range(rows):
        cuts = [0, *sorted(rng.choice(np.arange(4, length - 4, 4), 2, replace=False).tolist()), length]
        own = []
        for start, end in pairwise(cuts):
            ids[row, start:end] = (rng.integers(VOCABULARY) + np.arange(end - start)) % VOCABULARY
            pieces.append([start, end])
            parts = np.linspace(start, end, len(roles) + 1).astype(int)
            own += [
                {"start": int(first), "end": int(last), "role": role}
                for (first, last), role in zip(pairwise(parts), roles, strict=True)
            ]
        offsets.append(len(pieces))
        segments.append(own)
    made = Sequences(ids, np.array(pieces), np.array(offsets), ["made"] * rows)
    folder.mkdir(parents=True)
    shard = Arrow().write(folder, 0, 1, Shapes.of(made), [made])
    Arrow().finish(folder, [shard])
    (folder / "provenance").mkdir()
    pq.write_table(pa.table({"segments": segments}), folder / "provenance" / "rows-00000.parquet")
    manifest = {
        "format": "arrow",
        "fingerprint": hashlib.sha256(ids.tobytes()).hexdigest(),
        "rows": rows,
        "sequence_length_tokens": length,
        "vocab_size": VOCABULARY,
        "tokenizer_sha256": hashlib.sha256((tokenizer / "tokenizer.json").read_bytes()).hexdigest(),
        "shards": [{"rows": rows, "files": shard["files"]}],
        "provenance": ["provenance/rows-00000.parquet"],
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def arguments(model: Path, packed: Path, output: Path, *others: str) -> list[str]:
    """Of a run of four steps on the CPU, in float32 and from random weights."""
    fields = {
        "model.path": model,
        "model.from_scratch": "true",
        "model.precision": "float32",
        "data.folders": f"[{packed}]",
        "batch.global_tokens": 4 * LENGTH,
        "batch.sequence_tokens": "null",
        "optimizer.steps": 4,
        "optimizer.learning_rate": 1e-3,
        "output": output,
    }
    return [f"--{name}={value}" for name, value in fields.items()] + list(others)
