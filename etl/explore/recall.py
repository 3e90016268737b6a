"""Vectors in, what an index of them finds, and how fast, by nprobe out: recall against speed."""

import time
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from nextlong.errors import UserError
from nextlong.indexing import Vectors, add, new_index, sample_rows, train
from nextlong.searching import Index, exact_neighbours, recall

_REPEATS = 5  # the quickest counts: others wait for a processor


def recall_by_nprobe(
    vectors: Vectors,
    *,
    factory: str = "IVF32,Flat",
    top_k: int = 32,
    num_queries: int = 128,
    nprobes: Sequence[int] = (),
) -> pd.DataFrame:
    """Recall of the top_k against exact search, and milliseconds a query on one thread: nprobe, recall, milliseconds.

    vectors: float [n, d]; queries are some of them, spread evenly. nprobes: () for 1, 2, 4 ... up to all lists, where
    every list is visited and an index of uncompressed vectors misses nothing. Raises UserError for an index without
    lists.
    """
    shard = new_index(factory, vectors.shape[1])
    train(shard, vectors)
    add(shard, vectors, 0)
    index = Index([shard], {"factory": factory, "num_chunks": len(vectors), "dimensions": vectors.shape[1]})
    if not index.num_lists:
        raise UserError(f"factory is {factory!r}, which has no lists to visit. Use e.g. 'IVF32,Flat'.")
    queries = vectors[sample_rows(len(vectors), num_queries)]
    exact = exact_neighbours(queries, [vectors], min(top_k, len(vectors)))
    powers = [2**power for power in range(index.num_lists.bit_length()) if 2**power < index.num_lists]
    return pd.DataFrame([_measured(index, queries, exact, nprobe) for nprobe in nprobes or [*powers, index.num_lists]])


def _measured(index: Index, queries: Vectors, exact: NDArray[np.int64], nprobe: int) -> dict[str, float]:
    index.set_nprobe(nprobe)
    seconds = []
    for _ in range(_REPEATS):
        started = time.perf_counter()
        found = index.search(queries, exact.shape[1])
        seconds.append(time.perf_counter() - started)
    milliseconds = 1000 * min(seconds) / len(queries)
    return {"nprobe": nprobe, "recall": recall(found.ids, exact), "milliseconds": milliseconds}
