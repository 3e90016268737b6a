"""A layout and the files of its token ids in; any of its sequences, with their provenance, out."""

import dataclasses
import os
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from etl.parts import read_array, read_json
from etl.shards.source import ROWS
from nextlong.errors import UserError
from nextlong.fitting import Fitting, Layout
from nextlong.packing import domain_of
from nextlong.sequences import Sequences

_MOST_TOKENS = (1 << 31) - 1  # of a list in parquet
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

    def __post_init__(self) -> None:
        if self.length_tokens > _MOST_TOKENS:
            raise UserError(f"a sequence of {self.length_tokens:,} tokens is too long: it may have {_MOST_TOKENS:,}.")


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
        masks = [folder / f"tokens-{number:05d}.mask" for number in range(len(files))]
        self._masks = [path if path.is_file() else None for path in masks]

    @property
    def num_rows(self) -> int:
        return self._layout.num_sequences

    def domains_of(self, start: int, stop: int) -> list[str]:
        offsets = self._layout.offsets
        codes = self._table["domain"][self._layout.documents[offsets[start] : offsets[stop]]].tolist()
        firsts = (offsets[start : stop + 1] - offsets[start]).tolist()
        return [domain_of([self._domains[code] for code in set(codes[first:last])]) for first, last in pairwise(firsts)]

    def sequences(self, start: int, stop: int) -> Sequences:
        length, settings, spans = self._settings.length_tokens, self._settings, self._spans(start, stop)
        ids = np.full((stop - start, length), settings.pad, "<u4")
        flat = ids.reshape(-1)
        if settings.bos is not None:
            flat[spans.places[spans.bos] - 1] = settings.bos
        if settings.eos is not None:
            flat[(spans.places + spans.counts)[spans.eos]] = settings.eos
        self._read(spans, self._paths, 4 * spans.firsts + self._table["byte"][spans.documents], flat)
        first, last = int(self.index_offsets[start]), int(self.index_offsets[stop])
        offsets = self.index_offsets[start : stop + 1] - first
        mask = self._mask(start, stop, spans) if self._has_mask else None
        return Sequences(ids, self._indices[first:last], offsets, self.domains_of(start, stop), mask)

    def document_at(self, row: int, token: int) -> tuple[int, int]:
        """The part and, in it, the number of the document that a token of a sequence is of."""
        layout = self._layout
        first, last = int(layout.offsets[row]), int(layout.offsets[row + 1])
        ends = np.cumsum(layout.lengths[first:last])
        document = int(layout.documents[first + min(int(np.searchsorted(ends, token, "right")), last - first - 1)])
        part = int(self._table["part"][document])
        return part, document - int(np.searchsorted(self._table["part"], part))

    def provenance(self, start: int, stop: int) -> pa.Table:
        layout, length, spans = self._layout, self._settings.length_tokens, self._spans(start, stop)
        pieces = len(spans.documents)
        # Of every piece bos, its own tokens, eos; after the last piece of a sequence the padding: zeros go.
        sizes = np.zeros((pieces, 4), np.int64)
        sizes[:, 0], sizes[:, 1], sizes[:, 2] = spans.bos, spans.counts, spans.eos
        row_ends = np.cumsum(spans.per_row)
        sizes[row_ends - 1, 3] = length - np.add.reduceat(sizes.sum(axis=1), row_ends - spans.per_row)
        owner = np.repeat(np.arange(stop - start), 4 * spans.per_row)
        flat, keep = sizes.ravel(), sizes.ravel() > 0
        ends = np.cumsum(flat) - owner * length
        is_document = np.tile([False, True, False, False], pieces)
        values = {
            "start": ends - flat,
            "end": ends,
            "role": np.where(is_document, "document", "special"),
            "doc_id": np.where(is_document, np.repeat(spans.documents, 4), -1),
            "chunk_id": np.full(len(flat), -1),
            "first_token": np.where(is_document, np.repeat(spans.firsts, 4), 0),
            "rank": np.full(len(flat), -1),
        }
        fields = list(ROWS.field("segments").type.value_type)
        columns = [pa.array(values[field.name][keep], field.type) for field in fields[:-1]]
        segments = pa.StructArray.from_arrays([*columns, pa.nulls(int(keep.sum()), pa.float32())], fields=fields)
        kept = np.cumsum([0, *np.bincount(owner[keep], minlength=stop - start)])
        index = slice(int(self.index_offsets[start]), int(self.index_offsets[stop]))
        pairs = pa.FixedSizeListArray.from_arrays(pa.array(self._indices[index].astype(np.uint32).ravel()), 2)
        index_offsets = (self.index_offsets[start : stop + 1] - index.start).astype(np.int32)
        offsets = (layout.offsets[start : stop + 1] - layout.offsets[start]).astype(np.int32)
        return pa.table(
            [
                np.arange(start, stop),
                pa.nulls(stop - start, pa.string()),
                self.domains_of(start, stop),
                pa.ListArray.from_arrays(index_offsets, pairs),
                pa.ListArray.from_arrays(offsets, pa.array(spans.documents)),
                pa.ListArray.from_arrays(kept.astype(np.int32), segments),
            ],
            schema=ROWS,
        )

    def _spans(self, start: int, stop: int) -> "_Spans":
        """Where the pieces of some sequences stand, their special tokens apart."""
        layout, settings = self._layout, self._settings
        pieces = slice(int(layout.offsets[start]), int(layout.offsets[stop]))
        documents, firsts, numbers = layout.documents[pieces], layout.starts[pieces], layout.lengths[pieces]
        has_bos, has_eos = settings.bos is not None, settings.eos is not None
        per_row = np.diff(layout.offsets[start : stop + 1])
        bos = (firsts == 0) & has_bos
        eos = (firsts + numbers == self._table["tokens"][documents] + has_bos + has_eos) & has_eos
        row_starts = np.cumsum(per_row) - per_row
        before = np.cumsum(numbers) - numbers
        places = before - np.repeat(before[row_starts], per_row) if len(numbers) else before
        places = places + np.repeat(np.arange(stop - start) * settings.length_tokens, per_row) + bos
        return _Spans(documents, np.maximum(0, firsts - has_bos), numbers - bos - eos, places, bos, eos, per_row)

    def _read(
        self, spans: "_Spans", paths: Sequence[Path | None], begins: NDArray[np.int64], into: NDArray[Any]
    ) -> None:
        """Fill in what stands in files; paths: of each part, None: it has none. What touches is read at once."""
        size, parts = into.itemsize, self._table["part"][spans.documents]
        ends, places = begins + size * spans.counts, spans.places
        touches = (parts[1:] == parts[:-1]) & (begins[1:] == ends[:-1]) & (places[1:] == (places + spans.counts)[:-1])
        firsts = np.flatnonzero(np.concatenate([[True], ~touches]))[: len(parts)]
        lasts = np.concatenate([firsts[1:], [len(parts)]]) - 1
        numbers: dict[int, int] = {}
        buffer = into.data.cast("B")
        reads = zip(
            parts[firsts].tolist(),
            (size * places[firsts]).tolist(),
            (size * (places + spans.counts)[lasts]).tolist(),
            begins[firsts].tolist(),
            strict=True,
        )
        try:
            for part, first, last, begin in reads:
                if (path := paths[part]) is None:
                    continue
                if part not in numbers:
                    numbers[part] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                if os.preadv(numbers[part], [buffer[first:last]], begin) != last - first:
                    raise OSError(f"{path} is shorter than it was: was the input changed meanwhile?")
        finally:
            for number in numbers.values():
                os.close(number)

    def _mask(self, start: int, stop: int, spans: "_Spans") -> NDArray[np.uint8]:
        """Padding, bos and what the documents' own masks say are no targets; eos is one."""
        mask = np.zeros((stop - start, self._settings.length_tokens), np.uint8)
        filled = np.bincount(
            np.repeat(np.arange(stop - start), spans.per_row),
            spans.counts + spans.bos + spans.eos,
            minlength=stop - start,
        )
        for row, number in enumerate(filled.astype(np.int64).tolist()):
            mask[row, :number] = 1
        flat = mask.reshape(-1)
        flat[spans.places[spans.bos] - 1] = 0
        self._read(spans, self._masks, spans.firsts + self._table["first"][spans.documents], flat)
        first, last = np.searchsorted(self._masked[:, 0], [start, stop])
        for row, begin, end in self._masked[first:last].tolist():
            mask[row - start, begin:end] = 0
        return mask


class _Spans(NamedTuple):
    """The pieces of some sequences; all arrays but the last are of one entry a piece."""

    documents: NDArray[np.int64]
    firsts: NDArray[np.int64]
    """Of its own tokens the first, by its place in the document."""
    counts: NDArray[np.int64]
    """Its own tokens."""
    places: NDArray[np.int64]
    """Where they begin in the sequences, laid end to end."""
    bos: NDArray[np.bool_]
    eos: NDArray[np.bool_]
    per_row: NDArray[np.int64]
    """Pieces of each sequence."""
