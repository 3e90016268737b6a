"""Synthetic documents for the peers, with lengths and word frequencies of prose; needs the environment `streaming`.

python -m benchmarks.peers.make_documents FOLDER --tokens 16000000 --length 131072
writes FOLDER/documents (MDS, a document a sample), and the same tokens as FOLDER/rows.npy [n, L], FOLDER/indices.npy.
"""

import argparse
from pathlib import Path

import numpy as np
from streaming import MDSWriter

VOCAB_SIZE = 50_257
MEDIAN_TOKENS = 3_672
SIGMA = 0.95
"""Of the logarithm of the lengths: a tenth of the documents is below 1,090 tokens and a tenth above 12,400."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tokens", type=int, default=16_000_000)
    parser.add_argument("--length", type=int, default=131_072)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    frequencies = 1 / np.arange(2, VOCAB_SIZE + 2)
    ids = rng.choice(VOCAB_SIZE, options.tokens, p=frequencies / frequencies.sum()).astype(np.uint32)
    lengths = rng.lognormal(np.log(MEDIAN_TOKENS), SIGMA, 1 + options.tokens // MEDIAN_TOKENS).astype(np.int64) + 2
    ends = np.minimum(np.cumsum(lengths), options.tokens)
    ends = ends[: np.argmax(ends == options.tokens) + 1]
    columns = {"input_ids": "ndarray:uint32", "length": "int", "domain": "str"}
    with MDSWriter(columns=columns, out=str(options.folder / "documents")) as writer:
        for document in np.split(ids, ends[:-1]):
            writer.write({"input_ids": document, "length": len(document), "domain": "made"})
    num_rows = options.tokens // options.length
    kept = num_rows * options.length
    cuts = np.unique(np.concatenate([ends[ends < kept], np.arange(num_rows + 1) * options.length]))
    starts = cuts[:-1] % options.length
    np.save(options.folder / "rows.npy", ids[:kept].reshape(num_rows, options.length))
    np.save(options.folder / "indices.npy", np.stack([starts, starts + np.diff(cuts)], axis=1))


if __name__ == "__main__":
    main()
