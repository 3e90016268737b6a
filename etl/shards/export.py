"""Packed sequences in, a folder of shards that a trainer reads out: a task a shard, and a manifest that says all."""

import dataclasses
import hashlib
import json
import logging
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from etl.engine import Engine
from etl.parts import MARKER, Part, PartResult, discard, file_facts, read_json, write_json, write_table
from etl.preflight import check_workers
from etl.shards.card import card
from etl.shards.destination import Destination, sync
from etl.shards.manifest import CARD, DOCUMENTS_FILE, MANIFEST, PROVENANCE, TOKENIZER, sealed
from etl.shards.source import DOCUMENTS, Source
from nextlong.accounting import Account
from nextlong.errors import UserError
from nextlong.sequences import Sequences, Shapes
from nextlong.shards import Format

log = logging.getLogger(__name__)

FORMAT_VERSION = 2
"""Raised when the same sequences give other bytes."""


def export(source: Source, address: str, name: str, format_: Format, engine: Engine) -> dict[str, Any]:
    """Write sequences as shards at a folder or URL; returns the manifest. name: of the format.

    Each shard is made by one task, with its provenance beside it, and checked: ids in the vocabulary, boundaries that
    tile. Written aside and published whole; the same export once more finds it there and does nothing. Raises UserError
    for a folder that holds anything else.
    """
    identity = {"source": source.fingerprint, "format": name, "version": FORMAT_VERSION, **_options(format_)}
    fingerprint = hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()
    there = Destination.at(address, fingerprint)
    if (manifest := there.published()) is not None:
        if manifest.get("fingerprint") != fingerprint:
            raise UserError(f"{there.address} holds another export. Nothing is written over it: give another --out.")
        log.info("%s: exported earlier", there.address)
        return manifest
    if not there.is_remote:
        _refuse_own_input(source, Path(there.address))
    with there.claimed():
        if engine.client is not None:
            check_workers(engine.client, there.staging, source.local_paths(), wait_seconds=60)
        source = source.prepare(there.scratch, engine)
        shapes = source.shapes()
        if not len(shapes):
            raise UserError(f"there is no sequence to export{_reasons(source.about.account)}.")
        parts = _parts(source, format_, shapes, there)
        markers = engine.run(parts, doing="export", unit="sequence")
        files = {name: facts for marker in markers for name, facts in _files(marker).items()}
        small = format_.finish(there.staging, [marker["values"]["shard"] for marker in markers])
        small.append(_write_documents(source, there, markers))
        shutil.copyfile(source.about.tokenizer_file, there.staging / TOKENIZER)
        small.append(TOKENIZER)
        manifest = _manifest(source, name, format_, fingerprint, markers)
        for each in small:
            files[each] = _kept(there, each)
        (there.staging / CARD).write_text(card(manifest))
        _kept(there, CARD)  # its checksum is nobody's: people fill it in
        manifest = sealed(manifest | {"files": dict(sorted(files.items()))})
        write_json(there.staging / MANIFEST, manifest)
        _kept(there, MANIFEST)
        there.publish([*manifest["files"], CARD, MANIFEST])
    return manifest


def _refuse_own_input(source: Source, out: Path) -> None:
    for path in source.local_paths():
        if path.is_dir() and out.resolve().is_relative_to(path.resolve()):
            raise UserError(f"{out} is inside {path}, which it is made of. Give another --out.")


def _reasons(account: dict[str, Any]) -> str:
    """What became of everything, for a sentence."""
    told = []
    for unit in ("rows", "documents"):
        if dropped := account.get(unit, {}).get("dropped"):
            reasons = ", ".join(f"{number:,} {reason}" for reason, number in dropped.items())
            told.append(f"of {account[unit]['read']:,} {unit} {reasons}")
    return f": {'; '.join(told)}" if told else ""


def _options(format_: Format) -> dict[str, Any]:
    return dataclasses.asdict(format_)  # type: ignore[call-overload, no-any-return]


def _parts(source: Source, format_: Format, shapes: Shapes, there: Destination) -> list[Part]:
    found = format_.shards(shapes)
    parts = [
        Part(
            folder=there.staging,
            name=f"shard-{number:05d}",
            fingerprint=there.fingerprint,
            function=_shard_part,
            arguments={
                "source": source,
                "format_": format_,
                "start": start,
                "number": number,
                "of": len(found),
                "shapes": shapes.rows(start, stop),
                "there": there,
            },
            weight=stop - start,
        )
        for number, (start, stop) in enumerate(found)
    ]
    if there.is_remote:
        for part in parts:
            marker = read_json(part.folder / (part.name + MARKER))
            if marker is not None and not there.has_uploaded(marker["values"]["uploaded"]):
                discard(part.folder / (part.name + MARKER))
    return parts


