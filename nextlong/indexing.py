"""Vectors in, FAISS indexes out, and the search over them (Sec. 3.1.2, Eq. 3): ids are chunk_ids, higher is nearer."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nextlong.errors import UserError

FloatArray = NDArray[np.floating[Any]]
Vectors = NDArray[np.float16] | NDArray[np.float32]


class Neighbours(NamedTuple):
    """Search results, nearest first, ties by id."""

    scores: NDArray[np.float32]
    """float32 [n, k]"""
    ids: NDArray[np.int64]
    """int64 [n, k]; -1 where fewer than k were found"""


def choose_factory(num_chunks: int, dimensions: int) -> str:
    """A FAISS factory for so many vectors: exact while that is quick, then inverted lists, then compressed ones.

    About 4 sqrt(n) lists, a power of two. The sizes a vector: Flat 4 d bytes, SQ8 d bytes, PQ about d / 8 bytes.
    """
    if num_chunks < 65_536:
        return "Flat"
    num_lists = 2 ** round(np.log2(4 * np.sqrt(num_chunks)))
    lists = f"IVF{num_lists}_HNSW32" if num_lists >= 16_384 else f"IVF{num_lists}"
    if num_chunks < 1_000_000:
        return f"{lists},Flat"
    if num_chunks < 200_000_000 or dimensions % 8:
        return f"{lists},SQ8"
    return f"{lists},PQ{dimensions // 8}"


def new_index(factory: str, dimensions: int) -> Any:
    """An empty index of inner products; UserError when FAISS does not know the factory string."""
    import faiss

    name = "IDMap2,Flat" if factory == "Flat" else factory
    try:
        return faiss.index_factory(dimensions, name, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        raise UserError(
            f"index.factory is {factory!r}, which FAISS cannot build for {dimensions} dimensions "
            f"({str(error).splitlines()[-1]}). Use e.g. 'Flat', 'IVF1024,SQ8', or 'auto'."
        ) from error


def num_training_vectors(index: Any, num_chunks: int, most: int) -> int:
    """Vectors to train on: 64 a list where there are lists, at most `most`, at most all; 0 if none is needed."""
    if index.is_trained:
        return 0
    return min(num_chunks, most, max(64 * num_lists(index), 16_384))


def train(index: Any, vectors: Vectors) -> None:
    """Train on float vectors [n, d], on one thread, so that the same vectors give the same index.

    Raises UserError when there are fewer vectors than lists.
    """
    if len(vectors) < num_lists(index):
        raise UserError(
            f"index.factory asks for {num_lists(index):,} inverted lists, but there are only {len(vectors):,} "
            f"training vectors. Use fewer lists, more training_chunks, or factory 'auto'."
        )
    _one_thread()
    for part in (index, _lists(index)):
        if part is not None and hasattr(part, "cp"):
            part.cp.min_points_per_centroid = 1  # few points a list cost recall, which is measured, not a warning
    index.train(np.ascontiguousarray(vectors, np.float32))


def add(index: Any, vectors: Vectors, first_id: int) -> None:
    """Add vectors [n, d] under the ids first_id, first_id + 1, ..."""
    _one_thread()
    ids = np.arange(first_id, first_id + len(vectors), dtype=np.int64)
    index.add_with_ids(np.ascontiguousarray(vectors, np.float32), ids)


def bytes_per_vector(index: Any) -> int:
    """Bytes that one vector takes in the index, its id included."""
    lists = _lists(index)
    return int(lists.code_size if lists is not None else index.sa_code_size()) + 8


class Index:
    """A searchable index: one or more FAISS shards, opened memory-mapped, and what index.json says of them."""

    def __init__(self, shards: Sequence[Any], facts: dict[str, Any]) -> None:
        self.facts = facts
        self._shards = shards

    @classmethod
    def open(cls, folder: Path, facts: dict[str, Any] | None = None) -> "Index":
        """Open the shards that the facts (None: index.json) name; all processes of a host share their pages."""
        import faiss

        facts = facts or json.loads((folder / "index.json").read_text())
        shards = [faiss.read_index(str(folder / name), faiss.IO_FLAG_MMAP_IFC) for name in facts["shards"]]
        index = cls(shards, facts)
        if facts["nprobe"]:
            index.set_nprobe(facts["nprobe"])
        return index

    def __repr__(self) -> str:
        facts = self.facts
        size = f"{facts['num_chunks']:,} chunks x {facts['dimensions']}"
        return f"Index({facts['factory']}, {size}, {len(self._shards)} shards)"

    def __len__(self) -> int:
        return int(sum(shard.ntotal for shard in self._shards))

    @property
    def is_exact(self) -> bool:
        """Whether a search misses nothing, so that there is no recall to measure."""
        return self.facts["factory"] in ("Flat", "IDMap,Flat", "IDMap2,Flat")

    @property
    def num_lists(self) -> int:
        """Inverted lists of a shard, 0 where there are none."""
        return num_lists(self._shards[0])

    def set_nprobe(self, nprobe: int) -> None:
        """Visit so many inverted lists a query; indexes without lists have nothing to set."""
        for shard in self._shards:
            lists = _lists(shard)
            if lists is not None:
                lists.nprobe = nprobe

    def search(self, queries: Vectors, top_k: int) -> Neighbours:
        """The nearest of all shards for queries [n, d], on one thread; scores are FAISS's own, not the final ones."""
        _one_thread()
        wanted = np.ascontiguousarray(queries, np.float32)
        found = [shard.search(wanted, min(top_k, max(1, shard.ntotal))) for shard in self._shards]
        scores = np.concatenate([scores for scores, _ in found], axis=1)
        ids = np.concatenate([ids for _, ids in found], axis=1)
        order = np.lexsort((ids, np.where(ids < 0, np.inf, -scores)))[:, :top_k]
        return Neighbours(np.take_along_axis(scores, order, 1), np.take_along_axis(ids, order, 1))


