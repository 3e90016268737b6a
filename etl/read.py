"""Stage read: a corpus in, documents with ids out; exact copies and empty texts are dropped and counted.

Two passes: the first counts and hashes every text (16 bytes a document stay), so that ids follow the input's order and
one document of every text is kept, the first; the second writes the parts. Each pass holds one part in memory.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from etl.engine import Engine
from etl.inputs import Input, Split, plan_splits, read_split
from etl.job import Job
from etl.parts import PartResult, write_array, write_table
from etl.schemas import DOCUMENTS, to_frame
from nextlong.accounting import Account

DROPPED = {1: "null_text", 2: "empty_text", 3: "blank_text", 4: "exact_copy"}
_KEPT, _NULL, _EMPTY, _BLANK, _COPY = range(5)
_SCAN = np.dtype([("high", "<u8"), ("low", "<u8"), ("status", "u1")])


def run(job: Job, engine: Engine) -> dict[str, Any]:
    """Write the documents of a job's corpus as parts; returns the manifest."""
    stage = job.work.start("read")
    settings = job.recipe.input
    splits = plan_splits(settings, job.files)
    scans = [
        stage.part(number, _scan_part, prefix="scan", split=split, settings=settings)
        for number, split in enumerate(splits)
    ]
    engine.run(scans, doing="count documents", unit="part")
    statuses = mark_copies([np.load(stage.path / f"{part.name}.npy") for part in scans])
    parts = [
        stage.part(number, _read_part, split=split, first_id=first_id, status=status, settings=settings)
        for number, (split, first_id, status) in enumerate(zip(splits, first_ids(statuses), statuses, strict=True))
    ]
    return stage.finish(engine.run(parts, doing="read documents", unit="part"))


def documents_schema(settings: Input) -> pa.Schema:
    """The documents' columns, with those that input.keep adds."""
    schema = DOCUMENTS
    for name in settings.keep:
        schema = schema.append(pa.field(name, pa.string()))
    return schema


def scan_partition(split: Split, settings: Input) -> NDArray[Any]:
    """For each row of a split a 128-bit hash of its text and a status: kept, or why it is dropped."""
    scan = np.zeros(0, _SCAN)
    texts = read_split(split, settings).table["text"]
    scan = np.zeros(len(texts), _SCAN)
    for row, text in enumerate(texts.to_pylist()):
        if text is None:
            scan["status"][row] = _NULL
        elif not text:
            scan["status"][row] = _EMPTY
        elif text.isspace():
            scan["status"][row] = _BLANK
        else:
            digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
            scan["high"][row] = int.from_bytes(digest[:8], "little")
            scan["low"][row] = int.from_bytes(digest[8:], "little")
    return scan


def mark_copies(scans: Sequence[NDArray[Any]]) -> list[NDArray[np.uint8]]:
    """The status of every row of every split: of texts that are equal, the first is kept and the others are copies."""
    everything = np.concatenate([np.zeros(0, _SCAN), *scans])
    status: NDArray[np.uint8] = everything["status"].copy()
    keys = pd.DataFrame({"high": everything["high"], "low": everything["low"]})[status == _KEPT]
    status[np.flatnonzero(status == _KEPT)[keys.duplicated().to_numpy()]] = _COPY
    return np.split(status, np.cumsum([len(scan) for scan in scans])[:-1])


def read_partition(split: Split, first_id: int, status: NDArray[np.uint8], *, settings: Input) -> pd.DataFrame:
    """The kept documents of a split; first_id: doc_id of its first row, status: [rows] from `mark_copies`."""
    return to_frame(_read(split, first_id, status, settings)[0])


def _read(split: Split, first_id: int, status: NDArray[np.uint8], settings: Input) -> tuple[pa.Table, Account]:
    rows = read_split(split, settings)
    table = rows.table
    doc_ids = np.arange(first_id, first_id + table.num_rows, dtype=np.int64)
    source_ids = pc.coalesce(table["source_id"], pa.array(doc_ids.astype(str)))
    table = table.set_column(table.schema.get_field_index("source_id"), "source_id", source_ids)
    table = table.append_column("doc_id", pa.array(doc_ids))
    for name in settings.keep:
        table = table.set_column(table.schema.get_field_index(name), name, table[name].cast(pa.string()))
    kept = (
        table.filter(pa.array(status == _KEPT))
        .select(documents_schema(settings).names)
        .cast(documents_schema(settings))
    )
    return kept, _account(table["text"], status, rows.num_replaced)


def _account(texts: pa.ChunkedArray, status: NDArray[np.uint8], num_replaced: int) -> Account:
    account = Account()
    chars = pc.fill_null(pc.utf8_length(texts), 0).to_numpy()
    for unit, sizes in (("documents", np.ones(len(status), np.int64)), ("chars", chars)):
        account.add(
            unit,
            read=int(sizes.sum()),
            kept=int(sizes[status == _KEPT].sum()),
            dropped={reason: int(sizes[status == code].sum()) for code, reason in DROPPED.items()},
        )
    account.note("documents_with_replaced_characters", num_replaced)
    return account


def _scan_part(folder: Path, name: str, *, split: Split, settings: Input) -> PartResult:
    scan = scan_partition(split, settings)
    write_array(folder / f"{name}.npy", scan)
    return PartResult(files=[f"{name}.npy"], rows=len(scan))


def _read_part(
    folder: Path, name: str, *, split: Split, first_id: int, status: NDArray[np.uint8], settings: Input
) -> PartResult:
    table, account = _read(split, first_id, status, settings)
    write_table(folder / f"{name}.parquet", table)
    return PartResult(files=[f"{name}.parquet"], rows=table.num_rows, account=account)


def first_ids(statuses: Sequence[NDArray[np.uint8]]) -> list[int]:
    return [int(first) for first in np.cumsum([0, *[len(status) for status in statuses]])[:-1]]
