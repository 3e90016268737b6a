"""The index: exact where it says so, measured where it is not, the same from shards as from one file."""

import json
from pathlib import Path

import faiss
import numpy as np
import pytest

from nextlong.errors import UserError
from nextlong.indexing import (
    Index,
    add,
    bytes_per_vector,
    choose_factory,
    choose_nprobe,
    exact_neighbours,
    new_index,
    num_training_vectors,
    recall,
    sample_rows,
    shard_ranges,
    train,
)

RNG = np.random.default_rng(0)
VECTORS = RNG.standard_normal((3000, 16)).astype(np.float32)
VECTORS /= np.linalg.norm(VECTORS, axis=1, keepdims=True)


def _built(factory: str, vectors: np.ndarray = VECTORS, first_id: int = 0):  # type: ignore[no-untyped-def]
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


def test_an_unknown_factory_is_refused() -> None:
    with pytest.raises(UserError, match=r"index.factory is 'IVFx,Foo', which FAISS cannot build for 16 dimensions"):
        new_index("IVFx,Foo", 16)


def test_more_lists_than_vectors_are_refused() -> None:
    with pytest.raises(UserError, match="256 inverted lists, but there are only 100 training vectors"):
        train(new_index("IVF256,Flat", 16), VECTORS[:100])


def test_flat_search_is_exact() -> None:
    found = Index([_built("Flat")], {"factory": "Flat"}).search(VECTORS[:50], 10)
    truth = np.argsort(-(VECTORS[:50].astype(np.float64) @ VECTORS.T.astype(np.float64)), axis=1)[:, :10]
    assert recall(found.ids, truth) == 1.0
    assert (np.diff(found.scores, axis=1) <= 0).all()


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
    whole = Index([_built(factory)], {"factory": factory})
    whole.set_nprobe(4)
    assert len(parts) == len(whole) == 3000
    assert (parts.search(VECTORS[:64], 20).ids == whole.search(VECTORS[:64], 20).ids).mean() > 0.999


def test_fewer_vectors_than_asked_for_are_filled_with_minus_one() -> None:
    index = Index([_built("IVF16,Flat")], {"factory": "IVF16,Flat"})
    index.set_nprobe(1)
    found = index.search(VECTORS[:4], 1000)
    assert (found.ids[:, -1] == -1).all()
    assert (found.ids[:, 0] >= 0).all()


def test_exact_neighbours_do_not_depend_on_the_parts() -> None:
    whole = exact_neighbours(VECTORS[:20], [VECTORS], 10)
    parts = exact_neighbours(VECTORS[:20], [VECTORS[:5], VECTORS[5:5], VECTORS[5:]], 10)
    assert whole.tolist() == parts.tolist()


def test_recall_counts_what_was_found() -> None:
    assert recall(np.array([[1, 2], [3, 9]]), np.array([[2, 1], [3, 4]])) == 0.75


def test_nprobe_is_the_smallest_power_of_two_that_reaches_the_target() -> None:
    assert choose_nprobe(lambda nprobe: nprobe / 20, 64, 0.35) == 8
    assert choose_nprobe(lambda _: 0.1, 12, 0.95) == 12
    assert choose_nprobe(lambda _: 0.1, 0, 0.95) == 1


def test_bytes_a_vector_are_what_faiss_writes() -> None:
    for factory in ("Flat", "IVF16,SQ8"):
        index = _built(factory)
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
    assert faiss.serialize_index(_built("IVF16,SQ8")).tobytes() == faiss.serialize_index(_built("IVF16,SQ8")).tobytes()
