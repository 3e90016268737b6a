"""Segments of long documents in, how hard they are out: similarity by rank, and how far apart the meta-chunks stand."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class SegmentColumns(NamedTuple):
    """The segments of several long documents, laid end to end."""

    document: NDArray[np.int64]
    """Which long document, ascending."""
    is_meta: NDArray[np.bool_]
    is_negative: NDArray[np.bool_]
    start: NDArray[np.int32]
    end: NDArray[np.int32]
    rank: NDArray[np.int32]
    score: NDArray[np.float32]


class ByRank(NamedTuple):
    """Similarities of negatives to their meta-chunks, summed in buckets of ranks: 0, 1, 2-3, 4-7, 8-15, ..."""

    sums: NDArray[np.float64]
    """[num_documents, num_buckets]"""
    counts: NDArray[np.int64]
    """[num_documents, num_buckets]"""

    def means(self) -> list[list[float | None]]:
        """For every document the mean by bucket, up to its last one; None where it has no negative."""
        found: list[list[float | None]] = []
        for sums, counts in zip(self.sums.tolist(), self.counts.tolist(), strict=True):
            last = max((bucket + 1 for bucket, number in enumerate(counts) if number), default=0)
            pairs = zip(sums[:last], counts[:last], strict=True)
            found.append([total / number if number else None for total, number in pairs])
        return found


def similarity_by_rank(segments: SegmentColumns, num_documents: int) -> ByRank:
    """Sums and counts by document and bucket; the bucket of a rank is its number of binary digits."""
    here = segments.is_negative
    buckets = np.frexp(segments.rank[here])[1]
    num_buckets = int(buckets.max(initial=-1)) + 1
    cells = segments.document[here] * num_buckets + buckets
    scores = segments.score[here].astype(np.float64)
    sums = np.bincount(cells, scores, minlength=num_documents * num_buckets).astype(np.float64)
    counts = np.bincount(cells, minlength=num_documents * num_buckets)
    shape = (num_documents, num_buckets)
    return ByRank(sums.reshape(shape), counts.reshape(shape))


def meta_distances(segments: SegmentColumns, num_documents: int) -> list[NDArray[np.int32]]:
    """For every document the tokens between the end of each meta-chunk and the start of the next one."""
    metas = np.flatnonzero(segments.is_meta)
    document, start, end = (column[metas] for column in (segments.document, segments.start, segments.end))
    same = document[1:] == document[:-1]
    gaps = (start[1:] - end[:-1])[same]
    numbers = np.bincount(document[1:][same], minlength=num_documents)
    return np.split(gaps, np.cumsum(numbers)[:-1]) if num_documents else []
