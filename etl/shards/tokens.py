"""Documents of any kind in (texts, chats, token ids, MDS samples), files of their token ids out: a task a part.

Token ids that stand in plain MDS shards are not copied, only found.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from etl.inputs import Input, ReadSplit, Split, identify, list_files, plan_splits, read_tables
from etl.inputs.files import InputFile, find_files
from etl.inputs.spans import Span
from etl.lookup import loaded
from etl.parts import PartResult, write_array, write_raw, write_table
from etl.shards.pieces import check_boundaries, split_at_boundaries, without_masked
from etl.shards.token_columns import DOCUMENTS, Names, Rows, read_columns, read_mds, row_groups, rows_before
from nextlong.accounting import Account
from nextlong.errors import UserError
from nextlong.shards.mds import INDEX
from nextlong.shards.mds_folder import MdsFolder
from nextlong.tokenizing import Tokenizer

Kind = Literal["text", "chat", "tokens", "mds"]

PLACES = np.dtype([("byte", "<i8"), ("tokens", "<i8"), ("position", "<i8")])
"""Of a document: where its ids begin in the part's file, how many there are, and its place among the rows read."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Documents:
    """What is read, and how."""

    kind: Kind
    input: Input
    """Of texts and chats; of token ids only its path and the columns id and source count."""
    ids: str = "input_ids"
    """Column of token ids."""
    template_sha256: str | None = None
    """Of the template that chats go through, and its tokenizer."""
    has_whole_rows: bool = False
    """A row with boundaries (`indices`) is one document that keeps them; else each of its pieces is a document."""

    @property
    def names(self) -> Names:
        """Columns of token ids."""
        return Names(self.ids, self.input.id, self.input.source)

    def splits(self) -> list[Any]:
        """What each task reads."""
        if self.kind == "mds":
            folders = _folders(self.input.addresses)
            return [(folder, number) for folder in folders for number in range(len(MdsFolder(folder).shards))]
        if self.kind == "tokens":
            return [(file, *groups) for file in self._files() for groups in row_groups(file)]
        return plan_splits(self.input, self._files())

    def local_paths(self) -> list[Path]:
        """Files and folders that tasks read; the first and the last stand for all."""
        if self.kind == "mds":
            return _folders(self.input.addresses)
        files = self._files()
        folders = [folder for folder in _folders(self.input.addresses) if folder.is_dir()]
        return [*folders, *[Path(file.path) for file in (files[0], files[-1]) if file.is_local]]

    def _files(self) -> list[InputFile]:
        return find_files(self.input.addresses, "parquet") if self.kind == "tokens" else list_files(self.input)

    def identity(self) -> Any:
        """What changes with the content of the input (JSON)."""
        if self.kind == "mds":
            folders = _folders(self.input.addresses)
            indices = [hashlib.sha256((folder / INDEX).read_bytes()).hexdigest() for folder in folders]
            return [indices, identify(_shard_files(folders))]
        return identify(self._files())


def kind_of(addresses: list[str], *, is_chat: bool, has_ids: bool) -> Kind:
    """What stands at addresses: MDS where there is its index, else what is said of it."""
    has_index = [(folder / INDEX).is_file() for folder in _folders(addresses)]
    if all(has_index):
        return "mds"
    if any(has_index):
        raise UserError(f"{addresses[has_index.index(False)]} is no MDS folder, but others are: read one kind at once.")
    return "chat" if is_chat else "tokens" if has_ids else "text"


def _folders(addresses: list[str]) -> list[Path]:
    """Each once, as a file that is named twice is read once."""
    return list(dict.fromkeys(Path(address).expanduser().absolute() for address in addresses))


def _shard_files(folders: list[Path]) -> list[InputFile]:
    paths = [path for folder in folders for path in MdsFolder(folder).shards]
    if missing := [path for path in paths if not path.is_file()]:
        raise UserError(f"{missing[0]} is named by the {INDEX} beside it, but is not there. Fetch the folder again.")
    return find_files([str(path) for path in paths], "mds") if paths else []


def tokens_part(folder: Path, name: str, *, documents: Documents, split: Any, tokenizer_file: Path) -> PartResult:
    """Write the token ids of one part: NAME.places.npy, NAME.documents.parquet, and ids, mask, boundaries if any."""
    rows = _gathered(list(_read(documents, split, tokenizer_file)))
    if rows.pieces is not None and documents.has_whole_rows:
        rows = check_boundaries(rows, _name(split), _first_row(split))
    elif rows.pieces is not None:
        rows = without_masked(split_at_boundaries(rows, _name(split), _first_row(split)))
    begins = 4 * (np.cumsum(rows.lengths) - rows.lengths) if rows.begins is None else rows.begins
    places = np.zeros(len(rows.lengths), PLACES)
    places["byte"], places["tokens"], places["position"] = begins, rows.lengths, rows.documents["position"]
    write_array(folder / f"{name}.places.npy", places)
    write_table(folder / f"{name}.documents.parquet", rows.documents)
    files = [f"{name}.places.npy", f"{name}.documents.parquet"]
    if not rows.file:
        write_raw(folder / f"{name}.tokens", rows.ids)
        files.append(f"{name}.tokens")
    if rows.mask is not None:
        write_raw(folder / f"{name}.mask", rows.mask)
        files.append(f"{name}.mask")
    if rows.pieces is not None:
        write_array(folder / f"{name}.pieces.npy", np.concatenate([np.empty((0, 2), np.int64), *rows.pieces]))
        write_array(folder / f"{name}.piece_offsets.npy", np.cumsum([0, *map(len, rows.pieces)]))
        files += [f"{name}.pieces.npy", f"{name}.piece_offsets.npy"]
    values = {
        "file": rows.file,
        "name": _name(split) if documents.kind in ("tokens", "mds") else "",
        "first_row": _first_row(split) if documents.kind == "tokens" else 0,
        "rows": rows.num_read,
        "has_mask": rows.mask is not None,
        "has_pieces": rows.pieces is not None,
    }
    return PartResult(files=files, rows=len(rows.lengths), account=_account(rows), values=values)


