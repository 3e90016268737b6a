"""Vectors in, FAISS indexes out (Sec. 3.1.2, Eq. 3): which kind, trained, filled in parts, and what it takes."""

import contextlib
import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nextlong.errors import UserError

FloatArray = NDArray[np.floating[Any]]
Vectors = NDArray[np.float16] | NDArray[np.float32]

_GROWTH = 2  # vectors in memory double when they are full: while an index grows, twice its bytes may be held


def choose_factory(num_chunks: int, dimensions: int) -> str:
    """A FAISS factory for so many vectors: exact while that is quick, then inverted lists, then compressed ones.

    About 4 sqrt(n) lists, a power of two. The sizes a vector: Flat 4 d bytes, SQ8 d bytes, PQ about d / 8 bytes.
    """
    if num_chunks < 65_536:
        return "Flat"
    if num_chunks < 1_000_000:
        return f"{_lists_for(num_chunks)},Flat"
    if num_chunks < 200_000_000 or dimensions % 8:
        return f"{_lists_for(num_chunks)},SQ8"
    return f"{_lists_for(num_chunks)},PQ{dimensions // 8}"


def _lists_for(num_chunks: int) -> str:
    number = 2 ** round(np.log2(4 * np.sqrt(num_chunks)))
    return f"IVF{number}_HNSW32" if number >= 16_384 else f"IVF{number}"


def new_index(factory: str, dimensions: int) -> Any:
    """An empty index of inner products that keeps ids; UserError when FAISS, or this program, cannot build it."""
    import faiss

    index = _from_factory(factory, factory, dimensions)
    if isinstance(index, faiss.IndexRefine):
        raise UserError(
            f"index.factory is {factory!r}, which keeps the vectors twice. Leave its last part out: what FAISS "
            f"proposes is scored again from the stored embeddings (index.rerank_ratio)."
        )
    if lists_of(index) is None and not isinstance(index, faiss.IndexIDMap):
        index = _from_factory(factory, f"IDMap2,{factory}", dimensions)
    try:
        index.sa_code_size()
    except RuntimeError as error:
        raise UserError(
            f"index.factory is {factory!r}, a graph, whose size cannot be told beforehand. Use a graph to find "
            f"lists, e.g. 'IVF65536_HNSW32,SQ8', or 'auto'."
        ) from error
    return index


def _from_factory(factory: str, name: str, dimensions: int) -> Any:
    import faiss

    try:
        return faiss.index_factory(dimensions, name, faiss.METRIC_INNER_PRODUCT)
    except (RuntimeError, MemoryError) as error:
        reason = re.sub(r"^Error in .* at \S+:\d+: (Error: ('.*') failed)?(: )?", "\\2 ", str(error)).strip()
        raise UserError(
            f"index.factory is {factory!r}, which FAISS cannot build for {dimensions} dimensions "
            f"({reason}). Use e.g. 'Flat', 'IVF1024,SQ8', or 'auto'."
        ) from error


def num_training_vectors(index: Any, num_chunks: int, most: int) -> int:
    """Vectors to train on: 64 a list where there are lists, at most `most`, at most all; 0 if none is needed."""
    if index.is_trained:
        return 0
    return min(num_chunks, most, max(64 * num_lists(index), 16_384))


def check_training(factory: str, dimensions: int, num_vectors: int, most: int) -> None:
    """Raise UserError when an index of so many vectors, trained on at most `most`, cannot be trained.

    It takes a vector for each of its lists, and for each code of a product quantizer.
    """
    index = new_index(factory, dimensions)
    if not index.is_trained:
        _check_enough(index, num_training_vectors(index, num_vectors, most))


def train(index: Any, vectors: Vectors) -> None:
    """Train on float vectors [n, d], on one thread, so that the same vectors give the same index.

    Raises UserError when there are too few, as `check_training` does.
    """
    _check_enough(index, len(vectors))
    one_thread()
    codes = _codes(index)
    for part in (lists_of(index), getattr(codes, "pq", None)):
        if part is not None:
            part.cp.min_points_per_centroid = 1  # few points a list cost recall, which is measured, not a warning
    if hasattr(codes, "do_polysemous_training"):
        codes.do_polysemous_training = False  # seconds a byte of code, for a kind of search not used here
    index.train(np.ascontiguousarray(vectors, np.float32))