def _shard_part(
    folder: Path,
    name: str,
    *,
    source: Source,
    format_: Format,
    start: int,
    number: int,
    of: int,
    shapes: Shapes,
    there: Destination,
) -> PartResult:
    folder = folder if not there.is_remote else _empty(there.scratch / name)
    stop = start + len(shapes)
    shard = format_.write(folder, number, of, shapes, read_ahead(source, start, stop), with_sha256=True)
    rows = source.provenance(start, stop)
    (folder / PROVENANCE).mkdir(exist_ok=True)
    write_table(folder / PROVENANCE / f"rows-{number:05d}.parquet", rows, rows_per_group=1024)
    doc_ids = pc.unique(pc.struct_field(pc.list_flatten(rows["segments"]).combine_chunks(), "doc_id"))
    np.save(there.scratch / f"{name}.doc_ids.npy", np.sort(doc_ids.to_numpy()))
    names = [*shard["files"], f"{PROVENANCE}/rows-{number:05d}.parquet"]
    known = shard.get("sha256", {})
    facts = {each: _facts(folder / each, known.get(each)) for each in names}
    account, length = Account(), source.about.length_tokens
    account.add("sequences", read=len(shapes), kept=len(shapes))
    account.add("tokens", read=len(shapes) * length, kept=len(shapes) * length)
    values: dict[str, Any] = {"shard": shard}
    if there.is_remote:
        values["uploaded"] = facts
        for each in names:
            there.upload(folder / each, each)
        discard(folder)
        names = []
    else:
        _begin_sync(folder, names)
    return PartResult(files=names, facts=facts, rows=len(shapes), account=account, values=values)


def read_ahead(source: Source, start: int, stop: int) -> Iterator[Sequences]:
    """The sequences start ... stop - 1, checked; a block is read while the one before is written.

    Raises UserError for ids beyond the vocabulary.
    """
    blocks = _checked(source, start, stop)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(next, blocks, None)
        while (block := waiting.result()) is not None:
            waiting = pool.submit(next, blocks, None)
            yield block


def _checked(source: Source, start: int, stop: int) -> Iterator[Sequences]:
    """The blocks. Raises UserError for ids beyond the vocabulary; other faults would be our own."""
    row, vocab_size = start, source.about.vocab_size
    for block in source.blocks(start, stop):
        if (beyond := block.beyond(vocab_size)) is not None:
            raise UserError(
                f"{source.origin(row + beyond[0], beyond[1])}: there is the token id {int(block.input_ids[beyond])}, "
                f"but the vocabulary has {vocab_size:,}. Give the tokenizer that the ids were made with."
            )
        block.check("the sequences", first_row=row)
        row += len(block)
        yield block


def _facts(path: Path, sha256: str | None) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": sha256} if sha256 else file_facts(path)


def _begin_sync(folder: Path, names: list[str]) -> None:
    """Have the disk begin with files that must be on it before they are published, while other shards are made."""

    def begin() -> None:
        for name in names:
            with suppress(OSError):  # gone, or at its own place already
                sync(folder / name)

    Thread(target=begin, daemon=True).start()


def _empty(folder: Path) -> Path:
    discard(folder)
    folder.mkdir(parents=True)
    return folder


def _files(marker: dict[str, Any]) -> dict[str, Any]:
    files: dict[str, Any] = marker["values"].get("uploaded") or marker["files"]
    return files


def _write_documents(source: Source, there: Destination, markers: list[dict[str, Any]]) -> str:
    """The documents that the provenance of all shards names; returns the file's name."""
    parts = [np.load(there.scratch / f"{marker['part']}.doc_ids.npy") for marker in markers]
    doc_ids = np.unique(np.concatenate(parts))
    (there.staging / PROVENANCE).mkdir(exist_ok=True)
    with pq.ParquetWriter(there.staging / DOCUMENTS_FILE, DOCUMENTS, compression="zstd", compression_level=3) as writer:
        tables = [DOCUMENTS.empty_table(), *source.documents(doc_ids[doc_ids >= 0])]
        writer.write_table(pa.concat_tables(tables), row_group_size=1 << 16)  # in the same groups, whatever the parts
    return DOCUMENTS_FILE


def _kept(there: Destination, name: str) -> dict[str, Any]:
    """Size and checksum of a small file, which is sent where everything is."""
    if there.is_remote:
        there.upload(there.staging / name, name)
    return file_facts(there.staging / name)


def _manifest(
    source: Source, name: str, format_: Format, fingerprint: str, markers: list[dict[str, Any]]
) -> dict[str, Any]:
    about = source.about
    num_rows = sum(marker["rows"] for marker in markers)
    return {
        "format": name,
        "options": _options(format_),
        "fingerprint": fingerprint,
        "rows": num_rows,
        "sequence_length_tokens": about.length_tokens,
        "tokens": num_rows * about.length_tokens,
        "has_mask": about.has_mask,
        "vocab_size": about.vocab_size,
        "tokenizer_sha256": about.tokenizer_sha256,
        "made_by": about.made_by,
        "versions": {each: version(each) for each in ("nextlong", "numpy", "pyarrow", "tokenizers")},
        "account": about.account,
        "shards": [{"rows": marker["rows"], "files": marker["values"]["shard"]["files"]} for marker in markers],
        "provenance": [f"{PROVENANCE}/rows-{number:05d}.parquet" for number in range(len(markers))],
    }
