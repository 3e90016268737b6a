"""Mining of made embeddings on one thread: ours, against FAISS and a bare scoring again alone, and against a script.

python -m benchmarks.mine --factory IVF1024,SQ8 --num-vectors 131072 --dimensions 384
"""

import argparse
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.index import build
from benchmarks.made import vectors_of
from benchmarks.measure import medians, record
from benchmarks.peers.python_mining import Loops, Pairs
from etl.index import measure
from etl.lookup import RowStore
from nextlong.config import Indexing
from nextlong.indexing import one_thread
from nextlong.mining import QUERIES_AT_ONCE, Candidates, MetaDocument, Mined, mine
from nextlong.near_duplicates import NearDuplicateRules
from nextlong.retrieval import EmbeddingRetriever, Retriever
from nextlong.searching import Index, Neighbours

_CHUNKS_A_DOCUMENT = 4
_CHUNKS_A_TOPIC = 400
_COPIES = 0.01
_CANDIDATES = 512
_SIMILARITY, _OVERLAP = 0.95, 0.8


class Corpus(NamedTuple):
    """What mining looks up by chunk_id, the documents that it extends, and their meta-chunks."""

    vectors: NDArray[np.float16]
    hashes: NDArray[np.uint64]
    sketches: NDArray[np.uint32]
    documents: list[MetaDocument]
    queries: NDArray[np.int64]


class Once:
    """A function that is called once: it then answers what it has answered."""

    def __init__(self, function: Callable[..., Neighbours]) -> None:
        self._function = function
        self.answer: Any = None

    def __call__(self, *arguments: Any) -> Any:
        self.answer = self.answer or self._function(*arguments)
        return self.answer


def main() -> None:
    """Print what a meta-chunk costs in each way, then the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--factory", default="IVF1024,SQ8")
    parser.add_argument("--num-vectors", type=int, default=131_072)
    parser.add_argument("--dimensions", type=int, default=384)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    corpus = made_corpus(options.num_vectors, options.dimensions)
    store = RowStore(np.array_split(corpus.vectors, 4))
    faiss_index = build(options.factory, store)
    index = Index([faiss_index], {"factory": options.factory, "nprobe": None})
    measure(index, store, Indexing(factory=options.factory, recall_queries=64))
    print(f"{options.factory}, nprobe {index.facts['nprobe']}, {len(corpus.queries)} meta-chunks at once")
    seconds = _seconds(corpus, store, faiss_index, index, options.repeats)
    for name, each in seconds.items():
        print(f"  {name:<44}{each / len(corpus.queries) * 1e6:>9,.0f} us a meta-chunk")
    script = seconds["script: scores again, rules"]
    for name, ratio in {
        "ours / the limit": seconds["limit: FAISS, bare scores"] / seconds["ours"],
        "ours, by overlap too / the limit": seconds["limit: FAISS, bare scores"] / seconds["ours, by overlap too"],
        "ours / script, after the search": script / seconds["ours: scores again, rules"],
        "ours / script, the rules alone": seconds["script: rules alone"] / seconds["ours: rules alone"],
        "ours / script, with the search": (seconds["FAISS alone"] + script) / seconds["ours"],
    }.items():
        print(f"  {name:<44}{ratio:>9.2f}")
        record(name, ratio)


def made_corpus(num_chunks: int, dimensions: int) -> Corpus:
    """Embeddings, hashes and sketches of documents of four chunks, of which one in a hundred is a copy of another."""
    rng, chunks = np.random.default_rng(0), np.arange(num_chunks)
    originals = np.where(rng.random(num_chunks) < _COPIES, rng.integers(0, num_chunks, num_chunks), chunks)
    topics = max(1, num_chunks // _CHUNKS_A_TOPIC)
    vectors = vectors_of(chunks, chunks // _CHUNKS_A_DOCUMENT, dimensions, topics)[originals]
    sketches = rng.integers(0, 3, (num_chunks, 64), np.uint32)[originals]  # a third of the positions are equal
    firsts = rng.choice(num_chunks // _CHUNKS_A_DOCUMENT, QUERIES_AT_ONCE // _CHUNKS_A_DOCUMENT, replace=False)
    documents = [
        MetaDocument(document, document * _CHUNKS_A_DOCUMENT, _CHUNKS_A_DOCUMENT, _CANDIDATES)
        for document in firsts.tolist()
    ]
    queries = np.concatenate([document.chunk_ids for document in documents])
    return Corpus(vectors, originals.astype(np.uint64), sketches, documents, queries)


def _seconds(corpus: Corpus, store: RowStore, faiss_index: Any, index: Index, repeats: int) -> dict[str, float]:
    """Of each way to mine the documents, whole and in part."""
    whole = EmbeddingRetriever(index.search, store.rows, index.rerank_ratio)
    proposals, neighbours = Once(index.search), Once(whole.neighbours_of)
    scoring = whole._replace(search=proposals)
    known: Any = SimpleNamespace(neighbours_of=neighbours, scores_of=whole.scores_of)
    by_similarity = NearDuplicateRules(_SIMILARITY)
    by_both = NearDuplicateRules(_SIMILARITY, _OVERLAP, RowStore(np.array_split(corpus.sketches, 4)).rows)
    loops = Loops(corpus.vectors, corpus.hashes.tolist(), _SIMILARITY)

    def ours(retriever: Retriever, rules: NearDuplicateRules = by_similarity) -> Mined:
        return mine(corpus.documents, retriever=retriever, fetch_hashes=corpus.hashes.__getitem__, rules=rules)

    candidates = ours(scoring).candidates
    proposed = proposals.answer.ids
    pairs = [loops.score_again(*each) for each in zip(corpus.queries.tolist(), proposed, strict=True)]
    _check(candidates, loops.judge(corpus.documents, pairs))

    def searched() -> NDArray[np.int64]:
        one_thread()
        ids: NDArray[np.int64]
        _, ids = faiss_index.search(corpus.vectors[corpus.queries].astype(np.float32), proposed.shape[1])
        return ids

    return medians(
        {
            "ours": lambda: ours(whole),
            "ours, by overlap too": lambda: ours(whole, by_both),
            "limit: FAISS, bare scores": lambda: _bare_scores(corpus, searched()),
            "FAISS alone": searched,
            "ours: scores again, rules": lambda: ours(scoring),
            "ours: rules alone": lambda: ours(known),
            "ours: rules alone, by overlap too": lambda: ours(known, by_both),
            "script: scores again, rules": lambda: loops.mine(corpus.documents, proposed),
            "script: rules alone": lambda: loops.judge(corpus.documents, pairs),
        },
        repeats,
    )


def _bare_scores(corpus: Corpus, ids: NDArray[np.int64]) -> NDArray[np.float32]:
    """The exact scores of what was found: the least NumPy that gives them."""
    scores = np.empty(ids.shape, np.float32)
    for row, query in enumerate(corpus.queries.tolist()):
        vector = corpus.vectors[query].astype(np.float64)
        scores[row] = (corpus.vectors[ids[row]].astype(np.float64) @ vector).round(6)
    return scores


def _check(mined: Sequence[Candidates], kept: Sequence[Pairs]) -> None:
    """What ours and the script keep is the same."""
    for ours, script in zip(mined, kept, strict=True):
        if list(zip(ours.scores.tolist(), ours.ids.tolist(), strict=True)) != script:
            raise SystemExit(f"meta-chunk {ours.chunk_id}: the script keeps other candidates")


if __name__ == "__main__":
    main()