def _check_enough(index: Any, num_vectors: int) -> None:
    for number, what in ((num_lists(index), "inverted lists"), (_num_codes(index), "codes of a product quantizer")):
        if num_vectors < number:
            raise UserError(
                f"index.factory asks for {number:,} {what}, but there are only {num_vectors:,} training vectors. "
                f"Use fewer of them, more training_chunks, or factory 'auto'."
            )


def _num_codes(index: Any) -> int:
    """Codes of each part of a product quantizer, which needs so many training vectors; 0 where there is none."""
    quantizer = getattr(_codes(index), "pq", None)
    return int(quantizer.ksub) if quantizer is not None else 0


def add(index: Any, vectors: Vectors, first_id: int) -> None:
    """Add vectors [n, d] under the ids first_id, first_id + 1, ..., without those of zeros: see `zeros`."""
    one_thread()
    ids = np.arange(first_id, first_id + len(vectors), dtype=np.int64)
    missing = zeros(vectors)
    if len(missing):
        vectors, ids = np.delete(vectors, missing, axis=0), np.delete(ids, missing)
    index.add_with_ids(np.ascontiguousarray(vectors, np.float32), ids)


def zeros(vectors: Vectors) -> NDArray[np.int64]:
    """The rows of vectors [n, d] that are zero throughout: they stand for texts that could not be embedded."""
    rows = np.flatnonzero(vectors[:, 0] == 0)
    return rows[~vectors[rows].any(axis=1)]


def has_mergeable_lists(index: Any) -> bool:
    """Whether vectors may be added to copies of the trained index, and the copies' inverted lists be joined."""
    import faiss

    if lists_of(index) is None or isinstance(index, faiss.IndexIDMap):
        return False
    return isinstance(faiss.downcast_InvertedLists(lists_of(index).invlists), faiss.ArrayInvertedLists)


def read_index(path: Path, *, is_mapped: bool = False) -> Any:
    """The index in a file. is_mapped: all processes of a host share its pages.

    Raises UserError when FAISS cannot read it, or its inverted lists are in another file, which FAISS would open
    wherever it is.
    """
    import faiss

    flags = faiss.IO_FLAG_MMAP_IFC if is_mapped else faiss.IO_FLAG_ONDISK_SAME_DIR
    with _readable(path):
        index = faiss.read_index(str(path), flags | faiss.IO_FLAG_READ_ONLY)
    lists = lists_of(index)
    if lists is not None:
        _refuse_lists_elsewhere(lists.invlists, path)
    return index


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"FAISS cannot read {path} ({reason}). Delete it and run again.") from error


def _refuse_lists_elsewhere(lists: Any, path: Path) -> None:
    import faiss

    if isinstance(faiss.downcast_InvertedLists(lists), faiss.OnDiskInvertedLists):
        raise UserError(f"{path} keeps its inverted lists in another file, as no run does. Delete it and run again.")


def write_lists(index: Any, path: Path) -> None:
    """Write the inverted lists alone: codes and ids, without the centroids, which all copies of an index share."""
    import faiss

    writer = faiss.FileIOWriter(str(path))
    faiss.write_InvertedLists(lists_of(index).invlists, writer)
    del writer  # closes the file


def merge_lists(index: Any, path: Path) -> None:
    """Append written lists to those of a copy of the same trained index, as if their vectors were added to it."""
    import faiss

    lists = lists_of(index)
    flags = faiss.IO_FLAG_ONDISK_SAME_DIR | faiss.IO_FLAG_READ_ONLY
    with _readable(path):
        added: Any = faiss.read_InvertedLists(faiss.FileIOReader(str(path)), flags)
    _refuse_lists_elsewhere(added, path)
    lists.ntotal += added.compute_ntotal()
    lists.invlists.merge_from(added, 0)
    index.ntotal = lists.ntotal


def bytes_per_vector(index: Any) -> int:
    """Bytes that one vector takes in the index, its id included."""
    return code_bytes(index) + 8


def code_bytes(index: Any) -> int:
    """Bytes that the vector alone takes."""
    lists = lists_of(index)
    return int(lists.code_size if lists is not None else index.sa_code_size())


