"""Buffers in, a file of them out, hashed as it is written: what an MDS index states of a file."""

import hashlib
import os
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

HASHES = tuple(sorted(name for name in hashlib.algorithms_guaranteed if not name.startswith("shake")))
"""What every Python has, less those without a length of their own."""
_MOST_BUFFERS = 1024  # that one call of writev takes


class HashedFile:
    """A file that is being written; keep: its content is held in memory, and no file is made.

    Hashes are computed by a thread of their own, of what was written before; buffers must not change meanwhile.
    """

    def __init__(self, path: Path, hashes: Iterable[str], *, keep: bool = False) -> None:
        self._path = path
        self._hashing: Future[None] | None = None
        self._hashes = {name: hashlib.new(name) for name in sorted(hashes)}
        self._keep = keep
        self._number = -1
        self._bytes = 0
        self.content = bytearray()
        """What was written, where it is kept."""

    def __enter__(self) -> "HashedFile":
        if not self._keep:
            self._number = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        self._pool = ThreadPoolExecutor(1)
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()
        if not self._keep:
            os.close(self._number)

    def write(self, buffers: Iterable[Any]) -> None:
        """Write bytes and memoryviews of bytes, one after the other."""
        buffers = iter(buffers)
        while batch := list(islice(buffers, _MOST_BUFFERS)):
            if self._hashing is not None:
                self._hashing.result()
            self._hashing = self._pool.submit(self._hash, batch) if self._hashes else None
            self._bytes += sum(map(len, batch))
            if self._keep:
                self.content += b"".join(batch)
            else:
                _write_all(self._number, list(batch))

    def _hash(self, batch: list[Any]) -> None:
        for buffer in batch:
            for each in self._hashes.values():
                each.update(buffer)

    def facts(self, hashes: Iterable[str]) -> dict[str, Any]:
        """As an index names it, with some of the hashes."""
        return {
            "basename": self._path.name,
            "bytes": self._bytes,
            "hashes": {name: self.digest(name) for name in hashes},
        }

    def digest(self, name: str) -> str:
        """A hash of all that was written, in hexadecimal."""
        if self._hashing is not None:
            self._hashing.result()
        return self._hashes[name].hexdigest()


def _write_all(number: int, buffers: list[Any]) -> None:
    """Write buffers one after the other, however little a call takes of them."""
    place = 0
    while place < len(buffers):
        written = os.writev(number, buffers[place:])
        while place < len(buffers) and written >= len(buffers[place]):
            written -= len(buffers[place])
            place += 1
        if written:
            buffers[place] = memoryview(buffers[place])[written:]
