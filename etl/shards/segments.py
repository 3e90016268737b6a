"""Provenance in; what cannot be in it, out: segments tile their sequence, and name documents that are known."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

_MAY_BE_NULL = ("score",)


def fault_of(rows: pa.Table, first_row: int, length_tokens: int, doc_ids: NDArray[np.int64]) -> str | None:
    """What is wrong with some rows of ROWS, as the end of a sentence; None: nothing.

    doc_ids: int64, ascending, of the documents that may be named.
    """
    if not np.array_equal(rows["row"].to_numpy(), np.arange(first_row, first_row + len(rows))):
        return f"rows {first_row} to {first_row + len(rows) - 1}: their provenance is of other rows."
    segments = rows["segments"].combine_chunks()
    counts = pc.list_value_length(segments).to_numpy()
    flat = segments.flatten()
    owner = np.repeat(np.arange(len(rows)), counts)
    if not counts.all():
        return f"row {first_row + int(np.argmin(counts))}: its provenance has no segment."
    columns = [flat.field(field.name) for field in flat.type if field.name not in _MAY_BE_NULL]
    if flat.null_count or any(column.null_count for column in columns):
        return f"rows {first_row} to {first_row + len(rows) - 1}: their segments have nulls."
    starts, ends = flat.field("start").to_numpy(), flat.field("end").to_numpy()
    last = np.cumsum(counts) - 1
    expected = np.concatenate([[0], ends[:-1]])
    expected[last - counts + 1] = 0
    wrong = (starts != expected) | (ends <= starts)
    wrong[last] |= ends[last] != length_tokens
    if wrong.any():
        return f"row {first_row + int(owner[np.argmax(wrong)])}: the segments of its provenance do not tile it."
    named = flat.field("doc_id").to_numpy()
    unknown = (named != -1) & ~np.isin(named, doc_ids)
    if unknown.any():
        place = int(np.argmax(unknown))
        return f"row {first_row + int(owner[place])}: its provenance names doc_id {named[place]}, which is no document."
    return None
