"""A run's work folder in, its packed sequences with their provenance out."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import yaml
from numpy.typing import NDArray

from etl.draw import all_documents, empty_strands
from etl.engine import Engine
from etl.lookup import chunk_store, documents_of
from etl.parts import read_array, write_array
from etl.recipe import Recipe, load_recipe
from etl.shards.source import DOCUMENTS, ROWS, About, without_folders
from etl.verify import damaged_files
from etl.work import RECIPE_FILE, StageFolder, Work
from nextlong.errors import UserError
from nextlong.packing import documents_per_sequence
from nextlong.sequences import Sequences, Shapes
from nextlong.shards.table import from_table
from nextlong.tokenizing import Tokenizer, resolve_tokenizer

_GROUPS_AT_ONCE = 4  # of a million tokens: enough for two threads
_Tables = list[tuple[Path, int]]  # files with their rows


@dataclasses.dataclass(frozen=True)
class _Strand:
    """The sequences of one target length."""

    packed: _Tables
    documents: _Tables
    per_sequence: int
    """Long documents in a sequence."""
    num_rows: int


@dataclasses.dataclass(frozen=True)
class WorkSource:
    """The packed sequences of one length of a finished run."""

    about: About
    fingerprint: str
    strands: list[_Strand]
    chunks: StageFolder
    reads: list[StageFolder]
    """The stages whose files are read whole."""
    first_chunks: Path | None = None
    """int64 [2, documents]: first_chunk_id and doc_id, ascending."""

    @classmethod
    def open(cls, path: Path, *, tokenizer: str | None = None, length_tokens: int | None = None) -> "WorkSource":
        """The sequences of a work folder; tokenizer: where that of the run is now; None: where its recipe says.

        Raises UserError when the run is not finished, the tokenizer is another one, or the sequences are of several
        lengths and none is asked for.
        """
        work = Work.open(path.absolute())
        for stage in ("chunk", "interleave", "pack"):
            if stage not in work.stages or work[stage].manifest() is None:
                raise UserError(f"{path} holds no packed sequences yet: run 'nextlong run {path / RECIPE_FILE}' first.")
        recipe = load_recipe(str(path / RECIPE_FILE))
        length, strands = _strands(work, recipe, length_tokens)
        sha256 = work["chunk"].settings["tokenizer"]
        found = find_tokenizer(tokenizer or recipe.tokenizer, sha256, path)
        made_by = {
            name: each
            for name, each in yaml.safe_load((path / RECIPE_FILE).read_text()).items()
            if each and name != "output"
        }
        about = About(
            length_tokens=length,
            tokenizer_file=found.file.absolute(),
            tokenizer_sha256=sha256,
            vocab_size=found.vocab_size,
            has_mask=False,
            made_by={"verb": "run", "recipe": without_folders(made_by)},
            account=(work["pack"].manifest() or {})["account"],
        )
        reads = [work["interleave"], work["pack"]]
        return cls(about, f"{work['pack'].fingerprint}-{length}", strands, work["chunk"], reads)

    def local_paths(self) -> list[Path]:
        """Files and folders that tasks read."""
        return [self.chunks.path, *[path for strand in self.strands for path, _ in strand.documents[:1]]]

    def prepare(self, scratch: Path, engine: Engine) -> "WorkSource":
        """Compare what is read with its checksums, and write down which document a chunk belongs to.

        Raises UserError for a file that is not as the run wrote it.
        """
        looked_at = [(self.chunks, ("offsets.npy", ".documents.parquet")), *[(stage, ("",)) for stage in self.reads]]
        for stage, endings in looked_at:
            if bad := damaged_files(stage, engine, endings=endings):
                recipe = stage.path.parent / RECIPE_FILE
                raise UserError(
                    f"{stage.path / bad[0]} is not as the run wrote it (another checksum). Run 'nextlong run "
                    f"{recipe}', which makes it again, then this command."
                )
        file = scratch / "first_chunks.npy"
        documents = all_documents(self.chunks)
        write_array(file, np.stack([documents["first_chunk_id"].to_numpy(), documents["doc_id"].to_numpy()]))
        return dataclasses.replace(self, first_chunks=file)

    def shapes(self) -> Shapes:
        """Of all sequences, in order; reads no token."""
        counts, domains = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for strand in self.strands:
            for table in _rows(strand.packed, 0, strand.num_rows, ["indices", "domain"]):
                counts.append(pc.list_value_length(table["indices"]).to_numpy().astype(np.int64))
                domains.append(pc.binary_length(table["domain"]).to_numpy().astype(np.int64))
        return Shapes(self.about.length_tokens, np.concatenate(counts), np.concatenate(domains))

    def blocks(self, start: int, stop: int) -> Iterator[Sequences]:
        """The sequences start ... stop - 1, a few million tokens at a time."""
        for strand, first, last in self._within(start, stop):
            facts = pa.concat_tables(_rows(strand.packed, first, last, ["indices", "domain"]))
            tokens_in = strand.documents if strand.per_sequence == 1 else strand.packed  # where they were not copied
            row = 0
            for table in _rows(tokens_in, first, last, ["input_ids"]):
                here = facts.slice(row, table.num_rows)
                yield from_table(here.append_column("input_ids", table["input_ids"]), str(tokens_in[0][0].parent))
                row += table.num_rows

    def provenance(self, start: int, stop: int) -> pa.Table:
        """Columns of ROWS, of the sequences start ... stop - 1."""
        tables = [ROWS.empty_table()]
        row = start
        for strand, first, last in self._within(start, stop):
            packed = pa.concat_tables(_rows(strand.packed, first, last, ["indices", "domain", "sample_ids"]))
            each = strand.per_sequence
            documents = pa.concat_tables(_rows(strand.documents, first * each, last * each, ["segments"]))
            tables.append(self._provenance(packed, documents["segments"], row, each))
            row += last - first
        return pa.concat_tables(tables)

    def origin(self, row: int, token: int) -> str:
        """Where a token was read, for messages."""
        return f"{self.strands[0].packed[0][0].parent}, sequence {row}"

    def documents(self, doc_ids: NDArray[np.int64]) -> Iterator[pa.Table]:
        """Columns of DOCUMENTS, of the documents of these ascending doc_ids; reads the table of all documents once."""
        for path, _ in self.chunks.tables():
            table = pq.read_table(documents_of(path), columns=DOCUMENTS.names)
            ids = table["doc_id"].to_numpy()
            places = np.searchsorted(doc_ids, ids)
            wanted = np.zeros(len(ids), np.bool_)
            inside = places < len(doc_ids)
            wanted[inside] = doc_ids[places[inside]] == ids[inside]
            yield table.filter(wanted).cast(DOCUMENTS)

    def _within(self, start: int, stop: int) -> Iterator[tuple[_Strand, int, int]]:
        """(strand, first, last) of the strands that hold some of the sequences, by their rows."""
        begin = 0
        for strand in self.strands:
            first, last = max(start, begin) - begin, min(stop, begin + strand.num_rows) - begin
            if first < last:
                yield strand, first, last
            begin += strand.num_rows

    def _provenance(self, packed: pa.Table, segments: pa.ChunkedArray, first_row: int, per_sequence: int) -> pa.Table:
        num_rows = packed.num_rows
        counts = pc.list_value_length(segments).to_numpy().astype(np.int64)
        flat = pc.list_flatten(segments).combine_chunks()
        document_starts = pc.list_flatten(packed["indices"]).combine_chunks().flatten().to_numpy().reshape(-1, 2)[:, 0]
        shift = np.repeat(document_starts.astype(np.int32), counts)
        chunk_ids = flat.field("chunk_id").to_numpy()
        doc_ids, first_tokens = self._places(chunk_ids)
        columns = {
            "start": flat.field("start").to_numpy() + shift,
            "end": flat.field("end").to_numpy() + shift,
            "role": flat.field("role"),
            "doc_id": doc_ids,
            "chunk_id": chunk_ids,
            "first_token": first_tokens,
            "rank": flat.field("rank"),
            "score": flat.field("score"),
        }
        struct = pa.StructArray.from_arrays(
            [pa.array(columns[field.name], field.type) for field in ROWS.field("segments").type.value_type],
            fields=list(ROWS.field("segments").type.value_type),
        )
        offsets = np.concatenate([[0], np.cumsum(counts)])[::per_sequence].astype(np.int32)
        return pa.table(
            [
                np.arange(first_row, first_row + num_rows),
                pa.nulls(num_rows, pa.string()),
                packed["domain"],
                packed["indices"],
                packed["sample_ids"],
                pa.ListArray.from_arrays(offsets, struct),
            ],
            schema=ROWS,
        )

    def _places(self, chunk_ids: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The documents of chunks, and the place of each chunk's first token in its document."""
        if self.first_chunks is None:
            raise RuntimeError("the source was not prepared")
        firsts, doc_ids = read_array(self.first_chunks)
        places = np.searchsorted(firsts, chunk_ids, "right") - 1
        store = chunk_store(self.chunks)
        return doc_ids[places], store.starts(chunk_ids) - store.starts(firsts[places])


