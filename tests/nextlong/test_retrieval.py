"""Retrieval: final scores from the stored embeddings, one order whatever the search proposes, vectors of documents."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nextlong.indexing import Vectors, add, new_index
from nextlong.retrieval import EmbeddingRetriever, document_vectors
from nextlong.searching import Index, Neighbours

VECTORS = np.array([[1, 0], [0, 1], [0.5, 0.5], [0.5, -0.5], [-1, 0]], np.float16)
"""Products with the first: 1, 0, 0.5, 0.5, -1."""


class Proposals:
    """A search that proposes the same ids for every query, with scores that mean nothing."""

    def __init__(self, ids: list[int]) -> None:
        self.ids = ids
        self.asked: list[int] = []

    def __call__(self, queries: Vectors, top_k: int) -> Neighbours:
        self.asked.append(top_k)
        ids = np.tile(np.array(self.ids[:top_k], np.int64), (len(queries), 1))
        return Neighbours(np.full(ids.shape, 7, np.float32), ids)


def stored(ids: np.ndarray) -> Vectors:
    assert (ids >= 0).all()  # -1 would be the last row
    assert len(np.unique(ids)) == len(ids)  # read once, however often proposed
    return VECTORS[ids]


def test_proposals_are_scored_again_and_ordered_by_score_then_id_with_none_at_the_end() -> None:
    retriever = EmbeddingRetriever(Proposals([4, -1, 3, 1, 2, 0, -1]), stored)
    scores, ids = retriever.neighbours_of(np.array([0, 1]), 7)
    assert ids.tolist() == [[0, 2, 3, 1, 4, -1, -1], [1, 2, 0, 4, 3, -1, -1]]
    assert scores.tolist() == [[1, 0.5, 0.5, 0, -1, -np.inf, -np.inf], [1, 0.5, 0, 0, -0.5, -np.inf, -np.inf]]
    assert scores.dtype == np.float32


@pytest.mark.parametrize(("top_k", "asked"), [(1, 2), (3, 4), (20, 21), (100, 105), (512, 538)])
def test_a_few_more_than_wanted_are_asked_for_and_the_nearest_returned(top_k: int, asked: int) -> None:
    search = Proposals([4, 3, 1, 2, 0])
    scores, ids = EmbeddingRetriever(search, stored).neighbours_of(np.array([0]), top_k)
    assert search.asked == [asked]
    nearest = {1: [3], 3: [2, 3, 1]}.get(top_k, [0, 2, 3, 1, 4])  # of those that the search proposes
    assert ids.tolist() == [nearest]
    assert scores.shape == (1, len(nearest))


def test_no_proposal_at_all_gives_none() -> None:
    scores, ids = EmbeddingRetriever(Proposals([-1, -1]), stored).neighbours_of(np.array([3]), 2)
    assert (scores.tolist(), ids.tolist()) == ([[-np.inf, -np.inf]], [[-1, -1]])


def test_scores_of_others_are_in_their_order() -> None:
    retriever = EmbeddingRetriever(Proposals([]), stored)
    scores = retriever.scores_of(np.array([0, 2]), np.array([[4, -1, 2, 2], [2, 0, 1, -1]]))
    assert scores.tolist() == [[-1, -np.inf, 0.5, 0.5], [0.5, 0.5, 0.5, -np.inf]]
    assert scores.dtype == np.float32


@pytest.mark.parametrize(("dtype", "large"), [(np.float16, 2048), (np.float32, 2**24)])
def test_scores_are_summed_in_double_precision_and_rounded_to_six_decimals(dtype: type, large: int) -> None:
    """large + 1 - large is 1, but 0 in the stored type; 2^-11 is 0.00048828125."""
    vectors = np.array([[1, 1, 1], [large, 1, -large], [2**-11, 0, 0]], dtype)
    assert dtype(large) + dtype(1) - dtype(large) == 0
    retriever = EmbeddingRetriever(Proposals([0, 1, 2]), lambda ids: vectors[ids])
    scores, ids = retriever.neighbours_of(np.array([0]), 3)
    assert ids.tolist() == [[0, 1, 2]]
    assert scores.tolist() == [[3, 1, np.float32(0.000488).item()]]


def test_queries_of_one_call_do_not_know_each_other() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((300, 8)).astype(np.float16)
    index = new_index("Flat", 8)
    add(index, vectors, 0)
    retriever = EmbeddingRetriever(Index([index], {"factory": "Flat"}).search, lambda ids: vectors[ids])
    queries = np.array([5, 299, 0, 5, 17] * 8)  # FAISS takes another path from 20 queries on
    scores, ids = retriever.neighbours_of(queries, 40)
    products = (vectors.astype(np.float64) @ vectors.astype(np.float64).T).round(6).astype(np.float32)
    for row, query in enumerate(queries.tolist()):
        alone = retriever.neighbours_of(np.array([query]), 40)
        assert (alone.scores[0].tolist(), alone.ids[0].tolist()) == (scores[row].tolist(), ids[row].tolist())
        order = np.lexsort((np.arange(300), -products[query]))[:40]
        assert ids[row].tolist() == order.tolist()
        assert scores[row].tolist() == products[query, order].tolist()


def test_a_documents_vector_is_the_mean_of_its_chunks_at_length_one() -> None:
    """Means: (0.5, 0.5), (3, 4) alone, (1, 0)."""
    vectors = np.array([[1, 0], [0, 1], [3, 4], [4, 1], [-2, -1], [1, 0]], np.float16)
    found = document_vectors(vectors, np.array([2, 1, 3], np.int32))
    assert found.tolist() == [pytest.approx([0.5**0.5] * 2), pytest.approx([0.6, 0.8]), [1, 0]]
    assert found.dtype == np.float32


def test_a_mean_of_zero_stays_zero() -> None:
    vectors = np.array([[1, 2], [-1, -2], [0, 5], [0, 0]], np.float32)
    assert document_vectors(vectors, np.array([2, 1, 1])).tolist() == [[0, 0], [0, 1], [0, 0]]


def test_means_of_half_precision_neither_overflow_nor_lose_digits() -> None:
    vectors = np.array([[60000, 0], [60000, 0], [0, 60000]] + [[2048, 0]] + [[1, 1]] * 100, np.float16)
    found = document_vectors(vectors, np.array([3, 101]))
    assert found.tolist() == [
        pytest.approx([2 / 5**0.5, 1 / 5**0.5]),
        pytest.approx(np.array([2148, 100]) / np.hypot(2148, 100)),
    ]


def test_no_documents_have_no_vectors() -> None:
    found = document_vectors(np.empty((0, 3), np.float16), np.array([], np.int64))
    assert (found.shape, found.dtype) == ((0, 3), np.float32)


@pytest.mark.parametrize("top_k", [9, 11, 12, 25, 40, 109, 111, 200])
def test_ties_at_the_cut_are_broken_by_id_among_all_equals(top_k: int) -> None:
    """A hundred equal vectors are more than any over-fetch holds."""
    vectors = np.full((120, 2), 0.5, np.float16)
    vectors[100:110] = 1
    vectors[110:] = 0.25
    index = new_index("Flat", 2)
    add(index, vectors, 0)
    retriever = EmbeddingRetriever(Index([index], {"factory": "Flat"}).search, lambda ids: vectors[ids])
    scores, ids = retriever.neighbours_of(np.array([104, 3]), top_k)
    expected = [*range(100, 110), *range(100), *range(110, 120)][:top_k]
    assert ids.tolist() == [expected] * 2
    assert scores[0].tolist() == sorted(scores[0].tolist(), reverse=True)


@given(
    numbers=st.lists(st.lists(st.integers(-1, 30), min_size=5, max_size=5), min_size=1, max_size=6),
    queries=st.lists(st.integers(0, 30), min_size=6, max_size=6),
)
def test_scores_are_those_of_each_pair_alone_whatever_stands_beside_it(
    numbers: list[list[int]], queries: list[int]
) -> None:
    vectors = np.random.default_rng(0).standard_normal((31, 7)).round(1).astype(np.float32)
    retriever = EmbeddingRetriever(Proposals([]), lambda ids: vectors[ids])
    found = retriever.scores_of(np.array(queries[: len(numbers)]), np.array(numbers))
    for query, row, scores in zip(queries, numbers, found.tolist(), strict=False):
        products = [
            sum(float(a) * float(b) for a, b in zip(vectors[query], vectors[each], strict=True)) for each in row
        ]
        alone = [np.float32(round(product, 6)).item() for product in products]
        assert scores == [-np.inf if each < 0 else score for each, score in zip(row, alone, strict=True)]
