"""Stage read: a corpus in, documents with ids out; empty, contaminated and repeated texts are dropped and counted.

Two passes: the first counts and hashes every text (16 bytes a document stay), so that ids follow the input's order and
one document of every text is kept, the first; texts that share an n-gram with an evaluation text are found there too,
so that their copies go with them. The second writes the parts. Each pass holds one part in memory, since
row groups and files larger than a part are streamed.
"""

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from etl import decontaminate
from etl.engine import Engine
from etl.inputs import Input, ReadSplit, Split, plan_splits, read_tables
from etl.job import Job
from etl.parts import PartResult, read_array, write_array, write_table
from etl.schemas import DOCUMENTS, to_frame
from etl.work import StageFolder
from nextlong.accounting import Account
from nextlong.decontamination import EvaluationNgrams

log = logging.getLogger(__name__)

DROPPED = {1: "null_text", 2: "empty_text", 3: "blank_text", 4: "exact_copy", 5: "too_long"}
"""Why a row is dropped, by its status; those above are contaminated by an evaluation file, numbered from there."""
_KEPT, _NULL, _EMPTY, _BLANK, _COPY, _TOO_LONG, _CONTAMINATED = range(7)
_SCAN = np.dtype([("high", "<u8"), ("low", "<u8"), ("status", "<u2")])
_LoadNgrams = Callable[[], EvaluationNgrams]


def run(job: Job, engine: Engine) -> dict[str, Any]:
    """Write the documents of a job's corpus as parts; returns the manifest."""
    stage = job.work.start("read")
    settings = job.recipe.input
    splits = plan_splits(settings, job.files)
    load_ngrams = _collect_ngrams(job, stage, engine) if job.evaluation_files else None
    scans = [
        stage.part(number, _scan_part, prefix="scan", split=split, settings=settings, load_ngrams=load_ngrams)
        for number, split in enumerate(splits)
    ]
    engine.run(scans, doing="count documents", unit="part")
    # Copies, as each map would stay an open file.
    statuses = mark_copies([np.array(read_array(stage.path / f"{part.name}.npy")) for part in scans])
    _tell_of_too_long(splits, statuses, settings)
    shared: dict[str, Any] = {"settings": settings, "evaluation_files": [file.name for file in job.evaluation_files]}
    parts = [
        stage.part(number, _read_part, split=split, first_id=first_id, status=status, **shared)
        for number, (split, first_id, status) in enumerate(zip(splits, first_ids(statuses), statuses, strict=True))
    ]
    return stage.finish(engine.run(parts, doing="read documents", unit="part"))


def documents_schema(settings: Input) -> pa.Schema:
    """The documents' columns, with those that input.keep adds."""
    schema = DOCUMENTS
    for name in settings.keep:
        schema = schema.append(pa.field(name, pa.string()))
    return schema


def scan_partition(split: Split, settings: Input, ngrams: EvaluationNgrams | None = None) -> NDArray[Any]:
    """For each row of a split a 128-bit hash of its text and a status: kept, or why it is dropped.

    ngrams: those that contaminate a document; None: nothing does.
    """
    scans = [_scan(read, ngrams) for read in read_tables(split, settings)]
    return np.concatenate([np.zeros(0, _SCAN), *scans])


def _scan(read: ReadSplit, ngrams: EvaluationNgrams | None) -> NDArray[Any]:
    scan = np.zeros(read.table.num_rows, _SCAN)
    for row, text in enumerate(read.table["text"].to_pylist()):
        if text is None:
            scan["status"][row] = _TOO_LONG if read.is_too_long[row] else _NULL
        elif not text:
            scan["status"][row] = _EMPTY
        elif text.isspace():
            scan["status"][row] = _BLANK
        elif ngrams is not None and (file := ngrams.first_file(text)) >= 0:
            scan["status"][row] = _CONTAMINATED + file
        else:
            digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
            scan["high"][row] = int.from_bytes(digest[:8], "little")
            scan["low"][row] = int.from_bytes(digest[8:], "little")
    return scan


def mark_copies(scans: Sequence[NDArray[Any]]) -> list[NDArray[np.uint16]]:
    """The status of every row of every split: of texts that are equal, the first is kept and the others are copies.

    Contaminated texts are dropped already, and every copy of theirs for the same reason.
    """
    if not scans:
        return []
    everything = np.concatenate(scans)
    status: NDArray[np.uint16] = everything["status"].copy()
    keys = pd.DataFrame({"high": everything["high"], "low": everything["low"]})[status == _KEPT]
    status[np.flatnonzero(status == _KEPT)[keys.duplicated().to_numpy()]] = _COPY
    return np.split(status, np.cumsum([len(scan) for scan in scans])[:-1])


def read_partition(split: Split, first_id: int, status: NDArray[np.uint16], *, settings: Input) -> pd.DataFrame:
    """The kept documents of a split; first_id: doc_id of its first row, status: [rows] from `mark_copies`."""
    tables = [
        _kept(read.table, first, here, settings) for read, first, here in _read(split, first_id, status, settings)
    ]
    return to_frame(pa.concat_tables([documents_schema(settings).empty_table(), *tables]))


def _read(
    split: Split, first_id: int, status: NDArray[np.uint16], settings: Input
) -> Iterator[tuple[ReadSplit, int, NDArray[np.uint16]]]:
    """The rows of a split, a few MiB at a time, with the doc_id of the first and the status of each."""
    row = 0
    for read in read_tables(split, settings):
        yield read, first_id + row, status[row : row + read.table.num_rows]
        row += read.table.num_rows


