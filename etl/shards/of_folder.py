"""A packed folder, which an export made, in; its sequences with their provenance out."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from etl.engine import Engine
from etl.lookup import loaded
from etl.parts import read_json
from etl.shards.destination import MANIFEST
from etl.shards.source import DOCUMENTS, ROWS, About
from nextlong.errors import UserError
from nextlong.folders import inside, refuse_links_out
from nextlong.sequences import Sequences, Shapes, ranges
from nextlong.shards import Reader, open_shards
from nextlong.shards.table import pieces_of

PROVENANCE = "provenance"
TOKENIZER = "tokenizer.json"
_BLOCK_TOKENS = 1 << 22


@dataclasses.dataclass(frozen=True)
class PackedFolder:
    """The sequences of an export."""

    path: Path
    manifest: dict[str, Any]

    @classmethod
    def open(cls, path: Path) -> "PackedFolder":
        """The export in a folder. Raises UserError for any other folder, and for one with links or names that lead out.

        Its files are not compared with their checksums here: `verify` does.
        """
        if not path.is_dir():
            raise UserError(f"{path} is no folder. Give one that 'nextlong export' made.")
        manifest = read_json(path / MANIFEST)
        if manifest is None or not {"format", "shards", "provenance", "files", "rows"} <= manifest.keys():
            raise UserError(
                f"{path} is no export: it has no {MANIFEST} of one. 'nextlong export' makes one of a work folder, "
                f"'nextlong convert' of data from elsewhere."
            )
        refuse_links_out(path)
        for name in [*manifest["files"], *(name for shard in manifest["shards"] for name in shard["files"])]:
            inside(path, name)
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
        return int(self.manifest["rows"])

    def local_paths(self) -> list[Path]:
        """Files and folders that tasks read."""
        return [self.path]

    def prepare(self, scratch: Path, engine: Engine) -> "PackedFolder":
        """Nothing has to be written for the tasks."""
        return self

    def shapes(self) -> Shapes:
        """Of all sequences, in order, by their provenance."""
        tables = [self._rows(number, ["indices", "domain"]) for number in range(len(self.manifest["provenance"]))]
        table = pa.concat_tables(tables)
        num_pieces = pc.list_value_length(table["indices"]).to_numpy().astype(np.int64)
        domain_bytes = pc.binary_length(table["domain"]).to_numpy().astype(np.int64)
        return Shapes(self.about.length_tokens, num_pieces, domain_bytes, self.about.has_mask)

    def blocks(self, start: int, stop: int) -> Iterator[Sequences]:
        """The sequences start ... stop - 1, a few million tokens at a time."""
        rows_each = max(1, _BLOCK_TOKENS // self.about.length_tokens)
        for first, last in ranges(stop - start, rows_each):
            yield self.read(start + first, start + last)

    def read(self, start: int, stop: int) -> Sequences:
        """The sequences start ... stop - 1; the labels that a format has no place for come from the provenance."""
        found = self.reader().read(start, stop)
        if len(found) != stop - start or found.length_tokens != self.about.length_tokens:
            raise UserError(
                f"{self.path} has not the sequences that its {MANIFEST} states: run 'nextlong verify' on it."
            )
        if self.manifest["format"] == "megatron" or self.is_tokens_only:
            told = self.provenance(start, stop)
            indices, offsets = pieces_of(told["indices"])
            domains = told["domain"].to_pylist()
            found = dataclasses.replace(found, indices=indices, offsets=offsets, domains=domains)
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
        with pq.ParquetFile(self.path / PROVENANCE / "documents.parquet") as file:
            for group in range(file.num_row_groups):
                table = file.read_row_group(group).cast(DOCUMENTS)
                yield table.filter(pc.is_in(table["doc_id"], pa.array(doc_ids)))

    def _rows(self, number: int, columns: list[str]) -> pa.Table:
        path = inside(self.path, self.manifest["provenance"][number])
        try:
            return pq.read_table(path, columns=columns)
        except (OSError, pa.ArrowException) as error:
            raise UserError(f"{path} cannot be read: {error}. Run 'nextlong verify {self.path}'.") from error
