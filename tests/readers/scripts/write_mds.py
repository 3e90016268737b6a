"""Write rows as MDS with the reference writer: write_mds ROWS.npz FOLDER [options]."""

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from streaming import MDSWriter

from tests.readers.scripts.rows_file import load

ENCODINGS = {
    "length": "int",
    "mask": "ndarray:uint8",
    "domain": "str",
    "input_ids": "ndarray:uint32",
    "indices": "ndarray:int64",
}


def write(rows: Iterable[dict[str, Any]], folder: Path, **settings: Any) -> None:
    """Write rows of the columns in ENCODINGS, which the writer is given out of order."""
    rows = list(rows)
    columns = {name: encoding for name, encoding in ENCODINGS.items() if name in rows[0]}
    with MDSWriter(columns=columns, out=str(folder), **settings) as writer:
        for row in rows:
            writer.write(row | {"length": int(row["length"]), "domain": str(row["domain"])})


def write_for_llm_foundry(rows: Iterable[dict[str, Any]], folder: Path, **settings: Any) -> None:
    """Write rows as one column of bytes, int64, which is what LLM-Foundry's dataset of tokens reads."""
    with MDSWriter(columns={"tokens": "bytes"}, out=str(folder), **settings) as writer:
        for row in rows:
            writer.write({"tokens": row["input_ids"].astype(np.int64).tobytes()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--columns", choices=["sequences", "llm-foundry"], default="sequences")
    parser.add_argument("--compression")
    parser.add_argument("--hashes", nargs="*")
    parser.add_argument("--shard-bytes", type=int, default=1 << 26)
    options = parser.parse_args()
    writer = {"sequences": write, "llm-foundry": write_for_llm_foundry}[options.columns]
    writer(
        load(options.rows)[0],
        options.folder,
        compression=options.compression,
        hashes=options.hashes,
        size_limit=options.shard_bytes,
    )


if __name__ == "__main__":
    main()
