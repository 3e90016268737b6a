"""A finished run in, ten of its long documents as spans of a strip out."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq

from etl.lookup import documents_of
from etl.strip import Span
from etl.work import Work
from nextlong.errors import UserError
from nextlong.tokenizing import Tokenizer

NUM_SHOWN = 10
SEED = 0
RULE = f"{NUM_SHOWN} rows that numpy's default_rng({SEED}) draws without replacement"
_ROWS_AT_ONCE = 32


class LongDocument(NamedTuple):
    """What `strip_html` needs of a long document."""

    title: str
    spans: list[Span]
    total_tokens: int


class _Origin(NamedTuple):
    doc_id: int
    source_id: str
    chunk_index: int


def draw_long_documents(work: Work, tokenizer: str | None) -> list[LongDocument]:
    """Ten long documents, drawn by RULE, in order; all where there are no more.

    tokenizer: a tokenizer.json or its folder, as the recipe names it; texts are None where it is not on this machine,
    or is not the one of the run.
    """
    rows = list(_drawn_rows(work))
    origins = _origins(work, (segment["chunk_id"] for row in rows for segment in row["segments"]))
    decode = _local_tokenizer(work, tokenizer)
    return [_long_document(row, origins, decode) for row in rows]


def _drawn_rows(work: Work) -> Iterator[dict[str, Any]]:
    """The rows, read from the parts that hold them."""
    tables = work["interleave"].tables()
    ends = np.cumsum([rows for _, rows in tables])
    total = int(ends[-1])
    drawn = np.random.default_rng(SEED).choice(total, min(NUM_SHOWN, total), replace=False)
    for place in sorted(drawn.tolist()):
        part = int(np.searchsorted(ends, place, "right"))
        path, rows = tables[part]
        yield _row(path, place - (int(ends[part]) - rows))


def _row(path: Path, place: int) -> dict[str, Any]:
    columns = ["sample_id", "source_id", "source", "segments", "input_ids"]
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE, columns=columns):
            if place < batch.num_rows:
                row: dict[str, Any] = batch.slice(place, 1).to_pylist()[0]
                return row
            place -= batch.num_rows
    raise UserError(
        f"{path} has fewer rows than its manifest says. Run the recipe again: it makes again what is damaged."
    )


def _long_document(row: dict[str, Any], origins: dict[int, _Origin], tokenizer: Tokenizer | None) -> LongDocument:
    spans = []
    for segment in row["segments"]:
        origin = origins.get(segment["chunk_id"], _Origin(-1, "", -1))
        ids = row["input_ids"][segment["start"] : segment["end"]]
        text = tokenizer.decode(ids) if tokenizer else None
        facts = {name: segment[name] for name in ("role", "start", "end", "rank", "score")}
        spans.append(Span(**facts, **origin._asdict(), text=text))
    title = f"{row['sample_id']}: {row['source_id']}" + (f" ({row['source']})" if row["source"] else "")
    return LongDocument(title, spans, len(row["input_ids"]))


def _origins(work: Work, chunk_ids: Iterable[int]) -> dict[int, _Origin]:
    """Where chunks come from; reads the tables of documents beside the parts that hold them, not the chunks."""
    wanted = np.unique(np.fromiter(chunk_ids, np.int64))
    origins: dict[int, _Origin] = {}
    first = 0
    for path, rows in work["chunk"].tables():
        here = wanted[np.searchsorted(wanted, first) : np.searchsorted(wanted, first + rows)]
        if len(here):
            origins |= _origins_in(path, here)
        first += rows
    return origins


def _origins_in(chunks: Path, wanted: "np.typing.NDArray[np.int64]") -> dict[int, _Origin]:
    table = pq.read_table(documents_of(chunks), columns=["doc_id", "source_id", "first_chunk_id"])
    firsts = table["first_chunk_id"].to_numpy()
    places = np.searchsorted(firsts, wanted, "right") - 1
    found = table.take(places)
    columns = (found["doc_id"].to_pylist(), found["source_id"].to_pylist(), (wanted - firsts[places]).tolist())
    return {chunk: _Origin(*origin) for chunk, *origin in zip(wanted.tolist(), *columns, strict=True)}


def _local_tokenizer(work: Work, name: str | None) -> Tokenizer | None:
    """The run's tokenizer if it is a file on this machine: nothing is downloaded for a page."""
    if not isinstance(name, str) or not Path(name).expanduser().exists():
        return None
    try:
        tokenizer = Tokenizer.load(name)
    except UserError:
        return None
    return tokenizer if tokenizer.fingerprint == work["chunk"].settings.get("tokenizer") else None
