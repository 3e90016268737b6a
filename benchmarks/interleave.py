"""Interleave and pack from a token store, compression excluded, against positioned reads of the same bytes alone.

python -m benchmarks.interleave --num-chunks 50000 --target 65536
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.measure import medians, report
from etl.allocate import Draw, Planner
from etl.interleave import fill
from etl.lookup import ChunkStore, TokenFiles
from etl.mine import CorpusMeans
from etl.pack import pack_table
from nextlong.config import Chunking, Synthesis
from nextlong.mining import Candidates

MEAN_TOKENS = 430


def main() -> None:
    """Print the rates for a synthetic corpus with candidates drawn at random."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num-chunks", type=int, default=50_000)
    parser.add_argument("--target", type=int, default=65_536)
    parser.add_argument("--meta-chunks", type=int, default=8)
    parser.add_argument("--num-documents", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    lengths = rng.integers(MEAN_TOKENS - 200, MEAN_TOKENS + 200, options.num_chunks)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "part-00000.tokens"
        rng.integers(0, 50_000, offsets[-1]).astype("<u4").tofile(path)
        hashes = np.arange(options.num_chunks, dtype=np.uint64)
        store = ChunkStore(offsets, hashes, TokenFiles([path], [int(offsets[-1])]))
        draws, candidates, ranks = [], {}, np.arange(512)
        for number in range(options.num_documents):
            first = int(rng.integers(0, options.num_chunks - options.meta_chunks))
            tokens = int(offsets[first + options.meta_chunks] - offsets[first])
            draws.append(Draw(number, number, str(number), "", first, options.meta_chunks, tokens * 4, tokens))
            for chunk in range(first, first + options.meta_chunks):
                ids = rng.choice(options.num_chunks, 512, replace=False)
                candidates[chunk] = Candidates(chunk, ids, np.sort(rng.random(512).astype(np.float32))[::-1], ranks)
        planner = Planner(
            store=store,
            means=CorpusMeans(4.4, MEAN_TOKENS),
            synthesis=Synthesis(target_length_tokens=options.target),
            chunking=Chunking(),
            target_length_tokens=options.target,
        )

        def ours() -> None:
            pack_table(fill(planner.plan(draws, candidates), store)[0], 1, options.target)

        plans = planner.plan(draws, candidates)
        segments = [segment for row in plans["segments"].to_pylist() for segment in row]
        reads = [segment["chunk_id"] for segment in segments], [each["end"] - each["start"] for each in segments]
        seconds = medians(
            {
                "ours": ours,
                "positioned reads of the same tokens alone": lambda: store.read_tokens(*reads),
                "our plan alone": lambda: planner.plan(draws, candidates),
                "our fill alone": lambda: fill(plans, store),
            },
            options.repeats,
        )
        print(f"{plans.num_rows} long documents of {options.target:,} tokens, {len(segments):,} segments")
        print(report(seconds, plans.num_rows * options.target / 1e6, "Mtok"))


if __name__ == "__main__":
    main()
