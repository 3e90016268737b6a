"""An MDS folder in, ours or another's; sequences, or the values of its columns, out. Nothing is unpacked on disk."""

from pathlib import Path

import numpy as np

from nextlong.errors import UserError
from nextlong.folders import inside
from nextlong.sequences import Sequences, concatenate, spans
from nextlong.shards.mds_index import Entry, read_index
from nextlong.shards.mds_shard import MdsShard

__all__ = ["MdsFolder", "MdsShard"]


class MdsFolder:
    """An MDS folder, ours or another's, read by position; zstd shards are unpacked in memory, one at a time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._entries = read_index(folder)
        self._firsts = np.cumsum([0, *[entry.samples for entry in self._entries]])
        self.shards = [self._path(entry) for entry in self._entries]
        """The files of the shards."""
        self._opened: tuple[int, MdsShard] | None = None

    def __len__(self) -> int:
        return int(self._firsts[-1])

    @property
    def columns(self) -> dict[str, str]:
        """Encoding by name, of the first shard. Raises UserError where there is none."""
        if not self._entries:
            raise UserError(f"{self._folder} is an MDS folder without a shard.")
        return self._entries[0].encodings

    def shard(self, number: int) -> MdsShard:
        """One shard, open; the last one asked for is kept."""
        if self._opened is None or self._opened[0] != number:
            self._opened = None  # not two at once
            self._opened = number, MdsShard(self.shards[number], self._entries[number])
        return self._opened[1]

    def read(self, start: int, stop: int) -> Sequences:
        """The sequences start ... stop - 1. Raises UserError, naming file and row, for samples of other columns."""
        found = spans(self._firsts, start, stop, self._folder)
        return concatenate([self.shard(number).sequences(first, last) for number, first, last in found])

    def _path(self, entry: Entry) -> Path:
        raw = inside(self._folder, entry.raw_name)
        return raw if raw.is_file() or entry.zipped_name is None else inside(self._folder, entry.zipped_name)
