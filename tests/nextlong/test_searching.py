"""Searching: exact where it says so, shards merged to what one file gives, and settings that reach a recall."""

from itertools import pairwise

import faiss
import numpy as np
import pytest

from nextlong.indexing import Vectors, add, new_index, num_training_vectors, train
from nextlong.retrieval import EmbeddingRetriever, ShardSearch
from nextlong.searching import Index, Neighbours, choose_nprobe, choose_search, exact_neighbours, merged, recall
from tests.nextlong.test_indexing import VECTORS, built


def test_flat_search_is_exact() -> None:
    found = Index([built("Flat")], {"factory": "Flat"}).search(VECTORS[:50], 10)
    truth = np.argsort(-(VECTORS[:50].astype(np.float64) @ VECTORS.T.astype(np.float64)), axis=1)[:, :10]
    assert recall(found.ids, truth) == 1.0
    assert (np.diff(found.scores, axis=1) <= 0).all()


def test_merging_is_by_score_then_id_with_none_at_the_end() -> None:
    one = Neighbours(np.array([[0.9, 0.5, -np.inf]], np.float32), np.array([[7, 4, -1]]))
    other = Neighbours(np.array([[0.9, 0.8]], np.float32), np.array([[3, 9]]))
    assert merged([one, other], 4).ids.tolist() == [[3, 7, 9, 4]]
    assert merged([one, other], 9).ids.tolist() == [[3, 7, 9, 4, -1]]
    assert merged([other, one, one], 3).scores.tolist() == [[np.float32(0.9)] * 3]
    assert merged([Neighbours(one.scores[:, ::-1], one.ids[:, ::-1])], 2).ids.tolist() == [[7, 4]]


@pytest.mark.parametrize("factory", ["Flat", "IVF16,Flat", "IVF16,PQ4"])
def test_what_shards_propose_alone_is_merged_to_what_a_search_over_all_gives(factory: str) -> None:
    trained = new_index(factory, 16)
    if num_training_vectors(trained, 3000, 10_000):
        train(trained, VECTORS)
    shards = [faiss.clone_index(trained) for _ in range(3)]
    for shard, (first, last) in zip(shards, pairwise([0, 1000, 1005, 3000]), strict=True):
        add(shard, VECTORS[first:last], first)
    whole = Index(shards, {"factory": factory})
    whole.set_nprobe(4)
    asked = [(np.arange(100, 150), 30), (np.array([8, 2900, 3]), 12)]  # two batches, not in order, of other sizes
    apart = []
    for shard in shards:
        search = ShardSearch(Index([shard], {}).search, lambda ids: VECTORS[ids], 2.0)
        for ids, top_k in asked:
            assert search.neighbours_of(ids, top_k).ids.shape == (len(ids), 0)
        apart.append(search.proposals())
    assert [len(each) for each in apart] == [53] * 3
    merging = EmbeddingRetriever(_no_search, lambda ids: VECTORS[ids], 2.0, apart)
    mapped = EmbeddingRetriever(whole.search, lambda ids: VECTORS[ids], 2.0)
    for ids, top_k in asked:
        for one, other in zip(merging.neighbours_of(ids, top_k), mapped.neighbours_of(ids, top_k), strict=True):
            assert one.shape == (len(ids), top_k)
            assert one.tobytes() == other.tobytes()
    others = np.array([[5, -1]])
    assert merging.scores_of(np.array([3]), others).tolist() == mapped.scores_of(np.array([3]), others).tolist()


def test_more_equals_than_shards_propose_are_searched_for_in_all_shards() -> None:
    """A query has 60 copies in two shards, and the 20 proposed of each shard are not those of the lowest ids."""
    vectors = VECTORS[:400].copy()
    vectors[180:240] = vectors[7]
    shards = [built("Flat", vectors[:200]), built("Flat", vectors[200:], 200)]
    searched = []

    def search(queries: Vectors, top_k: int) -> Neighbours:
        searched.append(len(queries))
        return Index(shards, {}).search(queries, top_k)

    queries, apart = np.arange(5, 30), []
    for shard in shards:
        alone = ShardSearch(Index([shard], {}).search, lambda ids: vectors[ids], 1.05)
        alone.neighbours_of(queries, 20)
        apart.append(alone.proposals())
    found = EmbeddingRetriever(search, lambda ids: vectors[ids], 1.05, apart).neighbours_of(queries, 20)
    assert set(searched) == {1}
    assert found.ids[2].tolist() == [7, *range(180, 199)]
    mapped = EmbeddingRetriever(search, lambda ids: vectors[ids]).neighbours_of(queries, 20)
    assert found.scores.tobytes() == mapped.scores.tobytes()
    assert found.ids.tobytes() == mapped.ids.tobytes()


def test_a_shard_that_is_asked_nothing_proposes_nothing() -> None:
    assert len(ShardSearch(Index([built("Flat")], {}).search, lambda ids: VECTORS[ids], 1.0).proposals()) == 0


def test_fewer_vectors_than_asked_for_are_filled_with_minus_one() -> None:
    index = Index([built("IVF16,Flat")], {"factory": "IVF16,Flat"})
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
    assert choose_nprobe(lambda nprobe: nprobe / 100, 12, 0.95) == 12
    assert choose_nprobe(lambda _: 0.1, 0, 0.95) == 1


def test_lists_are_not_doubled_for_nothing() -> None:
    recalls = {1: 0.5, 2: 0.7, 4: 0.8, 8: 0.8005}
    assert choose_nprobe(recalls.__getitem__, 1024, 0.95) == 4


def test_the_smallest_ratio_that_reaches_the_target_may_visit_a_few_more_lists() -> None:
    """With this recall 0.9 needs 16 lists at ratio 16, 32 at 8, and more lists than there are at 4."""
    asked = []

    def recall_at(lists: int, ratio: float) -> float:
        asked.append(lists)
        return lists / (lists + 1) - 0.4 / ratio

    options = {"ratios": (2.0, 4.0, 8.0, 16.0), "num_lists": 1024}
    assert choose_search(recall_at, nprobe=None, target_recall=0.9, **options) == (32, 8.0)
    assert max(asked) == 64  # four times the sixteen that ratio 16 needs, not all
    assert choose_search(recall_at, nprobe=512, target_recall=0.85, **options) == (512, 4.0)
    assert choose_search(recall_at, nprobe=None, target_recall=1.0, **options) == (512, 16.0)
    assert choose_search(recall_at, nprobe=None, ratios=(1.05,), num_lists=0, target_recall=0.9) == (1, 1.05)


def test_codes_below_eight_bits_a_dimension_need_re_ranking() -> None:
    ratios = {
        factory: Index([new_index(factory, 16)], {}).rerank_ratios
        for factory in ("Flat", "SQ8", "IVF4,Flat", "IVF4,SQ8", "IVF4,PQ4", "IVF4,SQ4", "PQ8")
    }
    assert {factory for factory, each in ratios.items() if each == (2, 4, 8, 16)} == {"IVF4,PQ4", "IVF4,SQ4", "PQ8"}
    assert {each for each in ratios.values() if each != (2, 4, 8, 16)} == {(1.05,)}


def _no_search(queries: Vectors, top_k: int) -> Neighbours:
    raise AssertionError("the shards were searched before")
