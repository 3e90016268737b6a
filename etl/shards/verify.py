"""A packed folder in; whether it holds, to the bit, what its manifest states, out."""

import dataclasses
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from etl.engine import Engine
from etl.parts import damaged
from etl.shards.destination import MANIFEST
from etl.shards.of_folder import TOKENIZER, PackedFolder
from etl.show import first_words
from nextlong.errors import UserError
from nextlong.tokenizing import Tokenizer

_SAMPLES = 3


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
    mask of its length, provenance that tiles it; then some are decoded. Files that no manifest names are told of.
    Raises UserError for a folder that is no export.
    """
    folder = PackedFolder.open(path)
    told = folder.manifest
    files = [{name: facts} for name, facts in told["files"].items()]
    changed = [
        name for found in engine.map(partial(damaged, path), files, doing="compare", unit="file") for name in found
    ]
    if changed:
        return Verdict(
            [f"{path / name} is not as it was written: another size or checksum, or gone." for name in changed], []
        )
    firsts = np.cumsum([0, *[shard["rows"] for shard in told["shards"]]]).tolist()
    spans = [(number, first, last) for number, (first, last) in enumerate(pairwise(firsts))]
    faults = [
        each for found in engine.map(partial(_look_into, folder), spans, doing="look", unit="shard") for each in found
    ]
    if firsts[-1] != told["rows"]:
        faults.append(f"{path / MANIFEST} states {told['rows']:,} rows, but its shards have {firsts[-1]:,}.")
    unknown = sorted(_unnamed(path, told["files"]))
    facts = [
        f"{len(files)} files are as they were written (size and sha256)",
        f"{told['rows']:,} sequences of {told['sequence_length_tokens']:,} tokens, ids below {told['vocab_size']:,}",
        *[f"{name} is no file of the export" for name in unknown],
        *_decoded(folder),
    ]
    return Verdict(faults, facts)


def _look_into(folder: PackedFolder, span: tuple[int, int, int]) -> list[str]:
    """The faults of one shard."""
    number, start, stop = span
    where = str(folder.path / folder.manifest["shards"][number]["files"][0])
    try:
        row = start
        for block in folder.blocks(start, stop):
            block.check(where, vocab_size=folder.about.vocab_size, first_row=row)
            if (block.mask is not None) != folder.about.has_mask and not folder.is_tokens_only:
                return [f"{where}: there is {'a' if block.mask is not None else 'no'} mask, unlike the manifest says."]
            row += len(block)
        return _look_into_provenance(folder, start, stop)
    except UserError as error:
        return [str(error)]


def _look_into_provenance(folder: PackedFolder, start: int, stop: int) -> list[str]:
    """Segments that do not tile their sequence."""
    table = folder.provenance(start, stop)
    rows = table["row"].to_numpy()
    if not np.array_equal(rows, np.arange(start, stop)):
        return [f"{folder.path}: the provenance of the rows {start} to {stop - 1} is of other rows."]
    counts = pc.list_value_length(table["segments"]).to_numpy()
    flat = pc.list_flatten(table["segments"]).combine_chunks()
    starts, ends = flat.field("start").to_numpy(), flat.field("end").to_numpy()
    last = np.cumsum(counts) - 1
    expected = np.concatenate([[0], ends[:-1]])
    expected[last - counts + 1] = 0
    wrong = starts != expected
    wrong[last] |= ends[last] != folder.about.length_tokens
    if (places := np.flatnonzero(wrong)).size:
        row = start + int(np.searchsorted(last, places[0]))
        return [f"{folder.path}, row {row}: the segments of its provenance do not tile it."]
    return []


def _unnamed(path: Path, files: dict[str, object]) -> Iterator[str]:
    for each in path.rglob("*"):
        name = str(each.relative_to(path))
        if each.is_file() and name not in files and name != MANIFEST:
            yield name


def _decoded(folder: PackedFolder) -> Iterator[str]:
    """How some sequences begin, as text. Raises UserError when the tokenizer in the folder is another one."""
    tokenizer = Tokenizer(folder.path / TOKENIZER)
    if tokenizer.fingerprint != folder.about.tokenizer_sha256:
        raise UserError(f"{folder.path / TOKENIZER} is not the tokenizer that made the token ids.")
    for row in np.unique(np.linspace(0, len(folder) - 1, _SAMPLES).astype(int)).tolist():
        ids = folder.read(row, row + 1).input_ids[0, :256]
        yield f'row {row} begins "{first_words(tokenizer.decode(ids), 80)}"'