def check_memory(
    factory: str,
    dimensions: int,
    counts: Sequence[int],
    *,
    max_shard_bytes: int,
    available_bytes: int,
    num_builders: int = 1,
) -> None:
    """Raise UserError when a machine cannot hold what it builds; the message says what would fit, with sizes.

    Held by each task: a shard with the trained index within, at worst twice while it grows, and a part as float32.
    counts: vectors of each part; a shard holds whole parts. num_builders: tasks that may run on the machine at once.
    """
    build_bytes = partial(_build_bytes, dimensions=dimensions, counts=counts, num_builders=num_builders)
    needed, builders = build_bytes(factory, max_shard_bytes=max_shard_bytes)
    if needed <= available_bytes:
        return
    largest_fit = (available_bytes // num_builders - 4 * dimensions * max(counts)) // _GROWTH
    remedies = []
    if build_bytes(factory, max_shard_bytes=largest_fit)[0] <= available_bytes:
        remedies.append(f"set index.max_shard_bytes to {largest_fit} or less")
    remedies += [
        f"set index.factory to {smaller}, which needs {_gigabytes(size)}"
        for smaller in _smaller_factories(factory, dimensions, sum(counts))
        if (size := build_bytes(smaller, max_shard_bytes=max_shard_bytes)[0]) <= available_bytes
    ]
    if 1 <= (fitting := available_bytes // (needed // builders)) < builders:
        remedies.append(f"start no more than {fitting} workers a machine")
    who = "a worker" if builders == 1 else f"for {builders} workers of a machine"
    raise UserError(
        f"index.factory {factory} needs {_gigabytes(needed)} of memory {who} to build shards of at most "
        f"{_gigabytes(max_shard_bytes)}, but this machine has {_gigabytes(available_bytes)} available: "
        f"{'; or '.join(remedies) or 'use a machine with more memory, or smaller parts (input.part_rows)'}."
    )


def _build_bytes(
    factory: str, *, dimensions: int, counts: Sequence[int], num_builders: int, max_shard_bytes: int
) -> tuple[int, int]:
    """What the tasks of a machine hold that build shards at once, and how many these are."""
    index = new_index(factory, dimensions)
    trained, each, largest = _trained_bytes(index), bytes_per_vector(index), int(max(counts))
    shard = trained + max(largest * each, min(sum(counts) * each, max_shard_bytes - trained))
    num_shards = len(list(shard_ranges(counts, each, max_shard_bytes - trained)))
    builders = min(num_builders, num_shards)
    return builders * (_GROWTH * shard + 4 * dimensions * largest), builders


def _trained_bytes(index: Any) -> int:
    """About what an empty index takes once it is trained: the centroids of its lists, and the graph over them."""
    import faiss

    if not num_lists(index):
        return 0
    graph = getattr(faiss.downcast_index(lists_of(index).quantizer), "hnsw", None)
    links = 4 * graph.nb_neighbors(0) + 16 if graph is not None else 0
    return num_lists(index) * (4 * int(index.d) + int(links) + 8)


def _smaller_factories(factory: str, dimensions: int, num_chunks: int) -> list[str]:
    """The same inverted lists (Flat: as many as fit the number of chunks) with compressed vectors."""
    lists, _, code = factory.rpartition(",")
    codes = ["SQ8"] if code == "Flat" else []
    codes += [f"PQ{dimensions // 8}"] if not code.startswith("PQ") and dimensions % 8 == 0 else []
    return [f"{lists or _lists_for(num_chunks)},{each}" for each in codes]


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:,.2f} GB"


def num_lists(index: Any) -> int:
    """Inverted lists of an index, 0 where it has none."""
    lists = lists_of(index)
    return int(lists.nlist) if lists is not None else 0


def lists_of(index: Any) -> Any:
    """The inverted-list index inside an index, or None."""
    import faiss

    try:
        return faiss.extract_index_ivf(index)
    except RuntimeError:
        return None


def _codes(index: Any) -> Any:
    """The index that encodes the vectors, taken out of those that keep ids or transform vectors."""
    import faiss

    inner = lists_of(index) or index
    while hasattr(inner, "index"):
        inner = faiss.downcast_index(inner.index)
    return faiss.downcast_index(inner)


def one_thread() -> None:
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
