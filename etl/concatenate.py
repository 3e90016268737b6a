"""First pass of interleaving for the methods compared with: what is known of documents in, windows of them out.

One task gathers all windows (`nextlong.concatenation`): it holds a few numbers and two names a document, for iclm the
whole graph of neighbours. The windows are then filled in parallel.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from etl.allocate import plans_table
from etl.draw import Strand, empty_strands, usable_documents, with_names
from etl.engine import Engine
from etl.job import Job
from etl.lookup import ChunkStore
from etl.parts import PartResult, write_table
from etl.relate import read_keywords, read_neighbours
from etl.schemas import WINDOWS
from etl.work import StageFolder, Work
from nextlong.concatenation import DocumentNeighbours, Documents, Window, gather
from nextlong.config import Synthesis
from nextlong.interleaving import ROLES, Segments
from nextlong.packing import domain_of


def gather_windows(job: Job, engine: Engine, stage: StageFolder) -> dict[str, Any]:
    """Write the windows of a job; returns {"windows": {prefix of a strand: names of tables}, "outcomes": counts}."""
    synthesis = job.recipe.synthesis
    part = stage.part(0, _gather_part, prefix="plan", synthesis=synthesis, work=job.work)
    [marker] = engine.run([part], doing="gather documents", unit="part")
    values: dict[str, Any] = marker["values"]
    return values


def plan_windows(windows: pa.Table, store: ChunkStore, target_length_tokens: int) -> pa.Table:
    """Windows (columns of schemas.WINDOWS) as plans (schemas.PLANS): their documents' chunks, cut at the target."""
    return plans_table([_plan_window(window, store, target_length_tokens) for window in windows.to_pylist()])


def _plan_window(window: dict[str, Any], store: ChunkStore, target: int) -> dict[str, Any]:
    numbers = window["num_chunks"]
    chunk_ids = np.concatenate([np.arange(f, f + n) for f, n in zip(window["first_chunk_ids"], numbers, strict=True)])
    ends = np.cumsum(store.num_tokens(chunk_ids))
    starts = np.concatenate([[0], ends[:-1]])
    shown = slice(int(np.searchsorted(starts, target)))
    ranks, scores = np.array(window["ranks"], np.int64), np.array(window["scores"], np.float32)  # None: NaN
    segments = Segments(
        chunk_ids[shown],
        np.full(len(chunk_ids), ROLES.index("document"), np.int8)[shown],
        starts[shown],
        np.minimum(ends, target)[shown],
        np.repeat(ranks, numbers)[shown],
        np.repeat(scores, numbers)[shown],
    )
    unused = dict.fromkeys(("num_candidates", "skipped_top", "already_used", "over_used", "copy_in_document"), 0)
    return unused | {
        "sample_id": window["sample_id"],
        "doc_id": window["doc_ids"][0],
        "source_id": window["source_id"],
        "source": window["source"],
        "outcome": "kept",
        "num_tokens": int(ends[-1]),
        "num_negatives": len(chunk_ids),
        "num_meta_chunks": 0,
        "segments": segments,
    }


def _gather_part(folder: Path, name: str, *, synthesis: Synthesis, work: Work) -> PartResult:
    documents, related = usable_documents(work), work["mine"]
    columns = Documents(documents["doc_id"].to_numpy(np.int64), documents["num_tokens"].to_numpy(np.int64))
    gathered = gather(
        columns,
        synthesis,
        neighbours=_neighbours(related) if synthesis.strategy in ("knn", "iclm") else None,
        keywords=read_keywords(related) if synthesis.strategy == "quest" else None,
    )
    tables: dict[str, list[str]] = {}
    named = with_names(documents[documents["num_chunks"] > 0], work["chunk"])
    for number, strand in enumerate(empty_strands(synthesis)):
        windows = [window for window in gathered.windows if window.length == number]
        tables[strand.prefix] = [
            _write(folder, f"{name}.{strand.prefix}-{place:05d}.parquet", some, named)
            for place, some in enumerate(_batches(windows, strand))
        ]
    files = [each for names in tables.values() for each in names]
    values = {"windows": tables, "outcomes": dict(gathered.outcomes)}
    return PartResult(files=files, rows=len(gathered.windows), values=values)


def _neighbours(related: StageFolder) -> DocumentNeighbours:
    """The neighbours of all documents as arrays; shorter lists end in -1."""
    table = read_neighbours(related).combine_chunks()
    numbers = pc.list_value_length(table["ids"]).to_numpy()
    shape = (table.num_rows, int(numbers.max(initial=0)))
    is_there = np.arange(shape[1]) < numbers[:, None]
    ids, scores = np.full(shape, -1, np.int64), np.full(shape, -np.inf, np.float32)
    ids[is_there] = pc.list_flatten(table["ids"]).to_numpy()
    scores[is_there] = pc.list_flatten(table["scores"]).to_numpy()
    return DocumentNeighbours(table["doc_id"].to_numpy(), ids, scores)


def _batches(windows: list[Window], strand: Strand) -> Iterable[list[Window]]:
    for first, last in strand.ranges(len(windows), len(windows)):
        yield windows[first:last]


def _write(folder: Path, file: str, windows: list[Window], documents: pd.DataFrame) -> str:
    doc_ids = documents["doc_id"].to_numpy(np.int64)
    rows = []
    for window in windows:
        members = [member.doc_id for member in window.members]
        facts = documents.iloc[np.searchsorted(doc_ids, members)]
        rows.append(
            {
                "sample_id": window.sample_id,
                "source_id": facts["source_id"].iloc[0],
                "source": domain_of(facts["source"].tolist()),
                "doc_ids": members,
                "ranks": [member.rank for member in window.members],
                "scores": [member.score for member in window.members],
                "first_chunk_ids": facts["first_chunk_id"].tolist(),
                "num_chunks": facts["num_chunks"].tolist(),
            }
        )
    write_table(folder / file, pa.Table.from_pylist(rows, schema=WINDOWS))
    return file
