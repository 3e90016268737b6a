"""A packed folder and a row in; from which documents its tokens came, as text, out."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from etl.shards.manifest import TOKENIZER
from etl.shards.of_folder import PackedFolder
from etl.shards.segments import fault_of
from etl.shards.source import DOCUMENTS
from etl.show import first_words
from etl.terminal import printable
from nextlong.errors import UserError
from nextlong.tokenizing import Tokenizer

_CONTEXT_TOKENS = 24


def trace(path: Path, row: int, token: int | None = None) -> str:
    """Where the tokens of a row came from: every segment of it, or the one that holds a token, with its text.

    Raises UserError for a row or token that there is not.
    """
    folder = PackedFolder.open(path)
    length = folder.about.length_tokens
    if not 0 <= row < len(folder):
        raise UserError(f"{path} has no row {row}: its rows are 0 to {len(folder) - 1:,}.")
    if token is not None and not 0 <= token < length:
        raise UserError(f"row {row} of {path} has no token {token}: its tokens are 0 to {length - 1:,}.")
    rows = folder.provenance(row, row + 1)
    if fault := fault_of(rows, row, length, folder.doc_ids()):
        raise UserError(f"{folder.path}, {fault} Run 'nextlong verify {path}'.")
    [told] = rows.to_pylist()
    segments = told["segments"]
    if token is not None:
        segments = [each for each in segments if each["start"] <= token < each["end"]]
    names = _names(folder, segments)
    sequence = folder.read(row, row + 1)
    tokenizer = Tokenizer(folder.path / TOKENIZER)
    ids = sequence.input_ids[0]
    samples = ", ".join(map(str, told["sample_ids"]))
    pieces = "1 piece" if len(told["indices"]) == 1 else f"{len(told['indices'])} pieces"
    head = f"row {row} of {path}: {length:,} tokens, {pieces}, domain {printable(told['domain'])}"
    lines = [head, f"  from {printable(told['origin'])}" if told["origin"] else "", f"  samples {samples}"]
    if token is None:
        lines += _every_segment(segments, names, ids, tokenizer)
    else:
        lines += _one_token(segments[0], names, ids, tokenizer, token)
    return "\n".join(line for line in lines if line)


def _names(folder: PackedFolder, segments: list[dict[str, Any]]) -> dict[int, str]:
    doc_ids = np.unique([each["doc_id"] for each in segments])
    table = pa.concat_tables([DOCUMENTS.empty_table(), *folder.documents(doc_ids)]).to_pylist()
    return {each["doc_id"]: f"{_text(each['source_id'])} ({_text(each['source'])})" for each in table}


def _text(value: str | None) -> str:
    return "-" if value is None else printable(value)


def _every_segment(
    segments: list[dict[str, Any]], names: dict[int, str], ids: Any, tokenizer: Tokenizer
) -> Iterator[str]:
    for each in segments:
        text = first_words(tokenizer.decode(ids[each["start"] : min(each["end"], each["start"] + 64)]), 48)
        score = "    -" if each["score"] is None else f"{each['score']:.3f}"
        span = f"{each['start']:>9,}-{each['end']:<9,}"
        yield f'{span} {each["role"]:<8} {score}  {names.get(each["doc_id"], "-")}: "{text}"'


def _one_token(
    segment: dict[str, Any], names: dict[int, str], ids: Any, tokenizer: Tokenizer, token: int
) -> Iterator[str]:
    before, after = max(segment["start"], token - _CONTEXT_TOKENS), min(segment["end"], token + 1 + _CONTEXT_TOKENS)
    left, here, right = (
        printable(tokenizer.decode(ids[first:last]))
        for first, last in ((before, token), (token, token + 1), (token + 1, after))
    )
    found = f", rank {segment['rank']}, similarity {segment['score']:.3f}" if segment["score"] is not None else ""
    yield f"  token {token:,} is in segment [{segment['start']:,}, {segment['end']:,}): {segment['role']}{found}"
    if segment["doc_id"] >= 0:
        place = segment["first_token"] + token - segment["start"]
        chunk = f", chunk_id {segment['chunk_id']}" if segment["chunk_id"] >= 0 else ""
        yield f"  token {place:,} of document {names[segment['doc_id']]}, doc_id {segment['doc_id']}{chunk}"
    yield f"  id {int(ids[token])}: ...{left}[{here}]{right}..."
