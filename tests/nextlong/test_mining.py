"""Mining: exact scores, one order, and rules that are all counted."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nextlong.accounting import Account
from nextlong.indexing import add, new_index
from nextlong.mining import MetaDocument, Mined, apply_rules, mine
from nextlong.near_duplicates import NearDuplicateRules, NearDuplicates
from nextlong.retrieval import EmbeddingRetriever
from nextlong.searching import Index, Neighbours

RNG = np.random.default_rng(1)
VECTORS = RNG.standard_normal((400, 12))
VECTORS = (VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True)).astype(np.float16)
VECTORS[300] = VECTORS[5]  # an exact copy of chunk 5
VECTORS[301] = VECTORS[5] + np.float16(0.01)
HASHES = np.arange(400, dtype=np.uint64)
HASHES[300] = HASHES[5]
SKETCHES = np.random.default_rng(2).integers(0, 2, (20, 4), np.uint32)


def _search(queries: np.ndarray, top_k: int) -> Neighbours:
    index = new_index("Flat", 12)
    add(index, VECTORS, 0)
    return Index([index], {"factory": "Flat"}).search(queries, top_k)


RETRIEVER = EmbeddingRetriever(_search, lambda ids: VECTORS[ids])


def _mine(documents: list[MetaDocument], threshold: float | None = 0.95) -> Mined:
    rules = NearDuplicateRules(threshold)
    return mine(documents, retriever=RETRIEVER, fetch_hashes=lambda ids: HASHES[ids], rules=rules)


def test_scores_are_exact_products_of_stored_vectors_in_one_order() -> None:
    queries = np.arange(5)
    scores, ids = RETRIEVER.neighbours_of(queries, 30)
    for query in queries:
        pairs = [
            (round(sum(float(a) * float(b) for a, b in zip(VECTORS[query], other, strict=True)), 6), -place)
            for place, other in enumerate(VECTORS)
        ]
        expected = [(float(np.float32(score)), -place) for score, place in sorted(pairs, reverse=True)[:30]]
        assert list(zip(scores[query].tolist(), ids[query].tolist(), strict=True)) == expected


def test_scores_of_given_others_keep_their_order() -> None:
    scores, ids = RETRIEVER.neighbours_of(np.array([5]), 30)
    shuffled = RNG.permutation(30)
    given = np.append(ids[0, shuffled], -1)[None]
    assert RETRIEVER.scores_of(np.array([5]), given).tolist() == [[*scores[0, shuffled].tolist(), -np.inf]]


def test_rules_are_applied_in_order_and_counted() -> None:
    account = Account()
    hashes = np.arange(400, dtype=np.uint64)
    hashes[300] = hashes[5]
    [(chunk_id, ids, scores, ranks)] = apply_rules(
        np.array([4]),
        [MetaDocument(0, 4, 2, 4)],
        Neighbours(
            np.array([[1.0, 1.0, 0.99, 0.9, 0.8, 0.7, 0.6]], np.float32), np.array([[4, 300, 301, 7, 5, 9, 10]])
        ),
        hashes.__getitem__,
        NearDuplicates(NearDuplicateRules(0.95)),
        account,
    )
    assert chunk_id == 4
    assert ids.tolist() == [7, 9]
    assert ranks.tolist() == [0, 1]
    assert scores.tolist() == pytest.approx([0.9, 0.7])
    assert account.to_dict()["candidates"] == {
        "read": 6,
        "kept": 2,
        "dropped": {"own_document": 2, "exact_copy": 1, "near_duplicate": 1},
    }


def test_candidates_are_of_other_documents_without_copies_and_near_duplicates() -> None:
    mined, account, _ = _mine([MetaDocument(0, 4, 3, 20)])
    assert [each.chunk_id for each in mined] == [4, 5, 6]
    for each in mined:
        assert not {4, 5, 6, 300, 301} & set(each.ids.tolist()) or each.chunk_id != 5
        assert not {4, 5, 6, 300} & set(each.ids.tolist())
        assert 0 < len(each.ids) <= 20
    account.check("mine")
    assert account.counts["candidates"].dropped["near_duplicate"] >= 1
    assert account.counts["candidates"].dropped["exact_copy"] >= 1


def test_without_a_threshold_near_duplicates_stay() -> None:
    mined, account, _ = _mine([MetaDocument(0, 4, 3, 20)], None)
    assert mined[1].ids[0] == 301
    assert account.counts["candidates"].dropped["near_duplicate"] == 0


def test_a_document_is_mined_alike_alone_and_in_company() -> None:
    documents = [
        MetaDocument(0, 0, 4, 16),
        MetaDocument(1, 20, 1, 60),
        MetaDocument(2, 30, 9, 16),
        MetaDocument(3, 90, 2, 200),
    ]
    together = _mine(documents).candidates
    alone = [each for document in documents for each in _mine([document]).candidates]
    assert len(together) == 16
    for one, other in zip(together, alone, strict=True):
        assert (one.chunk_id, one.ids.tolist(), one.scores.tolist()) == (
            other.chunk_id,
            other.ids.tolist(),
            other.scores.tolist(),
        )


def test_a_corpus_of_one_document_has_no_candidates() -> None:
    mined, account, _ = _mine([MetaDocument(0, 0, 400, 512)])
    assert all(len(each.ids) == 0 for each in mined)
    assert account.counts["candidates"].kept == 0


ROWS = st.lists(
    st.tuples(st.integers(0, 3), st.lists(st.tuples(st.integers(-1, 19), st.integers(0, 4)), min_size=6, max_size=6)),
    min_size=1,
    max_size=12,
)
"""Which document a meta-chunk is of, and its neighbours: chunk_id or none, and score in quarters."""


@given(rows=ROWS, hashes=st.lists(st.integers(0, 6), min_size=20, max_size=20), wanted=st.integers(1, 6))
def test_rules_over_a_batch_are_those_of_one_candidate_after_the_other(
    rows: list[Any], hashes: list[int], wanted: int
) -> None:
    documents = [MetaDocument(number, 5 * number, 1 + number, wanted) for number in range(4)]
    rules = NearDuplicateRules(0.75, 0.5, SKETCHES.__getitem__)
    expected, dropped, compared = [], Counter(), []
    for number, row in rows:
        own = range(5 * number, 5 * number + 1 + number)
        kept, others = [], 0
        for chunk_id, quarters in row:
            if chunk_id >= 0 and others < wanted:
                others += chunk_id not in own
                overlap = (SKETCHES[chunk_id] == SKETCHES[own[0]]).mean()
                if chunk_id in own:
                    dropped["own_document"] += 1
                elif hashes[chunk_id] in [hashes[each] for each in own]:
                    dropped["exact_copy"] += 1
                else:
                    compared.append((quarters / 4, own[0], chunk_id, overlap))
                    if quarters >= 3:
                        dropped["near_duplicate"] += 1
                    elif overlap >= 0.5:
                        dropped["near_duplicate_by_overlap"] += 1
                    else:
                        kept.append((chunk_id, quarters / 4))
        expected.append((own[0], kept, list(range(len(kept)))))
    near_duplicates, account = NearDuplicates(rules), Account()
    candidates = apply_rules(
        np.array([5 * number for number, _ in rows]),
        [documents[number] for number, _ in rows],
        _neighbours([row for _, row in rows]),
        np.array(hashes, np.uint64).__getitem__,
        near_duplicates,
        account,
    )
    found = [
        (each.chunk_id, list(zip(each.ids.tolist(), each.scores.tolist(), strict=True)), each.ranks.tolist())
        for each in candidates
    ]
    assert found == expected
    count = account.counts["candidates"]
    assert (count.kept, +count.dropped) == (sum(len(kept) for _, kept, _ in expected), dropped)
    assert count.balances
    facts = near_duplicates.to_dict()
    below = sorted((0.75 - score, query, chunk_id) for score, query, chunk_id, _ in compared if score < 0.75)
    above = sorted((overlap - 0.5, query, chunk_id) for _, query, chunk_id, overlap in compared if overlap >= 0.5)
    assert facts["similarity"]["just_below"] == [[0.75 - far, query, chunk_id] for far, query, chunk_id in below[:4]]
    assert facts["overlap"]["just_above"] == [[0.5 + far, query, chunk_id] for far, query, chunk_id in above[:4]]
    assert {each["compared"] for each in facts.values()} == {len(compared)}


def _neighbours(rows: list[list[tuple[int, int]]]) -> Neighbours:
    """Nones at the end, as a retriever gives them."""
    table = np.array([sorted(row, key=lambda pair: pair[0] < 0) for row in rows])
    return Neighbours((table[:, :, 1] / 4).astype(np.float32), table[:, :, 0])
