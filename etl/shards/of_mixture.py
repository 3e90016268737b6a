"""Packed folders and their proportions in, one sequence of sequences out, exact at every prefix."""

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from etl.engine import Engine
from etl.parts import read_array, write_array
from etl.shards.of_folder import PackedFolder
from etl.shards.source import DOCUMENTS, About, block_ranges
from nextlong.accounting import Account
from nextlong.errors import UserError
from nextlong.mixing import mix, rows_within, shares_of
from nextlong.sequences import Sequences, Shapes, concatenate

_MOST_ROWS = 1 << 32  # 16 bytes of each are held
_LONGEST_NUMBER = 40
_LARGE_EXPONENT = re.compile(r"e[-+]?\d{3}", re.IGNORECASE)  # exact numbers, which would have as many digits


@dataclasses.dataclass(frozen=True)
class Mixture:
    """Several packed folders as one."""

    folders: list[PackedFolder]
    shares: list[Fraction]
    num_rows: int
    seed: int | None
    """Shuffles each pass over a folder; None: its own order."""
    told: dict[str, Any]
    """What the user asked for (JSON)."""
    account: dict[str, Any]
    """read = kept + dropped by reason."""
    order: Path | None = None
    """int64 [2, num_rows]: folder and row of each sequence."""

    @classmethod
    def of(
        cls,
        paths: Sequence[Path],
        *,
        proportions: Sequence[str] | None = None,
        repeats: Sequence[str] | None = None,
        num_rows: int | None = None,
        seed: int | None = None,
    ) -> "Mixture":
        """A mixture by proportions of its sequences, or of every folder repeated so many times; one of both.

        Proportions alone end where a folder would give a sequence twice; num_rows: so many, with repetition.
        Raises UserError for folders of different lengths or tokenizers, the same one twice, and numbers that cannot be.
        """
        folders = [PackedFolder.open(path) for path in paths]
        _check_alike(folders)
        if (proportions is None) == (repeats is None) or (repeats is not None and num_rows is not None):
            raise UserError("a mixture needs either --proportions (and perhaps --rows) or --repeats.")
        if seed is not None and seed < 0:
            raise UserError(f"--shuffle is {seed}, but a seed must be at least 0.")
        given = list(proportions or repeats or [])
        _check_numbers(given, len(folders))
        sizes = [len(folder) for folder in folders]
        if repeats is not None:
            numbers = _repeats(given)
            shares = shares_of([number * size for number, size in zip(numbers, sizes, strict=True)])
            rows = sum(int(number * size) for number, size in zip(numbers, sizes, strict=True))
        else:
            shares = shares_of(given)
            rows = rows_within(shares, sizes) if num_rows is None else num_rows
        _check_rows(rows, num_rows)
        told = {"proportions": proportions, "repeats": repeats, "rows": rows, "shuffle": seed}
        account = _account(folders, mix(shares, rows)).to_dict()
        return cls(
            folders, shares, rows, seed, {name: each for name, each in told.items() if each is not None}, account
        )

    @property
    def about(self) -> About:
        """What is told of the sequences."""
        first = self.folders[0].about
        made_by = {"verb": "mix", **self.told, "folders": [self._told_of(folder) for folder in self.folders]}
        has_mask = any(folder.about.has_mask for folder in self.folders)
        return dataclasses.replace(first, has_mask=has_mask, made_by=made_by, account=self.account)

    @property
    def fingerprint(self) -> str:
        """Of the folders and how they are mixed."""
        identity = [[folder.fingerprint for folder in self.folders], list(map(str, self.shares)), self.told]
        return hashlib.sha256(json.dumps(identity).encode()).hexdigest()

    def local_paths(self) -> list[Path]:
        """Files and folders that tasks read."""
        return [folder.path for folder in self.folders]

    def prepare(self, scratch: Path, engine: Engine) -> "Mixture":
        """Decide which sequence stands where; the folders' files are compared with their checksums as they are read."""
        chosen = mix(self.shares, self.num_rows)
        rows = np.empty(self.num_rows, np.int64)
        for number, folder in enumerate(self.folders):
            here = np.flatnonzero(chosen == number)
            rows[here] = self._passes(number, len(folder), len(here))
        file = scratch / "order.npy"
        write_array(file, np.stack([chosen.astype(np.int64), rows]))
        folders = [folder.prepare(scratch, engine) for folder in self.folders]
        return dataclasses.replace(self, folders=folders, order=file)

    def shapes(self) -> Shapes:
        """Of all sequences, in order."""
        chosen, rows = self._order()
        num_pieces, domain_bytes = np.empty(len(rows), np.int64), np.empty(len(rows), np.int64)
        for number, folder in enumerate(self.folders):
            shapes, here = folder.shapes(), chosen == number
            num_pieces[here], domain_bytes[here] = shapes.num_pieces[rows[here]], shapes.domain_bytes[rows[here]]
        about = self.about
        return Shapes(about.length_tokens, num_pieces, domain_bytes, about.has_mask)

    def blocks(self, start: int, stop: int) -> Iterator[Sequences]:
        """The sequences start ... stop - 1, a few million tokens at a time."""
        length, has_mask = self.about.length_tokens, self.about.has_mask
        chosen, rows = self._order()
        for first, last in block_ranges(start, stop, length):
            here = slice(first, last)
            found: dict[int, Sequences] = {}
            for number in np.unique(chosen[here]).tolist():
                found[number] = concatenate(list(_runs(self.folders[number], rows[here][chosen[here] == number])))
            yield _woven(found, chosen[here], length, has_mask)

    def provenance(self, start: int, stop: int) -> pa.Table:
        """Columns of ROWS, of the sequences start ... stop - 1; documents are numbered on from folder to folder."""
        chosen, rows = (each[start:stop] for each in self._order())
        tables, places, shifts = [], np.empty(stop - start, np.int64), self._shifts()
        filled = 0
        for number in np.unique(chosen).tolist():
            folder, here = self.folders[number], np.flatnonzero(chosen == number)
            first = int(rows[here].min())
            table = folder.provenance(first, int(rows[here].max()) + 1).take(rows[here] - first)
            origin = pa.array([f"{folder.path.name}, row {row}" for row in rows[here].tolist()], pa.string())
            table = table.set_column(table.schema.get_field_index("origin"), "origin", origin)
            tables.append(_shifted(table, shifts[number]))
            places[here] = np.arange(filled, filled + len(here))
            filled += len(here)
        table = pa.concat_tables(tables).take(places)
        return table.set_column(0, "row", pa.array(np.arange(start, stop))).combine_chunks()

    def origin(self, row: int, token: int) -> str:
        """Where a token was read, for messages."""
        folder, place = map(int, self._order()[:, row])
        return self.folders[folder].origin(place, token)

    def documents(self, doc_ids: NDArray[np.int64]) -> Iterator[pa.Table]:
        """Columns of DOCUMENTS, of the documents of these ascending doc_ids."""
        shifts = self._shifts()
        for folder, first, last in zip(self.folders, shifts, shifts[1:], strict=False):
            own = doc_ids[(doc_ids >= first) & (doc_ids < last)] - first
            for table in folder.documents(own):
                yield table.set_column(0, DOCUMENTS.field(0), pc.add(table["doc_id"], first))

    def _order(self) -> NDArray[np.int64]:
        if self.order is None:
            raise RuntimeError("the mixture was not prepared")
        order: NDArray[np.int64] = read_array(self.order)
        return order

    def _passes(self, number: int, size: int, wanted: int) -> NDArray[np.int64]:
        """The rows of one folder in the order in which they are taken: pass after pass."""
        passes = range(-(-wanted // size))
        if self.seed is None:
            return np.resize(np.arange(size), wanted)
        rng = (np.random.default_rng([self.seed, number, each]) for each in passes)
        return np.concatenate([np.empty(0, np.int64), *[each.permutation(size) for each in rng]])[:wanted]

    def _shifts(self) -> list[int]:
        """What is added to the doc_ids of each folder, and the end of all."""
        ends = [int(folder.doc_ids()[-1]) + 1 if len(folder.doc_ids()) else 0 for folder in self.folders]
        shifts: list[int] = np.cumsum([0, *ends]).tolist()
        return shifts

    @staticmethod
    def _told_of(folder: PackedFolder) -> dict[str, Any]:
        told = folder.manifest
        return {
            "name": folder.path.name,
            "rows": told["rows"],
            "fingerprint": told["fingerprint"],
            "made_by": told["made_by"],
        }


def _account(folders: Sequence[PackedFolder], chosen: NDArray[np.int32]) -> Account:
    account = Account()
    for folder, number in zip(folders, np.bincount(chosen, minlength=len(folders)).tolist(), strict=True):
        kept = min(number, len(folder))
        account.add("sequences", read=len(folder), kept=kept, dropped={"beyond_proportion": len(folder) - kept})
        account.note(f"sequences_of_{folder.path.name}", number)
        account.note("sequences_repeated", number - kept)
    return account


def _check_numbers(given: Sequence[str], num_folders: int) -> None:
    if len(given) != num_folders:
        raise UserError(f"there are {num_folders} folders, but {len(given)} numbers: give one for each.")
    if long := [each for each in given if len(each) > _LONGEST_NUMBER or _LARGE_EXPONENT.search(each)]:
        raise UserError(f"{long[0][:_LONGEST_NUMBER]} is no proportion. Give numbers such as 33.33, 2 or 1/3.")


def _check_rows(num_rows: int, asked: int | None) -> None:
    if asked is not None and asked < 1:
        raise UserError(f"--rows is {asked}, but a mixture must have a sequence or more.")
    if num_rows < 1:
        raise UserError("the mixture has no row: a folder has too few sequences for its proportion. Give --rows.")
    if num_rows > _MOST_ROWS:
        raise UserError(f"the mixture would have {num_rows:,} sequences, but {_MOST_ROWS:,} is the most. Make several.")


def _repeats(given: Sequence[str]) -> list[Fraction]:
    try:
        numbers = [Fraction(each) for each in given]
    except (ValueError, ZeroDivisionError) as error:
        raise UserError(f"--repeats are {', '.join(given)}, but they must be numbers.") from error
    if min(numbers) <= 0:
        raise UserError(f"--repeats are {', '.join(given)}, but each must be above 0.")
    return numbers


def _check_alike(folders: Sequence[PackedFolder]) -> None:
    """Raise UserError unless sequences of all folders may stand in one."""
    names = [folder.path.name for folder in folders]
    if len(folders) < 2:
        raise UserError("a mixture needs two folders or more.")
    if len(set(names)) < len(names):
        raise UserError(
            f"two of the folders are called {max(names, key=names.count)}: their names tell them apart. Rename one; "
            f"to take a folder more often, use --repeats."
        )
    fingerprints = [folder.fingerprint for folder in folders]
    if twice := [each for each in fingerprints if fingerprints.count(each) > 1]:
        one, other = [folder.path for folder in folders if folder.fingerprint == twice[0]][:2]
        raise UserError(f"{one} and {other} are the same export. To take it more often, use --repeats.")
    first = folders[0]
    for folder in folders:
        if folder.about.length_tokens != first.about.length_tokens:
            raise UserError(
                f"{folder.path} has sequences of {folder.about.length_tokens:,} tokens, but {first.path} of "
                f"{first.about.length_tokens:,}: pack them to one length."
            )
        if folder.about.tokenizer_sha256 != first.about.tokenizer_sha256:
            raise UserError(f"{folder.path} and {first.path} were made with different tokenizers.")
        folder.refuse_tokens_only()
        if not len(folder):
            raise UserError(f"{folder.path} has no sequence.")


def _runs(folder: PackedFolder, rows: NDArray[np.int64]) -> Iterator[Sequences]:
    """The sequences of these rows, in this order; consecutive ones are read at once."""
    breaks = np.flatnonzero(np.diff(rows) != 1) + 1
    for run in np.split(rows, breaks):
        yield folder.read(int(run[0]), int(run[-1]) + 1)


def _woven(found: dict[int, Sequences], chosen: NDArray[np.int64], length: int, has_mask: bool) -> Sequences:
    """Sequences of several folders in the order chosen."""
    ids = np.empty((len(chosen), length), np.uint32)
    mask = np.ones((len(chosen), length), np.uint8) if has_mask else None
    places = dict.fromkeys(found, 0)
    domains, pieces = [], []
    for row, number in enumerate(chosen.tolist()):
        block, place = found[number], places[number]
        ids[row] = block.input_ids[place]
        if mask is not None and block.mask is not None:
            mask[row] = block.mask[place]
        pieces.append(block.pieces(place))
        domains.append(block.domains[place])
        places[number] += 1
    return Sequences(ids, np.concatenate(pieces), np.cumsum([0, *map(len, pieces)]), domains, mask)


def _shifted(table: pa.Table, shift: int) -> pa.Table:
    """The provenance with the doc_ids of another numbering."""
    column = table["segments"].combine_chunks()
    flat = column.flatten()
    doc_ids = flat.field("doc_id")
    moved = pc.if_else(pc.greater_equal(doc_ids, 0), pc.add(doc_ids, shift), doc_ids)
    fields = list(flat.type)
    arrays = [moved if field.name == "doc_id" else flat.field(field.name) for field in fields]
    counts = np.concatenate([[0], np.cumsum(pc.list_value_length(column).to_numpy())]).astype(np.int32)
    segments = pa.ListArray.from_arrays(counts, pa.StructArray.from_arrays(arrays, fields=fields))
    return table.set_column(table.schema.get_field_index("segments"), "segments", segments)
