"""A packed folder, which an export made, in; its sequences with their provenance out."""

import dataclasses
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from etl.engine import Engine
from etl.lookup import loaded
from etl.parts import damaged
from etl.shards.manifest import DOCUMENTS_FILE, MANIFEST, TOKENIZER, is_sealed, read_manifest
from etl.shards.source import DOCUMENTS, ROWS, About, block_ranges
from nextlong.errors import UserError
from nextlong.folders import refuse_links_out
from nextlong.sequences import Sequences, Shapes
from nextlong.shards import Reader, open_shards
from nextlong.shards.table import pieces_of

_MOST_DOCUMENTS = 1 << 48
_URL = re.compile(r"\w{2,}:/")  # a path has one slash where a URL has two
_UNREADABLE = (OSError, ValueError, KeyError, IndexError, OverflowError, pa.ArrowException)


@dataclasses.dataclass(frozen=True)
class PackedFolder:
    """The sequences of an export."""

    path: Path
    manifest: dict[str, Any]
    is_compared: bool = False
    """Whether each file is compared with its checksum before it is read, once by each process."""

    @classmethod
    def open(cls, path: Path, *, sealed: bool = True) -> "PackedFolder":
        """The export in a folder. Raises UserError for any other folder, and for one with links or names that lead out.

        Only the manifest is compared with its checksum here; the files are by `verify`, and by what is made of them.
        sealed: False lets a manifest pass that was changed.
        """
        if not path.is_dir() and _URL.match(str(path)):
            raise UserError(f"{path} is a URL: fetch the folder, and give the one here.")
        if not path.is_dir():
            raise UserError(f"{path} is no folder. Give one that export, pack, convert or mix made.")
        if not (path / MANIFEST).is_file():
            raise _no_export(path)
        refuse_links_out(path)
        manifest = read_manifest(path)
        if manifest is None:
            raise _no_export(path)
        if sealed and not is_sealed(manifest):
            raise UserError(f"{path / MANIFEST} is not as it was written. Run 'nextlong verify {path}'.")
        return cls(path.absolute(), manifest)

    @property
    def about(self) -> About:
        """What is told of the sequences."""
        told = self.manifest
        return About(
            length_tokens=told["sequence_length_tokens"],
            tokenizer_file=self.path / TOKENIZER,
            tokenizer_sha256=told["tokenizer_sha256"],
            vocab_size=told["vocab_size"],
            has_mask=told["has_mask"],
            made_by=told["made_by"],
            account=told["account"],
        )

    @property
    def fingerprint(self) -> str:
        """Of the export."""
        return str(self.manifest["fingerprint"])

    def __len__(self) -> int:
        return sum(shard["rows"] for shard in self.manifest["shards"])

    def local_paths(self) -> list[Path]:
        """Files and folders that tasks read."""
        return [self.path]

    def prepare(self, scratch: Path, engine: Engine) -> "PackedFolder":
        """From now on files are compared with their checksums: what is made of a damaged one would have a valid one."""
        return dataclasses.replace(self, is_compared=True)

    def shapes(self) -> Shapes:
        """Of all sequences, in order, by their provenance."""
        columns = ["indices", "domain"]
        empty = ROWS.empty_table().select(columns)
        parts = [self._rows(number, columns) for number in range(len(self.manifest["provenance"]))]
        table = pa.concat_tables([empty, *parts])
        num_pieces = pc.list_value_length(table["indices"]).to_numpy().astype(np.int64)
        domain_bytes = pc.binary_length(table["domain"]).to_numpy().astype(np.int64)
        return Shapes(self.about.length_tokens, num_pieces, domain_bytes, self.about.has_mask)

    def blocks(self, start: int, stop: int) -> Iterator[Sequences]:
        """The sequences start ... stop - 1, a few million tokens at a time."""
        for first, last in block_ranges(start, stop, self.about.length_tokens):
            yield self.read(first, last)

    def read(self, start: int, stop: int) -> Sequences:
        """The sequences start ... stop - 1; the labels that a format has no place for come from the provenance."""
        self._compare(*self._files_of(start, stop))
        try:
            found = self.reader().read(start, stop)
        except UserError:
            raise
        except _UNREADABLE as error:
            raise self._damaged(error) from error
        has_mask = self.about.has_mask and not self.is_tokens_only
        if len(found) != stop - start or found.length_tokens != self.about.length_tokens:
            raise self._damaged("there are other sequences")
        if (found.mask is not None) != has_mask:
            raise self._damaged("there is no mask" if has_mask else "there is a mask")
        if self.manifest["format"] == "megatron" or self.is_tokens_only:
            told = self.provenance(start, stop)
            indices, offsets = pieces_of(told["indices"])
            found = dataclasses.replace(found, indices=indices, offsets=offsets, domains=told["domain"].to_pylist())
        return found

    @property
    def is_tokens_only(self) -> bool:
        """Whether boundaries and mask are not in the shards."""
        return bool(self.manifest["options"].get("columns") == "llm-foundry")

    def refuse_tokens_only(self) -> None:
        """Raise UserError where the mask of the sequences was left out."""
        if self.is_tokens_only and self.about.has_mask:
            raise UserError(f"{self.path} holds tokens only, without their mask. Take what it was exported from.")

    def reader(self) -> Reader:
        """Its shards, opened once a process."""
        names = [name for shard in self.manifest["shards"] for name in shard["files"]]
        return loaded(
            lambda: open_shards(self.path, self.manifest["format"], names),
            "shards",
            self.path,
            of=[self.path / MANIFEST],
        )

    def provenance(self, start: int, stop: int) -> pa.Table:
        """Columns of ROWS, of the sequences start ... stop - 1."""
        tables, begin = [ROWS.empty_table()], 0
        for number, shard in enumerate(self.manifest["shards"]):
            end = begin + shard["rows"]
            if max(start, begin) < min(stop, end):
                table = self._rows(number, ROWS.names)
                tables.append(table.slice(max(start, begin) - begin, min(stop, end) - max(start, begin)))
            begin = end
        return pa.concat_tables(tables)

    def origin(self, row: int, token: int) -> str:
        """Where a token was read, for messages."""
        return f"{self.path}, row {row}"

    def documents(self, doc_ids: NDArray[np.int64]) -> Iterator[pa.Table]:
        """Columns of DOCUMENTS, of the documents of these ascending doc_ids."""
        self._compare(DOCUMENTS_FILE)
        try:
            with pq.ParquetFile(self.path / DOCUMENTS_FILE) as file:
                for group in range(file.num_row_groups):
                    table = file.read_row_group(group).cast(DOCUMENTS)
                    yield table.filter(pc.is_in(table["doc_id"], pa.array(doc_ids)))
        except _UNREADABLE as error:
            raise self._damaged(error) from error

    def doc_ids(self) -> NDArray[np.int64]:
        """int64, ascending: of all documents that the provenance names; read once a process."""
        file = self.path / DOCUMENTS_FILE
        return loaded(self._read_doc_ids, "doc_ids", self.path, of=[file])

    def _read_doc_ids(self) -> NDArray[np.int64]:
        try:
            column = pq.read_table(self.path / DOCUMENTS_FILE, columns=["doc_id"])["doc_id"].cast(pa.int64())
            found: NDArray[np.int64] = column.combine_chunks().to_numpy()
        except _UNREADABLE as error:
            raise self._damaged(error) from error
        if (np.diff(found) <= 0).any() or (len(found) and not 0 <= found[0] <= found[-1] < _MOST_DOCUMENTS):
            raise self._damaged(f"the doc_ids of {DOCUMENTS_FILE} do not ascend from 0")
        return found

    def _rows(self, number: int, columns: list[str]) -> pa.Table:
        path = self.path / self.manifest["provenance"][number]
        self._compare(self.manifest["provenance"][number])
        schema = pa.schema([ROWS.field(name) for name in columns])
        try:
            table = pq.read_table(path, columns=columns).cast(schema)
        except _UNREADABLE as error:
            raise self._damaged(error) from error
        if table.num_rows != self.manifest["shards"][number]["rows"]:
            raise self._damaged(f"{path.name} is of {table.num_rows} rows")
        if any(table[name].null_count for name in columns if name != "origin"):
            raise self._damaged(f"{path.name} has nulls")
        return table

    def _files_of(self, start: int, stop: int) -> Iterator[str]:
        """The files of the shards that hold the sequences start ... stop - 1."""
        end = 0
        for shard in self.manifest["shards"]:
            begin, end = end, end + shard["rows"]
            if max(start, begin) < min(stop, end):
                yield from shard["files"]

    def _compare(self, *names: str) -> None:
        for name in names if self.is_compared else ():
            if not (self.path / name).is_file():
                raise self._damaged(f"{name} is gone")
            if loaded(partial(self._is_damaged, name), "compared", self.path, name, of=[self.path / name]):
                raise self._damaged(f"{name} has another checksum")

    def _is_damaged(self, name: str) -> bool:
        return bool(damaged(self.path, {name: self.manifest["files"][name]}))

    def _damaged(self, reason: object) -> UserError:
        return UserError(f"{self.path} is not as its {MANIFEST} states ({reason}). Run 'nextlong verify {self.path}'.")


def _no_export(path: Path) -> UserError:
    return UserError(
        f"{path} is no export: it has no {MANIFEST} of one. 'nextlong export' makes one of a work folder, "
        f"'nextlong convert' of data from elsewhere."
    )
