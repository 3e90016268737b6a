"""A finished run, for people: the table of its stages, and a long document as its meta-chunks and negatives."""

from collections.abc import Iterator
from itertools import groupby
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from etl.origins import Origin, chunk_origins
from etl.terminal import printable
from etl.work import Work
from nextlong.errors import UserError

_STRIP_COLUMNS = 100
_SHOWN_NEGATIVES = 3


def stage_table(summary: dict[str, Any]) -> str:
    """The stages of a summary as text: seconds, and for every unit read = kept + dropped by reason."""
    lines = [f"{'stage':<11}{'seconds':>9}  {'unit':<15}{'read':>14}{'kept':>14}  dropped"]
    for stage, facts in summary["stages"].items():
        head = f"{stage:<11}{facts['seconds']:>9.1f}  "
        for unit, count in facts["account"].items():
            if unit != "notes":
                reasons = ", ".join(f"{number:,} {reason}" for reason, number in count["dropped"].items())
                lines.append(f"{head}{unit:<15}{count['read']:>14,}{count['kept']:>14,}  {reasons or '-'}")
                head = " " * len(head)
        for note, number in facts["account"].get("notes", {}).items():
            lines.append(f"{head}{note.replace('_', ' ')}: {number:,}")
            head = " " * len(head)
    return "\n".join(lines)


def show_long_document(work: Work, sample_id: int | None = None) -> str:
    """One long document as text: a strip to scale, then every meta-chunk with its nearest negatives, or every document.

    sample_id: which; None: the one with the most meta-chunks among the first part's. Raises UserError if there is none.
    """
    document = _long_document(work, sample_id)
    segments = document["segments"]
    origins = chunk_origins(work, (segment["chunk_id"] for segment in segments))
    show = _extended if any(segment["role"] == "meta" for segment in segments) else _window
    return "\n".join(show(document, segments, origins))


def _extended(document: dict[str, Any], segments: list[dict[str, Any]], origins: dict[int, Origin]) -> Iterator[str]:
    """A meta-document with what is inserted after each of its chunks."""
    num_metas, total = sum(segment["role"] == "meta" for segment in segments), segments[-1]["end"]
    what = "repeats" if any(segment["role"] == "repeat" for segment in segments) else "negatives"
    name = f"{printable(document['source_id'])} ({printable(document['source'])})"
    size = f"{total:,} tokens = {num_metas} meta-chunks + {len(segments) - num_metas} {what}"
    yield f"Long document {document['sample_id']}: {name}, {size}"
    yield f"  [{_strip(segments, total)}]  # meta-chunk, . {what}"
    shown = number = 0
    for place, segment in enumerate(segments):
        origin = origins[segment["chunk_id"]]
        if segment["role"] == "meta":
            number, shown = number + 1, 0
            yield f'  {_span(segment)}  META {number} of {num_metas}   "{first_words(origin.text, 70)}"'
            continue
        shown += 1
        if shown <= _SHOWN_NEGATIVES:
            where = f"{printable(origin.source_id)}, chunk {origin.chunk_index}"
            yield f'  {_span(segment)}    {_score(segment)}  {where}: "{first_words(origin.text, 48)}"'
        elif place + 1 == len(segments) or segments[place + 1]["role"] == "meta":
            yield f"  {'':>17}    {_score(segment)}  ... the last of {shown} {what}"


def _window(document: dict[str, Any], segments: list[dict[str, Any]], origins: dict[int, Origin]) -> Iterator[str]:
    """Whole documents, one after the other."""
    groups = [list(each) for _, each in groupby(segments, key=lambda segment: origins[segment["chunk_id"]].doc_id)]
    total = segments[-1]["end"]
    yield f"Long document {document['sample_id']}: {total:,} tokens of {len(groups)} whole documents"
    firsts = [dict(group[0], role="meta") for group in groups]
    yield f"  [{_strip([dict(first, end=first['start']) for first in firsts], total)}]  # a document begins"
    for group in groups:
        origin = origins[group[0]["chunk_id"]]
        span = _span({"start": group[0]["start"], "end": group[-1]["end"]})
        yield f'  {span}  {_score(group[0])}  {printable(origin.source_id)}: "{first_words(origin.text, 66)}"'


def first_words(text: str, num_chars: int) -> str:
    """The beginning of a text on one line."""
    words = " ".join(text[: 4 * num_chars].split())
    return printable(words if len(words) <= num_chars else words[: num_chars - 3] + "...")


def _long_document(work: Work, sample_id: int | None) -> dict[str, Any]:
    if "interleave" not in work.stages or work["interleave"].manifest() is None:
        raise UserError(f"{work.path} holds no long documents yet: its stage 'interleave' is not finished.")
    columns = ["sample_id", "source_id", "source", "segments"]
    for table in _tables(work, columns):
        if sample_id is not None:
            table = table.filter(pc.equal(table["sample_id"].cast(pa.string()), str(sample_id)))
        if table.num_rows:
            rows: list[dict[str, Any]] = table.to_pylist()
            return max(rows, key=lambda row: sum(segment["role"] == "meta" for segment in row["segments"]))
    num_rows = sum(rows for _, rows in work["interleave"].tables())
    raise UserError(
        f"{work.path} has no long document with sample_id {sample_id}. It has {num_rows:,}: give one's sample_id, or "
        f"leave --sample out."
    )


def _tables(work: Work, columns: list[str]) -> Iterator[pa.Table]:
    for path, _ in work["interleave"].tables():
        yield pq.read_table(path, columns=columns)


def _strip(segments: list[dict[str, Any]], total: int) -> str:
    strip = ["."] * _STRIP_COLUMNS
    for segment in segments:
        if segment["role"] == "meta":
            first = segment["start"] * _STRIP_COLUMNS // total
            for column in range(first, max(first + 1, segment["end"] * _STRIP_COLUMNS // total)):
                strip[column] = "#"
    return "".join(strip)


def _score(segment: dict[str, Any]) -> str:
    return "    -" if segment["score"] is None else f"{segment['score']:.3f}"


def _span(segment: dict[str, Any]) -> str:
    return f"{segment['start']:>8,}-{segment['end']:<8,}"
