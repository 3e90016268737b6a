"""Documents of any length in, packed sequences with their boundaries, mask and provenance out.

A first pass finds or makes the token ids (a task a part); lengths alone then decide the layout, for the whole corpus at
once; shards are filled from it by position. Memory of the driver: 100 bytes a document and, at its most, 170 a piece.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from etl.engine import Engine
from etl.lookup import loaded
from etl.parts import Part, read_array, read_json
from etl.shards.laid_out import ARRAYS, DOCUMENT_FACTS, LaidOut, PackSettings
from etl.shards.source import DOCUMENTS, About, block_ranges, without_folders
from etl.shards.tokens import Documents, tokens_part
from nextlong.accounting import Account, Count
from nextlong.fitting import LEAST_TOKENS, Layout, boundaries, fit
from nextlong.sequences import Sequences, Shapes
from nextlong.tiling import tile
from nextlong.tokenizing import Tokenizer

VERSION = 1
"""Raised when the same documents give other sequences."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PackSource:
    """The sequences that documents are packed into."""

    reading: Documents
    settings: PackSettings
    tokenizer_file: Path
    tokenizer_sha256: str
    vocab_size: int
    verb: str
    scratch: Path | None = None
    parts: tuple[str, ...] = ()
    """Of token ids: names of the files to read them from."""
    has_mask: bool = True
    account: dict[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, documents: Documents, settings: PackSettings, tokenizer: Tokenizer, verb: str) -> "PackSource":
        """Documents to be packed by a verb (pack, convert)."""
        return cls(
            reading=documents,
            settings=settings,
            tokenizer_file=tokenizer.file.absolute(),
            tokenizer_sha256=tokenizer.fingerprint,
            vocab_size=tokenizer.vocab_size,
            verb=verb,
        )

    @property
    def about(self) -> About:
        """What is told of the sequences; mask and account once they are prepared."""
        return About(
            length_tokens=self.settings.length_tokens,
            tokenizer_file=self.tokenizer_file,
            tokenizer_sha256=self.tokenizer_sha256,
            vocab_size=self.vocab_size,
            has_mask=self.has_mask,
            made_by=self._made_by(),
            account=self.account,
        )

    @property
    def fingerprint(self) -> str:
        """Of documents, tokenizer and settings."""
        identity = [VERSION, self.reading.identity(), self.tokenizer_sha256, self._made_by()]
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()

    def _made_by(self) -> dict[str, Any]:
        read = self.reading
        columns = {name: getattr(read.input, name) for name in ("path", "text", "id", "source")}
        return {
            "verb": self.verb,
            "input": without_folders(columns)
            | {name: getattr(read, name) for name in ("kind", "ids", "template_sha256", "has_whole_rows")},
            "packing": dataclasses.asdict(self.settings),
        }

    def local_paths(self) -> list[Path]:
        """Files and folders that tasks read."""
        return [*self.reading.local_paths(), self.tokenizer_file]

    def prepare(self, scratch: Path, engine: Engine) -> "PackSource":
        """Find or make the token ids, and lay all documents out."""
        fingerprint = self.fingerprint  # once: it looks into every file
        parts = [
            Part(
                folder=scratch,
                name=f"tokens-{number:05d}",
                fingerprint=fingerprint,
                function=tokens_part,
                arguments={"documents": self.reading, "split": split, "tokenizer_file": self.tokenizer_file},
            )
            for number, split in enumerate(self.reading.splits())
        ]
        markers = engine.run(parts, doing="read documents", unit="part")
        names, values = [marker["part"] for marker in markers], [marker["values"] for marker in markers]
        account = Account.total(Account.from_dict(marker["account"]) for marker in markers)
        table = self._document_table(scratch, names)
        has_mask = self._lay_out(scratch, names, values, table, account)
        files = tuple(value["file"] or f"{name}.tokens" for name, value in zip(names, values, strict=True))
        return dataclasses.replace(self, scratch=scratch, parts=files, has_mask=has_mask, account=account.to_dict())

    def _document_table(self, scratch: Path, names: list[str]) -> NDArray[Any]:
        """Write and return the facts of all documents (DOCUMENT_FACTS), and the names of their domains."""
        domains: dict[str, int] = {}
        tables = [np.empty(0, DOCUMENT_FACTS)]
        for number, name in enumerate(names):
            places = read_array(scratch / f"{name}.places.npy")
            sources = pq.read_table(scratch / f"{name}.documents.parquet", columns=["source"])["source"].to_pylist()
            table = np.zeros(len(places), DOCUMENT_FACTS)
            table["part"], table["byte"], table["tokens"] = number, places["byte"], places["tokens"]
            table["first"] = np.cumsum(places["tokens"]) - places["tokens"]
            table["domain"] = [domains.setdefault(source or "", len(domains)) for source in sources]
            tables.append(table)
        documents = np.concatenate(tables)
        np.save(scratch / "documents.npy", documents)
        (scratch / "domains.json").write_text(json.dumps({"domains": list(domains)}))
        return documents

    def _lay_out(
        self, scratch: Path, names: list[str], values: list[dict[str, Any]], table: NDArray[Any], account: Account
    ) -> bool:
        """Decide which tokens stand where, account for all of them, and write it down; whether there is a mask."""
        settings, length = self.settings, self.settings.length_tokens
        num_special = (settings.bos is not None) + (settings.eos is not None)
        lengths = table["tokens"] + num_special * (table["tokens"] > 0)
        layout = fit(lengths, length, settings.fitting, seed=settings.seed)
        layout, num_tail = _without_tail(layout, settings)
        indices, offsets = boundaries(layout, length)
        masked = np.empty((0, 3), np.int64)
        if any(value["has_pieces"] for value in values):
            indices, offsets, masked = _own_boundaries(scratch, names, values, table, layout, length)
        arrays = (*layout, indices, offsets, masked)
        for name, array in zip(ARRAYS, arrays, strict=True):
            np.save(scratch / f"layout-{name}.npy", array)  # made anew by every run, so it need not be safe on the disk
        num_padding = layout.num_sequences * length - int(layout.lengths.sum())
        _account(account, lengths, layout, num_tail, settings)
        account.note("padding_tokens", num_padding)
        account.note("masked_tokens_outside_boundaries", int((masked[:, 2] - masked[:, 1]).sum()))
        given = any(value["has_mask"] for value in values)
        return given or bool(num_padding) or settings.bos is not None or bool(len(masked))

    def shapes(self) -> Shapes:
        """Of all sequences, in order."""
        opened = self._opened()
        domain_bytes = [len(domain.encode()) for domain in opened.domains_of(0, opened.num_rows)]
        counts = np.diff(opened.index_offsets)
        return Shapes(self.settings.length_tokens, counts, np.array(domain_bytes, np.int64), self.has_mask)

    def blocks(self, start: int, stop: int) -> Iterator[Sequences]:
        """The sequences start ... stop - 1, a few million tokens at a time."""
        opened = self._opened()
        for first, last in block_ranges(start, stop, self.settings.length_tokens):
            yield opened.sequences(first, last)

    def provenance(self, start: int, stop: int) -> pa.Table:
        """Columns of ROWS, of the sequences start ... stop - 1; doc_id: the document's number in the input."""
        return self._opened().provenance(start, stop)

    def origin(self, row: int, token: int) -> str:
        """Where a token was read, for messages: the file where one is known, and the row."""
        scratch = self._prepared()
        part, document = self._opened().document_at(row, token)
        name = f"tokens-{part:05d}"
        values = (read_json(scratch / f"{name}.ok.json") or {})["values"]
        position = int(read_array(scratch / f"{name}.places.npy")["position"][document])
        return f"{values['name'] or 'the input'}, row {values['first_row'] + position} (from 0)"

    def documents(self, doc_ids: NDArray[np.int64]) -> Iterator[pa.Table]:
        """Columns of DOCUMENTS, of the documents of these ascending doc_ids; without a source_id it is the row."""
        scratch = self._prepared()
        first = first_row = 0
        for number in range(len(self.parts)):
            name = f"tokens-{number:05d}"
            table = pq.read_table(scratch / f"{name}.documents.parquet")
            wanted = doc_ids[(doc_ids >= first) & (doc_ids < first + table.num_rows)]
            found = table.take(wanted - first)
            rows = pa.array((found["position"].to_numpy() + first_row).astype(str), pa.string())
            source_ids = found["source_id"].combine_chunks().fill_null("")
            names = [each or row for each, row in zip(source_ids.to_pylist(), rows.to_pylist(), strict=True)]
            yield pa.table([pa.array(wanted), names, found["source"]], schema=DOCUMENTS)
            marker = read_json(scratch / f"{name}.ok.json") or {}
            first, first_row = first + table.num_rows, first_row + marker["values"]["rows"]

    def _prepared(self) -> Path:
        if self.scratch is None:
            raise RuntimeError("the source was not prepared")
        return self.scratch

    def _opened(self) -> LaidOut:
        scratch = self._prepared()
        return loaded(
            lambda: LaidOut(scratch, self.settings, self.parts, has_mask=self.has_mask),
            "layout",
            scratch,
            of=[scratch / "layout-offsets.npy"],
        )