def exact_neighbours(queries: Vectors, parts: Iterable[Vectors], top_k: int) -> NDArray[np.int64]:
    """Row numbers [n, top_k] of the exact nearest among all rows of `parts` laid end to end, by one pass over them."""
    import faiss

    _one_thread()
    wanted = np.ascontiguousarray(queries, np.float32)
    scores, ids, first = np.empty((len(wanted), 0), np.float32), np.empty((len(wanted), 0), np.int64), 0
    for part in parts:
        if len(part):
            k = min(top_k, len(part))
            part_scores, part_ids = faiss.knn(
                wanted, np.ascontiguousarray(part, np.float32), k, metric=faiss.METRIC_INNER_PRODUCT
            )
            scores = np.concatenate([scores, part_scores], axis=1)
            ids = np.concatenate([ids, part_ids + first], axis=1)
            order = np.lexsort((ids, -scores))[:, :top_k]
            scores, ids = np.take_along_axis(scores, order, 1), np.take_along_axis(ids, order, 1)
        first += len(part)
    return ids


def recall(found: NDArray[np.int64], exact: NDArray[np.int64]) -> float:
    """Share of the exact neighbours [n, k] that a search found [n, k]; 1.0 when there are none."""
    hits = sum(np.isin(row, truth).sum() for row, truth in zip(found, exact, strict=True))
    return float(hits / exact.size) if exact.size else 1.0


def choose_nprobe(recall_at: Callable[[int], float], most: int, target_recall: float) -> int:
    """The smallest power of two, at most `most`, whose recall reaches the target; 1 where there are no lists."""
    nprobe = 1
    while nprobe < most and recall_at(nprobe) < target_recall:
        nprobe = min(2 * nprobe, most)
    return nprobe


def num_lists(index: Any) -> int:
    """Inverted lists of an index, 0 where it has none."""
    lists = _lists(index)
    return int(lists.nlist) if lists is not None else 0


def _lists(index: Any) -> Any | None:
    """The inverted-list index inside an index, or None."""
    import faiss

    try:
        return faiss.extract_index_ivf(index)
    except RuntimeError:
        return None


def _one_thread() -> None:
    """FAISS on one thread: parallelism comes from processes, and results must not depend on it (set per thread)."""
    import faiss

    faiss.omp_set_num_threads(1)


def sample_rows(num_rows: int, num_samples: int) -> NDArray[np.int64]:
    """`num_samples` row numbers spread evenly over `num_rows`, ascending and distinct."""
    num_samples = min(num_samples, num_rows)
    return (np.arange(num_samples, dtype=np.int64) * num_rows) // max(1, num_samples)


def shard_ranges(counts: Sequence[int], bytes_each: int, max_shard_bytes: int) -> Iterator[tuple[int, int]]:
    """Consecutive ranges [first, last) of whole parts whose vectors together stay within a shard's size."""
    first, size = 0, 0
    for number, count in enumerate(counts):
        if number > first and (size + count) * bytes_each > max_shard_bytes:
            yield first, number
            first, size = number, 0
        size += count
    yield first, len(counts)
