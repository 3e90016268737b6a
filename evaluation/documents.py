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
from nextlong.packed_folder import Folder


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

    Texts are in a column named text; one that is empty or null has no tokens. Raises UserError for what cannot be read,
    and for a folder of another tokenizer than the model's.
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
        ids = model.prompt_ids(text).cpu().numpy() if text else np.empty(0, np.int64)
        yield Document(f"row {place}", ids, np.empty((0, 2), np.int64))


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


def _packed(path: Path, model: Model) -> Iterator[Document]:
    """Each piece of each sequence."""
    folder = Folder.open(str(path), field="--documents")
    if folder.manifest["tokenizer_sha256"] != model.tokenizer_sha256:
        raise UserError(
            f"--documents: {path} was made with another tokenizer than that of {model.folder}: sha256 "
            f"{folder.manifest['tokenizer_sha256'][:12]} and {model.tokenizer_sha256[:12]}."
        )
    for row in range(len(folder)):
        sequence = folder.read(row, folder.manifest["vocab_size"])
        metas, special = folder.segments(row, "meta"), folder.segments(row, "special")
        for number, (start, end) in enumerate(sequence.pieces(0).tolist()):
            own = metas[(start <= metas[:, 0]) & (metas[:, 1] <= end)]
            before = special[special[:, 0] == start]
            yield Document(
                f"row {row}, document {number}",
                sequence.input_ids[0, start:end].astype(np.int64),
                own.astype(np.int64) - start,
                int((before[:, 1] - start).sum()),
            )
