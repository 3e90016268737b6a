"""A corpus, a tokenizer and an ONNX model, all made here: real formats and real runtimes, small enough for seconds."""

import faulthandler
import os
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from etl.inputs import Input
from etl.recipe import Recipe
from nextlong.config import Chunking, Embedding, Mining, Synthesis

TARGET = 1024
_SECONDS_TO_END = 120  # for what a session leaves to the end of its process

_TOPICS = {
    "cells": "cell membrane protein nucleus enzyme ribosome gene tissue mitochondria plasma receptor molecule",
    "markets": "price demand supply market consumer firm tax budget trade inflation wage monopoly",
    "forces": "force mass energy velocity momentum friction gravity acceleration work power vector torque",
    "tables": "index column frame series array group merge sort label dtype axis missing",
}
_COMMON = "the a of and to in is that for with as on by it from which when this each some".split()


def make_texts(num_documents: int, seed: int = 0) -> list[tuple[str, str]]:
    """(topic, text) of documents of one to twelve paragraphs, with blank lines, headings and a few long paragraphs."""
    rng = random.Random(seed)
    documents = []
    for _ in range(num_documents):
        topic = rng.choice(list(_TOPICS))
        words = _TOPICS[topic].split() * 2 + _COMMON
        paragraphs = [f"About {rng.choice(words)}"]
        for _ in range(rng.randint(1, 12)):
            sentences = [
                " ".join(rng.choices(words, k=rng.randint(4, 14))).capitalize() + "." for _ in range(rng.randint(1, 9))
            ]
            paragraphs.append(" ".join(sentences))
            paragraphs += [""] * rng.choice([0, 1, 1, 2])
        documents.append((topic, "\n".join(paragraphs) + rng.choice(["", "\n"])))
    return documents


def pytest_unconfigure() -> None:
    """A process that does not end when its tests have ended says where it stands, and fails."""
    faulthandler.dump_traceback_later(_SECONDS_TO_END, exit=True, file=sys.__stderr__ or sys.stderr)


@pytest.fixture(autouse=True)
def _same_environment() -> Iterator[None]:
    """What a command changes in the environment of the process that it is called in ends with the test."""
    before = dict(os.environ)
    yield
    if os.environ != before:
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder a session for what is made once."""
    return tmp_path_factory.mktemp("shared")


@pytest.fixture(scope="session")
def corpus_file(shared: Path) -> Path:
    """120 documents in twelve row groups, with exact copies, an empty text, a null and a blank one."""
    texts = make_texts(120)
    texts[50] = texts[7]
    texts[51] = (texts[7][0], texts[7][1] + "\nOne more line.")
    texts[52] = (texts[8][0], texts[8][1].replace("the", "a", 1))
    rows = [{"id": f"doc-{place}", "text": text, "source": topic} for place, (topic, text) in enumerate(texts)]
    rows[10]["text"], rows[11]["text"], rows[12]["text"] = None, "", " \n\n "
    path = shared / "corpus.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=10)
    return path


@pytest.fixture(scope="session")
def tokenizer_file(shared: Path) -> Path:
    """A byte-level BPE trained on the corpus' kind of text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|endoftext|>"],
        show_progress=False,
    )
    tokenizer.train_from_iterator([text for _, text in make_texts(60, seed=1)], trainer)
    path = shared / "tokenizer" / "tokenizer.json"
    path.parent.mkdir()
    tokenizer.save(str(path))
    return path


@pytest.fixture(scope="session")
def model_folder(shared: Path) -> Path:
    """A small embedding model as ONNX: a table of word vectors and one linear layer, with a WordPiece tokenizer."""
    return build_model(shared / "model")


def build_model(folder: Path, dimensions: int = 32, seed: int = 0) -> Path:
    """Write such a model: its token-level output is to be pooled by mean, as its folder says."""
    import json

    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=400, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]"], show_progress=False
    )
    tokenizer.train_from_iterator([text for _, text in make_texts(60, seed=1)], trainer)
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    rng = np.random.default_rng(seed)
    table = rng.standard_normal((tokenizer.get_vocab_size(), dimensions)).astype(np.float32)
    linear = rng.standard_normal((dimensions, dimensions)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["table", "input_ids"], ["vectors"]),
            helper.make_node("MatMul", ["vectors", "linear"], ["mixed"]),
            helper.make_node("Tanh", ["mixed"], ["last_hidden_state"]),
        ],
        "words",
        [
            helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "length"])
            for name in ("input_ids", "attention_mask")
        ],
        [helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, ["batch", "length", dimensions])],
        [numpy_helper.from_array(table, "table"), numpy_helper.from_array(linear, "linear")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    (folder / "1_Pooling").mkdir(parents=True)
    onnx.save(model, folder / "model.onnx")
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text(json.dumps({"hidden_size": dimensions, "max_position_embeddings": 256}))
    pooling = {"word_embedding_dimension": dimensions, "pooling_mode_mean_tokens": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return folder


@pytest.fixture(scope="session")
def query_folder(shared: Path) -> Path:
    """A T5 of random weights with a tokenizer of whole words, as save_pretrained writes them."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

    folder = shared / "doc2query"
    words = ["<pad>", "</s>", "<unk>", *"water cycle rain cloud river sun heat what is how does why warm solar".split()]
    fast = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, unk_token="<unk>"))
    fast.pre_tokenizer = pre_tokenizers.Whitespace()
    fast.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=fast, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", padding_side="right"
    )
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2, "vocab_size": len(words)}
    config = T5Config(**sizes, decoder_start_token_id=0, pad_token_id=0, eos_token_id=1, initializer_factor=5.0)
    T5ForConditionalGeneration(config).save_pretrained(folder)
    return folder


@pytest.fixture
def make_recipe(tmp_path: Path, corpus_file: Path, tokenizer_file: Path, model_folder: Path) -> Callable[..., Recipe]:
    """A recipe on the small corpus; sections are given as dicts: make_recipe("name", synthesis={"seed": 1})."""

    def make(name: str = "work", **sections: dict[str, Any]) -> Recipe:
        def of(section: str, **defaults: Any) -> dict[str, Any]:
            return defaults | sections.get(section, {})

        return Recipe(
            input=Input(**of("input", path=str(corpus_file), id="id", source="source", part_rows=40)),
            output=str(tmp_path / name),
            tokenizer=str(tokenizer_file),
            chunking=Chunking(**of("chunking", granularity_chars=300)),
            embedding=Embedding(**of("embedding", model=str(model_folder))),
            mining=Mining(**of("mining", near_duplicate_similarity=0.95)),
            synthesis=Synthesis(**of("synthesis", target_length_tokens=TARGET, num_samples=24, docs_per_part=8)),
        )

    return make


@pytest.fixture(scope="session")
def two_workers() -> Iterator[Any]:
    """An engine on two real worker processes, started once."""
    from etl.connect import local_engine

    with local_engine(2) as engine:
        yield engine
