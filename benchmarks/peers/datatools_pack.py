"""datatools' own packing, MDS to MDS, imports not counted; needs the environment `datatools`.

python -m benchmarks.peers.datatools_pack DOCUMENTS OUT --length 131072 -w 1
prints {"tokens": read, "tokens_written": ..., "seconds": ...}. OUT must not exist: it would be merged in.
"""

import argparse
import contextlib
import functools
import json
import sys
import time
from pathlib import Path

from datatools import LoadOptions, ProcessOptions, load, process
from datatools.scripts.pack import PackOptions, pack_fn
from streaming import LocalDataset


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("documents", type=Path, help="a folder of MDS with the column input_ids")
    parser.add_argument("out", type=Path)
    parser.add_argument("--length", type=int, default=131_072)
    parser.add_argument("-w", "--workers", type=int, default=1)
    options = parser.parse_args()
    if options.out.exists():
        parser.error(f"{options.out} exists: it would be merged in")
    documents = LocalDataset(str(options.documents))
    tokens = sum(len(documents[number]["input_ids"]) for number in range(len(documents)))
    started = time.perf_counter()
    with contextlib.redirect_stdout(sys.stderr):
        process(
            load(options.documents, options=LoadOptions()),
            functools.partial(pack_fn, options=PackOptions(pack_length=options.length)),
            options.out,
            ProcessOptions(num_proc=options.workers),
        )
    seconds = time.perf_counter() - started
    written = len(LocalDataset(str(options.out))) * options.length
    print(json.dumps({"tokens": tokens, "tokens_written": written, "seconds": seconds}))


if __name__ == "__main__":
    main()
