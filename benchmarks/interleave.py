"""Interleave and pack from a token store, against positioned reads of the same bytes, pyarrow's write, and a script.

python -m benchmarks.interleave [--corpus CORPUS.parquet --tokenizer TOKENIZER] [--target 131072 --meta-chunks 40]
chunks a corpus, takes runs of its chunks as meta-documents and draws their candidates among all chunks. What a script
does instead: it joins the texts of the same segments and tokenizes each long document.
"""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from benchmarks.measure import corpus_arguments, medians, report
from etl.allocate import Draw, Planner
from etl.chunk import ChunkedPart, chunk_documents
from etl.interleave import fill
from etl.lookup import ChunkStore, TokenFiles
from etl.mine import CorpusMeans
from etl.pack import pack_table
from etl.parts import write_table
from etl.schemas import DOCUMENTS
from nextlong.config import Chunking, Synthesis
from nextlong.mining import Candidates
from nextlong.tokenizing import Tokenizer

_NUM_CANDIDATES = 512


class Drawn(NamedTuple):
    """Meta-documents and their candidates."""

    draws: list[Draw]
    candidates: dict[int, Candidates]


def main() -> None:
    """Print the rates."""
    parser = corpus_arguments(__doc__)
    parser.add_argument("--target", type=int, default=65_536)
    parser.add_argument("--meta-chunks", type=int, default=8)
    parser.add_argument("--num-documents", type=int, default=64)
    options = parser.parse_args()
    tokenizer = Tokenizer.load(options.tokenizer)
    part = chunk_documents(_documents(options.corpus), tokenizer, Chunking())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "part-00000.tokens"
        part.tokens.ids.astype("<u4").tofile(path)
        store = ChunkStore(part.tokens.offsets, part.hashes, TokenFiles([path], [len(part.tokens.ids)]))
        drawn = _draw(part.tokens.offsets, options.meta_chunks, options.num_documents)
        planner = Planner(
            store=store,
            means=CorpusMeans(4.4, len(part.tokens.ids) / len(store)),
            synthesis=Synthesis(target_length_tokens=options.target),
            chunking=Chunking(),
            target_length_tokens=options.target,
        )
        _compare(planner, drawn, path, Path(folder) / "long.parquet", options.repeats)
        _compare_with_script(planner, drawn, part, tokenizer)


def _documents(corpus: Path) -> pa.Table:
    texts = pq.read_table(corpus, columns=["text"])["text"].drop_null().cast(pa.large_string())
    names = pa.array(range(len(texts)), pa.int64())
    return pa.table([names, names.cast(pa.string()), texts, pa.array([""] * len(texts))], list(DOCUMENTS.names))


def _draw(offsets: NDArray[np.int64], num_meta_chunks: int, num_documents: int) -> Drawn:
    rng, num_chunks, ranks = np.random.default_rng(0), len(offsets) - 1, np.arange(_NUM_CANDIDATES)
    draws, candidates = [], {}
    for number in range(num_documents):
        first = int(rng.integers(0, num_chunks - num_meta_chunks))
        tokens = int(offsets[first + num_meta_chunks] - offsets[first])
        draws.append(Draw(number, number, str(number), "", first, num_meta_chunks, tokens * 4, tokens))
        for chunk in range(first, first + num_meta_chunks):
            ids = rng.choice(num_chunks, _NUM_CANDIDATES, replace=False)
            scores = np.sort(rng.random(_NUM_CANDIDATES).astype(np.float32))[::-1]
            candidates[chunk] = Candidates(chunk, ids, scores, ranks)
    return Drawn(draws, candidates)


def _compare(planner: Planner, drawn: Drawn, tokens: Path, output: Path, repeats: int) -> None:
    target, store = planner.target_length_tokens, planner.store
    plans = planner.plan(*drawn)
    table = fill(plans, store)[0]
    segments = _segments(table)
    per_group = max(1, 1_000_000 // target)

    def ours() -> pa.Table:
        made = fill(planner.plan(*drawn), store)[0]
        pack_table(made, 1, target)
        return made

    print(f"{table.num_rows} long documents of {target:,} tokens, {len(segments['chunk_id']):,} segments")
    amount = table.num_rows * target / 1e6
    seconds = medians(
        {
            "ours": ours,
            "positioned reads of the same bytes": _bare_reads(store, segments, tokens),
            "our plan alone": lambda: planner.plan(*drawn),
            "our fill alone": lambda: fill(plans, store),
        },
        repeats,
    )
    print(report(seconds, amount, "Mtok"))

    def write_bare() -> None:
        pq.write_table(table, output, compression="zstd", use_dictionary=False, row_group_size=per_group)

    written = {
        "ours, written": lambda: write_table(output, ours(), rows_per_group=per_group),
        "pyarrow's write of the same table": write_bare,
    }
    print(report(medians(written, max(3, repeats // 2)), amount, "Mtok", ours="ours, written"))


def _bare_reads(store: ChunkStore, segments: dict[str, NDArray[Any]], path: Path) -> Callable[[], None]:
    """The least that reads the tokens of segments into one buffer: a positioned read each."""
    places = (4 * store.starts(segments["chunk_id"])).tolist()
    sizes = (4 * (segments["end"].astype(np.int64) - segments["start"])).tolist()

    def read() -> None:
        number, filled = os.open(path, os.O_RDONLY), 0
        tokens: Any = np.empty(sum(sizes), np.uint8)
        buffer = memoryview(tokens)
        for place, size in zip(places, sizes, strict=True):
            os.preadv(number, [buffer[filled : filled + size]], place)
            filled += size
        os.close(number)

    return read


def _compare_with_script(planner: Planner, drawn: Drawn, part: ChunkedPart, tokenizer: Tokenizer) -> None:
    """On a few long documents: the script takes a tenth of a second each."""
    few = Drawn(drawn.draws[:8], drawn.candidates)
    table = fill(planner.plan(*few), planner.store)[0]
    columns = [part.chunks[name].to_pylist() for name in ("text", "joiner")]
    texts = [text + joiner for text, joiner in zip(*columns, strict=True)]
    documents = [[segment["chunk_id"] for segment in row] for row in table["segments"].to_pylist()]

    def script() -> list[Any]:
        return [tokenizer.encode(["".join(texts[chunk] for chunk in chunks)]) for chunks in documents]

    def ours() -> None:
        pack_table(fill(planner.plan(*few), planner.store)[0], 1, planner.target_length_tokens)

    seconds = medians({"ours": ours, "texts joined and tokenized again": script}, 3)
    print(report(seconds, table.num_rows * planner.target_length_tokens / 1e6, "Mtok"))


def _segments(table: pa.Table) -> dict[str, NDArray[Any]]:
    segments = table["segments"].combine_chunks().values
    return {name: segments.field(name).to_numpy() for name in ("chunk_id", "start", "end")}


if __name__ == "__main__":
    main()
