"""Mining: exact scores, one order, and rules that are all counted."""

import numpy as np
import pytest

from nextlong.accounting import Account
from nextlong.indexing import Index, Neighbours, add, new_index
from nextlong.mining import MetaDocument, apply_rules, mine, rescore

RNG = np.random.default_rng(1)
VECTORS = RNG.standard_normal((400, 12))
VECTORS = (VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True)).astype(np.float16)
VECTORS[300] = VECTORS[5]  # an exact copy of chunk 5
VECTORS[301] = VECTORS[5] + np.float16(0.01)
HASHES = np.arange(400, dtype=np.uint64)
HASHES[300] = HASHES[5]


def _search(queries: np.ndarray, top_k: int) -> Neighbours:
    index = new_index("Flat", 12)
    add(index, VECTORS, 0)
    return Index([index], {"factory": "Flat"}).search(queries, top_k)


def _mine(documents: list[MetaDocument], threshold: float | None = 0.95):  # type: ignore[no-untyped-def]
    return mine(
        documents,
        search=_search,
        fetch_vectors=lambda ids: VECTORS[ids],
        fetch_hashes=lambda ids: HASHES[ids],
        near_duplicate_similarity=threshold,
    )


def test_scores_are_exact_products_of_stored_vectors_in_one_order() -> None:
    proposed = RNG.integers(0, 400, (5, 30))
    proposed[:, -1] = -1
    found = rescore(VECTORS[:5], proposed, lambda ids: VECTORS[ids])
    for query, (scores, ids) in enumerate(zip(*found, strict=True)):
        pairs = [
            (round(sum(float(a) * float(b) for a, b in zip(VECTORS[query], VECTORS[i], strict=True)), 6), -i)
            for i in proposed[query]
            if i >= 0
        ]
        assert [(float(np.float32(score)), -i) for score, i in sorted(pairs, reverse=True)] == list(
            zip(scores[:-1].tolist(), ids[:-1].tolist(), strict=True)
        )
        assert ids[-1] == -1


def test_rules_are_applied_in_order_and_counted() -> None:
    account = Account()
    ids, scores = apply_rules(
        np.array([1.0, 1.0, 0.99, 0.9, 0.8, 0.7, 0.6], np.float32),
        np.array([4, 300, 301, 7, 5, 9, 10]),
        np.array([40, 50, 60, 70, 50, 90, 100], np.uint64),
        MetaDocument(0, 4, 2, 4),
        np.array([40, 50], np.uint64),
        0.95,
        account,
    )
    assert ids.tolist() == [7, 9]
    assert scores.tolist() == pytest.approx([0.9, 0.7])
    assert account.to_dict()["candidates"] == {
        "read": 6,
        "kept": 2,
        "dropped": {"own_document": 2, "exact_copy": 1, "near_duplicate": 1},
    }


def test_candidates_are_of_other_documents_without_copies_and_near_duplicates() -> None:
    mined, account = _mine([MetaDocument(0, 4, 3, 20)])
    assert [each.chunk_id for each in mined] == [4, 5, 6]
    for each in mined:
        assert not {4, 5, 6, 300, 301} & set(each.ids.tolist()) or each.chunk_id != 5
        assert not {4, 5, 6, 300} & set(each.ids.tolist())
        assert 0 < len(each.ids) <= 20
    account.check("mine")
    assert account.counts["candidates"].dropped["near_duplicate"] >= 1
    assert account.counts["candidates"].dropped["exact_copy"] >= 1


def test_without_a_threshold_near_duplicates_stay() -> None:
    mined, account = _mine([MetaDocument(0, 4, 3, 20)], None)
    assert mined[1].ids[0] == 301
    assert account.counts["candidates"].dropped["near_duplicate"] == 0


def test_a_document_is_mined_alike_alone_and_in_company() -> None:
    documents = [
        MetaDocument(0, 0, 4, 16),
        MetaDocument(1, 20, 1, 60),
        MetaDocument(2, 30, 9, 16),
        MetaDocument(3, 90, 2, 200),
    ]
    together, _ = _mine(documents)
    alone = [each for document in documents for each in _mine([document])[0]]
    assert len(together) == 16
    for one, other in zip(together, alone, strict=True):
        assert (one.chunk_id, one.ids.tolist(), one.scores.tolist()) == (
            other.chunk_id,
            other.ids.tolist(),
            other.scores.tolist(),
        )


def test_a_corpus_of_one_document_has_no_candidates() -> None:
    mined, account = _mine([MetaDocument(0, 0, 400, 512)])
    assert all(len(each.ids) == 0 for each in mined)
    assert account.counts["candidates"].kept == 0
