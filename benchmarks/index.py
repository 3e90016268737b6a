"""Build and search of each kind of index over synthetic embeddings, on one thread: recall, size, time.

First the stage's tasks, from files to a file, against FAISS alone with the vectors in memory.

python -m benchmarks.index --num-vectors 200000 --dimensions 384 --clusters 2000
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from benchmarks.made import as_embeddings
from benchmarks.measure import medians, record, report
from etl.index import add_part, measure, shard_part, train_part
from etl.lookup import RowStore
from etl.parts import write_array
from nextlong.config import Indexing
from nextlong.indexing import add, choose_factory, new_index, num_training_vectors, one_thread, sample_rows, train
from nextlong.retrieval import EmbeddingRetriever
from nextlong.searching import Index

_QUERIES_AT_ONCE = 256  # as mining does
_PARTS = 4


def main() -> None:
    """Print what each factory costs and finds, and the rates of search with Flat as ours."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num-vectors", type=int, default=200_000)
    parser.add_argument("--dimensions", type=int, default=384)
    parser.add_argument("--clusters", type=int, default=2_000)
    parser.add_argument("--lists", type=int, default=2_048)
    parser.add_argument("--top-k", type=int, default=32, help="neighbours, in the recall and in the search")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    vectors = _vectors(options.num_vectors, options.dimensions, options.clusters)
    store = RowStore(np.array_split(vectors, 4))
    some = vectors[:65_536]
    print(_against_faiss(choose_factory(len(some), options.dimensions), some, options.repeats), flush=True)
    queries = sample_rows(len(store), _QUERIES_AT_ONCE)
    searches: dict[str, Callable[[], object]] = {}
    for factory in _factories(options.lists, options.dimensions):
        started = time.perf_counter()
        index = _built(factory, store)
        seconds = time.perf_counter() - started
        measure(index, store, Indexing(factory=factory, recall_top_k=options.top_k))
        print(_describe(index, seconds), flush=True)
        retriever = EmbeddingRetriever(index.search, store.rows, index.rerank_ratio)
        searches[factory] = lambda retriever=retriever: retriever.neighbours_of(queries, options.top_k)  # type: ignore[misc]
    print(
        f"search and scoring again, {_QUERIES_AT_ONCE} queries at once, {options.top_k} neighbours each; ours is Flat"
    )
    print(report(medians(searches, options.repeats), len(queries), "queries", ours="Flat"))


def _against_faiss(factory: str, vectors: NDArray[np.float16], repeats: int) -> str:
    """Building from files to a file as the stage does, task by task, and as FAISS does, the vectors in memory."""
    names, places = [f"part-{place:05d}" for place in range(_PARTS)], range(_PARTS)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part, array in zip(names, np.array_split(vectors, _PARTS), strict=True):
            write_array(folder / f"{part}.npy", array)
        options: dict[str, Any] = {
            "open_store": partial(RowStore.open, folder, names),
            "indexing": Indexing(factory=factory),
        }
        train, add = _faiss_alone(factory, vectors)
        tasks = medians(
            {
                "FAISS: train": train,
                "FAISS: add": add,
                "ours: train, write": lambda: train_part(folder, "trained-00000", num_builders=1, **options),
                "ours: add, write": lambda: [
                    add_part(folder, f"added-{place:05d}", place=place, **options) for place in places
                ],
                "ours: join, write": lambda: shard_part(folder, "shard-00000", places=places, **options),
            },
            repeats,
        )
    ours = sum(seconds for name, seconds in tasks.items() if name.startswith("ours"))
    ratio = sum(tasks.values()) / ours - 1
    record("build: FAISS alone", ratio)
    lines = [f"build of {factory}, {len(vectors):,} vectors: ours / FAISS alone = {ratio:.2f}"]
    return "\n".join([*lines, *(f"  {name:<44}{seconds:>9.2f} s" for name, seconds in tasks.items())])


def _faiss_alone(factory: str, vectors: NDArray[np.float16]) -> tuple[Callable[[], None], Callable[[], None]]:
    """What trains an index, and what fills the one trained last, from arrays of the type that FAISS takes."""
    empty = new_index(factory, vectors.shape[1])
    wanted = num_training_vectors(empty, len(vectors), Indexing().training_chunks)
    sample, all_vectors = vectors[sample_rows(len(vectors), wanted)].astype(np.float32), vectors.astype(np.float32)
    trained: list[Any] = []

    def train() -> None:
        one_thread()
        index = faiss.clone_index(empty)
        index.train(sample)
        trained[:] = [index]

    def add() -> None:
        one_thread()
        trained[0].reset()
        trained[0].add(all_vectors)

    return train, add


def _factories(lists: int, dimensions: int) -> list[str]:
    codes = ("Flat", "SQ8", f"PQ{dimensions // 8}")
    return ["Flat", *[f"IVF{lists}{graph},{code}" for graph in ("", "_HNSW32") for code in codes]]


def _built(factory: str, store: RowStore) -> Index:
    index = build(factory, store)
    return Index([index], {"factory": factory, "nprobe": None, "recall_before_reranking": 1.0, "recall": 1.0})


def build(factory: str, store: RowStore) -> Any:
    """A FAISS index of all vectors of a store, as the stage trains and fills it, in memory."""
    index = new_index(factory, store.arrays[0].shape[1])
    number = num_training_vectors(index, len(store), Indexing().training_chunks)
    if number:
        train(index, store.rows(sample_rows(len(store), number)))
    for array, first in zip(store.arrays, store.firsts, strict=True):
        add(index, array, first)
    return index


def _describe(index: Index, seconds: float) -> str:
    facts: dict[str, Any] = index.facts
    return (
        f"{facts['factory']:<20} {seconds:6.1f} s to build, {index.bytes_per_vector:>5,} bytes a vector, "
        f"nprobe {facts['nprobe'] or 0:>4}, ratio {facts['rerank_ratio']:>5}, "
        f"recall {facts['recall_before_reranking']:.3f} before re-ranking, {facts['recall']:.3f} after"
    )


def _vectors(number: int, dimensions: int, clusters: int) -> NDArray[np.float16]:
    """Unit vectors in clusters that overlap."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((clusters, dimensions), np.float32)
    vectors = centres[rng.integers(0, clusters, number)] + rng.standard_normal((number, dimensions), np.float32)
    return as_embeddings(vectors)


if __name__ == "__main__":
    main()
