"""Sequences: what is wrong with them is told with its row; blocks, rows and shards of them lose nothing."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nextlong.errors import UserError
from nextlong.sequences import Sequences, Shapes, concatenate, ranges, regroup, spans
from tests.nextlong.shards.made import assert_equal, blocks_of, made


def _changed(sequences: Sequences, row: int, piece: int, pair: list[int]) -> Sequences:
    indices = sequences.indices.copy()
    indices[sequences.offsets[row] + piece] = pair
    return dataclasses.replace(sequences, indices=indices)


def _of(pieces: list[list[list[int]]], length: int = 8, **others: Any) -> Sequences:
    flat = np.array([pair for row in pieces for pair in row], np.int64).reshape(-1, 2)
    ids = np.arange(len(pieces) * length, dtype=np.uint32).reshape(len(pieces), length)
    return Sequences(ids, flat, np.cumsum([0, *map(len, pieces)]), ["a"] * len(pieces), **others)


GOOD = [[[0, 8]], [[0, 3], [3, 8]], [[0, 2], [2, 4], [4, 6], [6, 8]]]


def test_what_tiles_is_right() -> None:
    _of(GOOD).check("here")
    _of(GOOD, mask=np.ones((3, 8), np.uint8)).check("here", vocab_size=24)
    made(50, has_mask=True).check("here", vocab_size=97)
    made(1, 4).check("here")
    made(3).rows(1, 1).check("here", vocab_size=1)


@pytest.mark.parametrize(
    ("row", "piece", "pair"),
    [
        (0, 0, [0, 7]),  # ends before the sequence
        (0, 0, [0, 9]),
        (0, 0, [1, 8]),  # begins after it
        (0, 0, [8, 0]),
        (1, 0, [0, 2]),  # a gap
        (1, 0, [0, 4]),  # an overlap
        (1, 1, [3, 3]),
        (2, 3, [6, 7]),
        (2, 0, [-2, 2]),
        (2, 1, [2, 3]),  # one token alone
        (2, 2, [4, 1 << 40]),
    ],
)
def test_boundaries_that_do_not_tile_are_told_with_row_and_piece(row: int, piece: int, pair: list[int]) -> None:
    broken = _changed(_of(GOOD), row, piece, pair)
    with pytest.raises(UserError, match=rf"^here, row {10 + row}: the boundaries do not tile \[0, 8\) in pieces of at"):
        broken.check("here", first_row=10)
    with pytest.raises(UserError, match=r"; piece \d is \[-?\d+, \d+\]\.$"):
        broken.check("here")


def test_the_piece_told_is_the_first_wrong_one() -> None:
    with pytest.raises(UserError, match=r"row 2: .* piece 1 is \[2, 3\]"):
        _changed(_of(GOOD), 2, 1, [2, 3]).check("here")


def test_one_token_alone_does_not_tile_though_nothing_is_left_out() -> None:
    with pytest.raises(UserError, match=r"row 1: .* piece 0 is \[0, 1\]"):
        _of([[[0, 8]], [[0, 1], [1, 8]]]).check("here")


def test_a_sequence_without_boundaries_is_told_with_its_row() -> None:
    with pytest.raises(UserError, match=r"^here, row 4: there are no boundaries \(indices\)"):
        _of([[[0, 8]], [], [[0, 8]]]).check("here", first_row=3)
    with pytest.raises(UserError, match="row 1: there are no boundaries"):
        _of([[[0, 8]], []]).check("here")


def test_an_id_beyond_the_vocabulary_is_told_with_row_and_place() -> None:
    with pytest.raises(UserError, match=r"^here, row 102: token 7 has the id 23, but the vocabulary has 23\."):
        _of(GOOD).check("here", vocab_size=23, first_row=100)
    _of(GOOD).check("here", vocab_size=1 << 40)


def test_a_mask_of_other_numbers_or_another_length_is_told_with_its_row() -> None:
    mask = np.ones((3, 8), np.uint8)
    mask[1, 4] = 2
    with pytest.raises(UserError, match=r"^here, row 6: the mask holds other numbers than 0 and 1"):
        _of(GOOD, mask=mask).check("here", first_row=5)
    with pytest.raises(UserError, match=r"^here, row 5: the mask has 7 entries for 8 tokens"):
        _of(GOOD, mask=mask[:, :7] % 2).check("here", first_row=5)


@given(st.integers(1, 9), st.integers(0, 8), st.integers(0, 9), st.booleans())
def test_rows_are_views_with_their_own_pieces(number: int, start: int, more: int, has_mask: bool) -> None:
    sequences = made(number, has_mask=has_mask)
    start = min(start, number - 1)
    stop = min(number, start + more)
    part = sequences.rows(start, stop)
    assert len(part) == stop - start
    assert part.length_tokens == 16
    assert part.input_ids.base is not None
    for row in range(len(part)):
        np.testing.assert_array_equal(part.pieces(row), sequences.pieces(start + row))
    part.check("part", vocab_size=97)


@given(st.integers(1, 12), st.integers(1, 5), st.integers(1, 5), st.booleans())
def test_blocks_of_any_size_are_regrouped_without_loss(number: int, given_: int, wanted: int, has_mask: bool) -> None:
    sequences = made(number, has_mask=has_mask)
    found = list(regroup(blocks_of(sequences, given_), wanted))
    assert [len(block) for block in found] == [stop - start for start, stop in ranges(number, wanted)]
    assert_equal(concatenate(found), sequences)


def test_regrouping_copies_no_block_that_fits() -> None:
    sequences = made(8)
    assert all(np.shares_memory(block.input_ids, sequences.input_ids) for block in regroup([sequences], 2))
    assert list(regroup([], 3)) == []


def test_a_block_without_a_mask_beside_one_with_a_mask_has_targets_only() -> None:
    with_mask, without = made(2, has_mask=True), made(3, seed=1)
    assert with_mask.mask is not None
    for blocks in ([with_mask, without], [without, with_mask]):
        found = concatenate(blocks)
        masks = [np.ones((3, 16), np.uint8) if each is without else with_mask.mask for each in blocks]
        assert_equal(
            dataclasses.replace(found, mask=None), concatenate([dataclasses.replace(b, mask=None) for b in blocks])
        )
        np.testing.assert_array_equal(found.mask, np.concatenate(masks))


def test_sequences_of_several_lengths_are_not_concatenated() -> None:
    with pytest.raises(UserError, match="sequences of 16 and of 32 tokens stand in one folder"):
        concatenate([made(2), made(1, 32)])


def test_ranges_cover_every_row_once() -> None:
    assert list(ranges(7, 3)) == [(0, 3), (3, 6), (6, 7)]
    assert list(ranges(6, 3)) == [(0, 3), (3, 6)]
    assert list(ranges(0, 3)) == []


@given(st.lists(st.integers(0, 4), max_size=6), st.data())
def test_spans_give_every_row_asked_for_once_and_in_order(counts: list[int], data: st.DataObject) -> None:
    firsts, total = np.cumsum([0, *counts]), sum(counts)
    start = data.draw(st.integers(0, total))
    stop = data.draw(st.integers(start, total))
    if start == stop:
        with pytest.raises(UserError, match=f"the folder has {total} sequences, so none are {start} to {stop - 1}"):
            list(spans(firsts, start, stop, "the folder"))
        return
    found = list(spans(firsts, start, stop, "the folder"))
    rows = [int(firsts[number]) + row for number, first, last in found for row in range(first, last)]
    assert rows == list(range(start, stop))
    assert all(0 <= first < last <= counts[number] for number, first, last in found)


def test_shapes_count_pieces_and_bytes_of_labels() -> None:
    sequences = dataclasses.replace(_of(GOOD), domains=["", "märkte", "表"])
    shapes = Shapes.of(sequences)
    assert (shapes.length_tokens, shapes.has_mask, len(shapes)) == (8, False, 3)
    assert shapes.num_pieces.tolist() == [1, 2, 4]
    assert shapes.domain_bytes.tolist() == [0, 7, 3]
    part = shapes.rows(1, 3)
    assert (part.num_pieces.tolist(), part.domain_bytes.tolist(), part.length_tokens) == ([2, 4], [7, 3], 8)


def test_blocks_of_the_shapes_told_pass() -> None:
    sequences = made(7, has_mask=True)
    for rows_each in (1, 3, 7):
        assert_equal(concatenate(list(Shapes.of(sequences).checked(blocks_of(sequences, rows_each)))), sequences)
    assert list(Shapes.of(made(3).rows(1, 1)).checked([])) == []


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda each: dataclasses.replace(each, domains=[*each.domains[:-1], "another"]), "sequence 5 of a shard of 6"),
        (lambda each: dataclasses.replace(each, mask=None), "sequence 0 of a shard of 6"),
        (lambda each: concatenate([each, each]), "sequence 6 of a shard of 6"),
        (lambda each: concatenate([each.rows(0, 4), each.rows(0, 2)]), "sequence 4 of a shard of 6"),
        (lambda each: made(6, 32, has_mask=True), "sequence 0 of a shard of 6"),
        (lambda each: each.rows(0, 5), "a shard ends after 5 of its 6 sequences"),
        (lambda each: each.rows(0, 0), "a shard ends after 0 of its 6 sequences"),
    ],
)
@pytest.mark.parametrize("rows_each", [2, 20])
def test_blocks_of_other_shapes_are_told(change: Callable[[Sequences], Sequences], told: str, rows_each: int) -> None:
    sequences = dataclasses.replace(made(6, has_mask=True), domains=[str(10**row) for row in range(6)])
    with pytest.raises(UserError, match=f"{told}.* Was the input changed meanwhile"):
        list(Shapes.of(sequences).checked(blocks_of(change(sequences), rows_each)))
