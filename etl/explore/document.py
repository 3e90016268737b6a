"""A document of a run, found by its doc_id or source_id: its text and its chunks."""

import dataclasses
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from etl.lookup import documents_of
from etl.origins import chunk_origins
from etl.schemas import CHUNKS, to_frame
from etl.show import first_words
from etl.stage_rows import bounds, finished, finished_names, num_rows, part_with
from etl.terminal import printable
from etl.work import Work
from nextlong.errors import UserError


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Document:
    """One document of a corpus, as the run read it."""

    doc_id: int
    """Its position in the input."""
    source_id: str
    source: str
    text: str
    chunks: pd.DataFrame
    """Its chunks, in order (columns of schemas.CHUNKS); no rows where the stage 'chunk' is not finished."""

    def __repr__(self) -> str:
        tokens = int(self.chunks["num_tokens"].sum())
        size = f"{len(self.text):,} characters, {len(self.chunks):,} chunks, {tokens:,} tokens"
        name = f"{printable(self.source_id)} ({printable(self.source)})"
        return f'Document {self.doc_id}: {name}\n  {size}\n  "{first_words(self.text, 90)}"'


def open_document(work: Work, identity: int | str) -> Document:
    """The document with a doc_id (an int) or a source_id (a str), of a run whose stage 'read' is finished.

    By doc_id it reads some footers and one part; by source_id also that column of the parts before it. Raises UserError
    for one that is not there, saying which are.
    """
    paths = [path for path, _ in finished(work, "read").tables()]
    row = _row_by_source_id(paths, identity) if isinstance(identity, str) else _row_by_doc_id(paths, int(identity))
    if row is None:
        raise UserError(_not_there(work, paths, identity))
    named = {name: row[name] for name in ("doc_id", "source_id", "source", "text")}
    return Document(**named, chunks=_chunks(work, row["doc_id"]))


def chunk_at(work: Work, chunk_id: int) -> pd.Series:
    """A chunk as a row: doc_id, source_id, chunk_index, text. Raises UserError for one that is not there."""
    there = num_rows(finished(work, "chunk").tables())
    if not 0 <= chunk_id < there:
        raise UserError(f"{work.path} has no chunk {chunk_id}. It has {there:,}, numbered from 0.")
    found = chunk_origins(work, [int(chunk_id)])[int(chunk_id)]
    return pd.Series(found._asdict(), name=int(chunk_id))


def _row_by_doc_id(paths: list[Path], doc_id: int) -> dict[str, Any] | None:
    path = part_with(paths, "doc_id", doc_id)
    return None if path is None else _first(pq.read_table(path, filters=pc.field("doc_id") == doc_id))


def _row_by_source_id(paths: list[Path], source_id: str) -> dict[str, Any] | None:
    is_it = pc.field("source_id") == source_id
    for path in paths:
        if pq.read_table(path, columns=["doc_id"], filters=is_it).num_rows:
            return _first(pq.read_table(path, filters=is_it))
    return None


def _first(table: pa.Table) -> dict[str, Any] | None:
    rows: list[dict[str, Any]] = table.slice(0, 1).to_pylist()
    return rows[0] if rows else None


def _chunks(work: Work, doc_id: int) -> pd.DataFrame:
    """The chunks of a document; none where there are none, or none yet."""
    tables = work["chunk"].tables() if "chunk" in finished_names(work) else []
    path = part_with([documents_of(path) for path, _ in tables], "doc_id", doc_id)
    if path is None:
        return to_frame(CHUNKS.empty_table())
    [chunks] = [each for each, _ in tables if documents_of(each) == path]
    return to_frame(pq.read_table(chunks, filters=pc.field("doc_id") == doc_id))


def _not_there(work: Work, paths: list[Path], identity: int | str) -> str:
    sides = [side for path in (paths[0], paths[-1]) for side in bounds(path, "doc_id") or ()]
    whole = f"It has doc_ids from {min(sides)} to {max(sides)}" if sides else "It has none"
    left_out = "; what was empty or a copy was dropped, and leaves a gap (run.accounts says how many)"
    if not isinstance(identity, str):
        return f"{work.path} has no document with doc_id {identity}. {whole}{left_out}."
    first = _first(pq.read_table(paths[0], columns=["source_id"]))
    example = f", such as {printable(first['source_id'])!r}" if first else ""
    number = " A doc_id is a number: run.document(17)." if identity.isdecimal() else ""
    return f"{work.path} has no document with source_id {printable(identity)!r}; they are texts{example}.{number}"
