"""Small models with tokenizers and packed long documents, made here: real formats, small enough for seconds."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

POSITIONS = 512
SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": POSITIONS,
    "initializer_range": 0.2,  # attention of random weights that is not even
    "eos_token_id": 0,
    "bos_token_id": None,
    "pad_token_id": None,
    "tie_word_embeddings": False,
}
WORDS = "a map of the old town shows two rivers and seven bridges over them .".split()


def write_tokenizer(folder: Path, *, has_ends: bool = False) -> Path:
    """A byte-level BPE without merges: 256 bytes and two special tokens. has_ends: it puts them round a text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = ["<|end|>", "<|begin|>", *alphabet]
    tokenizer = Tokenizer(models.BPE({token: place for place, token in enumerate(tokens)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|end|>", "<|begin|>"])
    if has_ends:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<|begin|> $A <|end|>", special_tokens=[("<|end|>", 0), ("<|begin|>", 1)]
        )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"


def write_model(folder: Path, kind: str = "Llama", *, has_ends: bool = False, seed: int = 0, **changed: Any) -> Path:
    """A folder of transformers with random weights, as save_pretrained writes it."""
    import torch
    import transformers

    write_tokenizer(folder, has_ends=has_ends)
    torch.manual_seed(seed)
    config = getattr(transformers, f"{kind}Config")(vocab_size=258, **(SIZES | changed))
    getattr(transformers, f"{kind}ForCausalLM")(config).save_pretrained(folder)
    return folder


def text(num_words: int, seed: int = 0) -> str:
    """Random words."""
    return " ".join(np.random.default_rng(seed).choice(WORDS, num_words))


def write_packed(
    folder: Path, tokenizer: Path, layout: Sequence[tuple[str, int]], *, rows: int = 3, repeats: bool = False
) -> Path:
    """A packed folder of arrow: each row one document of segments (role, tokens) of random tokens.

    repeats: all meta-chunks of a document are the same tokens, so the earlier ones tell what a later one is.
    """
    from nextlong.sequences import Sequences, Shapes
    from nextlong.shards.arrow import Arrow

    rng = np.random.default_rng(0)
    ends = np.cumsum([number for _, number in layout])
    ids = rng.integers(2, 258, (rows, ends[-1])).astype(np.uint32)
    segments = [
        {"start": int(end - number), "end": int(end), "role": role}
        for (role, number), end in zip(layout, ends, strict=True)
    ]
    metas = [each for each in segments if each["role"] == "meta"]
    for each in metas[1:] if repeats else ():
        ids[:, each["start"] : each["end"]] = ids[:, metas[0]["start"] : metas[0]["end"]]
    made = Sequences(ids, np.array([[0, ends[-1]]] * rows), np.arange(rows + 1), ["made"] * rows)
    folder.mkdir(parents=True)
    shard = Arrow().write(folder, 0, 1, Shapes.of(made), [made])
    Arrow().finish(folder, [shard])
    (folder / "provenance").mkdir()
    pq.write_table(pa.table({"segments": [segments] * rows}), folder / "provenance" / "rows-00000.parquet")
    manifest = {
        "format": "arrow",
        "rows": rows,
        "sequence_length_tokens": int(ends[-1]),
        "fingerprint": "made",
        "vocab_size": 258,
        "tokenizer_sha256": hashlib.sha256(tokenizer.read_bytes()).hexdigest(),
        "shards": [{"rows": rows, "files": shard["files"]}],
        "provenance": ["provenance/rows-00000.parquet"],
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder
