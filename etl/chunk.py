"""Stage chunk: documents in, chunks and their token ids out.

One pass chunks and tokenizes a part; chunk ids are dense over the corpus, so a second pass, quick, numbers the parts
once all counts are known. Token ids lie in a flat file a part, beside the table.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from etl import quarantine
from etl.engine import Engine
from etl.job import Job
from etl.lookup import open_tokenizer
from etl.parts import PartResult, file_facts, read_array, share_file, write_array, write_raw, write_table, written_aside
from etl.schemas import CHUNKS, DOCUMENT_CHUNKS, to_frame
from nextlong.accounting import Account
from nextlong.chunking import Chunks, chunk_document, text_hashes
from nextlong.config import Chunking
from nextlong.errors import UserError
from nextlong.tokenizing import TokenIds, Tokenizer, chunk_documents_by_tokens

_ROWS_PER_GROUP = 2_048  # some 4 MB of text: whoever looks at one chunk reads no more


class ChunkedPart(NamedTuple):
    """The chunks of one part of the corpus, numbered from 0."""

    chunks: pa.Table
    """Columns of schemas.CHUNKS."""
    documents: pa.Table
    """Columns of schemas.DOCUMENT_CHUNKS."""
    tokens: TokenIds
    hashes: NDArray[np.uint64]
    account: Account


def chunk_partition(documents: pd.DataFrame, *, tokenizer: str, chunking: Chunking) -> pd.DataFrame:
    """The chunks of a partition of documents, chunk_ids counted from 0."""
    table = pa.Table.from_pandas(documents, preserve_index=False)
    return to_frame(chunk_documents(table, open_tokenizer(tokenizer), chunking).chunks)


def chunk_documents(documents: pa.Table, tokenizer: Tokenizer, chunking: Chunking) -> ChunkedPart:
    """Chunk and tokenize documents; every character is in a chunk, or counted as lost by the published rule."""
    texts = documents["text"].to_pylist()
    chunked = _cut(texts, tokenizer, chunking)
    num_chunks = np.array([len(chunks.texts) for chunks in chunked], np.int64)
    chunk_texts = [text for chunks in chunked for text in chunks.texts]
    joiners = [joiner for chunks in chunked for joiner in chunks.joiners]
    tokens = tokenizer.encode([text + joiner for text, joiner in zip(chunk_texts, joiners, strict=True)])
    num_tokens = np.diff(tokens.offsets)
    num_chars = np.array([len(text) for text in texts], np.int64)
    kept_chars = sum(chunks.num_chars for chunks in chunked)
    firsts = np.cumsum(num_chunks) - num_chunks
    table = pa.table(
        [
            np.arange(len(chunk_texts)),
            np.repeat(documents["doc_id"].to_numpy(), num_chunks),
            np.arange(len(chunk_texts)) - np.repeat(firsts, num_chunks),
            chunk_texts,
            joiners,
            np.array([len(text) for text in chunk_texts], np.int64),
            num_tokens,
        ],
        schema=CHUNKS,
    )
    document_tokens = tokens.offsets[np.cumsum(num_chunks)] - tokens.offsets[firsts]
    by_document = pa.table(
        [
            documents["doc_id"],
            documents["source_id"],
            documents["source"],
            firsts,
            num_chunks,
            num_chars,
            document_tokens,
        ],
        schema=DOCUMENT_CHUNKS,
    )
    account = Account()
    account.add("documents", read=len(texts), kept=len(texts))
    account.add("chunks", read=len(chunk_texts), kept=len(chunk_texts))
    account.add("tokens", read=len(tokens.ids), kept=len(tokens.ids))
    lost = int(num_chars.sum()) - kept_chars
    account.add("chars", read=int(num_chars.sum()), kept=kept_chars, dropped={"blank_lines_of_published_rule": lost})
    return ChunkedPart(table, by_document, tokens, text_hashes(chunk_texts), account)


def run(job: Job, engine: Engine) -> dict[str, Any]:
    """Write the chunks of a job's documents as parts; returns the manifest."""
    stage, documents = job.work.start("chunk"), job.work["read"]
    if not sum(rows for _, rows in documents.tables()):
        raise UserError(_why_none((documents.manifest() or {})["account"]))
    cut = [
        stage.part(
            number,
            _cut_part,
            prefix="cut",
            weight=rows,
            documents=path,
            tokenizer_file=job.tokenizer_file,
            chunking=job.recipe.chunking,
            carefully=False,
        )
        for number, (path, rows) in enumerate(documents.tables())
    ]
    markers = engine.run(cut, doing="chunk and tokenize", unit="document")
    quarantine.refuse_none_left(markers, "documents", "tokenizer")
    account = Account.total(Account.from_dict(marker["account"]) for marker in markers)
    firsts = np.cumsum([0, *[marker["rows"] for marker in markers]]).tolist()
    parts = [
        stage.part(number, _number_part, cut=part.name, first_id=first)
        for number, (part, first) in enumerate(zip(cut, firsts, strict=False))
    ]
    numbered = engine.run(parts, doing="number chunks", unit="part")
    files = _write_lookups(stage.path, numbered)
    values = {"num_chunks": firsts[-1]} | quarantine.collect(markers)
    return stage.finish(numbered, account=account, files=files, values=values)