def _account(rows: Rows) -> Account:
    account = Account()
    kept = rows.num_read - rows.num_null - rows.num_too_long
    dropped = {"null": rows.num_null, "too_long": rows.num_too_long}
    account.add("rows", read=rows.num_read, kept=kept, dropped=dropped)
    num_tokens = int(rows.lengths.sum())
    left_out = {"outside_boundaries": rows.num_outside, "fully_masked": rows.num_masked}
    account.add("tokens", read=num_tokens + sum(left_out.values()), kept=num_tokens, dropped=left_out)
    return account


def _read(documents: Documents, split: Any, tokenizer_file: Path) -> Iterator[Rows]:
    tokenizer = loaded(lambda: Tokenizer(tokenizer_file), "tokenizer", tokenizer_file, of=[tokenizer_file])
    if documents.kind == "mds":
        folder, number = split
        yield read_mds(folder, number, documents.names, tokenizer.vocab_size)
    elif documents.kind == "tokens":
        file, first, last = split
        yield from read_columns(file, first, last, documents.names, tokenizer.vocab_size)
    else:
        for span in split.spans:
            first_row = 0
            for read in read_tables(Split((span,), split.part_bytes, split.part_rows), documents.input):
                if documents.kind == "chat":
                    yield _from_chats(read, span, first_row, documents.input, tokenizer_file)
                else:
                    yield _from_texts(read, tokenizer)
                first_row += read.table.num_rows


def _from_texts(read: ReadSplit, tokenizer: Tokenizer) -> Rows:
    table, rows = _without_null(read)
    ids, offsets = tokenizer.encode(table["text"].to_pylist())
    return rows._replace(ids=ids, lengths=np.diff(offsets))


def _from_chats(read: ReadSplit, span: Span, first_row: int, settings: Input, tokenizer_file: Path) -> Rows:
    from nextlong.chats import ChatTemplate

    template = loaded(lambda: ChatTemplate.load(str(tokenizer_file.parent)), "chat template", tokenizer_file)
    table, rows = _without_null(read)
    ids, masks = [np.empty(0, np.uint32)], [np.empty(0, np.uint8)]
    for text, position in zip(table["text"].to_pylist(), rows.documents["position"].to_pylist(), strict=True):
        chat = json.loads(text)
        try:
            encoded = template.encode(chat, span.file.name)
        except UserError:
            row = _rows_before(span, settings) + first_row + position
            encoded = template.encode(chat, f"{span.file.name}, row {row} (from 0)")
        ids.append(encoded[0])
        masks.append(encoded[1])
    lengths = np.array([len(each) for each in ids[1:]], np.int64)
    return rows._replace(ids=np.concatenate(ids), lengths=lengths, mask=np.concatenate(masks))


def _without_null(read: ReadSplit) -> tuple[pa.Table, Rows]:
    """The rows that hold something, and what is known of them."""
    is_null = pc.is_null(read.table["text"]).to_numpy()
    table = read.table.filter(~is_null)
    facts = [pa.array(np.flatnonzero(~is_null)), table["source_id"], table["source"]]
    num_too_long = int(read.is_too_long.sum())
    documents = pa.table(facts, schema=DOCUMENTS)
    nothing: NDArray[Any] = np.empty(0, np.uint32)
    return table, Rows(
        nothing,
        np.empty(0, np.int64),
        documents,
        read.table.num_rows,
        num_null=int(is_null.sum()) - num_too_long,
        num_too_long=num_too_long,
    )


def _rows_before(span: Span, settings: Input) -> int:
    """The rows of a file before a span of it; read only to say where an error is."""
    if span.file.format == "parquet":
        return rows_before(span.file, span.start)
    before = Split((Span(span.file, 0, span.start),))
    return sum(read.table.num_rows for read in read_tables(before, settings)) if span.start else 0


def _name(split: Any) -> str:
    """Of the file that a split of token ids is of."""
    return split[0].name if isinstance(split[0], InputFile) else str(MdsFolder(split[0]).shards[split[1]])


def _first_row(split: Any) -> int:
    return rows_before(split[0], split[1]) if isinstance(split[0], InputFile) else 0


def _gathered(found: list[Rows]) -> Rows:
    """The rows of a part in one."""
    if len(found) == 1:
        return found[0]
    shift, tables = 0, [DOCUMENTS.empty_table()]
    for each in found:
        tables.append(each.documents.set_column(0, DOCUMENTS.field(0), pc.add(each.documents["position"], shift)))
        shift += each.num_read
    masks = [each.mask for each in found if each.mask is not None]
    has_pieces = any(each.pieces is not None for each in found)
    return Rows(
        np.concatenate([np.empty(0, np.uint32), *[each.ids for each in found]]),
        np.concatenate([np.empty(0, np.int64), *[each.lengths for each in found]]),
        pa.concat_tables(tables),
        shift,
        num_null=sum(each.num_null for each in found),
        num_too_long=sum(each.num_too_long for each in found),
        mask=np.concatenate(masks) if masks else None,
        pieces=[piece for each in found for piece in each.pieces or []] if has_pieces else None,
    )
