"""First pass of interleaving: candidates in, what each drawn document becomes out; token counts are enough for it."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from etl.lookup import ChunkStore
from etl.mine import CorpusMeans, paper_negatives
from etl.schemas import PLANS
from nextlong.budgeting import Allocation, allocate_exact, allocate_paper
from nextlong.config import Chunking, Synthesis
from nextlong.interleaving import Segment, interleave
from nextlong.mining import Candidates
from nextlong.sampling import STAGE_POSITION


class Draw(NamedTuple):
    """A drawn meta-document."""

    sample_id: int
    doc_id: int
    source_id: str
    source: str
    first_chunk_id: int
    num_chunks: int
    num_chars: int
    num_tokens: int


def draws_of(documents: pd.DataFrame) -> list[Draw]:
    """Rows of drawn documents, the index being the sample_id."""
    columns = [documents[name].tolist() for name in Draw._fields[1:]]
    return [Draw(*row) for row in zip(documents.index.tolist(), *columns, strict=True)]


def plan(
    drawn: Sequence[Draw],
    candidates: dict[int, Candidates],
    store: ChunkStore,
    means: CorpusMeans,
    synthesis: Synthesis,
    chunking: Chunking,
) -> pa.Table:
    """What each drawn document becomes (columns of schemas.PLANS); candidates: by meta-chunk's chunk_id."""
    rows = [_plan_document(draw, candidates, store, means, synthesis, chunking) for draw in drawn]
    segments = [row.pop("segments") for row in rows]
    flat = [segment for each in segments for segment in each]
    columns = [list(column) for column in zip(*flat, strict=True)] or [[] for _ in Segment._fields]
    fields = list(PLANS.field("segments").type.value_type)
    values = pa.StructArray.from_arrays(
        [pa.array(c, f.type) for c, f in zip(columns, fields, strict=True)], fields=fields
    )
    offsets = np.cumsum([0, *map(len, segments)], dtype=np.int32)
    plain = pa.Table.from_pylist(rows, schema=pa.schema([field for field in PLANS if field.name != "segments"]))
    return plain.append_column(PLANS.field("segments"), pa.ListArray.from_arrays(offsets, values))


def candidates_of(negatives: pa.Table) -> dict[int, Candidates]:
    """The rows of schemas.NEGATIVES by meta-chunk; arrays are views."""
    table = negatives.combine_chunks()
    if not table.num_rows:
        return {}
    ids, scores = (table[name].chunk(0) for name in ("ids", "scores"))
    offsets, id_values, score_values = ids.offsets.to_numpy(), ids.values.to_numpy(), scores.values.to_numpy()
    return {
        chunk_id: Candidates(chunk_id, id_values[first:last], score_values[first:last])
        for chunk_id, first, last in zip(
            table["chunk_id"].to_pylist(), offsets[:-1].tolist(), offsets[1:].tolist(), strict=True
        )
    }


def _plan_document(
    draw: Draw,
    candidates: dict[int, Candidates],
    store: ChunkStore,
    means: CorpusMeans,
    synthesis: Synthesis,
    chunking: Chunking,
) -> dict[str, Any]:
    meta_chunks = range(draw.first_chunk_id, draw.first_chunk_id + draw.num_chunks)
    own = [candidates[chunk] for chunk in meta_chunks if chunk in candidates]
    allocation = _allocate(draw, own, store, means, synthesis, chunking)
    segments = []
    if allocation.outcome == "kept":
        segments = interleave(
            meta_chunks,
            store.num_tokens(np.array(meta_chunks)).tolist(),
            allocation,
            target_length_tokens=synthesis.target_length_tokens,
            position=synthesis.position,
            seed=[synthesis.seed, STAGE_POSITION, draw.doc_id],
        )
    return {
        "sample_id": draw.sample_id,
        "doc_id": draw.doc_id,
        "source_id": draw.source_id,
        "source": draw.source,
        "outcome": allocation.outcome,
        "num_tokens": allocation.num_tokens,
        "num_candidates": sum(len(each.ids) for each in own),
        "already_used": allocation.skipped["already_used"],
        "copy_in_document": allocation.skipped["copy_in_document"],
        "num_negatives": sum(map(len, allocation.negatives)),
        "num_meta_chunks": draw.num_chunks,
        "segments": segments,
    }


def _allocate(
    draw: Draw,
    candidates: list[Candidates],
    store: ChunkStore,
    means: CorpusMeans,
    synthesis: Synthesis,
    chunking: Chunking,
) -> Allocation:
    if synthesis.budget == "exact":
        return allocate_exact(
            draw.num_tokens,
            candidates,
            num_tokens=store.num_tokens,
            text_hashes=store.hashes,
            target_length_tokens=synthesis.target_length_tokens,
            max_meta_ratio=synthesis.max_meta_ratio,
        )
    return allocate_paper(
        draw.num_tokens,
        candidates,
        paper_negatives(draw.num_chunks, draw.num_chars, means, synthesis, chunking),
        num_tokens=store.num_tokens,
        text_hashes=store.hashes,
        target_length_tokens=synthesis.target_length_tokens,
    )
