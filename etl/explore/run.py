"""A finished work folder, opened: its stages as lazy Dask dataframes, and single things out of it that show themselves.

Everything works without a cluster, with Dask's current scheduler or client, and nothing is written.
"""

import os
from collections.abc import Sequence
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from numpy.typing import NDArray

from etl.explore.accounts import account_frame, stage_html
from etl.explore.document import Document, chunk_at, open_document
from etl.explore.embeddings import lazy_embeddings
from etl.explore.exporting import export_run
from etl.explore.long_document import LongDocument, LongDocuments, long_documents_over, open_long_document, sample_ids
from etl.explore.neighbours import embed, neighbours_of_text
from etl.explore.packed_row import PackedRow, open_packed_row
from etl.explore.rules import judged_neighbours
from etl.explore.segments import lazy_segments
from etl.parts import read_json
from etl.recipe import Recipe, load_recipe
from etl.schemas import CHUNKS, DOCUMENT_NEIGHBOURS, DOCUMENTS, KEYWORDS, LONG_DOCUMENTS, NEGATIVES, PACKED
from etl.search import open_index
from etl.stage_rows import finished, finished_names, lazy
from etl.terminal import printable
from etl.work import RECIPE_FILE, STAGES, Work
from nextlong.errors import UserError
from nextlong.indexing import Vectors
from nextlong.searching import Index

_MINED = {"quest": KEYWORDS, "knn": DOCUMENT_NEIGHBOURS, "iclm": DOCUMENT_NEIGHBOURS}
_COUNTED = {"read": "documents", "chunk": "chunks", "interleave": "long documents", "pack": "packed sequences"}


