"""Ids of chunks in; where they come from, and what they say, out: only what holds them is read."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from etl.lookup import documents_of
from etl.work import Work


class Origin(NamedTuple):
    """Where a chunk comes from."""

    doc_id: int
    source_id: str
    chunk_index: int
    text: str = ""


def chunk_origins(work: Work, chunk_ids: Iterable[int], *, with_text: bool = True) -> dict[int, Origin]:
    """Where chunks come from, by chunk_id.

    Of the parts that hold them it reads the tables of documents and, with_text, the row groups with their texts.
    """
    wanted = np.unique(np.fromiter(chunk_ids, np.int64))
    origins: dict[int, Origin] = {}
    first = 0
    for path, rows in work["chunk"].tables():
        here = wanted[np.searchsorted(wanted, first) : np.searchsorted(wanted, first + rows)]
        if len(here):
            texts = _texts(path, here - first) if with_text else [""] * len(here)
            origins |= dict(zip(here.tolist(), _origins(path, here, texts), strict=True))
        first += rows
    return origins


def _origins(chunks: Path, chunk_ids: NDArray[np.int64], texts: list[str]) -> list[Origin]:
    table = pq.read_table(documents_of(chunks), columns=["doc_id", "source_id", "first_chunk_id"])
    firsts = table["first_chunk_id"].to_numpy()
    places = np.searchsorted(firsts, chunk_ids, "right") - 1
    found = table.take(places)
    doc_ids, names = found["doc_id"].to_pylist(), found["source_id"].to_pylist()
    indices = (chunk_ids - firsts[places]).tolist()
    return [Origin(*row) for row in zip(doc_ids, names, indices, texts, strict=True)]


def _texts(chunks: Path, places: NDArray[np.int64]) -> list[str]:
    """Of the rows at these places, ascending, of a part."""
    texts: list[str] = []
    with pq.ParquetFile(chunks) as file:
        first = 0
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            here = places[np.searchsorted(places, first) : np.searchsorted(places, first + rows)]
            if len(here):
                texts += file.read_row_group(group, columns=["text"])["text"].take(here - first).to_pylist()
            first += rows
    return texts
