"""A packed folder in; its rows, and what the segments of each are by their provenance, out."""

import dataclasses
import json
from functools import cache, cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nextlong.errors import UserError
from nextlong.folders import inside
from nextlong.sequences import Sequences
from nextlong.shards import Reader, open_shards

_FACTS = {
    "rows": int,
    "sequence_length_tokens": int,
    "vocab_size": int,
    "format": str,
    "fingerprint": str,
    "tokenizer_sha256": str,
}
"""What is read of a manifest, and its types."""


@dataclasses.dataclass(frozen=True)
class Folder:
    """One packed folder."""

    path: Path
    manifest: dict[str, Any]
    reader: Reader
    field: str
    """Where it is named, for messages."""

    @classmethod
    def open(cls, name: str, *, field: str = "data.folders") -> "Folder":
        """Raises UserError for a folder that no export made, or without sequences. field: where it is named."""
        path = Path(name).expanduser()
        try:
            manifest = json.loads((path / "manifest.json").read_text())
            for fact, kind in _FACTS.items():
                if not isinstance(manifest[fact], kind):
                    raise TypeError(f"{fact} of its manifest.json is {manifest[fact]!r}")
            if len(manifest["provenance"]) != len(manifest["shards"]):
                raise ValueError("its manifest.json names another number of shards than of their provenance")
            names = [each for shard in manifest["shards"] for each in shard["files"]]
            for each in (*names, *manifest["provenance"]):
                inside(path, each)
            reader = open_shards(path, manifest["format"], names)
        except (OSError, ValueError, LookupError, TypeError) as error:
            if isinstance(error, UserError):
                raise
            reason = f"its manifest.json has no {error}" if isinstance(error, KeyError) else error
            raise UserError(
                f"{field}: {name} is no packed folder ({reason}). Make one with nextlong export."
            ) from error
        if not manifest["rows"]:
            raise UserError(f"{field}: {path} has no sequence.")
        if len(reader) != manifest["rows"]:
            raise UserError(
                f"{field}: {path} holds {len(reader):,} sequences, but its manifest.json says {manifest['rows']:,}. "
                f"nextlong verify {path} says what is lost; export it again."
            )
        return cls(path, manifest, reader, field)

    def __len__(self) -> int:
        return int(self.manifest["rows"])

    @property
    def length_tokens(self) -> int:
        """Of each sequence."""
        return int(self.manifest["sequence_length_tokens"])

    def read(self, row: int, vocab_size: int) -> Sequences:
        """One sequence. Raises UserError for ids that a vocabulary of this size has not, and broken boundaries."""
        sequence = self.reader.read(row, row + 1)
        sequence.check(str(self.path), vocab_size=vocab_size, first_row=row)
        return sequence

    def segments(self, row: int, role: str) -> NDArray[np.int32]:
        """[n, 2]: tokens start, end of the segments of a row that have a role, such as "negative".

        The first look into a shard reads its provenance, and keeps 8 bytes a segment of the role. Raises UserError
        where it cannot be read.
        """
        shard = int(np.searchsorted(self._first_rows, row, side="right")) - 1
        segments = _segments_of(inside(self.path, self.manifest["provenance"][shard]), role, self.field)
        place = row - int(self._first_rows[shard])
        return segments.spans[segments.offsets[place] : segments.offsets[place + 1]]

    @cached_property
    def _first_rows(self) -> NDArray[np.int64]:
        return np.cumsum([0, *(shard["rows"] for shard in self.manifest["shards"][:-1])])


class _Segments(NamedTuple):
    """Of all rows of a shard."""

    spans: NDArray[np.int32]
    """[n, 2]: start, end."""
    offsets: NDArray[np.int64]
    """[rows + 1]: where each row's begin."""


@cache  # all: rows are read in any order, and a shard's take long to find
def _segments_of(path: Path, role: str, field: str) -> _Segments:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    try:
        rows = pq.read_table(path, columns=["segments"])["segments"].combine_chunks()
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UserError(
            f"the provenance {path} cannot be read ({error}), which says what each segment is: {field} needs it. "
            f"Export the folder again."
        ) from error
    owners, flat = pc.list_parent_indices(rows).to_numpy(), rows.flatten()
    is_asked = pc.equal(flat.field("role"), role).to_numpy(zero_copy_only=False)
    spans = np.stack([flat.field(name).to_numpy()[is_asked] for name in ("start", "end")], axis=1).astype(np.int32)
    return _Segments(spans, np.searchsorted(owners[is_asked], np.arange(len(rows) + 1)))