def _kept(table: pa.Table, first_id: int, status: NDArray[np.uint16], settings: Input) -> pa.Table:
    doc_ids = np.arange(first_id, first_id + table.num_rows, dtype=np.int64)
    source_ids = pc.coalesce(table["source_id"], pa.array(doc_ids.astype(str)))
    table = table.set_column(table.schema.get_field_index("source_id"), "source_id", source_ids)
    table = table.append_column("doc_id", pa.array(doc_ids))
    kept = table.filter(pa.array(status == _KEPT))
    return kept.select(documents_schema(settings).names).cast(documents_schema(settings))


def parts_of(tables: Iterable[pa.Table], split: Split, schema: pa.Schema) -> Iterator[pa.Table]:
    """Documents gathered into parts, each closed by the document with which it reaches its size; one at least.

    What would be left for the last one and is less than half a part stays with the one before.
    """
    limit = split.part_rows or split.part_bytes or 0
    held, sizes, num_parts = schema.empty_table(), np.zeros(0, np.int64), 0
    for table in tables:
        held = pa.concat_tables([held, table])
        more = np.ones(table.num_rows, np.int64) if split.part_rows else pc.binary_length(table["text"]).to_numpy()
        sizes = np.concatenate([sizes, more])
        while limit and (rows := _rows_of_part(sizes, limit)):
            yield held.slice(0, rows)
            held, sizes, num_parts = held.slice(rows), sizes[rows:], num_parts + 1
    if held.num_rows or not num_parts:
        yield held


def _rows_of_part(sizes: NDArray[np.int64], limit: int) -> int:
    """How many documents make a part; 0: there are too few for one and half of another."""
    filled = np.cumsum(sizes)
    rows = int(np.searchsorted(filled, limit)) + 1
    return rows if rows < len(sizes) and 2 * int(filled[-1] - filled[rows - 1]) >= limit else 0


def _account(read: ReadSplit, status: NDArray[np.uint16], evaluation_files: Sequence[str]) -> Account:
    account = Account()
    chars = pc.fill_null(pc.utf8_length(read.table["text"]), 0).to_numpy()
    reasons = {code: _reason(code, evaluation_files) for code in np.unique(status).tolist() if code != _KEPT}
    for unit, sizes in (("documents", np.ones(len(status), np.int64)), ("chars", chars)):
        account.add(
            unit,
            read=int(sizes.sum()),
            kept=int(sizes[status == _KEPT].sum()),
            dropped={reason: int(sizes[status == code].sum()) for code, reason in reasons.items()},
        )
    account.note("documents_with_replaced_characters", read.num_replaced)
    return account


def _reason(status: int, evaluation_files: Sequence[str]) -> str:
    return DROPPED.get(status) or f"contaminated by {evaluation_files[status - _CONTAMINATED]}"


def _tell_of_too_long(splits: Sequence[Split], statuses: Sequence[NDArray[np.uint16]], settings: Input) -> None:
    number = sum(np.count_nonzero(status == _TOO_LONG) for status in statuses)
    if not number:
        return
    for split, first, status in zip(splits, first_ids(statuses), statuses, strict=True):
        rows = np.flatnonzero(status == _TOO_LONG)
        if len(rows):
            files = list(dict.fromkeys(span.file.name for span in split.spans))
            log.warning(
                "%s documents are longer than input.max_document_chars=%s and are dropped, the first is document %s of "
                "the input, in %s",
                f"{number:,}",
                f"{settings.max_document_chars:,}",
                f"{first + rows[0]:,}",
                files[0] if len(files) == 1 else f"one of {files[0]} to {files[-1]}",
            )
            return


def _collect_ngrams(job: Job, stage: StageFolder, engine: Engine) -> _LoadNgrams:
    """Read the evaluation texts, once; every task then maps what became of them."""
    settings, files = job.recipe.decontamination, job.evaluation_files
    part = stage.part(0, decontaminate.collect_part, prefix="scan-ngrams", files=files, settings=settings)
    [marker] = engine.run([part], doing="read evaluation texts", unit="part")
    decontaminate.warn_of_useless(files, marker["values"], settings)
    return partial(decontaminate.load, part.folder, part.name, settings)


def _scan_part(
    folder: Path, name: str, *, split: Split, settings: Input, load_ngrams: _LoadNgrams | None
) -> PartResult:
    scan = scan_partition(split, settings, load_ngrams and load_ngrams())
    write_array(folder / f"{name}.npy", scan)
    return PartResult(files=[f"{name}.npy"], rows=len(scan))


def _read_part(
    folder: Path,
    name: str,
    *,
    split: Split,
    first_id: int,
    status: NDArray[np.uint16],
    settings: Input,
    evaluation_files: Sequence[str],
) -> PartResult:
    accounts: list[Account] = []

    def tables() -> Iterator[pa.Table]:
        for read, first, here in _read(split, first_id, status, settings):
            accounts.append(_account(read, here, evaluation_files))
            yield _kept(read.table, first, here, settings)

    written = []
    for number, table in enumerate(parts_of(tables(), split, documents_schema(settings))):
        file = f"{name}-{number:03d}.parquet"
        write_table(folder / file, table)
        written.append((file, table.num_rows))
    return PartResult(
        files=[file for file, _ in written],
        rows=sum(rows for _, rows in written),
        account=Account.total(accounts),
        values={"tables": written},
    )


def first_ids(statuses: Sequence[NDArray[np.uint16]]) -> list[int]:
    return [int(first) for first in np.cumsum([0, *[len(status) for status in statuses]])[:-1]]
