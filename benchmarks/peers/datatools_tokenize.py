"""datatools' own tokenization of a Parquet file to MDS, imports not counted; needs the environment `datatools`.

python -m benchmarks.peers.datatools_tokenize CORPUS.parquet TOKENIZER.json --out FOLDER
prints {"tokens": ..., "seconds": ...}; one process. FOLDER must not exist.
"""

import argparse
import contextlib
import functools
import json
import shutil
import sys
import time
from pathlib import Path

import transformers  # noqa: F401  # which datatools would import while it is timed
from datatools import LoadOptions, ProcessOptions, load, process
from datatools.scripts.tokenize import TokenizeOptions, tokenize_fn
from streaming import LocalDataset


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path, help="with a column text")
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    tokenizer = options.out / "tokenizer"
    tokenizer.mkdir(parents=True)
    shutil.copy(options.tokenizer, tokenizer / "tokenizer.json")
    (tokenizer / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    settings = TokenizeOptions(tokenizer=str(tokenizer), chat_assistant_masking=False)
    started = time.perf_counter()
    with contextlib.redirect_stdout(sys.stderr):
        documents = load(options.corpus, options=LoadOptions())
        process(documents, functools.partial(tokenize_fn, options=settings), options.out / "mds", ProcessOptions())
    seconds = time.perf_counter() - started
    written = LocalDataset(str(options.out / "mds"))
    tokens = sum(written[number]["length"] for number in range(len(written)))
    print(json.dumps({"tokens": tokens, "seconds": seconds}))


if __name__ == "__main__":
    main()
