"""One MDS file and its entry in the index in; the values of its columns, or sequences, out."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import DTypeLike, NDArray

from nextlong.errors import UserError
from nextlong.sequences import Sequences
from nextlong.shards.mds_encodings import decoder
from nextlong.shards.mds_index import Entry


class MdsShard:
    """One file of samples; values are views of it."""

    def __init__(self, path: Path, entry: Entry) -> None:
        self.path = path
        self._encodings, self._sizes = entry.encodings, entry.sizes
        self._variable = [name for name, size in entry.sizes.items() if size is None]
        try:
            self._data = _content(path, entry)
            number = int(self._data[:4].view("<u4")[0])
            self._offsets = self._data[4 : 8 + 4 * entry.samples].view("<u4").astype(np.int64)
            is_whole = number == entry.samples and len(self._data) == self._offsets[-1] == entry.raw_bytes
            is_whole &= self._offsets[0] >= 8 + 4 * number
            is_whole &= bool((np.diff(self._offsets) >= 4 * len(self._variable)).all())
        except (OSError, ValueError, IndexError) as error:
            raise UserError(f"{path} cannot be read as an MDS shard: {error}") from error
        if not is_whole:
            raise UserError(f"{path} is no whole MDS shard: it has not the size or the samples that its index states.")

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def places(self, column: str) -> NDArray[np.int64]:
        """int64 [samples, 2]: where the column's value of every sample begins and ends in the file.

        Raises UserError for a column that is not there, and for samples that do not end where their values do.
        """
        if column not in self._sizes:
            raise UserError(f"{self.path} has no column {column}; it has {', '.join(self._sizes)}.")
        begin, end = self._offsets[:-1], self._offsets[1:]
        cells = begin[:, None] + np.arange(4 * len(self._variable))
        sizes = dict(zip(self._variable, self._data[cells].view("<u4").astype(np.int64).T, strict=True))
        found = np.empty((len(begin), 2), np.int64)
        start = begin + 4 * len(self._variable)
        for name, size in self._sizes.items():
            stop = start + (sizes[name] if size is None else size)
            if name == column:
                found[:, 0], found[:, 1] = start, stop
            start = stop
        if (wrong := np.flatnonzero(start != end)).size:
            raise UserError(f"{self.path}, row {wrong[0]}: the sample has not the size of its values: it is damaged.")
        return found

    def lists(self, column: str) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
        """(begins, lengths), int64 [samples]: where the numbers of lists of uint32 stand in the file, in bytes.

        None: the column's values are something else, which `values` tells of, or the file is compressed.
        """
        encoding = self._encodings.get(column, "")
        if not encoding.startswith("ndarray:uint32") or not isinstance(self._data.base, np.memmap):
            return None
        starts, ends = self.places(column).T
        shape = encoding.removeprefix("ndarray:uint32").removeprefix(":")
        if shape:  # nothing stands before the numbers
            found = (starts, np.full(len(starts), int(shape))) if shape.isdecimal() else None
        else:
            found = self._of_one_dimension(starts, ends)
        return found if found is not None and (found[0] + 4 * found[1] == ends).all() else None

    def _of_one_dimension(
        self, starts: NDArray[np.int64], ends: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
        """(begins, lengths) of arrays as their heads state them; None where one has another head."""
        if (starts >= ends).any():
            return None
        heads = self._data[starts]
        widths = 1 << (heads & 3).astype(np.int64)
        begins = starts + 1 + widths
        if (heads >> 2 != 1).any() or (begins > ends).any():
            return None
        lengths = np.empty(len(starts), np.int64)
        for width in np.unique(widths).tolist():
            here = np.flatnonzero(widths == width)
            lengths[here] = self._data[starts[here, None] + 1 + np.arange(width)].view(f"<u{width}")[:, 0]
        return begins, lengths

    def values(
        self, column: str, start: int = 0, stop: int | None = None, *, encoding: str | None = None
    ) -> Iterator[Any]:
        """The column's values of the samples start ... stop - 1: arrays are views, text and numbers are Python's.

        encoding: None means the column's own. Raises UserError, naming the row, for bytes that are no such value.
        """
        places = self.places(column)[start:stop].tolist()
        encoding = self._encodings[column] if encoding is None else encoding
        row = start
        try:
            decode = decoder(encoding)
            for first, last in places:
                yield decode(self._data[first:last])
                row += 1
        except (ValueError, IndexError, KeyError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise UserError(f"{self.path}, row {row}: column {column} is no {encoding} ({reason}).") from error

    def sequences(self, start: int, stop: int) -> Sequences:
        """The samples start ... stop - 1 as sequences; those of one column `tokens` are one piece each.

        Raises UserError, naming the row, for samples of other columns, other lengths or other numbers.
        """
        if "tokens" in self._encodings:
            ids = self._stacked("tokens", start, stop, np.uint32)
            pieces = np.tile(np.array([[0, ids.shape[1]]]), (len(ids), 1))
            return Sequences(ids, pieces, np.arange(len(ids) + 1), [""] * len(ids))
        pieces_of = [np.empty((0, 2), np.int64)]
        for row, each in enumerate(self.values("indices", start, stop), start):
            if np.ndim(each) != 2 or each.shape[1] != 2 or each.dtype.kind not in "iu":
                raise UserError(f"{self.path}, row {row}: the boundaries (indices) are no pairs of whole numbers.")
            pieces_of.append(each.astype(np.int64))
        return Sequences(
            self._stacked("input_ids", start, stop, np.uint32),
            np.concatenate(pieces_of),
            np.cumsum([0, *map(len, pieces_of[1:])]),
            [str(each) for each in self.values("domain", start, stop)],
            self._stacked("mask", start, stop, np.uint8) if "mask" in self._encodings else None,
        )

    def _stacked(self, column: str, start: int, stop: int, dtype: DTypeLike) -> NDArray[Any]:
        """[rows, L]: a column of whole numbers, as many in each row; bytes are int64, as LLM-Foundry's are."""
        encoding = "ndarray:int64:-1" if self._encodings.get(column) == "bytes" else None
        found = np.empty((0, 0), dtype)
        for row, each in enumerate(self.values(column, start, stop, encoding=encoding)):
            where = f"{self.path}, row {start + row}: column {column}"
            if np.ndim(each) != 1 or each.dtype.kind not in "iu":
                raise UserError(f"{where} is no list of whole numbers.")
            if not row:
                found = np.empty((stop - start, len(each)), dtype)
            if len(each) != found.shape[1]:
                raise UserError(
                    f"{where} has {len(each)} entries, but that of the rows before {found.shape[1]}. Sequences of one "
                    f"folder are of one length: convert it with 'nextlong convert'."
                )
            found[row] = each
            if each.dtype != found.dtype and not np.array_equal(found[row], each):
                raise UserError(f"{where} holds numbers that are no {found.dtype}.")
        return found


def _content(path: Path, entry: Entry) -> NDArray[np.uint8]:
    if entry.zipped_name is None or path.name != str(entry.zipped_name).rpartition("/")[2]:
        return np.asarray(np.memmap(path, np.uint8, "r"))
    if str(entry.compression).partition(":")[0] != "zstd":
        raise ValueError(f"it is compressed by {entry.compression}, but only zstd is read here: unpack it")
    with open(path, "rb") as file:
        return np.frombuffer(pa.Codec("zstd").decompress(file.read(), entry.raw_bytes), np.uint8)
