"""A packed folder in; whether it holds, to the bit, what its manifest states, out."""

import dataclasses
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa

from etl.engine import Engine
from etl.parts import damaged
from etl.shards.manifest import CARD, MANIFEST, TOKENIZER, is_sealed
from etl.shards.of_folder import PackedFolder
from etl.shards.segments import fault_of
from etl.show import first_words
from nextlong.errors import UserError
from nextlong.shards.table import pieces_of
from nextlong.tokenizing import Tokenizer

_SAMPLES = 3
_TAKEN_FOR_DATA = (".parquet", ".mds", ".bin", ".idx")  # by readers that look at names, and not at an index


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What was found of a folder."""

    faults: list[str]
    """One sentence each; none: all is as it was written."""
    facts: list[str]
    """What was looked at, and how texts of it begin."""


def verify(path: Path, engine: Engine) -> Verdict:
    """Compare every file with its checksum, then look into the sequences: a task a file, then a task a shard.

    Of every sequence: its length, boundaries that tile it in pieces of two tokens or more, ids in the vocabulary, a
    mask of its length, provenance that tiles it and has its boundaries; then some are decoded. A file too many is a
    fault where readers may take it for data; others are told of. Raises UserError for a folder that is no export.
    """
    folder = PackedFolder.open(path, sealed=False)
    told = folder.manifest
    faults = [f"{path / MANIFEST} {each}." for each in _faults_of_manifest(folder)]
    files = [{name: facts} for name, facts in told["files"].items()]
    changed = engine.map(partial(damaged, path), files, doing="compare", unit="file")
    faults += [
        f"{path / name} is not as it was written: another size or checksum, or gone."
        for found in changed
        for name in found
    ]
    unknown = {name: _fault_of_unknown(path, name, told["files"]) for name in sorted(_unnamed(path, told["files"]))}
    faults += [f"{path / name} {fault}" for name, fault in unknown.items() if fault]
    if not any(changed):
        faults += _faults_of_shards(folder, engine)
    facts = [
        f"{changed.count([])} of {len(files)} files are as they were written (size and sha256)",
        f"{told['rows']:,} sequences of {told['sequence_length_tokens']:,} tokens, ids below {told['vocab_size']:,}",
        *[f"{name} is no file of the export" for name, fault in unknown.items() if not fault],
    ]
    return Verdict(faults, facts if faults else [*facts, *_decoded(folder)])


def _faults_of_manifest(folder: PackedFolder) -> Iterator[str]:
    told = folder.manifest
    if not is_sealed(told):
        yield "is not as it was written: it has another checksum"
    if told["rows"] != len(folder):
        yield f"states {told['rows']:,} rows, but its shards have {len(folder):,}"
    if told["tokens"] != told["rows"] * told["sequence_length_tokens"]:
        yield f"states {told['tokens']:,} tokens, but {told['rows']:,} rows of {told['sequence_length_tokens']:,}"
    for unit, count in told["account"].items():
        if unit != "notes" and count["read"] != count["kept"] + sum(count["dropped"].values()):
            yield f"states an account of {unit} that does not balance: {count}"
    try:
        tokenizer = Tokenizer(folder.path / TOKENIZER)
    except (OSError, UserError) as error:
        yield f"is of a tokenizer that cannot be read: {error}"
        return
    if tokenizer.fingerprint != told["tokenizer_sha256"]:
        yield f"states another tokenizer than {TOKENIZER}"
    elif tokenizer.vocab_size != told["vocab_size"]:
        yield f"states a vocabulary of {told['vocab_size']:,}, but that of {TOKENIZER} has {tokenizer.vocab_size:,}"


def _faults_of_shards(folder: PackedFolder, engine: Engine) -> list[str]:
    firsts = np.cumsum([0, *[shard["rows"] for shard in folder.manifest["shards"]]]).tolist()
    spans = [(number, first, last) for number, (first, last) in enumerate(pairwise(firsts))]
    found = engine.map(partial(_look_into, folder), spans, doing="look", unit="shard")
    return [each for faults in found for each in faults]


def _look_into(folder: PackedFolder, span: tuple[int, int, int]) -> list[str]:
    """The faults of one shard."""
    number, start, stop = span
    where = str(folder.path / folder.manifest["shards"][number]["files"][0])
    try:
        told = folder.provenance(start, stop)
        if fault := fault_of(told, start, folder.about.length_tokens, folder.doc_ids()):
            return [f"{folder.path}, {fault}"]
        row = start
        for block in folder.blocks(start, stop):
            block.check(where, vocab_size=folder.about.vocab_size, first_row=row)
            here = told.slice(row - start, len(block))
            indices, offsets = pieces_of(here["indices"], where)
            if not (np.array_equal(offsets, block.offsets) and np.array_equal(indices, block.indices)):
                return [f"{where}: the boundaries from row {row} on are others than those in the provenance."]
            if here["domain"].to_pylist() != block.domains:
                return [f"{where}: the domains from row {row} on are others than those in the provenance."]
            row += len(block)
    except UserError as error:
        return [str(error)]
    return []


def _unnamed(path: Path, files: dict[str, object]) -> Iterator[str]:
    for each in path.rglob("*"):
        name = str(each.relative_to(path))
        if each.is_file() and name not in files and name not in (CARD, MANIFEST):
            yield name


def _fault_of_unknown(path: Path, name: str, files: dict[str, object]) -> str | None:
    """What is wrong with a file too many; None: nothing that matters."""
    if f"{name}.zstd" in files:  # unpacked there by Mosaic's reader, which then reads it unlooked
        return None if _is_unpacked(path / name) else "is not what its .zstd holds. Delete it."
    return "is no file of the export, but may be taken for one. Delete it." if name.endswith(_TAKEN_FOR_DATA) else None


def _is_unpacked(path: Path) -> bool:
    data, packed = path.read_bytes(), path.with_name(f"{path.name}.zstd").read_bytes()
    try:
        return bool(pa.Codec("zstd").decompress(packed, len(data), asbytes=True) == data)
    except (OSError, ValueError, pa.ArrowException):
        return False


def _decoded(folder: PackedFolder) -> Iterator[str]:
    """How some sequences begin, as text."""
    tokenizer = Tokenizer(folder.path / TOKENIZER)
    for row in np.unique(np.linspace(0, len(folder) - 1, min(_SAMPLES, len(folder))).astype(int)).tolist():
        ids = folder.read(row, row + 1).input_ids[0, :256]
        yield f'row {row} begins "{first_words(tokenizer.decode(ids), 80)}"'
