"""Long documents: the meta-chunk stands where it should, the segments tile the target."""

from collections import Counter
from typing import Literal

import numpy as np
import pytest

from nextlong.budgeting import Allocation, Negatives
from nextlong.interleaving import ROLES, Segments, interleave

NEGATIVES = Negatives(
    chunk_ids=np.array([10, 11, 12]),
    ranks=np.array([0, 2, 1]),
    scores=np.array([0.5, 0.25, 0.125], np.float32),
    num_tokens=np.array([5, 3, 4]),
    counts=np.array([2, 1]),
)


def _interleave(position: Literal["head", "tail", "random"], target: int = 32, seed: int = 0) -> Segments:
    return interleave(
        np.array([1, 2]),
        np.array([10, 10]),
        Allocation(NEGATIVES, 32, "kept", Counter()),
        target_length_tokens=target,
        position=position,
        seed=[seed, 2, 7],
    )


def test_head_puts_the_meta_chunk_before_its_negatives() -> None:
    segments = _interleave("head")
    assert list(zip(segments.chunk_ids.tolist(), segments.starts.tolist(), segments.ends.tolist(), strict=True)) == [
        (1, 0, 10), (10, 10, 15), (11, 15, 18), (2, 18, 28), (12, 28, 32),
    ]  # fmt: skip
    assert [ROLES[role] for role in segments.roles] == ["meta", "negative", "negative", "meta", "negative"]
    assert segments.ranks.tolist() == [-1, 0, 2, -1, 1]
    np.testing.assert_array_equal(segments.scores, np.array([np.nan, 0.5, 0.25, np.nan, 0.125], np.float32))


def test_tail_puts_it_after_them() -> None:
    assert _interleave("tail").chunk_ids.tolist() == [10, 11, 1, 12, 2]


def test_random_draws_a_place_by_seed_and_keeps_the_negatives_in_order() -> None:
    orders = {tuple(_interleave("random", seed=seed).chunk_ids.tolist()) for seed in range(40)}
    assert len(orders) == 6  # three places in the first extended chunk, two in the second
    assert _interleave("random", seed=3).chunk_ids.tolist() == _interleave("random", seed=3).chunk_ids.tolist()
    assert all(order.index(10) < order.index(11) for order in orders)


@pytest.mark.parametrize("target", [1, 10, 11, 17, 32])
def test_the_segments_tile_the_target_whatever_is_cut(target: int) -> None:
    segments = _interleave("head", target)
    starts, ends = segments.starts.tolist(), segments.ends.tolist()
    assert starts == [0, *ends[:-1]]
    assert ends[-1] == target
    assert all(end > start for start, end in zip(starts, ends, strict=True))
