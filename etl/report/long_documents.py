"""A finished run in, ten of its long documents as spans of a strip out."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from etl.origins import Origin, chunk_origins
from etl.stage_rows import num_rows, row_at
from etl.strip import Span
from etl.work import Work
from nextlong.errors import UserError
from nextlong.tokenizing import Tokenizer

NUM_SHOWN = 10
SEED = 0
RULE = f"{NUM_SHOWN} rows that numpy's default_rng({SEED}) draws without replacement"


class LongDocument(NamedTuple):
    """What `strip_html` needs of a long document."""

    title: str
    spans: list[Span]
    total_tokens: int


def draw_long_documents(work: Work, tokenizer: str | None) -> list[LongDocument]:
    """Ten long documents, drawn by RULE, in order; all where there are no more.

    tokenizer: a tokenizer.json or its folder, as the recipe names it; texts are None where it is not on this machine,
    or is not the one of the run.
    """
    rows = _drawn_rows(work)
    chunks = (segment["chunk_id"] for row in rows for segment in row["segments"])
    origins = chunk_origins(work, chunks, with_text=False)
    decode = _local_tokenizer(work, tokenizer)
    return [_long_document(row, origins, decode) for row in rows]


def _drawn_rows(work: Work) -> list[dict[str, Any]]:
    tables = work["interleave"].tables()
    total = num_rows(tables)
    drawn = np.random.default_rng(SEED).choice(total, min(NUM_SHOWN, total), replace=False)
    return [row_at(tables, place) for place in sorted(drawn.tolist())]


def _long_document(row: dict[str, Any], origins: dict[int, Origin], tokenizer: Tokenizer | None) -> LongDocument:
    spans = []
    for segment in row["segments"]:
        origin = origins.get(segment["chunk_id"], Origin(-1, "", -1))
        ids = row["input_ids"][segment["start"] : segment["end"]]
        text = tokenizer.decode(ids) if tokenizer else None
        facts = {name: segment[name] for name in ("role", "start", "end", "rank", "score")}
        spans.append(Span(**facts, **(origin._asdict() | {"text": text})))
    title = f"{row['sample_id']}: {row['source_id']}" + (f" ({row['source']})" if row["source"] else "")
    return LongDocument(title, spans, len(row["input_ids"]))


def _local_tokenizer(work: Work, name: str | None) -> Tokenizer | None:
    """The run's tokenizer if it is a file on this machine: nothing is downloaded for a page."""
    if not isinstance(name, str) or not Path(name).expanduser().exists():
        return None
    try:
        tokenizer = Tokenizer.load(name)
    except UserError:
        return None
    return tokenizer if tokenizer.fingerprint == work["chunk"].settings.get("tokenizer") else None
