"""Stage read: a corpus in, documents with ids out; exact copies and empty texts are dropped and counted.

Two passes: the first counts and hashes every text (16 bytes a document stay), so that ids follow the input's order and
one document of every text is kept, the first; the second writes the parts. Each pass holds one part in memory, since
row groups and files larger than a part are streamed.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from etl.engine import Engine
from etl.inputs import Input, Split, plan_splits, read_tables
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
    scans = [_scan(read.table["text"]) for read in read_tables(split, settings)]
    return np.concatenate([np.zeros(0, _SCAN), *scans])


def _scan(texts: pa.ChunkedArray) -> NDArray[Any]:
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
    tables = [table for table, _ in _read(split, first_id, status, settings)]
    return to_frame(pa.concat_tables([documents_schema(settings).empty_table(), *tables]))


def _read(
    split: Split, first_id: int, status: NDArray[np.uint8], settings: Input
) -> Iterator[tuple[pa.Table, Account]]:
    """The kept documents of a split, a few MiB at a time."""
    row = 0
    for read in read_tables(split, settings):
        here = status[row : row + read.table.num_rows]
        yield _kept(read.table, first_id + row, here, settings), _account(read.table["text"], here, read.num_replaced)
        row += read.table.num_rows


def _kept(table: pa.Table, first_id: int, status: NDArray[np.uint8], settings: Input) -> pa.Table:
    doc_ids = np.arange(first_id, first_id + table.num_rows, dtype=np.int64)
    source_ids = pc.coalesce(table["source_id"], pa.array(doc_ids.astype(str)))
    table = table.set_column(table.schema.get_field_index("source_id"), "source_id", source_ids)
    table = table.append_column("doc_id", pa.array(doc_ids))
    kept = table.filter(pa.array(status == _KEPT))
    return kept.select(documents_schema(settings).names).cast(documents_schema(settings))


def _parts(tables: Iterable[pa.Table], split: Split, schema: pa.Schema) -> Iterator[pa.Table]:
    """Documents gathered into parts, each closed by the document with which it reaches its size; one at least."""
    held, filled, num_parts = [schema.empty_table()], 0, 0
    limit = split.part_rows or split.part_bytes or 0
    for table in tables:
        sizes = np.ones(table.num_rows, np.int64) if split.part_rows else pc.binary_length(table["text"]).to_numpy()
        first = 0
        for row, size in enumerate(sizes.tolist()):
            filled += size
            if limit and filled >= limit:
                yield pa.concat_tables([*held, table.slice(first, row + 1 - first)])
                held, filled, first, num_parts = [schema.empty_table()], 0, row + 1, num_parts + 1
        held.append(table.slice(first))
    if sum(table.num_rows for table in held) or not num_parts:
        yield pa.concat_tables(held)


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
    accounts: list[Account] = []

    def tables() -> Iterator[pa.Table]:
        for table, account in _read(split, first_id, status, settings):
            accounts.append(account)
            yield table

    written = []
    for number, table in enumerate(_parts(tables(), split, documents_schema(settings))):
        file = f"{name}-{number:03d}.parquet"
        write_table(folder / file, table)
        written.append((file, table.num_rows))
    return PartResult(
        files=[file for file, _ in written],
        rows=sum(rows for _, rows in written),
        account=Account.total(accounts),
        values={"tables": written},
    )


def first_ids(statuses: Sequence[NDArray[np.uint8]]) -> list[int]:
    return [int(first) for first in np.cumsum([0, *[len(status) for status in statuses]])[:-1]]
