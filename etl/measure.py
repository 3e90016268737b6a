"""Long documents in, numbers about them out, for summary.json: how hard they are, what they reuse, shares of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from etl.lookup import documents_of
from etl.work import StageFolder
from nextlong.hardness import SegmentColumns, meta_distances, similarity_by_rank


def segment_columns(documents: pa.Table) -> SegmentColumns:
    """The segments of a table with a column `segments`; document: the row."""
    segments = pc.list_flatten(documents["segments"])
    segments = segments.combine_chunks() if isinstance(segments, pa.ChunkedArray) else segments
    start, end, rank = (segments.field(name).to_numpy() for name in ("start", "end", "rank"))
    return SegmentColumns(
        document=pc.list_parent_indices(documents["segments"]).to_numpy(),
        is_meta=pc.equal(segments.field("role"), "meta").to_numpy(zero_copy_only=False),
        is_negative=pc.equal(segments.field("role"), "negative").to_numpy(zero_copy_only=False),
        start=start,
        end=end,
        rank=rank,
        score=segments.field("score").to_numpy(zero_copy_only=False),
    )


def with_hardness(documents: pa.Table) -> tuple[pa.Table, dict[str, Any]]:
    """Long documents with similarity_by_rank and meta_distances, and the sums of a part for `total_hardness`."""
    segments = segment_columns(documents)
    by_rank = similarity_by_rank(segments, documents.num_rows)
    distances = meta_distances(segments, documents.num_rows)
    documents = documents.append_column(
        "similarity_by_rank", pa.array(by_rank.means(), pa.list_(pa.float32()))
    ).append_column("meta_distances", pa.array(distances, pa.list_(pa.int32())))
    scored = ~np.isnan(segments.score)
    return documents, {
        "rank_sums": by_rank.sums.sum(axis=0).tolist(),
        "rank_counts": by_rank.counts.sum(axis=0).tolist(),
        "score_sum": float(segments.score[scored].astype(np.float64).sum()),
        "scored": int(scored.sum()),
        "distance_sum": int(sum(int(each.sum()) for each in distances)),
        "distances": sum(map(len, distances)),
        "meta_tokens": int((segments.end - segments.start)[segments.is_meta].sum()),
        "tokens": int((segments.end - segments.start).sum()),
    }


def total_hardness(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Means over all long documents of the parts; None where there is nothing to take a mean of."""
    buckets = max((len(part["rank_sums"]) for part in parts), default=0)
    sums, counts = (
        np.sum([np.pad(part[name], (0, buckets - len(part[name]))) for part in parts], axis=0).tolist() if parts else []
        for name in ("rank_sums", "rank_counts")
    )
    whole = {name: sum(part[name] for part in parts) for name in parts[0] if not name.startswith("rank_")}
    return {
        "mean_similarity": _ratio(whole["score_sum"], whole["scored"]),
        "similarity_by_rank": {
            _range(bucket): _ratio(*pair) for bucket, pair in enumerate(zip(sums, counts, strict=True)) if pair[1]
        },
        "mean_meta_distance_tokens": _ratio(whole["distance_sum"], whole["distances"]),
        "meta_ratio": _ratio(whole["meta_tokens"], whole["tokens"]) if whole["meta_tokens"] else None,
    }


def count_uses(tables: Sequence[Path], chunks: StageFolder) -> dict[str, Any]:
    """How often chunks are used over all long documents; one pass over their segments, 5 bytes a chunk in memory.

    reuse: chunks by the number of long documents in which they are inserted (as negatives; whole documents' chunks).
    """
    num_chunks = (chunks.manifest() or {})["rows"]
    uses, is_there = np.zeros(num_chunks, np.int32), np.zeros(num_chunks, np.bool_)
    for path in tables:
        segments = pc.list_flatten(pq.read_table(path, columns=["segments"])["segments"])
        chunk_ids = pc.struct_field(segments, "chunk_id").to_numpy()
        is_there[chunk_ids] = True
        inserted = pc.is_in(pc.struct_field(segments, "role"), value_set=pa.array(["negative", "document"])).to_numpy()
        np.add.at(uses, chunk_ids[inserted], 1)
    num_used, num_uses = int((uses > 0).sum()), int(uses.sum())
    return {
        "distinct_documents": _count_documents(is_there, chunks),
        "distinct_chunks": int(is_there.sum()),
        "uses_per_chunk": _ratio(num_uses, num_used),
        "distinct_negatives_ratio": _ratio(num_used, num_uses),
        "reuse": _histogram(uses),
    }


def _count_documents(is_there: NDArray[np.bool_], chunks: StageFolder) -> int:
    """The documents of which any chunk is there; holds one part's at a time."""
    number, first = 0, 0
    for path, rows in chunks.tables():
        starts = pq.read_table(documents_of(path), columns=["first_chunk_id"])["first_chunk_id"].to_numpy() - first
        used = np.flatnonzero(is_there[first : first + rows])
        number += len(np.unique(np.searchsorted(starts, used, "right")))
        first += rows
    return number


def _histogram(uses: NDArray[np.int32]) -> dict[str, int]:
    """Chunks by uses: 1, 2, 3-4, 5-8, ...; those that are never used are left out."""
    buckets = np.bincount(np.frexp(np.maximum(uses[uses > 0] - 1, 0))[1])
    firsts = [1, 2, *[2 ** (bucket - 1) + 1 for bucket in range(2, len(buckets))]]
    lasts = [2**bucket for bucket in range(len(buckets))]
    names = [f"{first}" if first == last else f"{first}-{last}" for first, last in zip(firsts, lasts, strict=False)]
    return {name: number for name, number in zip(names, buckets.tolist(), strict=True) if number}


def _range(bucket: int) -> str:
    """The ranks of a bucket of `similarity_by_rank`, in words."""
    first, last = (0, 0) if not bucket else (2 ** (bucket - 1), 2**bucket - 1)
    return f"{first}" if first == last else f"{first}-{last}"


def _ratio(part: float, whole: float) -> float | None:
    return round(part / whole, 6) if whole else None
