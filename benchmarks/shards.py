"""Shards written and documents packed, against the libraries that people would use; needs the reader environments.

python -m benchmarks.shards --tokens 64000000
writes synthetic documents with lengths and word frequencies of prose, then measures, in turn: MDS written from rows in
memory by us and by mosaicml-streaming's MDSWriter (into the page cache, no fsync on either side); documents in MDS
packed into MDS by us (best-fit, with provenance, checksums and fsync) and by datatools (concatenation); an export with
sha256 and fsync against the disk alone.
"""

import argparse
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer as FastTokenizer
from tokenizers import models

from benchmarks.measure import record
from benchmarks.peers.environments import call
from etl.connect import local_engine
from etl.engine import Engine
from etl.inputs import Input
from etl.shards.export import export, read_ahead
from etl.shards.laid_out import PackSettings
from etl.shards.of_documents import PackSource
from etl.shards.of_folder import PackedFolder
from etl.shards.tokens import Documents
from nextlong.sequences import Sequences, Shapes
from nextlong.shards.arrow import Arrow
from nextlong.shards.mds import Mds
from nextlong.tokenizing import Tokenizer

_VOCAB_SIZE = 50_257
_WRITES: dict[str, tuple[Mds, list[str]]] = {
    "no hash": (Mds(), []),
    "sha1, sha256": (Mds(hashes=("sha1", "sha256")), ["--hashes", "sha1", "sha256"]),
    "zstd": (Mds(compression="zstd"), ["--compression", "zstd"]),
}


