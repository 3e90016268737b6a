"""mosaicml-streaming's MDSWriter on rows in memory, into the page cache; needs the environment `streaming`.

python -m benchmarks.peers.mds_writer ROWS.npy [--indices INDICES.npy] --out FOLDER --repeats 5
prints {"tokens": ..., "bytes": written, "seconds": [one a repetition]}; the first is not warm, nothing is fsynced. The
writer sleeps a second at its end when it finds its queue of uploads, which does nothing here, not yet empty: some
repetitions are that much longer.
"""

import argparse
import json
import shutil
import time
from pathlib import Path

import numpy as np
from streaming import MDSWriter

COLUMNS = {"input_ids": "ndarray:uint32", "indices": "ndarray:int64", "length": "int", "domain": "str"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path, help="uint32 [n, L]")
    parser.add_argument("--indices", type=Path, help="int64 [m, 2], the pieces of all rows; default: one piece a row")
    parser.add_argument("--out", type=Path, required=True, help="folder for the repetitions, each removed after it")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--compression", help="as MDSWriter takes it: zstd, zstd:7, ...")
    parser.add_argument("--hashes", nargs="*", default=[])
    options = parser.parse_args()
    rows = np.load(options.rows)
    length = rows.shape[1]
    pieces = np.load(options.indices) if options.indices else np.tile([[0, length]], (len(rows), 1))
    firsts = np.flatnonzero(pieces[:, 0] == 0)
    samples = [
        {"input_ids": row, "indices": indices, "length": length, "domain": "made"}
        for row, indices in zip(rows, np.split(pieces, firsts[1:]), strict=True)
    ]
    seconds, size = [], 0
    for number in range(options.repeats):
        folder = options.out / f"repetition-{number}"
        started = time.perf_counter()
        with MDSWriter(
            columns=COLUMNS, out=str(folder), compression=options.compression, hashes=sorted(options.hashes)
        ) as writer:
            for sample in samples:
                writer.write(sample)
        seconds.append(time.perf_counter() - started)
        size = sum(path.stat().st_size for path in folder.iterdir())
        shutil.rmtree(folder)
    print(json.dumps({"tokens": rows.size, "bytes": size, "seconds": seconds}))


if __name__ == "__main__":
    main()
