"""Budgets: the paper's formula by hand, and an exact budget that loses no meta-chunk."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nextlong.budgeting import (
    Allocation,
    ChunkFacts,
    allocate_exact,
    allocate_paper,
    negatives_per_chunk,
    num_candidates,
)
from nextlong.mining import Candidates


def _candidates(*ids: int) -> Candidates:
    return Candidates(
        -1, np.array(ids, np.int64), np.linspace(0.9, 0.1, len(ids)).astype(np.float32), np.arange(len(ids))
    )


def _each(function: Callable[[int], int]) -> Callable[[Any], Any]:
    return lambda chunk_ids: np.array([function(chunk) for chunk in chunk_ids.tolist()], np.int64)


def _exact(
    meta: int, candidates: list[Candidates], tokens: dict[int, int], target: int, ratio: float = 1.0
) -> Allocation:
    return allocate_exact(
        meta,
        candidates,
        facts=ChunkFacts(_each(tokens.__getitem__), _each(lambda chunk: chunk)),
        target_length_tokens=target,
        max_meta_ratio=ratio,
    )


def _taken(allocation: Allocation) -> list[list[tuple[int, int]]]:
    negatives = allocation.negatives
    pairs = list(zip(negatives.chunk_ids.tolist(), negatives.num_tokens.tolist(), strict=True))
    ends = np.cumsum(negatives.counts).tolist()
    return [pairs[first:last] for first, last in zip([0, *ends], ends, strict=False)]


@pytest.mark.parametrize(
    ("target", "chars", "num_chunks", "k"),
    [
        (131072, 8000, 4, 105),  # (131072 * 4.43 * 1.5 - 8000) / (4 * 2048) = 105.34...
        (65536, 4096, 2, 105),  # (435486.72 - 4096) / 4096 = 105.3...
        (1000, 100_000, 50, 0),  # the document alone is beyond the target
    ],
)
def test_the_papers_k_by_hand(target: int, chars: int, num_chunks: int, k: int) -> None:
    assert k == negatives_per_chunk(
        target_length_tokens=target,
        chars_per_token=4.43,
        overshoot_ratio=1.5,
        meta_chars=chars,
        num_meta_chunks=num_chunks,
        granularity_chars=2048,
    )


def test_candidates_are_512_or_twice_the_negatives() -> None:
    assert num_candidates("auto", 100) == 512
    assert num_candidates("auto", 400) == 800
    assert num_candidates(50, 400) == 50


def test_each_meta_chunk_fills_its_share_and_shortens_only_its_last_negative() -> None:
    allocation = _exact(40, [_candidates(1, 2, 3), _candidates(2, 4, 5)], dict.fromkeys(range(6), 25), 100)
    assert _taken(allocation) == [[(1, 25), (2, 5)], [(4, 25), (5, 5)]]
    assert allocation.outcome == "kept"
    assert allocation.skipped == {"already_used": 1}
    assert allocation.negatives.ranks.tolist() == [0, 1, 1, 2]


def test_what_one_cannot_use_passes_to_the_next_then_back_to_the_first() -> None:
    tokens = dict.fromkeys(range(9), 10)
    forward = _exact(10, [_candidates(1), _candidates(2, 3, 4, 5)], tokens, 60)
    assert _taken(forward) == [[(1, 10)], [(2, 10), (3, 10), (4, 10), (5, 10)]]
    back = _exact(10, [_candidates(1, 2, 3), _candidates(4)], tokens, 45)
    assert _taken(back) == [[(1, 10), (2, 10), (3, 5)], [(4, 10)]]


def test_a_document_that_cannot_reach_the_target_says_how_far_it_could() -> None:
    allocation = _exact(10, [_candidates(1), _candidates(1, 2)], {1: 10, 2: 10}, 60)
    assert (allocation.outcome, allocation.num_tokens) == ("too_short", 30)


def test_a_meta_document_above_its_ratio_is_too_long() -> None:
    assert _exact(51, [_candidates(1)], {1: 100}, 100, 0.5).outcome == "meta_too_long"
    assert _exact(50, [_candidates(1)], {1: 100}, 100, 0.5).outcome == "kept"


def test_a_copy_of_a_negative_does_not_enter_twice() -> None:
    allocation = allocate_exact(
        0,
        [_candidates(1, 2, 3)],
        facts=ChunkFacts(_each(lambda _: 10), _each({1: 7, 2: 7, 3: 8}.__getitem__)),
        target_length_tokens=20,
        max_meta_ratio=1.0,
    )
    assert _taken(allocation) == [[(1, 10), (3, 10)]]
    assert allocation.skipped == {"copy_in_document": 1}


@given(
    st.integers(1, 6),
    st.lists(st.integers(0, 30), min_size=1, max_size=30),
    st.integers(1, 300),
    st.randoms(use_true_random=False),
)
def test_an_exact_budget_is_met_exactly_or_nothing_more_was_there(
    num_chunks: int, lengths: list[int], room: int, rng
) -> None:  # type: ignore[no-untyped-def]
    tokens = dict(enumerate(lengths))
    candidates = [_candidates(*rng.sample(sorted(tokens), rng.randint(0, len(tokens)))) for _ in range(num_chunks)]
    allocation = _exact(5 * num_chunks, candidates, tokens, 5 * num_chunks + room)
    taken = [pair for pairs in _taken(allocation) for pair in pairs]
    assert len(dict(taken)) == len(taken)
    assert sum(number for _, number in taken) + 5 * num_chunks == allocation.num_tokens
    ranks = iter(allocation.negatives.ranks.tolist())
    for pairs, offered_to in zip(_taken(allocation), candidates, strict=True):
        assert all(number == tokens[chunk] for chunk, number in pairs[:-1])
        own = [next(ranks) for _ in pairs]
        assert own == sorted(own)
        assert offered_to.ids[own].tolist() == [chunk for chunk, _ in pairs]
    if allocation.outcome == "kept":
        assert allocation.num_tokens == 5 * num_chunks + room
    else:
        offered = {chunk for each in candidates for chunk in each.ids.tolist()}
        assert allocation.num_tokens == 5 * num_chunks + sum(tokens[chunk] for chunk in offered)


def test_the_papers_budget_takes_k_each_and_drops_what_falls_short() -> None:
    def paper(target: int) -> Allocation:
        return allocate_paper(
            20,
            [_candidates(1, 2, 3), _candidates(2, 3, 4)],
            2,
            facts=ChunkFacts(_each(lambda _: 10), _each(lambda chunk: chunk)),
            target_length_tokens=target,
        )

    assert _taken(paper(60)) == [[(1, 10), (2, 10)], [(3, 10), (4, 10)]]
    assert (paper(60).outcome, paper(60).num_tokens) == ("kept", 60)
    assert paper(61).outcome == "too_short"
