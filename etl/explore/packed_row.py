"""A packed sequence of a run: its boundaries, and the long documents that lie in it."""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from etl.explore.long_document import LongDocument, open_long_document
from etl.stage_rows import finished, num_rows, row_at
from etl.strip import strip_html
from etl.terminal import printable
from etl.work import Work
from nextlong.errors import UserError


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class PackedRow:
    """One sequence of one fixed length, as a trainer gets it."""

    number: int
    """Its place among the sequences of the run."""
    domain: str
    indices: NDArray[np.int64]
    """int64 [n, 2]: start and end of each long document; attention stays inside."""
    long_documents: list[LongDocument]
    """n, in order."""

    @property
    def input_ids(self) -> NDArray[np.uint32]:
        """uint32 [sequence length]"""
        return np.concatenate([each.input_ids for each in self.long_documents])

    @property
    def num_tokens(self) -> int:
        """The sequence length."""
        return int(self.indices[-1, 1])

    def __repr__(self) -> str:
        lines = [
            f"  {start:>9,} - {end:<9,} long document {each.sample_id}: {printable(each.source_id)}"
            for (start, end), each in zip(self.indices.tolist()[:_SHOWN], self.long_documents, strict=False)
        ]
        more = len(self.indices) - _SHOWN
        return "\n".join([self._title, *lines, *([f"  and {more} more"] if more > 0 else [])])

    def _repr_html_(self) -> str:
        spans = [
            span._replace(start=span.start + start, end=span.end + start)
            for start, each in zip(self.indices[:, 0].tolist(), self.long_documents, strict=True)
            for span in each.spans
        ]
        return strip_html(self._title, spans, total_tokens=self.num_tokens)

    @property
    def _title(self) -> str:
        number = len(self.indices)
        what = "1 long document" if number == 1 else f"{number} long documents"
        return f"Packed sequence {self.number}: {self.num_tokens:,} tokens, {what} ({printable(self.domain)})"


_SHOWN = 3


def open_packed_row(work: Work, number: int) -> PackedRow:
    """The sequence with a number, from 0. Raises UserError for one that is not there, saying which are."""
    tables = finished(work, "pack").tables()
    there = num_rows(tables)
    if not 0 <= number < there:
        raise UserError(f"{work.path} has no packed sequence {number}. It has {there:,}, numbered from 0.")
    row = row_at(tables, number)
    return PackedRow(
        number=number,
        domain=row["domain"],
        indices=np.array(row["indices"], np.int64),
        long_documents=[open_long_document(work, each) for each in row["sample_ids"]],
    )
