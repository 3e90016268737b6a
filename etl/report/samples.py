"""Stages in, samples of what they hold out: the first rows of parts that are spread evenly over the corpus."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from etl.lookup import documents_of
from etl.measure import segment_columns
from etl.work import Work
from nextlong.hardness import SegmentColumns

T = TypeVar("T")
MOST_PARTS = 16
ROWS_A_PART = 16_384
LONG_DOCUMENTS_A_PART = 256


class Sample(NamedTuple):
    """Numbers of a thing, and of how many they are a sample."""

    values: NDArray[np.float64]
    num_rows: int
    """Rows that were read."""
    of_rows: int
    """Rows that there are."""
    rows: str
    """What a row is."""

    @property
    def told(self) -> str:
        """What the numbers are of, in words."""
        if self.num_rows == self.of_rows:
            return f"all {self.of_rows:,} {self.rows}"
        return f"a sample of {self.num_rows:,} of {self.of_rows:,} {self.rows}"


def chunk_samples(work: Work) -> dict[str, Sample]:
    """Tokens of documents and of chunks, of a finished chunk stage."""
    tables = work["chunk"].tables()
    paths = [path for path, _ in spread(tables, MOST_PARTS)]
    chunks = [_first_rows(path, ["num_tokens"], ROWS_A_PART) for path in paths]
    documents = [_first_rows(documents_of(path), ["num_tokens"], ROWS_A_PART) for path in paths]
    num_documents = sum(pq.read_metadata(documents_of(path)).num_rows for path in paths)
    if len(paths) < len(tables):
        num_documents = _kept_documents(work)
    return {
        "document_tokens": _sample(documents, num_documents, "documents"),
        "chunk_tokens": _sample(chunks, sum(rows for _, rows in tables), "chunks"),
    }


def hardness_samples(work: Work) -> dict[str, Sample]:
    """Distances between neighbouring meta-chunks, and their share of every long document; none where none has any."""
    tables = work["interleave"].tables()
    columns = ["segments", "meta_distances"]
    read = [_first_rows(path, columns, LONG_DOCUMENTS_A_PART) for path, _ in spread(tables, MOST_PARTS)]
    table = pa.concat_tables(read)
    segments = segment_columns(table)
    if not segments.is_meta.any():
        return {}
    known = {"num_rows": table.num_rows, "of_rows": sum(rows for _, rows in tables), "rows": "long documents"}
    distances = pc.list_flatten(table["meta_distances"]).to_numpy().astype(np.float64)
    return {
        "meta_distances": Sample(values=distances, **known),
        "meta_ratios": Sample(values=_meta_ratios(segments, table.num_rows), **known),
    }


def _kept_documents(work: Work) -> int:
    manifest = work["chunk"].manifest() or {}
    kept: int = manifest["account"]["documents"]["kept"]
    return kept


def spread(items: Sequence[T], most: int) -> list[T]:
    """At most so many items, at even distances, the first among them."""
    return [items[place * len(items) // min(most, len(items))] for place in range(min(most, len(items)))]


def _first_rows(path: Path, columns: list[str], most: int) -> pa.Table:
    with pq.ParquetFile(path) as file:
        batches = file.iter_batches(batch_size=most, columns=columns)
        first = next(batches, None)
        return pa.Table.from_batches(
            [first] if first is not None else [], file.schema_arrow.empty_table().select(columns).schema
        )


def _sample(tables: Sequence[pa.Table], of_rows: int, rows: str) -> Sample:
    values = pa.concat_tables(tables)["num_tokens"].to_numpy().astype(np.float64)
    return Sample(values, len(values), of_rows, rows)


def _meta_ratios(segments: SegmentColumns, num_documents: int) -> NDArray[np.float64]:
    tokens = (segments.end - segments.start).astype(np.float64)
    meta = np.bincount(segments.document, tokens * segments.is_meta, num_documents)
    return meta / np.maximum(1, np.bincount(segments.document, tokens, num_documents))
