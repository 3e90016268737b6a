"""The index: exact where it says so, measured where it is not, the same from shards as from one file."""

import json
import re
from itertools import pairwise
from pathlib import Path

import faiss
import numpy as np
import pytest

from nextlong.errors import UserError
from nextlong.indexing import (
    add,
    bytes_per_vector,
    check_memory,
    choose_factory,
    has_mergeable_lists,
    merge_lists,
    new_index,
    num_training_vectors,
    sample_rows,
    shard_ranges,
    train,
    write_lists,
)
from nextlong.searching import Index

RNG = np.random.default_rng(0)
VECTORS = RNG.standard_normal((3000, 16)).astype(np.float32)
VECTORS /= np.linalg.norm(VECTORS, axis=1, keepdims=True)


def built(factory: str, vectors: np.ndarray = VECTORS, first_id: int = 0):  # type: ignore[no-untyped-def]
    index = new_index(factory, vectors.shape[1])
    if num_training_vectors(index, len(vectors), 10_000):
        train(index, vectors)
    add(index, vectors, first_id)
    return index


def test_the_factory_follows_the_size() -> None:
    assert choose_factory(1000, 384) == "Flat"
    assert choose_factory(100_000, 384) == "IVF1024,Flat"
    assert choose_factory(4_000_000, 384) == "IVF8192,SQ8"
    assert choose_factory(644_275_250, 384) == "IVF131072_HNSW32,PQ48"
    for size in (1000, 100_000, 4_000_000, 30_000_000, 644_275_250):
        assert new_index(choose_factory(size, 384), 384).d == 384


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("IVFx,Foo", "index.factory is 'IVFx,Foo', which FAISS cannot build for 16 dimensions (could not parse index"),
        (
            "IVF16,PQ5",
            "cannot build for 16 dimensions ('!(d % M == 0)' The dimension of the vector (d) should be a multip",
        ),
        ("IVF99999999999,Flat", "which FAISS cannot build for 16 dimensions (C++ exception stoi). Use e.g. 'Flat'"),
        ("IVF16,PQ4,RFlat", "which keeps the vectors twice. Leave its last part out: what FAISS proposes is scored"),
        (
            "HNSW16",
            "a graph, whose size cannot be told beforehand. Use a graph to find lists, e.g. 'IVF65536_HNSW32,SQ8'",
        ),
    ],
)
def test_a_factory_that_cannot_be_built_is_refused_in_one_sentence(factory: str, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)) as error:
        new_index(factory, 16)
    assert ".cpp" not in str(error.value)
    assert "\n" not in str(error.value)


def test_more_lists_or_codes_than_vectors_are_refused() -> None:
    with pytest.raises(UserError, match="256 inverted lists, but there are only 100 training vectors"):
        train(new_index("IVF256,Flat", 16), VECTORS[:100])
    with pytest.raises(UserError, match="256 codes of a product quantizer, but there are only 255 training vectors"):
        train(new_index("IVF16,PQ4", 16), VECTORS[:255])
    with pytest.raises(UserError, match="16 codes of a product quantizer, but there are only 15 training vectors"):
        train(new_index("OPQ4,PQ4x4", 16), VECTORS[:15])


@pytest.mark.parametrize("factory", ["SQ8", "PQ4", "OPQ4,PQ4", "IDMap2,SQ8"])
def test_an_index_without_lists_keeps_ids(factory: str) -> None:
    index = Index([built(factory, first_id=7000)], {"factory": factory})
    assert (len(index), index.num_lists) == (3000, 0)
    found = index.search(VECTORS[:100], 5).ids
    assert found.min() >= 7000
    assert (found == np.arange(7000, 7100)[:, None]).any(axis=1).mean() > 0.3


@pytest.mark.parametrize("factory", ["Flat", "IVF16,Flat", "IVF16,SQ8", "IVF16_HNSW8,SQ8"])
def test_shards_give_what_one_file_gives(factory: str, tmp_path: Path) -> None:
    trained = new_index(factory, 16)
    if num_training_vectors(trained, 3000, 10_000):
        train(trained, VECTORS)
    names = []
    for number, (first, last) in enumerate([(0, 1000), (1000, 1001), (1001, 3000)]):
        shard = faiss.clone_index(trained)
        add(shard, VECTORS[first:last], first)
        names.append(f"shard-{number}.faiss")
        faiss.write_index(shard, str(tmp_path / names[-1]))
    (tmp_path / "index.json").write_text(json.dumps({"factory": factory, "shards": names, "nprobe": 4}))
    parts = Index.open(tmp_path)
    whole = Index([built(factory)], {"factory": factory})
    whole.set_nprobe(4)
    assert len(parts) == len(whole) == 3000
    assert (parts.search(VECTORS[:64], 20).ids == whole.search(VECTORS[:64], 20).ids).mean() > 0.999


@pytest.mark.parametrize("factory", ["IVF16,Flat", "IVF16,SQ8", "IVF16_HNSW8,PQ4", "OPQ4,IVF16,PQ4"])
def test_lists_added_apart_and_joined_are_a_single_build(factory: str, tmp_path: Path) -> None:
    trained = new_index(factory, 16)
    train(trained, VECTORS)
    assert has_mergeable_lists(trained)
    single, joined = faiss.clone_index(trained), faiss.clone_index(trained)
    for first, last in pairwise([0, 1000, 1000, 1001, 3000]):
        part = faiss.clone_index(trained)
        add(part, VECTORS[first:last], first)
        write_lists(part, tmp_path / "part.faiss")
        merge_lists(joined, tmp_path / "part.faiss")
        add(single, VECTORS[first:last], first)
    assert joined.ntotal == 3000
    assert faiss.serialize_index(joined).tobytes() == faiss.serialize_index(single).tobytes()


