"""A long document of a run, which shows itself as a strip to scale: where each of its tokens comes from."""

import dataclasses
from collections import Counter
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from etl.origins import chunk_origins
from etl.stage_rows import finished, num_rows, row_at
from etl.strip import Span, strip_html
from etl.terminal import printable
from etl.work import StageFolder, Work
from nextlong.errors import UserError

_ORIGIN = ("doc_id", "source_id", "chunk_index", "text")


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class LongDocument:
    """What one meta-document, or a window of whole documents, became."""

    sample_id: int
    doc_id: int
    """Of the meta-document; of a window's first document."""
    source_id: str
    source: str
    input_ids: NDArray[np.uint32]
    """uint32 [target length], of the run's tokenizer."""
    segments: pd.DataFrame
    """A row a segment, in order: role, start, end, rank, score, chunk_id, and of its chunk doc_id, source_id,
    chunk_index and (whole) text. Tokens are [start, end) of input_ids; rank is -1 and score NaN where nothing was
    looked up."""
    similarity_by_rank: list[float | None]
    """Mean score of the negatives of ranks 0, 1, 2-3, 4-7, ..."""
    meta_distances: list[int]
    """Tokens between a meta-chunk's end and the next one's start."""

    @property
    def num_tokens(self) -> int:
        """Exactly a target length."""
        return len(self.input_ids)

    @property
    def spans(self) -> list[Span]:
        """The segments, as the strip draws them."""
        rows = self.segments[list(Span._fields)].astype(object).where(lambda frame: frame.notna(), None)
        return [Span(*row) for row in rows.itertuples(index=False)]

    def __repr__(self) -> str:
        roles = Counter(self.segments["role"].tolist())
        counts = " + ".join(f"{number:,} {_PLURALS.get(role, role)}" for role, number in roles.items())
        scores = self.segments["score"].dropna()
        similarity = f"\n  mean similarity {scores.mean():.3f}" if len(scores) else ""
        apart = ""
        if self.meta_distances:
            apart = f", meta-chunks {np.mean(self.meta_distances):,.0f} tokens apart" if similarity else ""
        return f"{self._title}\n  {self.num_tokens:,} tokens = {counts}{similarity}{apart}"

    def _repr_html_(self) -> str:
        return strip_html(self._title, self.spans, total_tokens=self.num_tokens)

    @property
    def _title(self) -> str:
        return f"Long document {self.sample_id}: {printable(self.source_id)} ({printable(self.source)})"


class LongDocuments(list[LongDocument]):
    """Several of them, which show themselves one below the other."""

    def __repr__(self) -> str:
        return "\n".join(map(repr, self))

    def _repr_html_(self) -> str:
        return "".join(each._repr_html_() for each in self)


_PLURALS = {"meta": "meta-chunks", "negative": "negatives", "repeat": "repeats", "document": "chunks of documents"}


def open_long_document(work: Work, sample_id: int) -> LongDocument:
    """The long document with a sample_id; reads one row group, and the parts that hold its chunks.

    Raises UserError for a sample_id that is not there, saying which are.
    """
    stage = finished(work, "interleave")
    ids = sample_ids(stage)
    places = np.flatnonzero(ids == sample_id)
    if not len(places):
        which = f"from {ids.min()} to {ids.max()}; drawn ones that were dropped leave gaps" if len(ids) else "none"
        raise UserError(
            f"{work.path} has no long document with sample_id {sample_id}. It has {len(ids):,}: {which} "
            f"(run.sample_ids lists them)."
        )
    return long_document_at(work, int(places[0]))


def sample_ids(stage: StageFolder) -> NDArray[np.int64]:
    """int64 [num_long_documents], in the order in which they lie in the stage's files; from its manifest alone."""
    parts = (stage.manifest() or {})["parts"]
    found = [np.array(part["values"]["sample_ids"], np.int64) for part in parts if "sample_ids" in part["values"]]
    return np.concatenate([np.empty(0, np.int64), *found])


def long_documents_over(work: Work, number: int, seed: int) -> LongDocuments:
    """So many long documents spread over the whole run: one drawn from each of `number` equal stretches of it."""
    total = num_rows(finished(work, "interleave").tables())
    edges = np.linspace(0, total, min(number, total) + 1).astype(np.int64)
    rng = np.random.default_rng(seed)
    return LongDocuments(long_document_at(work, int(rng.integers(*pair))) for pair in pairwise(edges))


def long_document_at(work: Work, place: int) -> LongDocument:
    """The long document at a place among those of a run whose stage 'interleave' is finished."""
    row = row_at(finished(work, "interleave").tables(), place)
    return LongDocument(
        **{name: row[name] for name in ("sample_id", "doc_id", "source_id", "source", "meta_distances")},
        input_ids=np.array(row["input_ids"], np.uint32),
        segments=_segments(work, row["segments"]),
        similarity_by_rank=row["similarity_by_rank"],
    )


def _segments(work: Work, segments: list[dict[str, Any]]) -> pd.DataFrame:
    origins = chunk_origins(work, (each["chunk_id"] for each in segments))
    rows = [each | dict(zip(_ORIGIN, origins[each["chunk_id"]], strict=True)) for each in segments]
    columns = ["role", "start", "end", "rank", "score", "chunk_id", *_ORIGIN]
    return pd.DataFrame(rows, columns=columns).astype({"score": "float32"})