def find_tokenizer(name: str, sha256: str, used_by: Path) -> Tokenizer:
    """The tokenizer of this name. Raises UserError when it is not the one that made the token ids of `used_by`."""
    try:
        tokenizer = Tokenizer(resolve_tokenizer(name))
    except UserError as error:
        raise UserError(f"{error} It is that of {used_by}: say where it is now with --tokenizer.") from error
    if tokenizer.fingerprint != sha256:
        raise UserError(
            f"tokenizer {name} is not the one that made the token ids of {used_by}: its sha256 begins with "
            f"{tokenizer.fingerprint[:12]}, theirs with {sha256[:12]}. Give that one with --tokenizer."
        )
    return tokenizer


def _strands(work: Work, recipe: Recipe, length_tokens: int | None) -> tuple[int, list[_Strand]]:
    """The sequences of the one length asked for, or that there is."""
    by_length: dict[int, list[_Strand]] = {}
    for strand in empty_strands(recipe.synthesis):
        each = documents_per_sequence(recipe.packing.sequence_length_tokens, strand.target_length_tokens)
        packed, documents = (work[stage].tables(strand.prefix) for stage in ("pack", "interleave"))
        found = _Strand(packed, documents, each, sum(rows for _, rows in packed))
        by_length.setdefault(each * strand.target_length_tokens, []).append(found)
    lengths = ", ".join(f"{length:,}" for length in by_length)
    if length_tokens is None and len(by_length) > 1:
        raise UserError(f"{work.path} holds sequences of several lengths ({lengths}): choose one with --length.")
    length = next(iter(by_length)) if length_tokens is None else length_tokens
    if length not in by_length:
        raise UserError(f"{work.path} holds no sequences of --length {length:,}, only of {lengths}.")
    return length, by_length[length]


def _rows(tables: _Tables, start: int, stop: int, columns: list[str]) -> Iterator[Any]:
    """The rows start ... stop - 1 of tables laid end to end, a few row groups at a time."""
    begin = 0
    for path, rows in tables:
        if max(start, begin) < min(stop, begin + rows):
            yield from _rows_of(path, max(start, begin) - begin, min(stop, begin + rows) - begin, columns)
        begin += rows


def _rows_of(path: Path, start: int, stop: int, columns: list[str]) -> Iterator[Any]:
    with pq.ParquetFile(path) as file:
        counts = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        begin = 0
        for group in range(0, len(counts), _GROUPS_AT_ONCE):
            groups = range(group, min(group + _GROUPS_AT_ONCE, len(counts)))
            end = begin + sum(counts[each] for each in groups)
            if max(start, begin) < min(stop, end):
                table = file.read_row_groups(list(groups), columns=columns)
                yield table.slice(max(start, begin) - begin, min(stop, end) - max(start, begin))
            begin = end