def test_lists_on_disk_hold_no_centroids(tmp_path: Path) -> None:
    index = built("IVF256,SQ8", VECTORS[:300])
    write_lists(index, tmp_path / "lists.faiss")
    assert (tmp_path / "lists.faiss").stat().st_size < 300 * bytes_per_vector(index) + 256 * 8 + 100


@pytest.mark.parametrize("factory", ["Flat", "SQ8", "IDMap2,IVF16,Flat", "IVF16,PQ4x4fs"])
def test_what_cannot_be_joined_is_told(factory: str) -> None:
    assert not has_mergeable_lists(new_index(factory, 16))


COUNTS = [100_000] * 10
"""A million vectors of 64 dimensions: 264 MB Flat, 72 MB SQ8, 16 MB PQ8, and 25.6 MB for a part as float32."""


def _memory_error(factory: str, available_bytes: int, max_shard_bytes: int = 10**9) -> str:
    with pytest.raises(UserError) as error:
        check_memory(factory, 64, COUNTS, max_shard_bytes=max_shard_bytes, available_bytes=available_bytes)
    return str(error.value)


def test_enough_memory_is_twice_a_shard_and_a_part() -> None:
    needed = 2 * 264_000_000 + 25_600_000
    check_memory("Flat", 64, COUNTS, max_shard_bytes=10**9, available_bytes=needed)
    check_memory("Flat", 64, COUNTS, max_shard_bytes=100_000_000, available_bytes=225_600_000)
    assert _memory_error("Flat", needed - 1).startswith(
        "index.factory Flat needs 0.55 GB of memory a worker to build shards of at most 1.00 GB, but this machine has "
        "0.55 GB available: set index.max_shard_bytes to "
    )
    _memory_error("Flat", 225_599_999, 100_000_000)


def test_shards_that_are_built_at_once_need_memory_at_once() -> None:
    each, size = 225_600_000, 100_000_000  # a part is 26.4 MB, so there are four shards
    for builders, factor in ((1, 1), (3, 3), (8, 4)):
        enough = factor * each
        check_memory("Flat", 64, COUNTS, max_shard_bytes=size, available_bytes=enough, num_builders=builders)
        with pytest.raises(UserError) as error:
            check_memory("Flat", 64, COUNTS, max_shard_bytes=size, available_bytes=enough - 1, num_builders=builders)
        told = f"for {factor} workers of a machine to build" if factor > 1 else "of memory a worker to build"
        assert told in str(error.value)
        assert (f"start no more than {factor - 1} workers a machine" in str(error.value)) == (factor > 1)


def test_too_little_memory_is_told_with_what_fits() -> None:
    message = _memory_error("Flat", 200_000_000)
    largest = int(re.search(r"index.max_shard_bytes to (\d+) or less", message)[1])
    check_memory("Flat", 64, COUNTS, max_shard_bytes=largest, available_bytes=200_000_000)
    _memory_error("Flat", 200_000_000, largest + 1)
    smaller = dict(re.findall(r"set index.factory to (\S+), which needs (\S+) GB", message))
    assert smaller == {"IVF4096,SQ8": "0.17", "IVF4096,PQ8": "0.06"}
    for factory in smaller:
        check_memory(factory, 64, COUNTS, max_shard_bytes=10**9, available_bytes=200_000_000)


def test_remedies_that_do_not_fit_are_not_offered() -> None:
    message = _memory_error("IVF4096,Flat", 70_000_000)
    assert "max_shard_bytes to" not in message  # one part alone is too large
    assert re.findall(r"index.factory to (\S+),", message) == ["IVF4096,PQ8"]
    assert _memory_error("IVF4096,PQ8", 30_000_000).endswith(
        "use a machine with more memory, or smaller parts (input.part_rows)."
    )


def test_the_trained_index_counts_as_memory() -> None:
    for factory in ("IVF4096,SQ8", "IVF4096_HNSW32,SQ8"):
        index = new_index(factory, 64)
        train(index, np.random.default_rng(0).standard_normal((4096, 64)).astype(np.float32))
        trained = len(faiss.serialize_index(index))
        needed = 2 * (trained + 1_000_000 * bytes_per_vector(index)) + 25_600_000
        check_memory(factory, 64, COUNTS, max_shard_bytes=10**9, available_bytes=int(1.02 * needed))
        _memory_error(factory, int(0.98 * needed))


def test_bytes_a_vector_are_what_faiss_writes() -> None:
    for factory in ("Flat", "IVF16,SQ8"):
        index = built(factory)
        assert abs(len(faiss.serialize_index(index)) / 3000 - bytes_per_vector(index)) < 4


def test_training_rows_are_spread_and_distinct() -> None:
    rows = sample_rows(1000, 64)
    assert len(set(rows.tolist())) == 64
    assert (rows[0], rows[-1] > 980) == (0, True)
    assert sample_rows(3, 64).tolist() == [0, 1, 2]


def test_shards_hold_whole_parts_within_their_size() -> None:
    assert list(shard_ranges([10, 10, 10, 10], 10, 250)) == [(0, 2), (2, 4)]
    assert list(shard_ranges([10, 90, 10], 10, 250)) == [(0, 1), (1, 2), (2, 3)]
    assert list(shard_ranges([5], 10, 1)) == [(0, 1)]


def test_training_gives_the_same_index_again() -> None:
    assert faiss.serialize_index(built("IVF16,SQ8")).tobytes() == faiss.serialize_index(built("IVF16,SQ8")).tobytes()
