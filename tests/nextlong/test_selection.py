"""Selection: which candidates a meta-chunk may take, in which order; a candidate keeps its rank and score."""

from collections import Counter

import numpy as np
import pytest

from nextlong.config import Synthesis
from nextlong.mining import Candidates
from nextlong.selection import repeats, select

RANKED = [(40, 0.9, 0), (10, 0.8, 1), (30, 0.7, 2), (20, 0.6, 3), (50, 0.5, 4)]  # id, score, rank


def mined(rows: list[tuple[int, float, int]] = RANKED, chunk_id: int = 7) -> Candidates:
    ids, scores, ranks = zip(*rows, strict=True)
    return Candidates(chunk_id, np.array(ids), np.array(scores, np.float32), np.array(ranks))


def rows(found: Candidates) -> list[tuple[int, float, int]]:
    """(id, score, rank) in order; scores to one decimal."""
    scores = [round(score, 1) for score in found.scores.tolist()]
    return list(zip(found.ids.tolist(), scores, found.ranks.tolist(), strict=True))


def selected(negatives: str, skip_top: int = 0, seed: int = 0, **given: object) -> Candidates:
    return select(mined(**given), Synthesis(target_length_tokens=1, negatives=negatives, skip_top=skip_top, seed=seed))


@pytest.mark.parametrize(
    ("negatives", "skip_top", "expected"),
    [
        ("top", 0, RANKED),
        ("top", 2, RANKED[2:]),
        ("top", 4, [(50, 0.5, 4)]),
        ("top", 5, []),
        ("top", 9, []),
        ("tail", 0, [(50, 0.5, 4), (20, 0.6, 3), (30, 0.7, 2), (10, 0.8, 1), (40, 0.9, 0)]),
        ("tail", 2, [(50, 0.5, 4), (20, 0.6, 3), (30, 0.7, 2)]),
        ("tail", 9, []),
        ("random", 0, RANKED),
        ("random_candidates", 9, []),
    ],
)
def test_the_order_by_hand(negatives: str, skip_top: int, expected: list[tuple[int, float, int]]) -> None:
    found = selected(negatives, skip_top)
    assert found.chunk_id == 7
    assert rows(found) == expected


@pytest.mark.parametrize("negatives", ["top", "tail", "random_candidates"])
def test_ranks_are_those_of_mining_not_places(negatives: str) -> None:
    """Whoever mined them may have left ranks out: skip_top counts candidates, and ranks are carried along."""
    gaps = [(4, 0.9, 1), (5, 0.8, 6), (6, 0.7, 9)]
    assert sorted(rows(selected(negatives, 1, rows=gaps))) == gaps[1:]


@pytest.mark.parametrize("skip_top", [0, 2])
def test_random_candidates_come_in_every_order_equally_often(skip_top: int) -> None:
    orders = Counter(
        tuple(rows(selected("random_candidates", skip_top, seed, rows=RANKED[-3 - skip_top :]))) for seed in range(600)
    )
    assert len(orders) == 6
    assert all(sorted(order, key=lambda row: row[2]) == RANKED[2:] for order in orders)
    assert 60 < min(orders.values()) < max(orders.values()) < 140  # 100 expected, four deviations of 9.1


def test_a_random_order_depends_on_seed_and_meta_chunk_alone() -> None:
    many = [(chunk_id, 0.5, chunk_id) for chunk_id in range(30)]
    orders = {
        (seed, chunk_id): selected("random_candidates", seed=seed, rows=many, chunk_id=chunk_id).ids.tolist()
        for seed in range(4)
        for chunk_id in range(5)
    }
    assert len({tuple(order) for order in orders.values()}) == 20
    assert orders[3, 4] == selected("random_candidates", seed=3, rows=many, chunk_id=4).ids.tolist()


@pytest.mark.parametrize("negatives", ["top", "tail", "random", "random_candidates"])
def test_what_was_mined_is_left_as_it_is(negatives: str) -> None:
    given = mined()
    select(given, Synthesis(target_length_tokens=1, negatives=negatives))
    assert rows(given) == RANKED


@pytest.mark.parametrize("negatives", ["top", "tail", "random", "random_candidates"])
def test_no_candidates_stay_none(negatives: str) -> None:
    none = Candidates(7, np.empty(0, np.int64), np.empty(0, np.float32), np.empty(0, np.int64))
    assert rows(select(none, Synthesis(target_length_tokens=1, negatives=negatives))) == []


@pytest.mark.parametrize("number", [0, 1, 3])
def test_repeats_are_the_meta_chunk_without_a_score(number: int) -> None:
    found = repeats(5, number)
    assert found.chunk_id == 5
    assert found.ids.tolist() == [5] * number
    assert found.ranks.tolist() == list(range(number))
    assert found.scores.dtype == np.float32
    assert len(found.scores) == np.isnan(found.scores).sum() == number
