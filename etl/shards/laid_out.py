"""A layout and the files of its token ids in; any of its sequences, with their provenance, out."""

import dataclasses
import os
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from etl.parts import read_array, read_json
from etl.shards.source import ROWS
from nextlong.fitting import Fitting, Layout
from nextlong.packing import domain_of
from nextlong.sequences import Sequences

DOCUMENT_FACTS = np.dtype([("part", "<i4"), ("domain", "<i4"), ("byte", "<i8"), ("tokens", "<i8"), ("first", "<i8")])
"""Of a document: the file of its ids, where they begin there, how many, and where its mask begins in the part's."""
ARRAYS = ("documents", "starts", "lengths", "offsets", "indices", "index_offsets", "masked")
"""Of a layout: four of nextlong.fitting.Layout, the boundaries, and what is masked beside padding (row, start, end)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PackSettings:
    """How documents become sequences."""

    length_tokens: int
    fitting: Fitting = "best-fit"
    bos: int | None = None
    """Token id that begins every document; no target of the loss."""
    eos: int | None = None
    """Token id that ends every document; a target, so that a model learns to stop."""
    pad: int = 0
    """Token id of padding; no target."""
    tail: Literal["pad", "drop"] = "pad"
    """Of concat: what becomes of the last sequence, where it is not full."""
    seed: int = 0
    """Of the order of the sequences under best-fit."""


class LaidOut:
    """A layout with the files of its token ids, open."""

    def __init__(self, folder: Path, settings: PackSettings, files: Sequence[str], *, has_mask: bool) -> None:
        self._settings = settings
        self._has_mask = has_mask
        self._table = read_array(folder / "documents.npy")
        self._domains: list[str] = (read_json(folder / "domains.json") or {})["domains"]
        arrays = [read_array(folder / f"layout-{name}.npy") for name in ARRAYS]
        self._layout = Layout(arrays[0], arrays[1], arrays[2], arrays[3])
        self._indices, self.index_offsets, self._masked = arrays[4:]
        self._paths = [folder / name for name in files]
        self._masks = [folder / f"tokens-{number:05d}.mask" for number in range(len(files))]

    @property
    def num_rows(self) -> int:
        return self._layout.num_sequences

    def domains_of(self, start: int, stop: int) -> list[str]:
        offsets = self._layout.offsets
        codes = self._table["domain"][self._layout.documents[offsets[start] : offsets[stop]]].tolist()
        firsts = (offsets[start : stop + 1] - offsets[start]).tolist()
        return [domain_of([self._domains[code] for code in set(codes[first:last])]) for first, last in pairwise(firsts)]

    def sequences(self, start: int, stop: int) -> Sequences:
        length, settings = self._settings.length_tokens, self._settings
        ids = np.full((stop - start, length), settings.pad, "<u4")
        mask = np.zeros((stop - start, length), np.uint8) if self._has_mask else None
        files: dict[Path, int] = {}
        try:
            for row in range(start, stop):
                self._fill(row, ids[row - start], None if mask is None else mask[row - start], files)
        finally:
            for number in files.values():
                os.close(number)
        first, last = int(self.index_offsets[start]), int(self.index_offsets[stop])
        offsets = self.index_offsets[start : stop + 1] - first
        if mask is not None:
            for row, begin, end in self._masked_in(start, stop):
                mask[row - start, begin:end] = 0
        return Sequences(ids, self._indices[first:last], offsets, self.domains_of(start, stop), mask)

    def _masked_in(self, start: int, stop: int) -> list[list[int]]:
        first, last = np.searchsorted(self._masked[:, 0], [start, stop])
        found: list[list[int]] = self._masked[first:last].tolist()
        return found

    def _fill(self, row: int, ids: NDArray[np.uint32], mask: NDArray[np.uint8] | None, files: dict[Path, int]) -> None:
        """Put the pieces of a sequence into a row; special tokens are no part of a document's own mask."""
        settings, layout = self._settings, self._layout
        pieces = slice(int(layout.offsets[row]), int(layout.offsets[row + 1]))
        place = 0
        for document, first, number in zip(
            layout.documents[pieces].tolist(),
            layout.starts[pieces].tolist(),
            layout.lengths[pieces].tolist(),
            strict=True,
        ):
            facts = self._table[document]
            tokens, end = int(facts["tokens"]), place + number
            has_bos = settings.bos is not None
            if has_bos and first == 0:
                ids[place] = settings.bos or 0
                place += 1
            own = max(0, first - has_bos)  # first token of the document itself
            count = min(end - place, tokens - own)
            if count > 0:
                _read(files, self._paths[facts["part"]], ids[place : place + count], int(facts["byte"]) + 4 * own)
                if mask is not None:
                    self._fill_mask(int(facts["part"]), mask[place : place + count], int(facts["first"]) + own, files)
                place += count
            if place < end:
                ids[place] = settings.eos or 0
                if mask is not None:
                    mask[place] = 1
                place += 1

    def _fill_mask(self, part: int, mask: NDArray[np.uint8], first: int, files: dict[Path, int]) -> None:
        path = self._masks[part]
        if path in files or path.is_file():
            _read(files, path, mask, first)
        else:
            mask[:] = 1

    def provenance(self, start: int, stop: int) -> pa.Table:
        layout, settings, length = self._layout, self._settings, self._settings.length_tokens
        pieces = slice(int(layout.offsets[start]), int(layout.offsets[stop]))
        documents, firsts, numbers = layout.documents[pieces], layout.starts[pieces], layout.lengths[pieces]
        counts = np.diff(layout.offsets[start : stop + 1])
        has_bos, has_eos = settings.bos is not None, settings.eos is not None
        tokens = self._table["tokens"][documents]
        bos = np.where(firsts == 0, int(has_bos), 0)
        eos = np.where(firsts + numbers == tokens + has_bos + has_eos, int(has_eos), 0)
        padding = length - np.add.reduceat(numbers, np.cumsum(counts) - counts) if len(counts) else counts
        # Of every piece bos, its own tokens, eos; after the last piece of a sequence the padding: zeros go.
        sizes = np.zeros((len(documents), 4), np.int64)
        sizes[:, 0], sizes[:, 1], sizes[:, 2] = bos, numbers - bos - eos, eos
        sizes[np.cumsum(counts) - 1, 3] = padding
        owner = np.repeat(np.arange(len(counts)), counts)
        flat, keep = sizes.ravel(), sizes.ravel() > 0
        ends = np.cumsum(flat) - np.repeat(owner * length, 4)
        is_document = np.tile([False, True, False, False], len(documents))
        values = {
            "start": ends - flat,
            "end": ends,
            "role": np.where(is_document, "document", "special"),
            "doc_id": np.where(is_document, np.repeat(documents, 4), -1),
            "chunk_id": np.full(len(flat), -1),
            "first_token": np.where(is_document, np.repeat(np.maximum(0, firsts - has_bos), 4), 0),
            "rank": np.full(len(flat), -1),
        }
        fields = list(ROWS.field("segments").type.value_type)
        columns = [pa.array(values[field.name][keep], field.type) for field in fields[:-1]]
        segments = pa.StructArray.from_arrays([*columns, pa.nulls(int(keep.sum()), pa.float32())], fields=fields)
        kept = np.concatenate([[0], np.cumsum(np.bincount(np.repeat(owner, 4)[keep], minlength=len(counts)))])
        index = slice(int(self.index_offsets[start]), int(self.index_offsets[stop]))
        pairs = pa.FixedSizeListArray.from_arrays(pa.array(self._indices[index].astype(np.uint32).ravel()), 2)
        index_offsets = (self.index_offsets[start : stop + 1] - index.start).astype(np.int32)
        offsets = (layout.offsets[start : stop + 1] - pieces.start).astype(np.int32)
        return pa.table(
            [
                np.arange(start, stop),
                pa.nulls(stop - start, pa.string()),
                self.domains_of(start, stop),
                pa.ListArray.from_arrays(index_offsets, pairs),
                pa.ListArray.from_arrays(offsets, pa.array(documents)),
                pa.ListArray.from_arrays(kept.astype(np.int32), segments),
            ],
            schema=ROWS,
        )


def _read(files: dict[Path, int], path: Path, into: NDArray[Any], byte: int) -> None:
    number = files.get(path)
    if number is None:
        number = files[path] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    if os.preadv(number, [into.data.cast("B")], byte) != into.nbytes:
        raise OSError(f"{path} is shorter than it was: was the input changed meanwhile?")
