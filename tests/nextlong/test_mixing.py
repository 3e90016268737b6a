"""Mixing: at every prefix each folder gave its share, rounded down or up; no row more than there is."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nextlong.errors import UserError
from nextlong.mixing import mix, rows_within, shares_of
from tests import reference

PROPORTIONS = st.lists(st.integers(1, 1000), min_size=1, max_size=7)


def _assert_exact(shares: list[Fraction], num_rows: int) -> None:
    folders = mix(shares, num_rows)
    assert folders.dtype == np.int32
    assert len(folders) == num_rows
    for folder, share in enumerate(shares):
        given_ = np.cumsum(folders == folder).tolist()
        for number, count in enumerate(given_, 1):
            assert math.floor(share * number) <= count <= math.ceil(share * number), (folder, number)


@pytest.mark.parametrize(
    "proportions",
    [
        ["33.33", "66.67"],
        [33.33, 66.67],
        ["1", "1", "1"],
        ["0.5", "0.25", "0.125", "0.125"],
        ["1"],
        ["97", "1", "1", "1"],
        ["1", "1000"],
        ["1000", "1", "1000"],
        ["0.3", "0.3", "0.3", "0.1"],
        ["1/3", "1/7", "11/21"],
        ["0.0001", "0.9999"],
        [str(number) for number in range(1, 21)],
    ],
)
def test_at_every_prefix_a_folder_gave_its_share_rounded_down_or_up(proportions: list[str | float]) -> None:
    _assert_exact(shares_of(proportions), 3000)


@given(PROPORTIONS, st.integers(0, 400))
@example([1], 0)
@example([1, 1], 0)
def test_any_shares_are_exact_at_every_prefix(proportions: list[int], num_rows: int) -> None:
    _assert_exact(shares_of(proportions), num_rows)


@given(PROPORTIONS, st.integers(0, 120))
def test_mixing_equals_its_slow_twin(proportions: list[int], num_rows: int) -> None:
    shares = shares_of(proportions)
    assert mix(shares, num_rows).tolist() == reference.mixed(shares, num_rows)


@pytest.mark.parametrize("bits", [31, 40, 63, 200])
def test_denominators_whose_product_exceeds_64_bits_are_exact(bits: int) -> None:
    """1/p, 1/2 - 1/p, 1/q and 1/2 - 1/q: no denominator has many more bits than p, the common one has twice as many."""
    p, q = (1 << bits) + 1, (1 << bits) + 3
    shares = [Fraction(1, p), Fraction(1, 2) - Fraction(1, p), Fraction(1, q), Fraction(1, 2) - Fraction(1, q)]
    assert sum(shares) == 1
    _assert_exact(shares, 500)
    assert mix(shares, 60).tolist() == reference.mixed(shares, 60)


def test_the_order_begins_anew_when_all_folders_are_even() -> None:
    shares = shares_of(["0.3", "0.5", "0.2"])
    period = mix(shares, 10).tolist()
    assert np.bincount(period).tolist() == [3, 5, 2]
    assert mix(shares, 25).tolist() == (period * 3)[:25]
    assert reference.mixed(shares, 25) == (period * 3)[:25]


def test_a_longer_mixture_begins_as_a_shorter_one() -> None:
    shares = shares_of(["33.33", "66.67"])
    assert mix(shares, 20_000).tolist()[:123] == mix(shares, 123).tolist()


def test_one_folder_gives_every_row() -> None:
    assert mix([Fraction(1)], 5).tolist() == [0] * 5
    assert rows_within([Fraction(1)], [5]) == 5


@given(st.lists(st.tuples(st.integers(1, 60), st.integers(1, 40)), min_size=1, max_size=6))
def test_rows_within_are_as_many_as_there_can_be(folders: list[tuple[int, int]]) -> None:
    shares, available = shares_of([share for share, _ in folders]), [number for _, number in folders]
    most = rows_within(shares, available)
    counts = [np.bincount(mix(shares, rows), minlength=len(shares)) for rows in (most, most + 1)]
    assert (counts[0] <= available).all()
    assert (counts[1] > available).any()


def test_rows_within_of_a_folder_without_rows_end_where_it_would_give_one() -> None:
    shares = shares_of(["0.5", "0.5"])
    assert mix(shares, 2).tolist() == [0, 1]
    assert rows_within(shares, [3, 0]) == 1
    assert rows_within(shares, [0, 3]) == 0


def test_proportions_are_exact_shares_that_add_up_to_one() -> None:
    assert shares_of(["33.33", "66.67"]) == [Fraction(3333, 10000), Fraction(6667, 10000)]
    assert shares_of([0.1, 0.2]) == [Fraction(1, 3), Fraction(2, 3)]
    assert shares_of(["1e2", " 300 "]) == [Fraction(1, 4), Fraction(3, 4)]
    assert shares_of([Fraction(1, 3), "2/3"]) == [Fraction(1, 3), Fraction(2, 3)]
    assert shares_of([7]) == [1]


@pytest.mark.parametrize("wrong", ["half", "", "nan", "inf", "1/0", "50%"])
def test_what_is_no_number_is_refused(wrong: str) -> None:
    with pytest.raises(UserError, match=r"^proportions are 1, .*, but they must be numbers"):
        shares_of(["1", wrong])


@pytest.mark.parametrize("wrong", [["1", "0"], ["-1"], ["1", "-0.5"], []])
def test_what_is_not_above_zero_is_refused(wrong: list[str]) -> None:
    with pytest.raises(UserError, match="but each must be above 0"):
        shares_of(wrong)