class Run:
    """A work folder of `nextlong run`: `Run("work")`.

    Of an unfinished one, what is finished can be read. Dataframes are lazy, one partition a part: look at
    `run.chunks.head()` before `run.chunks.compute()`, and at `run.chunks.partitions[:1]` before all.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Raises UserError for a folder that no run made."""
        self._work = Work.open(Path(path).expanduser().absolute())

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> "Run":
        """The same as Run(path)."""
        return cls(path)

    @property
    def path(self) -> Path:
        """The work folder."""
        return self._work.path

    @cached_property
    def recipe(self) -> Recipe:
        """What made the run, with all defaults: run.recipe.synthesis.target_length_tokens."""
        return load_recipe(str(self.path / RECIPE_FILE))

    @property
    def finished(self) -> list[str]:
        """The names of the finished stages."""
        return finished_names(self._work)

    @property
    def summary(self) -> dict[str, Any]:
        """What summary.json says: of each stage its seconds, parts, rows, account and values."""
        return read_json(self.path / "summary.json") or {"stages": {}}

    @property
    def accounts(self) -> pd.DataFrame:
        """What every stage read, kept and dropped: a row for a stage, a unit and a reason (an empty one: none)."""
        return account_frame(self._manifests())

    @property
    def documents(self) -> dd.DataFrame:
        """The documents (schemas.DOCUMENTS and the columns of input.keep), lazily: doc_id, source_id, text, source."""
        tables = finished(self._work, "read").tables()
        return lazy(tables, pq.read_schema(tables[0][0]) if tables else DOCUMENTS)

    @property
    def chunks(self) -> dd.DataFrame:
        """The chunks (schemas.CHUNKS), lazily: chunk_id, doc_id, chunk_index, text, joiner, num_chars, num_tokens."""
        return lazy(finished(self._work, "chunk").tables(), CHUNKS)

    @property
    def embeddings(self) -> dd.DataFrame:
        """The embeddings of chunks, lazily: chunk_id, embedding. `etl.schemas.vectors_of` makes an array of them."""
        return lazy_embeddings(finished(self._work, "embed"))

    @property
    def negatives(self) -> dd.DataFrame:
        """What was mined, lazily: of each meta-chunk its candidates, nearest first (schemas.NEGATIVES).

        Of strategies knn and iclm a document's neighbours (DOCUMENT_NEIGHBOURS), of quest its keywords (KEYWORDS).
        """
        stage = finished(self._work, "mine")
        tables = [] if stage.settings.get("skipped") else stage.tables()
        if not tables:
            raise UserError(f"{self.path} looked up nothing: its long documents are made without.")
        return lazy(tables, _MINED.get(self.recipe.synthesis.strategy, NEGATIVES))

    @property
    def long_documents(self) -> dd.DataFrame:
        """The long documents (schemas.LONG_DOCUMENTS), lazily, token ids and segments in lists."""
        return lazy(finished(self._work, "interleave").tables(), LONG_DOCUMENTS)

    @property
    def segments(self) -> dd.DataFrame:
        """The segments of all long documents, lazily, a row each: sample_id, chunk_id, role, start, end, rank, score.

        A partition reads that column alone, no token ids. `run.segments.query("chunk_id == 17")`: a chunk's uses.
        """
        return lazy_segments(finished(self._work, "interleave").tables())

    @property
    def packed(self) -> dd.DataFrame:
        """The packed sequences (schemas.PACKED), lazily; input_ids is null where a sequence is one long document."""
        return lazy(finished(self._work, "pack").tables(), PACKED)

    @property
    def index(self) -> Index:
        """The FAISS index, opened memory-mapped. Raises UserError where the run has none."""
        stage = finished(self._work, "index")
        if stage.settings.get("retrieval") != "embeddings":
            raise UserError(f"{self.path} has no FAISS index (mining.retrieval={self.recipe.mining.retrieval}).")
        return open_index(stage)

    @property
    def sample_ids(self) -> NDArray[np.int64]:
        """int64 [num_long_documents]: those that `long_document` knows."""
        return sample_ids(finished(self._work, "interleave"))

    def sample(self, number: int = 3, *, seed: int = 0) -> LongDocuments:
        """So many long documents, spread over the whole run, by the seed; fewer where there are fewer."""
        if number < 1:
            raise UserError(f"a sample of {number} long documents is none. Give at least 1.")
        return long_documents_over(self._work, number, seed)

    def long_document(self, sample_id: int) -> LongDocument:
        """One long document. Raises UserError for an unknown sample_id."""
        return open_long_document(self._work, sample_id)

    def packed_row(self, number: int = 0) -> PackedRow:
        """One packed sequence with its long documents, by its number from 0."""
        return open_packed_row(self._work, number)

    def document(self, identity: int | str) -> Document:
        """A document with its chunks, by its doc_id (an int) or source_id (a str). Raises UserError for an unknown one.

        By doc_id it reads one part; by source_id also that column of the parts before it.
        """
        return open_document(self._work, identity)

    def chunk(self, chunk_id: int) -> pd.Series:
        """One chunk, from the one part that holds it: doc_id, source_id, chunk_index, text."""
        return chunk_at(self._work, chunk_id)

    def neighbours(self, text: str, k: int = 10) -> pd.DataFrame:
        """The chunks nearest to any text, by the run's own model and index (or its BM25), nearest first.

        Columns rank, score, chunk_id, doc_id, source_id, text. The first call loads the model.
        """
        return neighbours_of_text(self._work, self.recipe, text, k)

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Vectors [n, d] of texts, by the run's own model; the first call loads it."""
        return embed(self._work, self.recipe, list(texts))

    def judged_neighbours(self, chunk_id: int, k: int = 10) -> pd.DataFrame:
        """The neighbours of a chunk, itself among them, with a column verdict: candidate, or why it is none."""
        return judged_neighbours(self._work, self.recipe, chunk_id, k)

    def export(self, out: str | os.PathLike[str], *, format: str = "arrow") -> Path:
        """Write the packed sequences as shards for a trainer (arrow, parquet or mds), once; returns their folder.

        As `nextlong export` does, in this process. Raises UserError for a folder that holds anything else.
        """
        return export_run(self.path, Path(out), format)

    def __repr__(self) -> str:
        missing = [name for name in STAGES if name not in self.finished]
        lines = [f"Run({printable(str(self.path))})", f"  {', '.join(self._counts()) or 'nothing is finished'}"]
        return "\n".join([*lines, *([f"  not finished: {', '.join(missing)}"] if missing else [])])

    def _repr_html_(self) -> str:
        title = f"<p><b>{escape(printable(str(self.path)))}</b><br>{', '.join(self._counts())}</p>"
        missing = [name for name in STAGES if name not in self.finished]
        end = f"<p>not finished: {', '.join(missing)}</p>" if missing else ""
        return title + stage_html(self._manifests(), self.summary["stages"]) + end

    def _manifests(self) -> dict[str, dict[str, Any]]:
        return {name: self._work[name].manifest() or {} for name in self.finished}

    def _counts(self) -> list[str]:
        rows = {name: manifest["rows"] for name, manifest in self._manifests().items() if name in _COUNTED}
        return [f"{number:,} {_COUNTED[name]}" for name, number in rows.items()]