def _without_tail(layout: Layout, settings: PackSettings) -> tuple[Layout, int]:
    """The layout without its last sequence where that is not full and is to be dropped, and the tokens dropped."""
    if settings.fitting != "concat" or settings.tail == "pad" or not layout.num_sequences:
        return layout, 0
    last = int(layout.offsets[-2])
    filled = int(layout.lengths[last:].sum())
    if filled > settings.length_tokens - LEAST_TOKENS:
        return layout, 0
    kept = Layout(layout.documents[:last], layout.starts[:last], layout.lengths[:last], layout.offsets[:-1])
    return kept, filled


def _account(
    account: Account, lengths: NDArray[np.int64], layout: Layout, num_tail: int, settings: PackSettings
) -> None:
    """Where the documents and tokens (special ones included) went."""
    placed = np.zeros(len(lengths), np.int64)
    np.add.at(placed, layout.documents, layout.lengths)
    left = lengths - placed
    least = settings.length_tokens if settings.fitting == "truncate" else LEAST_TOKENS
    is_short = lengths < least
    reason = "shorter_than_sequence" if settings.fitting == "truncate" else "too_short"
    is_in_tail = (placed == 0) & ~is_short if num_tail else np.zeros(len(lengths), np.bool_)
    account.add(
        "documents",
        read=len(lengths),
        kept=int((placed > 0).sum()),
        dropped={reason: int(is_short.sum()), "tail": int(is_in_tail.sum())},
    )
    beyond = int(left[~is_short].sum()) if settings.fitting == "truncate" else 0
    dropped = {reason: int(left[is_short].sum()), "tail": num_tail, "truncated": beyond}
    outside = account.counts.pop("tokens", Count()).dropped
    read = int(lengths.sum()) + outside.total()
    account.add("tokens", read=read, kept=int(placed.sum()), dropped=dropped | outside)
    pieces = np.bincount(layout.documents, minlength=len(lengths))
    account.note("documents_cut", int((pieces > 1).sum()))


