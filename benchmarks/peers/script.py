"""The method as a script of an afternoon: chunk, embed or load embeddings, FAISS, lists of texts, tokenize, save.

python -m benchmarks.peers.script CORPUS.parquet TOKENIZER.json --embeddings EMBEDDINGS.npy --out ROWS.npy
python -m benchmarks.peers.script CORPUS.parquet TOKENIZER.json --model FOLDER --out ROWS.npy
prints {"sequences": ..., "tokens": ...}

It follows the published pseudocode: k by the formula, a negative once in a document, text joined and tokenized again,
kept if it reaches the target, truncated to it. Everything is held in memory; nothing is resumed, traced or checked.
"""

import argparse
import json
import random
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from tokenizers import Tokenizer

from benchmarks.peers.line_chunker import chunk

_NEIGHBOURS = 512
_OVERSHOOT = 1.5
_FLAT_BELOW = 50_000  # chunks; above, an index with lists


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path, help="with a column text")
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("--embeddings", type=Path, help="float32 [chunks, d], of unit length")
    parser.add_argument("--model", help="for sentence-transformers, where there are no embeddings yet")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--target", type=int, default=65_536)
    parser.add_argument("--samples", type=int, default=24)
    parser.add_argument("--granularity-chars", type=int, default=2048)
    options = parser.parse_args()
    tokenizer = Tokenizer.from_file(str(options.tokenizer))

    texts = pq.read_table(options.corpus, columns=["text"])["text"].to_pylist()
    texts = list(dict.fromkeys(text for text in texts if text and not text.isspace()))
    chunked = [chunk(text, options.granularity_chars) for text in texts]
    chunks = [each for of_document in chunked for each in of_document]
    documents = [number for number, of_document in enumerate(chunked) for _ in of_document]
    sample = "".join(chunks[:: max(1, len(chunks) // 500)])
    chars_per_token = len(sample) / len(tokenizer.encode(sample).ids)

    embeddings = np.load(options.embeddings) if options.embeddings else embed(chunks, options.model)
    index = build(embeddings)

    order = list(range(len(chunked)))
    random.Random(0).shuffle(order)
    firsts = np.cumsum([0, *map(len, chunked)])
    rows: list[NDArray[np.uint32]] = []
    for document in order:
        meta = range(firsts[document], firsts[document + 1])
        if len(meta) < 2:
            continue
        missing = options.target * chars_per_token * _OVERSHOOT - len(texts[document])
        wanted = int(missing // (len(meta) * options.granularity_chars))
        _, neighbours = index.search(embeddings[meta.start : meta.stop], _NEIGHBOURS)
        text = extend(meta, neighbours, wanted, chunks, documents)
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        if len(ids) >= options.target:
            rows.append(np.array(ids[: options.target], np.uint32))
        if len(rows) == options.samples:
            break
    np.save(options.out, np.array(rows))
    print(json.dumps({"sequences": len(rows), "tokens": len(rows) * options.target}))


def embed(chunks: list[str], model: str) -> NDArray[np.float32]:
    from sentence_transformers import SentenceTransformer

    vectors: NDArray[np.float32] = SentenceTransformer(model, device="cpu").encode(chunks, normalize_embeddings=True)
    return vectors


def build(embeddings: NDArray[np.float32]) -> Any:
    number, dimensions = embeddings.shape
    lists = int(4 * number**0.5)
    factory = "Flat" if number < _FLAT_BELOW else f"IVF{lists},Flat"
    index: Any = faiss.index_factory(dimensions, factory, faiss.METRIC_INNER_PRODUCT)
    if factory != "Flat":
        index.train(embeddings[:: max(1, number // (64 * lists))])
        index.nprobe = 64
    index.add(embeddings)
    return index


def extend(meta: range, neighbours: NDArray[np.int64], wanted: int, chunks: list[str], documents: list[int]) -> str:
    """Each meta-chunk followed by its nearest chunks of other documents, none of them twice."""
    used = set()
    pieces = []
    for number, nearest in zip(meta, neighbours.tolist(), strict=True):
        pieces.append(chunks[number])
        taken = 0
        for other in nearest:
            if taken == wanted:
                break
            if other >= 0 and other not in used and documents[other] != documents[number]:
                used.add(other)
                pieces.append(chunks[other])
                taken += 1
    return "\n".join(pieces)


if __name__ == "__main__":
    main()