def main() -> None:
    """Print a table of rates and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=64_000_000)
    parser.add_argument("--length", type=int, default=131_072)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        call("streaming", "make_documents", base, "--tokens", options.tokens, "--length", options.length)
        _measure_writing(base, options.repeats)
        _measure_packing(base, options.length, options.repeats)
        _measure_export(base, options.length, options.repeats)


def _measure_writing(base: Path, repeats: int) -> None:
    rows, pieces = np.load(base / "rows.npy"), np.load(base / "indices.npy")
    offsets = np.concatenate([np.flatnonzero(pieces[:, 0] == 0), [len(pieces)]])
    sequences = Sequences(rows, pieces, offsets, ["made"] * len(rows))
    print(f"MDS written, {rows.size / 1e6:.0f} M tokens in rows of {rows.shape[1]:,}, Mtok/s")
    for name, (format_, arguments) in _WRITES.items():
        ours, theirs = [], []
        for _ in range(repeats):
            paths = [base / "rows.npy", "--indices", base / "indices.npy", "--out", base / "theirs", "--repeats", 3]
            theirs += call("streaming", "mds_writer", *paths, *arguments)["seconds"][1:]
            ours += [_write(format_, sequences, base / "ours") for _ in range(3)][1:]
        _tell(name, rows.size, ours, {"MDSWriter": theirs})


def _write(format_: Mds, sequences: Sequences, folder: Path) -> float:
    folder.mkdir()
    started = time.perf_counter()
    shapes = Shapes.of(sequences)
    found = format_.shards(shapes)
    written = [
        format_.write(folder, number, len(found), shapes.rows(start, stop), [sequences.rows(start, stop)])
        for number, (start, stop) in enumerate(found)
    ]
    format_.finish(folder, written)
    seconds = time.perf_counter() - started
    shutil.rmtree(folder)
    return seconds


def _measure_packing(base: Path, length: int, repeats: int) -> None:
    tokenizer = _tokenizer(base)
    documents = Documents(kind="mds", input=Input(path=str(base / "documents")))
    for fitting in ("best-fit", "concat"):
        settings = PackSettings(length_tokens=length, fitting=fitting, tail="drop")
        source = PackSource.of(documents, settings, tokenizer, "pack")
        bare: dict[int, list[float]] = {1: [], 2: []}
        whole: dict[int, list[float]] = {1: [], 2: []}
        theirs: dict[int, list[float]] = {1: [], 2: []}
        tokens = 0
        with local_engine(2) as two:
            for _ in range(repeats):
                for workers, seconds in theirs.items():
                    told = call(
                        "datatools",
                        "datatools_pack",
                        base / "documents",
                        base / "out",
                        "--length",
                        length,
                        "-w",
                        workers,
                    )
                    shutil.rmtree(base / "out")
                    seconds.append(told["seconds"])
                    tokens = told["tokens"]
                for workers, engine in ((1, Engine()), (2, two)):
                    bare[workers] += [_pack_alone(source, base / "ours", engine) for _ in range(2)]
                    whole[workers] += [_export(source, "mds", Mds(), base / "ours", engine) for _ in range(2)]
        print(f"documents packed by {fitting}, MDS to MDS, start-up and imports not counted, Mtok/s")
        others = {"datatools -w 1": theirs[1], "datatools -w 2": theirs[2]}
        for workers, name in ((1, "one process"), (2, "two workers")):
            _tell(f"{fitting}, {name}, the same work", tokens, bare[workers], others)
            _tell(f"{fitting}, {name}, with provenance, sha256, fsync", tokens, whole[workers], others)


def _pack_alone(source: PackSource, folder: Path, engine: Engine) -> float:
    """Documents to sequences to MDS, as datatools does: into the page cache, without checksums and provenance."""
    folder.mkdir()
    started = time.perf_counter()
    prepared = source.prepare(folder, engine)
    shapes = prepared.shapes()
    shards = [(number, shapes.rows(*span), span) for number, span in enumerate(Mds().shards(shapes))]
    engine.map(partial(_write_alone, prepared, folder), shards, doing="write", unit="shard")
    seconds = time.perf_counter() - started
    shutil.rmtree(folder)
    return seconds


def _write_alone(source: PackSource, folder: Path, shard: tuple[int, Shapes, tuple[int, int]]) -> None:
    number, shapes, (start, stop) = shard
    Mds().write(folder, number, 1, shapes, read_ahead(source, start, stop))


def _measure_export(base: Path, length: int, repeats: int) -> None:
    source = PackSource.of(
        Documents(kind="mds", input=Input(path=str(base / "documents"))),
        PackSettings(length_tokens=length, fitting="concat", tail="drop"),
        _tokenizer(base),
        "pack",
    )
    export(source, str(base / "packed"), "arrow", Arrow(), Engine())
    packed = PackedFolder.open(base / "packed")
    data = os.urandom(1 << 20)
    alone: list[float] = []
    shared: list[float] = []
    disk: list[float] = []
    with local_engine(2) as two:
        for _ in range(repeats):
            alone.append(_export(packed, "mds", Mds(), base / "ours", Engine()))
            shared.append(_export(packed, "mds", Mds(), base / "ours", two))
            disk.append(_timed(lambda: _to_disk(base / "plain", data, packed.manifest["tokens"] * 4)))
    print("exported from arrow to MDS, with sha256 and fsync, Mtok/s")
    for name, ours in (("one process", alone), ("two workers", shared)):
        _tell(f"exported, {name}", packed.manifest["tokens"], ours, {"the same bytes to the disk": disk})


def _to_disk(path: Path, data: bytes, size: int) -> None:
    with open(path, "wb") as file:
        for _ in range(size // len(data)):
            file.write(data)
        file.flush()
        os.fsync(file.fileno())
    path.unlink()


def _export(source: Any, name: str, format_: Any, folder: Path, engine: Engine) -> float:
    seconds = _timed(lambda: export(source, str(folder), name, format_, engine))
    shutil.rmtree(folder)
    return seconds


def _timed(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _tokenizer(base: Path) -> Tokenizer:
    """Of the vocabulary that the documents were drawn from."""
    FastTokenizer(models.WordLevel({str(number): number for number in range(_VOCAB_SIZE)}, unk_token="0")).save(
        str(base / "tokenizer.json")
    )
    return Tokenizer(base / "tokenizer.json")


def _tell(name: str, tokens: int, ours: list[float], others: dict[str, list[float]]) -> None:
    mine = statistics.median(ours)
    shown = []
    for other, seconds in others.items():
        theirs = statistics.median(seconds)
        record(f"{name}: {other}", theirs / mine)
        shown.append(f"{other} {tokens / 1e6 / theirs:,.0f} (ours / this = {theirs / mine:.2f})")
    print(f"  {name:<44} ours {tokens / 1e6 / mine:,.0f}  {'  '.join(shown)}", flush=True)


if __name__ == "__main__":
    main()
