"""A file of texts or a packed folder in, documents as token ids out, with their meta-chunks where these are known."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from evaluation.model import Model
from nextlong.errors import UserError
from nextlong.folders import inside
from nextlong.shards import Reader, open_shards


class Document(NamedTuple):
    """One text as a model reads it."""

    name: str
    """Where it stands, for people."""
    ids: NDArray[np.int64]
    """[T]"""
    meta_chunks: NDArray[np.int64]
    """[n, 2]: start and end of each, ascending; none of a plain text."""
    num_special: int = 0
    """Special tokens that a packed folder put before it."""

    def first(self, length_tokens: int) -> "Document":
        """Its beginning, with the meta-chunks that are whole in it."""
        whole = self.meta_chunks[self.meta_chunks[:, 1] <= length_tokens]
        return self._replace(ids=self.ids[:length_tokens], meta_chunks=whole)


def read_documents(path: Path, model: Model) -> Iterator[Document]:
    """The documents of a .jsonl (or .jsonl.gz), .parquet or .txt file, or of a packed folder, in order.

    Texts are in a column named text; empty ones are left out. Raises UserError for what cannot be read, and for a
    folder of another tokenizer than the model's.
    """
    path = path.expanduser()
    if path.is_dir():
        yield from _packed(path, model)
        return
    if not path.exists():
        raise UserError(f"--documents: there is no file or folder {path}.")
    for place, text in enumerate(_texts(path)):
        if not isinstance(text, str | None):
            raise UserError(f"--documents: row {place} of {path} has a text that is a {type(text).__name__}.")
        if text:
            yield Document(f"row {place}", model.prompt_ids(text).cpu().numpy(), np.empty((0, 2), np.int64))


def _texts(path: Path) -> Iterator[Any]:
    if path.name.endswith((".jsonl", ".jsonl.gz")):
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    yield json.loads(line)["text"]
                except (ValueError, KeyError, TypeError) as error:
                    raise UserError(
                        f"--documents: line {number} of {path} is no JSON object with a text ({error!r})."
                    ) from error
    elif path.suffix == ".parquet":
        yield from _column(path)
    elif path.suffix == ".txt":
        yield path.read_text(encoding="utf-8", errors="replace")
    else:
        raise UserError(f"--documents: {path} is no .jsonl, .jsonl.gz, .parquet or .txt file, and no packed folder.")


def _column(path: Path) -> Iterator[Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=64, columns=["text"]):
                if "text" not in batch.schema.names:
                    raise UserError(f"--documents: {path} has no column text.")
                yield from batch.column("text").to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"--documents: {path} cannot be read ({error}).") from error


def _packed(folder: Path, model: Model) -> Iterator[Document]:
    """Each piece of each sequence."""
    manifest, reader = _open(folder)
    if manifest["tokenizer_sha256"] != model.tokenizer_sha256:
        raise UserError(
            f"--documents: {folder} was made with another tokenizer than that of {model.folder}: sha256 "
            f"{manifest['tokenizer_sha256'][:12]} and {model.tokenizer_sha256[:12]}."
        )
    row = 0
    for shard, provenance in zip(manifest["shards"], manifest["provenance"], strict=True):
        for segments in _segments(inside(folder, provenance), shard["rows"]):
            sequence = reader.read(row, row + 1)
            sequence.check(str(folder), vocab_size=manifest["vocab_size"], first_row=row)
            for number, (start, end) in enumerate(sequence.pieces(0).tolist()):
                own = [each for each in segments if start <= each["start"] and each["end"] <= end]
                ids = sequence.input_ids[0, start:end].astype(np.int64)
                yield _document(f"row {row}, document {number}", ids, own, start)
            row += 1


def _document(name: str, ids: NDArray[np.int64], segments: list[dict[str, Any]], start: int) -> Document:
    metas = [(each["start"] - start, each["end"] - start) for each in segments if each["role"] == "meta"]
    first = segments[0] if segments and segments[0]["role"] == "special" else None
    num_special = first["end"] - start if first is not None and first["start"] == start else 0
    return Document(name, ids, np.array(metas, np.int64).reshape(-1, 2), num_special)


def _open(folder: Path) -> tuple[dict[str, Any], Reader]:
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        names = [
            str(inside(folder, name).relative_to(folder)) for shard in manifest["shards"] for name in shard["files"]
        ]
        if {"tokenizer_sha256", "vocab_size", "provenance"} - manifest.keys():
            raise ValueError("its manifest.json is of another program")
        return manifest, open_shards(folder, manifest["format"], names)
    except (OSError, ValueError, LookupError, TypeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"--documents: {folder} is no packed folder ({error!r}). Make one with nextlong export."
        ) from error


def _segments(path: Path, num_rows: int) -> Iterator[list[dict[str, Any]]]:
    """Of each row of a shard: what its tokens are."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            if file.metadata.num_rows != num_rows:
                raise UserError(
                    f"--documents: {path} tells of {file.metadata.num_rows} rows, but its shard has {num_rows}."
                )
            for batch in file.iter_batches(batch_size=64, columns=["segments"]):
                yield from batch.column("segments").to_pylist()
    except (pa.ArrowException, OSError, KeyError) as error:
        raise UserError(
            f"--documents: the provenance {path} cannot be read ({error}). Export the folder again."
        ) from error
