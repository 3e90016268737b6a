"""Stage pack: long documents in, sequences of one fixed length out, with boundaries."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from etl.draw import empty_strands
from etl.engine import Engine
from etl.job import Job
from etl.parts import PartResult, write_table
from etl.schemas import LONG_DOCUMENTS, PACKED, to_frame, to_table
from nextlong.accounting import Account
from nextlong.errors import UserError
from nextlong.packing import documents_per_sequence, domain_of
from nextlong.packing import pack as pack_documents

log = logging.getLogger(__name__)

PART_TOKENS = 16_000_000


def pack_partition(long_documents: pd.DataFrame, *, per_sequence: int, length_tokens: int) -> pd.DataFrame:
    """The packed sequences of a partition of long documents."""
    return to_frame(pack_table(to_table(long_documents, LONG_DOCUMENTS), per_sequence, length_tokens))


def run(job: Job, engine: Engine) -> dict[str, Any]:
    """Write a job's packed sequences as parts; returns the manifest. No sequence mixes target lengths."""
    stage, parts, left = job.work.start("pack"), [], Account()
    for strand in empty_strands(job.recipe.synthesis):
        target = strand.target_length_tokens
        per_sequence = documents_per_sequence(job.recipe.packing.sequence_length_tokens, target)
        tables = job.work["interleave"].tables(strand.prefix)
        num_documents = sum(rows for _, rows in tables)
        whole = num_documents - num_documents % per_sequence
        size = max(1, PART_TOKENS // (target * per_sequence)) * per_sequence
        parts += [
            stage.part(
                number,
                _pack_part,
                prefix=strand.prefix,
                sources=_sources(tables, first, min(first + size, whole)),
                per_sequence=per_sequence,
                length_tokens=target,
            )
            for number, first in enumerate(range(0, max(1, whole), size))
        ]
        for unit, number in (("documents", num_documents - whole), ("tokens", (num_documents - whole) * target)):
            left.add(unit, read=number, kept=0, dropped={"incomplete_sequence": number})
        if num_documents > whole:
            log.warning(
                "%d of %d long documents of %s tokens are left out: a sequence of packing.sequence_length_tokens takes "
                "%d. With another synthesis.num_samples, or a shorter sequence, all are used",
                num_documents - whole,
                num_documents,
                f"{target:,}",
                per_sequence,
            )
    if not any(part.arguments["sources"] for part in parts):
        raise UserError(
            f"no sequence of packing.sequence_length_tokens = {job.recipe.packing.sequence_length_tokens:,} is full. "
            f"Shorten it, or raise synthesis.num_samples; the long documents are kept."
        )
    markers = engine.run(parts, doing="pack", unit="part")
    accounts = [Account.from_dict(marker["account"]) for marker in markers]
    return stage.finish(markers, account=Account.total([*accounts, left]))


def _sources(tables: Sequence[tuple[Path, int]], first: int, last: int) -> list[tuple[Path, int, int]]:
    """Which rows [start, stop) of which files are the long documents first ... last - 1."""
    sources, begin = [], 0
    for path, rows in tables:
        start, stop = max(first, begin) - begin, min(last, begin + rows) - begin
        if start < stop:
            sources.append((path, start, stop))
        begin += rows
    return sources


def _pack_part(
    folder: Path, name: str, *, sources: list[tuple[Path, int, int]], per_sequence: int, length_tokens: int
) -> PartResult:
    columns = ["sample_id", "source"] if per_sequence == 1 else ["sample_id", "source", "input_ids"]
    pieces = [pq.read_table(path, columns=columns).slice(start, stop - start) for path, start, stop in sources]
    schema = pa.schema([LONG_DOCUMENTS.field(column) for column in columns])
    documents = pa.concat_tables(pieces) if pieces else schema.empty_table()
    table = pack_table(documents, per_sequence, length_tokens)
    write_table(folder / f"{name}.parquet", table, rows_per_group=max(1, 1_000_000 // (per_sequence * length_tokens)))
    account = Account()
    account.add("documents", read=documents.num_rows, kept=table.num_rows * per_sequence)
    tokens = documents.num_rows * length_tokens
    account.add("tokens", read=tokens, kept=table.num_rows * per_sequence * length_tokens)
    account.add("sequences", read=table.num_rows, kept=table.num_rows)
    return PartResult(files=[f"{name}.parquet"], rows=table.num_rows, account=account)


def pack_table(documents: pa.Table, per_sequence: int, length_tokens: int) -> pa.Table:
    """The packed sequences (columns of schemas.PACKED) of long documents of one length, in order."""
    sequences, _ = pack_documents(documents.num_rows, per_sequence, length_tokens)
    documents = documents.slice(0, len(sequences) * per_sequence)
    sources = documents["source"].to_pylist()
    boundaries = np.concatenate([np.empty((0, 2), np.uint32), *[sequence.indices for sequence in sequences]])
    lists = np.arange(len(sequences) + 1, dtype=np.int32)
    pairs = pa.FixedSizeListArray.from_arrays(pa.array(boundaries.ravel()), 2)
    if per_sequence == 1:
        input_ids = pa.nulls(len(sequences), PACKED.field("input_ids").type)
    else:
        flat = pc.list_flatten(documents["input_ids"]).combine_chunks()
        input_ids = pa.ListArray.from_arrays(lists * (per_sequence * length_tokens), flat)
    sample_ids = documents["sample_id"].combine_chunks()
    return pa.table(
        [
            pa.ListArray.from_arrays(lists * per_sequence, pairs),
            pa.array([per_sequence * length_tokens] * len(sequences), pa.int32()),
            pa.array(
                [domain_of([sources[member] for member in sequence.members]) for sequence in sequences], pa.string()
            ),
            pa.ListArray.from_arrays(lists * per_sequence, sample_ids),
            input_ids,
        ],
        schema=PACKED,
    )
