"""Fitting: every token of every document once, in pieces of two tokens or more, in as few sequences as can be."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nextlong.errors import UserError
from nextlong.fitting import Fitting, Layout, boundaries, fit
from nextlong.sequences import Sequences
from tests import reference

LENGTHS = st.lists(st.integers(0, 70), max_size=30)
SEQUENCE = st.integers(4, 25)
AROUND = [0, 1, 2, 7, 8, 9, 17]
"""Of a sequence of 8 tokens: L - 1, L, L + 1 and 2 L + 1."""


def _fit(lengths: list[int], length: int, how: Fitting, seed: int = 0) -> Layout:
    return fit(np.array(lengths, np.int64), length, how, seed=seed)


def _rows(layout: Layout) -> list[list[reference.Piece]]:
    pieces = list(map(reference.Piece, *(each.tolist() for each in layout[:3])))
    return [pieces[first:last] for first, last in pairwise(layout.offsets.tolist())]


def _fills(layout: Layout) -> list[int]:
    return [sum(piece.length for piece in row) for row in _rows(layout)]


@pytest.mark.parametrize("how", ["best-fit", "concat"])
@given(lengths=LENGTHS, length=SEQUENCE, seed=st.integers(0, 3))
@example(lengths=AROUND, length=8, seed=0)
@example(lengths=[9] * 5, length=8, seed=0)
@example(lengths=[], length=8, seed=0)
@example(lengths=[0, 1, 1], length=8, seed=0)
@example(lengths=[10_001], length=4, seed=0)
@example(lengths=[3, 3, 3, 3, 5], length=4, seed=0)
def test_every_token_of_every_document_stands_once_in_a_piece_of_two_or_more(
    how: Fitting, lengths: list[int], length: int, seed: int
) -> None:
    layout = _fit(lengths, length, how, seed)
    assert all(each.dtype == np.int64 for each in layout)
    assert all(row for row in _rows(layout))
    assert all(2 <= fill <= length for fill in _fills(layout))
    assert layout.num_sequences == len(_rows(layout))
    pieces_of: dict[int, list[reference.Piece]] = {}
    for row in _rows(layout):
        for piece in row:
            assert piece.length >= 2
            pieces_of.setdefault(piece.document, []).append(piece)
    for document, tokens in enumerate(lengths):
        place = 0
        for piece in sorted(pieces_of.pop(document, [])):
            assert piece.start == place
            place += piece.length
        assert place == (tokens if tokens >= 2 else 0)
    assert not pieces_of


@given(LENGTHS, SEQUENCE, st.integers(0, 3))
@example(AROUND, 8, 1)
def test_best_fit_equals_its_slow_twin(lengths: list[int], length: int, seed: int) -> None:
    assert _rows(_fit(lengths, length, "best-fit", seed)) == reference.best_fit(lengths, length, seed)


def test_best_fit_of_many_documents_equals_its_slow_twin() -> None:
    lengths = np.random.default_rng(0).lognormal(4, 1.2, 300).astype(int).tolist()
    found = _rows(_fit(lengths, 200, "best-fit", 7))
    assert found == reference.best_fit(lengths, 200, 7)
    assert max(lengths) > 600
    assert len(found) > 100


@given(LENGTHS, SEQUENCE)
def test_best_fit_cuts_only_documents_longer_than_a_sequence_and_those_into_as_few_pieces_as_can_be(
    lengths: list[int], length: int
) -> None:
    pieces = np.bincount(_fit(lengths, length, "best-fit").documents, minlength=len(lengths)).tolist()
    assert pieces == [-(-tokens // length) if tokens >= 2 else 0 for tokens in lengths]


@given(LENGTHS, SEQUENCE)
def test_no_two_sequences_of_best_fit_fit_into_one(lengths: list[int], length: int) -> None:
    """So all but one are more than half full."""
    fills = sorted(_fills(_fit(lengths, length, "best-fit")))
    assert len(fills) < 2 or fills[0] + fills[1] > length


@pytest.mark.parametrize("seed", range(5))
def test_best_fit_pads_no_more_than_first_fit_and_at_most_a_few_percent(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lengths = np.minimum(rng.lognormal(6.5, 1.1, 2000).astype(np.int64) + 2, 8192)
    layout = fit(lengths, 8192, "best-fit", seed=seed)
    assert layout.num_sequences <= reference.first_fit(rng.permutation(lengths).tolist(), 8192)
    assert layout.num_sequences <= reference.first_fit(lengths.tolist(), 8192)
    assert 0 <= 1 - int(lengths.sum()) / (layout.num_sequences * 8192) < 0.01


def test_documents_that_fill_sequences_exactly_leave_no_padding() -> None:
    assert _fills(_fit([5, 3, 6, 2, 4, 4, 8], 8, "best-fit")) == [8, 8, 8, 8]


@given(LENGTHS, SEQUENCE)
@example([3, 3, 3, 3, 5], 4)
def test_concat_keeps_the_order_and_fills_all_sequences_but_the_last_to_within_two_tokens(
    lengths: list[int], length: int
) -> None:
    layout = _fit(lengths, length, "concat")
    order = list(zip(layout.documents.tolist(), layout.starts.tolist(), strict=True))
    assert order == sorted(order)
    rows = _rows(layout)
    for fill, row, after in zip(_fills(layout), rows, rows[1:], strict=False):
        assert length - fill <= 2
        if length - fill == 2:  # only where filling it would leave one token alone
            assert lengths[after[0].document] - after[0].start == 3
            assert row[-1].document != after[0].document


@given(LENGTHS, SEQUENCE, st.integers(0, 3))
def test_concat_takes_no_more_sequences_than_best_fit_but_for_tokens_alone(
    lengths: list[int], length: int, seed: int
) -> None:
    """Laid end to end, only two tokens of a sequence may be left: where that is nothing, no layout takes fewer."""
    concat, best = (_fit(lengths, length, how, seed) for how in ("concat", "best-fit"))
    total = sum(tokens for tokens in lengths if tokens >= 2)
    assert best.num_sequences >= -(-total // length)
    assert concat.num_sequences <= -(-total // (length - 2))


@given(LENGTHS, SEQUENCE)
@example(AROUND, 8)
def test_truncate_takes_the_beginning_of_every_document_that_fills_a_sequence(lengths: list[int], length: int) -> None:
    expected = [[(document, 0, length)] for document, tokens in enumerate(lengths) if tokens >= length]
    layout = _fit(lengths, length, "truncate")
    assert _rows(layout) == expected
    assert all(each.dtype == np.int64 for each in layout)


@pytest.mark.parametrize("how", ["best-fit", "concat", "truncate"])
@given(lengths=LENGTHS, length=SEQUENCE)
@example(lengths=AROUND, length=8)
@example(lengths=[7, 3], length=8)  # one token of padding, which joins a document
@example(lengths=[6], length=8)
@example(lengths=[], length=8)
def test_boundaries_tile_every_sequence_and_padding_is_its_last_piece(
    how: Fitting, lengths: list[int], length: int
) -> None:
    layout = _fit(lengths, length, how)
    indices, offsets = boundaries(layout, length)
    assert indices.dtype == offsets.dtype == np.int64
    ids = np.zeros((layout.num_sequences, length), np.uint32)
    Sequences(ids, indices, offsets, [""] * len(ids)).check("the layout")
    for row, pieces in enumerate(_rows(layout)):
        found = indices[offsets[row] : offsets[row + 1]]
        sizes = [piece.length for piece in pieces]
        padding = length - sum(sizes)
        if padding == 1:
            sizes[-1] += 1
        elif padding:
            sizes.append(padding)
        assert (found[:, 1] - found[:, 0]).tolist() == sizes


def test_the_seed_decides_the_order_of_sequences_and_nothing_else() -> None:
    lengths = np.random.default_rng(1).integers(2, 40, 200).tolist()
    layouts = [_fit(lengths, 32, "best-fit", seed) for seed in (0, 0, 1)]
    first, again, other = map(_rows, layouts)
    assert first == again
    assert first != other
    assert sorted(first) == sorted(other)
    for how in ("concat", "truncate"):
        assert _rows(_fit(lengths, 32, how, 0)) == _rows(_fit(lengths, 32, how, 1))


def test_sequences_of_best_fit_do_not_stand_in_the_order_of_their_size() -> None:
    lengths = np.arange(2, 202).tolist()
    firsts = [row[0].length for row in _rows(_fit(lengths, 200, "best-fit"))]
    assert len(firsts) > 50
    assert firsts != sorted(firsts)
    assert firsts != sorted(firsts, reverse=True)


@pytest.mark.parametrize("length", [-1, 0, 1, 2, 3])
def test_a_sequence_below_four_tokens_is_refused(length: int) -> None:
    with pytest.raises(UserError, match=f"a sequence of {length} tokens is too short .* at least 4"):
        _fit([8], length, "concat")


def test_a_seed_below_zero_is_refused() -> None:
    with pytest.raises(UserError, match="the seed is -1, but it must be 0 or above"):
        _fit([8], 8, "best-fit", -1)
