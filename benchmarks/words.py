"""What the strategies without embeddings stand on: keywords, BM25, sketches, and the path through a neighbour graph.

python -m benchmarks.words --corpus CORPUS.parquet --num-documents 200000
"""

import time
from collections.abc import Callable

import numpy as np
import pyarrow.parquet as pq

from benchmarks.measure import corpus_arguments
from nextlong.bm25 import Bm25
from nextlong.chunking import chunk_text
from nextlong.concatenation import DocumentNeighbours, Documents, gather
from nextlong.config import Synthesis
from nextlong.keywords import keywords, load_stop_phrases
from nextlong.sketching import sketch

_QUERIES = 200
_NEIGHBOURS = 50


def main() -> None:
    """Print the rates, medians of the repeats."""
    parser = corpus_arguments(__doc__)
    parser.add_argument("--num-documents", type=int, default=200_000, help="documents of the random graph")
    options = parser.parse_args()
    texts = pq.read_table(options.corpus, columns=["text"])["text"].drop_null().to_pylist()
    chunks = [chunk for text in texts for chunk in chunk_text(text)]
    stop_phrases = load_stop_phrases(None)
    index = Bm25.build(chunks)
    queries = np.linspace(0, len(chunks) - 1, _QUERIES).astype(np.int64)
    documents, neighbours = _random_graph(options.num_documents)
    synthesis = Synthesis(strategy="iclm", target_length_tokens=65_536)
    some = texts[:200]
    work: list[tuple[str, float, str, Callable[[], object]]] = [
        (
            "keywords by RAKE",
            sum(map(len, some)),
            "characters",
            lambda: [keywords(text, min_score=3.0, stop_phrases=stop_phrases) for text in some],
        ),
        ("BM25: build", len(chunks), "chunks", lambda: Bm25.build(chunks)),
        (f"BM25: 512 of {len(chunks):,}", _QUERIES, "queries", lambda: index.neighbours_of(queries, 512)),
        ("MinHash sketches", 2000, "chunks", lambda: sketch(chunks[:2000])),
        (
            f"iclm, {_NEIGHBOURS} neighbours",
            options.num_documents,
            "documents",
            lambda: gather(documents, synthesis, neighbours=neighbours),
        ),
    ]
    for name, units, unit, call in work:
        seconds = float(np.median([_seconds(call) for _ in range(options.repeats)]))
        print(f"  {name:<28}{units / seconds:>14,.0f} {unit}/s")


def _random_graph(num_documents: int) -> tuple[Documents, DocumentNeighbours]:
    rng = np.random.default_rng(0)
    doc_ids = np.arange(num_documents)
    others = rng.integers(1, num_documents, (num_documents, _NEIGHBOURS), dtype=np.int64)
    ids = np.sort((doc_ids[:, None] + others) % num_documents, axis=1)
    ids[:, 1:][ids[:, 1:] == ids[:, :-1]] = -1  # a neighbour once
    scores = np.sort(rng.random(ids.shape, np.float32), axis=1)[:, ::-1]
    return Documents(doc_ids, rng.integers(100, 2000, num_documents)), DocumentNeighbours(doc_ids, ids, scores)


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
