"""Whether int8 finds the neighbours that float32 finds: python -m benchmarks.embed_neighbours --corpus CORPUS.parquet

The rate of each is processor time on one thread; overlap is of the k nearest chunks, exact search, the own left out.
"""

import argparse
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from nextlong.chunking import chunk_text
from nextlong.config import Embedding
from nextlong.embedding import Embedder

_TOP_K = (1, 10, 32, 128, 512)


def main() -> None:
    """Embed a sample of chunks twice, and print the overlap for each k."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True, help="parquet with a text column")
    parser.add_argument("--model", type=Path, required=True, help="folder with a float32 model.onnx")
    parser.add_argument("--num-chunks", type=int, default=2000)
    parser.add_argument("--granularity-chars", type=int, default=800)
    options = parser.parse_args()

    texts = pq.read_table(options.corpus, columns=["text"])["text"].to_pylist()
    chunks = [chunk for text in texts for chunk in chunk_text(text, granularity_chars=options.granularity_chars)]
    chunks = random.Random(0).sample(list(dict.fromkeys(chunks)), options.num_chunks)
    exact, made = (_vectors(chunks, options.model, precision) for precision in (None, "int8"))
    cosines = (exact * made).sum(axis=1)
    print(f"cosine of a chunk's two vectors: mean {cosines.mean():.4f}, least {cosines.min():.4f}")
    wanted, found = neighbours(exact), neighbours(made)
    for top_k in (each for each in _TOP_K if each < len(chunks)):
        shared = [len(np.intersect1d(*rows)) / top_k for rows in zip(wanted[:, :top_k], found[:, :top_k], strict=True)]
        print(f"overlap of the {top_k:>3} nearest: {np.mean(shared):.3f}")


def neighbours(vectors: NDArray[Any]) -> NDArray[np.int64]:
    """The nearest of each of some vectors, itself left out: [n, 512], the nearest first."""
    scores = vectors @ vectors.T
    np.fill_diagonal(scores, -np.inf)
    return np.argsort(-scores, axis=1, kind="stable")[:, : _TOP_K[-1]]


def _vectors(chunks: list[str], model: Path, precision: Any) -> NDArray[Any]:
    embedder = Embedder.load(model, Embedding(model=str(model), dtype="float32", precision=precision))
    embedder.embed(chunks[:8])
    started = time.process_time()
    embedded = embedder.embed(chunks)
    print(f"{embedder.describe()}: {len(chunks) / (time.process_time() - started):.1f} chunks a second")
    return embedded.vectors


if __name__ == "__main__":
    main()