def _own_boundaries(
    scratch: Path,
    names: list[str],
    values: list[dict[str, Any]],
    table: NDArray[Any],
    layout: Layout,
    length: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """(indices, offsets, masked) of rows that keep their own boundaries; masked: row, start and end, int64 [k, 3]."""
    starts = np.searchsorted(table["part"], np.arange(len(names) + 1))
    opened: dict[int, tuple[NDArray[Any], NDArray[Any]]] = {}
    indices, counts, masked = [np.empty((0, 2), np.int64)], [], [np.empty((0, 3), np.int64)]
    for row, document in enumerate(layout.documents.tolist()):
        part = int(table["part"][document])
        given = np.array([[0, length]])
        if values[part]["has_pieces"]:
            if part not in opened:
                opened[part] = tuple(  # type: ignore[assignment]
                    read_array(scratch / f"{names[part]}.{name}.npy") for name in ("pieces", "piece_offsets")
                )
            pieces, offsets = opened[part]
            place = document - int(starts[part])
            given = pieces[offsets[place] : offsets[place + 1]]
        tiled = tile(given, length, values[part]["name"])
        indices.append(tiled.pieces)
        counts.append(len(tiled.pieces))
        masked.append(np.array([[row, *span] for span in tiled.masked], np.int64).reshape(-1, 3))
    return np.concatenate(indices), np.concatenate([[0], np.cumsum(counts)]), np.concatenate(masked)
