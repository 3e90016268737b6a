"""Random access by number: token ids, token counts and text hashes of chunks; rows of embeddings and sketches."""

import os
import resource
import threading
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from etl.parts import read_array
from etl.work import StageFolder
from nextlong.tokenizing import Tokenizer, resolve_tokenizer

T = TypeVar("T")
_LOADED: dict[Any, tuple[Any, Any]] = {}
_LOCK = threading.Lock()


def loaded(load: Callable[[], T], *key: Any, of: Sequence[Path] = ()) -> T:
    """What `load` gives, once a process for a key: models, indexes and stores are shared by a worker's threads.

    of: the files that it is made of; when one was written again, it is loaded again.
    """
    identity = [(stat.st_ino, stat.st_size, stat.st_mtime_ns) for stat in map(os.stat, of)]
    with _LOCK:
        if key not in _LOADED or _LOADED[key][0] != identity:
            _LOADED[key] = identity, load()
        value: T = _LOADED[key][1]
        return value


def open_tokenizer(name: str) -> Tokenizer:
    """What `Tokenizer.load` gives, parsed once a process: a quarter of a second for 50,000 entries."""
    return loaded(lambda: Tokenizer.load(name), "tokenizer", name, of=[resolve_tokenizer(name)])


class ChunkStore:
    """Token ids and facts of all chunks of a corpus.

    offsets: int64 [num_chunks + 1], where each chunk's token ids start in the corpus' stream of token ids.
    hashes: uint64 [num_chunks], of the chunks' texts.
    """

    def __init__(
        self, offsets: NDArray[np.int64], hashes: NDArray[np.uint64], token_files: "TokenFiles | NDArray[np.uint32]"
    ) -> None:
        self._offsets = offsets
        self._hashes = hashes
        self._tokens = token_files

    @classmethod
    def open(cls, folder: Path, manifest_parts: Sequence[dict[str, Any]]) -> "ChunkStore":
        """Open what the chunk stage wrote. The tables are memory-mapped, the token files read at positions."""
        counts = [part["values"]["num_tokens"] for part in manifest_parts]
        paths = [folder / f"{part['part']}.tokens" for part in manifest_parts]
        return cls(
            read_array(folder / "offsets.npy"), read_array(folder / "text_hashes.npy"), TokenFiles(paths, counts)
        )

    def __len__(self) -> int:
        return len(self._hashes)

    def num_tokens(self, chunk_ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Stored token ids of chunks, their joiners' included."""
        return self._offsets[chunk_ids + 1] - self._offsets[chunk_ids]

    def starts(self, chunk_ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where chunks' token ids start in the corpus' stream of token ids."""
        return self._offsets[chunk_ids]

    def hashes(self, chunk_ids: NDArray[np.int64]) -> NDArray[np.uint64]:
        """Hashes of chunks' texts; equal texts have equal hashes."""
        return self._hashes[chunk_ids]

    def read_tokens(self, chunk_ids: Sequence[int], lengths: Sequence[int]) -> NDArray[np.uint32]:
        """The leading `lengths` token ids of each chunk, laid end to end: uint32 [sum of lengths].

        One positioned read a chunk into one buffer: in random order about 100 times a table's `take`.
        """
        starts = self._offsets[np.asarray(chunk_ids, np.int64)].tolist()
        if isinstance(self._tokens, TokenFiles):
            return self._tokens.read(starts, lengths)
        pieces = [self._tokens[start : start + length] for start, length in zip(starts, lengths, strict=True)]
        return np.concatenate([np.empty(0, np.uint32), *pieces])


class TokenFiles:
    """Flat files of token ids, read as if laid end to end. counts: token ids in each file.

    Threads may share it. It keeps half as many files open as a process may: a large corpus has more of them.
    """

    def __init__(self, paths: Sequence[Path], counts: Sequence[int]) -> None:
        self._paths = paths
        self._firsts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        self._open: dict[int, _OpenFile] = {}
        self._most_open = max(1, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)
        self._lock = threading.Lock()

    def read(self, starts: Sequence[int], lengths: Sequence[int]) -> NDArray[np.uint32]:
        """Token ids [start, start + length) for each pair, end to end; no read crosses a file."""
        files = (np.searchsorted(self._firsts, starts, "right") - 1).tolist()
        firsts = self._firsts.tolist()
        ids: Any = np.empty(sum(lengths), "<u4")
        buffer = memoryview(ids.view(np.uint8))
        place = 0
        for file, start, length in zip(files, starts, lengths, strict=True):
            size, opened = 4 * length, self._open.get(file) or self._opened(file)
            if size and os.preadv(opened.number, [buffer[place : place + size]], 4 * (start - firsts[file])) != size:
                raise OSError(f"{self._paths[file]} is shorter than its manifest says; delete 2-chunks and run again")
            place += size
        tokens: NDArray[np.uint32] = ids
        return tokens

    def _opened(self, file: int) -> "_OpenFile":
        with self._lock:
            if len(self._open) >= self._most_open:
                self._open.pop(next(iter(self._open)))
            opened = self._open.get(file) or _OpenFile(os.open(self._paths[file], os.O_RDONLY | os.O_CLOEXEC))
            return self._open.setdefault(file, opened)


class _OpenFile:
    """A descriptor that is closed when nobody reads from it any more."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        os.close(self.number)


class RowStore:
    """Rows by number (embeddings or sketches by chunk_id, vectors by document), in files of consecutive rows."""

    def __init__(self, arrays: Sequence[NDArray[Any]]) -> None:
        self._arrays = arrays
        self._firsts = np.concatenate([[0], np.cumsum([len(array) for array in arrays], dtype=np.int64)])

    @classmethod
    def open(cls, folder: Path, names: Sequence[str]) -> "RowStore":
        """Open the arrays that parts wrote, memory-mapped."""
        return cls([read_array(folder / f"{name}.npy") for name in names])

    def __len__(self) -> int:
        return int(self._firsts[-1])

    @property
    def arrays(self) -> Sequence[NDArray[Any]]:
        """The files' arrays, [rows, d] each."""
        return self._arrays

    @property
    def firsts(self) -> list[int]:
        """The number of each file's first row."""
        firsts: list[int] = self._firsts[:-1].tolist()
        return firsts

    def rows(self, numbers: NDArray[np.int64]) -> Any:
        """Rows [n, d], in the order asked for."""
        order = np.argsort(numbers, kind="stable")
        ascending = numbers[order]
        found = np.empty((len(numbers), self._arrays[0].shape[1]), self._arrays[0].dtype)
        files = np.searchsorted(self._firsts, ascending, "right") - 1
        changes = (np.flatnonzero(np.diff(files)) + 1).tolist()
        for first, last in pairwise([0, *changes, len(numbers)] if len(numbers) else []):
            file = files[first]
            found[order[first:last]] = self._arrays[file].take(ascending[first:last] - self._firsts[file], axis=0)
        return found


def documents_of(chunks: Path) -> Path:
    """The table of documents (schemas.DOCUMENT_CHUNKS) beside a part's table of chunks."""
    return chunks.with_suffix(".documents.parquet")


def document_texts(chunks: Path) -> Iterator[tuple[int, str]]:
    """(doc_id, text) of the documents with tokens whose chunks a table of the chunk stage holds, in order."""
    documents = pq.read_table(documents_of(chunks), columns=["doc_id", "num_chunks", "num_tokens"])
    table = pq.read_table(chunks, columns=["text", "joiner"])
    pieces = [text + joiner for text, joiner in zip(*[column.to_pylist() for column in table.columns], strict=True)]
    first = 0
    for doc_id, num_chunks, num_tokens in zip(*[column.to_pylist() for column in documents.columns], strict=True):
        if num_tokens:
            yield doc_id, "".join(pieces[first : first + num_chunks])
        first += num_chunks


def chunk_store(chunks: StageFolder) -> ChunkStore:
    """The chunk store of a finished stage, opened once a process."""
    return loaded(
        lambda: ChunkStore.open(chunks.path, _parts(chunks)), "chunks", chunks.path, of=[chunks.manifest_file]
    )


def embedding_store(embeddings: StageFolder) -> RowStore:
    """The embeddings of a finished stage, opened once a process."""
    names = [part["part"] for part in _parts(embeddings)]
    return loaded(
        lambda: RowStore.open(embeddings.path, names), "embeddings", embeddings.path, of=[embeddings.manifest_file]
    )


def row_store(stage: StageFolder, names: Sequence[str]) -> RowStore:
    """The arrays of some parts of a stage that need not be finished, opened once a process."""
    files = [stage.path / f"{name}.npy" for name in names]
    return loaded(lambda: RowStore.open(stage.path, names), "rows", stage.path, tuple(names), of=files)


def _parts(folder: StageFolder) -> list[dict[str, Any]]:
    manifest = folder.manifest()
    if manifest is None:
        raise RuntimeError(f"stage {folder.stage} in {folder.path} is not finished")
    parts: list[dict[str, Any]] = manifest["parts"]
    return parts
