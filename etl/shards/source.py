"""Where packed sequences come from: a run's work folder, a packed folder, a mixture, or documents to be packed."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from etl.engine import Engine
from nextlong.sequences import Sequences, Shapes, ranges

ROWS = pa.schema(
    [
        ("row", pa.int64()),
        ("origin", pa.string()),  # of a mixture: the folder that the sequence is from, and its row there; else null
        ("domain", pa.string()),
        ("indices", pa.list_(pa.list_(pa.uint32(), 2))),  # [n, 2]: start and end of each piece
        ("sample_ids", pa.list_(pa.int64())),  # of its long documents in 6-long-documents; of its documents, if packed
        (
            "segments",
            pa.list_(
                pa.struct(
                    [
                        ("start", pa.int32()),  # tokens [start, end) of the sequence; segments tile it
                        ("end", pa.int32()),
                        ("role", pa.string()),  # meta, negative, repeat, document; special: bos, eos, padding
                        ("doc_id", pa.int64()),  # -1 where it is of no document
                        ("chunk_id", pa.int64()),  # -1 where it is of no chunk
                        ("first_token", pa.int64()),  # place of its first token in its document
                        ("rank", pa.int32()),  # among the candidates, 0 the nearest; -1 where nothing was looked up
                        ("score", pa.float32()),
                    ]
                )
            ),
        ),
    ]
)
"""Provenance: one row a sequence."""

BLOCK_TOKENS = 1 << 22
"""Of sequences that are held at once."""

DOCUMENTS = pa.schema([("doc_id", pa.int64()), ("source_id", pa.string()), ("source", pa.string())])
"""Provenance: the documents that segments name, ascending."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class About:
    """What is told of sequences beside their tokens."""

    length_tokens: int
    tokenizer_file: Path
    tokenizer_sha256: str
    vocab_size: int
    has_mask: bool
    made_by: dict[str, Any]
    """The verb and the settings that decided the content (JSON)."""
    account: dict[str, Any]
    """read = kept + dropped by reason, of the step that packed them."""


class Source(Protocol):
    """Packed sequences; small, so that it travels to workers."""

    @property
    def about(self) -> About:
        """What is told of them."""

    @property
    def fingerprint(self) -> str:
        """Of all that decides their content."""

    def local_paths(self) -> list[Path]:
        """Files and folders that tasks read; some stand for all."""

    def prepare(self, scratch: Path, engine: Engine) -> "Source":
        """The source with what its tasks look up written below `scratch`; called once, before any task."""

    def shapes(self) -> Shapes:
        """Of all sequences, in order."""

    def blocks(self, start: int, stop: int) -> Iterator[Sequences]:
        """The sequences start ... stop - 1, a few million tokens at a time."""

    def provenance(self, start: int, stop: int) -> pa.Table:
        """Columns of ROWS, of the sequences start ... stop - 1."""

    def origin(self, row: int, token: int) -> str:
        """Where a token was read, for messages: a file and a row."""

    def documents(self, doc_ids: NDArray[np.int64]) -> Iterator[pa.Table]:
        """Columns of DOCUMENTS, of the documents of these ascending doc_ids."""


def block_ranges(start: int, stop: int, length_tokens: int) -> Iterator[tuple[int, int]]:
    """The sequences start ... stop - 1 in blocks, [first, last) each."""
    for first, last in ranges(stop - start, max(1, BLOCK_TOKENS // length_tokens)):
        yield start + first, start + last


def without_folders(told: Any) -> Any:
    """Settings with local paths cut to their names: exports are published, and a machine's folders are nobody's."""
    if isinstance(told, dict):
        return {name: without_folders(each) for name, each in told.items()}
    if isinstance(told, list):
        return [without_folders(each) for each in told]
    return told.rstrip("/").rpartition("/")[2] if isinstance(told, str) and told.startswith(("/", "~")) else told
