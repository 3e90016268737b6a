"""Tiling: whatever somebody else's boundaries leave out becomes masked pieces, each token once, none alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nextlong.errors import UserError
from nextlong.tiling import tile

Pairs = list[tuple[int, int]]


def _tile(pairs: Pairs, length: int) -> tuple[Pairs, Pairs]:
    tiled = tile(np.array(pairs, np.int64).reshape(-1, 2), length, "rows.parquet, row 3")
    assert tiled.pieces.dtype == np.int64
    assert tiled.pieces.shape[1] == 2
    return [(start, end) for start, end in tiled.pieces.tolist()], tiled.masked


@pytest.mark.parametrize(
    ("given_", "length", "pieces", "masked"),
    [
        ([(0, 8)], 8, [(0, 8)], []),
        ([(0, 3), (3, 8)], 8, [(0, 3), (3, 8)], []),
        ([(3, 8), (0, 3)], 8, [(0, 3), (3, 8)], []),  # in any order
        ([(2, 8)], 8, [(0, 2), (2, 8)], [(0, 2)]),  # before
        ([(0, 3), (5, 8)], 8, [(0, 3), (3, 5), (5, 8)], [(3, 5)]),  # between
        ([(0, 6)], 8, [(0, 6), (6, 8)], [(6, 8)]),  # after
        ([], 8, [(0, 8)], [(0, 8)]),
        ([(0, 3), (4, 8)], 8, [(0, 4), (4, 8)], [(3, 4)]),  # a gap of one token: masked once
        ([(0, 7)], 8, [(0, 8)], [(7, 8)]),
        ([(1, 8)], 8, [(0, 8)], [(0, 1)]),  # the first joins the one after
        ([(0, 3), (3, 4), (4, 8)], 8, [(0, 4), (4, 8)], [(3, 4)]),  # a piece of one token
        ([(0, 1), (1, 8)], 8, [(0, 8)], [(0, 1)]),
        ([(0, 1), (1, 2), (2, 8)], 8, [(0, 2), (2, 8)], [(0, 1), (1, 2)]),
        ([(0, 2), (2, 3), (3, 4), (4, 8)], 8, [(0, 4), (4, 8)], [(2, 3), (3, 4)]),
        ([(0, 12)], 8, [(0, 8)], []),  # truncated
        ([(0, 8), (8, 12)], 8, [(0, 8)], []),
        ([(0, 6), (6, 12)], 8, [(0, 6), (6, 8)], []),
        ([(0, 7), (7, 12)], 8, [(0, 8)], [(7, 8)]),  # one token is left of a piece
        ([(0, 4), (9, 12)], 8, [(0, 4), (4, 8)], [(4, 8)]),
        ([(9, 12)], 8, [(0, 8)], [(0, 8)]),
        ([(0, 5), (5, 5), (5, 8)], 8, [(0, 5), (5, 8)], []),  # pieces without a token hold nothing
        ([(5, 8), (0, 5), (7, 7), (0, 0)], 8, [(0, 5), (5, 8)], []),
    ],
)
def test_boundaries_by_hand(given_: Pairs, length: int, pieces: Pairs, masked: Pairs) -> None:
    assert _tile(given_, length) == (pieces, masked)


@pytest.mark.parametrize(
    ("given_", "piece"),
    [
        ([(0, 4), (3, 8)], r"1, \[3, 8\]"),
        ([(0, 8), (2, 4)], r"1, \[2, 4\]"),
        ([(2, 8), (0, 4)], r"0, \[2, 8\]"),  # the number is that of the order given
        ([(0, 4), (4, 4), (3, 8)], r"2, \[3, 8\]"),
        ([(0, 4), (0, 4)], r"1, \[0, 4\]"),
        ([(4, 0)], r"0, \[4, 0\]"),
        ([(-1, 4), (4, 8)], r"0, \[-1, 4\]"),
        ([(0, 8), (10, 14), (12, 16)], r"2, \[12, 16\]"),  # beyond what is kept, too
    ],
)
def test_what_overlaps_runs_backwards_or_begins_before_is_refused_with_file_row_and_piece(
    given_: Pairs, piece: str
) -> None:
    told = rf"^rows.parquet, row 3: the boundaries .* overlap, run backwards or begin before .* at piece {piece}\.$"
    with pytest.raises(UserError, match=told):
        _tile(given_, 8)


@st.composite
def _boundaries(draw: st.DrawFn) -> Pairs:
    places = sorted(draw(st.lists(st.integers(0, 40), max_size=16)))
    pairs = list(zip(places[::2], places[1::2], strict=False))
    return draw(st.permutations(pairs))


@given(_boundaries(), st.integers(2, 30))
def test_pieces_tile_none_is_of_one_token_and_each_token_is_masked_where_it_must_be(given_: Pairs, length: int) -> None:
    pieces, masked = _tile(given_, length)
    places = [place for start, end in pieces for place in range(start, end)]
    assert places == list(range(length))
    assert all(end - start >= 2 for start, end in pieces)
    kept = {place for start, end in given_ for place in range(start, min(end, length)) if min(end, length) - start > 1}
    dark = [place for start, end in masked for place in range(start, end)]
    assert dark == sorted(set(range(length)) - kept)  # each once, ascending


@given(_boundaries(), st.integers(2, 30))
def test_a_boundary_inside_the_sequence_stays_unless_a_token_alone_joins_across_it(given_: Pairs, length: int) -> None:
    pieces, masked = _tile(given_, length)
    alone = {place for start, end in masked if end - start == 1 for place in (start, end)}
    inside = {place for start, end in given_ if start != end for place in (start, end) if 0 < place < length}
    assert inside - alone <= {start for start, _ in pieces}