def _why_none(account: dict[str, Any]) -> str:
    count = account.get("documents", {"read": 0, "dropped": {}})
    if not count["read"]:
        return "the input has no rows. Check input.path."
    reasons = ", ".join(f"{number:,} {reason}" for reason, number in count["dropped"].items())
    is_contaminated = any(reason.startswith("contaminated") for reason in count["dropped"])
    remedy = (
        "decontamination.path and decontamination.ngram_words" if is_contaminated else "input.text, the text column"
    )
    return f"no document is left of {count['read']:,} in the input ({reasons}). Check {remedy}."


def _cut(texts: Sequence[str], tokenizer: Tokenizer, chunking: Chunking) -> list[Chunks]:
    if chunking.granularity_tokens is not None:
        return chunk_documents_by_tokens(texts, tokenizer, chunking.granularity_tokens)
    chars, rule = chunking.granularity_chars, chunking.long_paragraphs
    return [chunk_document(text, granularity_chars=chars, long_paragraphs=rule) for text in texts]


def _cut_part(
    folder: Path, name: str, *, documents: Path, tokenizer_file: Path, chunking: Chunking, carefully: bool = False
) -> PartResult:
    table = pq.read_table(documents)
    how: dict[str, Any] = {"tokenizer_file": tokenizer_file, "chunking": chunking}
    return quarantine.write_without_poisoned(
        partial(_write_cut, folder, name, table, **how),
        partial(_try_cut, documents, **how),
        table.num_rows,
        carefully=carefully,
    )


def _try_cut(documents: Path, first: int, last: int, *, tokenizer_file: Path, chunking: Chunking) -> None:
    chunk_documents(pq.read_table(documents).slice(first, last - first), open_tokenizer(str(tokenizer_file)), chunking)


def _write_cut(
    folder: Path,
    name: str,
    documents: pa.Table,
    poisoned: Mapping[int, str],
    *,
    tokenizer_file: Path,
    chunking: Chunking,
) -> PartResult:
    is_kept = quarantine.mask(documents.num_rows, poisoned)
    part = chunk_documents(documents.filter(is_kept), open_tokenizer(str(tokenizer_file)), chunking)
    left_out = documents.filter(~is_kept)
    num_chars = pc.sum(pc.utf8_length(left_out["text"])).as_py() or 0
    for unit, number in (("documents", left_out.num_rows), ("chars", num_chars)):
        part.account.add(unit, read=number, kept=0, dropped={quarantine.REASON: number})
    write_table(folder / f"{name}.parquet", part.chunks, rows_per_group=_ROWS_PER_GROUP)
    write_table(folder / f"{name}.documents.parquet", part.documents)
    write_raw(folder / f"{name}.tokens", part.tokens.ids)
    write_array(folder / f"{name}.offsets.npy", part.tokens.offsets)
    write_array(folder / f"{name}.hashes.npy", part.hashes)
    files = [name + ending for ending in (".parquet", ".documents.parquet", ".tokens", ".offsets.npy", ".hashes.npy")]
    values = quarantine.record(documents, poisoned)
    return PartResult(files=files, rows=part.chunks.num_rows, account=part.account, values=values)


def _number_part(folder: Path, name: str, *, cut: str, first_id: int) -> PartResult:
    for ending, column in ((".parquet", "chunk_id"), (".documents.parquet", "first_chunk_id")):
        table = pq.read_table(folder / (cut + ending))
        place = table.schema.get_field_index(column)
        table = table.set_column(place, table.schema.field(place), pc.add(table[column], first_id))
        write_table(folder / (name + ending), table)
    for ending in (".tokens", ".offsets.npy", ".hashes.npy"):
        share_file(folder / (cut + ending), folder / (name + ending))
    offsets = read_array(folder / f"{name}.offsets.npy")
    files = [name + ending for ending in (".parquet", ".documents.parquet", ".tokens", ".offsets.npy", ".hashes.npy")]
    return PartResult(files=files, rows=len(offsets) - 1, values={"num_tokens": int(offsets[-1])})


def _write_lookups(folder: Path, parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Offsets and hashes of all chunks in one array each, so that a worker finds any chunk at once."""
    num_chunks = sum(part["rows"] for part in parts)
    with (
        written_aside(folder / "offsets.npy") as offsets_file,
        written_aside(folder / "text_hashes.npy") as hashes_file,
    ):
        offsets = np.lib.format.open_memmap(offsets_file, "w+", np.dtype("<i8"), (num_chunks + 1,))
        hashes = np.lib.format.open_memmap(hashes_file, "w+", np.dtype("<u8"), (num_chunks,))
        offsets[0] = first = token = 0
        for part in parts:
            rows = slice(first, first + part["rows"])
            offsets[rows.start + 1 : rows.stop + 1] = read_array(folder / f"{part['part']}.offsets.npy")[1:] + token
            hashes[rows] = read_array(folder / f"{part['part']}.hashes.npy")
            first, token = rows.stop, token + part["values"]["num_tokens"]
    return {name: file_facts(folder / name) for name in ("offsets.npy", "text_hashes.npy")}
