"""Long documents: the meta-chunk stands where it should, the segments tile the target."""

from collections import Counter
from typing import Literal

import pytest

from nextlong.budgeting import Allocation, Negative
from nextlong.interleaving import Segment, interleave

NEGATIVES = [[Negative(10, 0, 0.9, 5), Negative(11, 2, 0.8, 3)], [Negative(12, 1, 0.7, 4)]]


def _interleave(position: Literal["head", "tail", "random"], target: int = 32, seed: int = 0) -> list[Segment]:
    return interleave(
        [1, 2],
        [10, 10],
        Allocation(NEGATIVES, 32, "kept", Counter()),
        target_length_tokens=target,
        position=position,
        seed=[seed, 2, 7],
    )


def test_head_puts_the_meta_chunk_before_its_negatives() -> None:
    segments = _interleave("head")
    assert [(each.chunk_id, each.start, each.end) for each in segments] == [
        (1, 0, 10), (10, 10, 15), (11, 15, 18), (2, 18, 28), (12, 28, 32),
    ]  # fmt: skip
    assert [(each.role, each.rank, each.score) for each in segments[:2]] == [("meta", -1, None), ("negative", 0, 0.9)]


def test_tail_puts_it_after_them() -> None:
    assert [each.chunk_id for each in _interleave("tail")] == [10, 11, 1, 12, 2]


def test_random_draws_a_place_by_seed_and_keeps_the_negatives_in_order() -> None:
    orders = {tuple(each.chunk_id for each in _interleave("random", seed=seed)) for seed in range(40)}
    assert len(orders) == 6  # three places in the first extended chunk, two in the second
    assert _interleave("random", seed=3) == _interleave("random", seed=3)
    assert all(order.index(10) < order.index(11) for order in orders)


@pytest.mark.parametrize("target", [1, 10, 11, 17, 32])
def test_the_segments_tile_the_target_whatever_is_cut(target: int) -> None:
    segments = _interleave("head", target)
    assert [each.start for each in segments] == [0, *[each.end for each in segments[:-1]]]
    assert segments[-1].end == target
    assert all(each.end > each.start for each in segments)
