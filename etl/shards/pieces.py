"""Rows that hold several documents in; the documents out, by the boundaries that stand with them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from etl.shards.token_columns import Rows
from nextlong.errors import UserError


def check_boundaries(rows: Rows, file: str, first_row: int) -> Rows:
    """The rows with the boundaries of each in ascending order.

    Raises UserError, with file and row, for boundaries that overlap, run backwards or leave their row.
    """
    if rows.pieces is None:
        return rows
    pieces = [each[np.lexsort((each[:, 1], each[:, 0]))] for each in rows.pieces]
    flat, owner = _flat(pieces)
    wrong = (flat[:, 0] < 0) | (flat[:, 1] > rows.lengths[owner]) | (flat[:, 1] < flat[:, 0])
    wrong[1:] |= (flat[1:, 0] < flat[:-1, 1]) & (owner[1:] == owner[:-1])
    if wrong.any():
        place = int(np.argmax(wrong))
        row = first_row + int(rows.documents["position"][int(owner[place])].as_py())
        raise UserError(
            f"{file}, row {row} (from 0): its boundaries (indices) overlap, run backwards or leave the row of "
            f"{rows.lengths[owner[place]]} tokens at [{flat[place, 0]}, {flat[place, 1]}]."
        )
    return rows._replace(pieces=pieces)


def split_at_boundaries(rows: Rows, file: str, first_row: int) -> Rows:
    """Every piece as a document of its own; token ids outside all boundaries are left out and counted.

    Raises UserError as `check_boundaries` does.
    """
    rows = check_boundaries(rows, file, first_row)
    if rows.pieces is None:
        return rows
    flat, owner = _flat(rows.pieces)
    lengths = flat[:, 1] - flat[:, 0]
    firsts = np.cumsum(rows.lengths) - rows.lengths
    is_whole = int(lengths.sum()) == int(rows.lengths.sum())
    spans = [slice(first, last) for first, last in (flat + firsts[owner, None]).tolist()]
    return rows._replace(
        ids=rows.ids if is_whole or rows.file else _parts(rows.ids, spans),
        mask=rows.mask if is_whole or rows.mask is None else _parts(rows.mask, spans),
        lengths=lengths,
        documents=rows.documents.take(owner),
        pieces=None,
        num_outside=int(rows.lengths.sum() - lengths.sum()),
        begins=None if rows.begins is None else rows.begins[owner] + 4 * flat[:, 0],
    )


def without_masked(rows: Rows) -> Rows:
    """Without the documents that hold no target, such as the padding of sequences; their tokens are counted."""
    if rows.mask is None or not len(rows.lengths):
        return rows
    firsts = np.cumsum(rows.lengths) - rows.lengths
    targets = np.concatenate([[0], np.cumsum(rows.mask, dtype=np.int64)])
    kept = targets[firsts + rows.lengths] > targets[firsts]
    if kept.all():
        return rows
    is_kept = np.repeat(kept, rows.lengths)
    return rows._replace(
        ids=rows.ids if rows.file else rows.ids[is_kept],
        mask=rows.mask[is_kept],
        lengths=rows.lengths[kept],
        documents=rows.documents.filter(kept),
        num_masked=int((~is_kept).sum()),
        begins=None if rows.begins is None else rows.begins[kept],
    )


def _flat(pieces: list[NDArray[np.int64]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(boundaries int64 [n, 2], row of each) of all rows."""
    owner = np.repeat(np.arange(len(pieces)), [len(each) for each in pieces])
    return np.concatenate([np.empty((0, 2), np.int64), *pieces]), owner


def _parts(array: NDArray[Any], spans: list[slice]) -> NDArray[Any]:
    return np.concatenate([array[:0], *[array[span] for span in spans]])
