"""Read and chunk, against decoding the Parquet column and looking for its newlines, and against the published loop.

python -m benchmarks.chunk --corpus CORPUS.parquet --tokenizer TOKENIZER

All on one thread, into Python strings. Token counts and hashes, which the chunk stage makes as well, are timed apart.
"""

import os
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from benchmarks.measure import corpus_arguments, medians, report
from benchmarks.peers.line_chunker import chunk_corpus
from etl.inputs import Input, list_files, plan_splits, read_tables
from nextlong.chunking import Chunks, chunk_document, text_hashes
from nextlong.tokenizing import Tokenizer

os.environ["TOKENIZERS_PARALLELISM"] = "false"
_GRANULARITY_CHARS = 2048


def main() -> None:
    """Print the ratios."""
    options = corpus_arguments(__doc__).parse_args()
    settings = Input(path=str(options.corpus))
    chunked = _read_and_chunk(settings)
    texts = [text for chunks in chunked for text in chunks.texts]
    pieces = [text + joiner for chunks in chunked for text, joiner in zip(*chunks, strict=True)]
    print(f"{len(chunked):,} documents, {sum(map(len, pieces)):,} characters, {len(texts):,} chunks")
    tokenizer = Tokenizer.load(options.tokenizer)
    seconds = medians(
        {
            "ours": partial(_read_and_chunk, settings),
            "decode the column, scan for newlines": partial(_decode_and_scan, options.corpus),
            "the published loop": partial(chunk_corpus, options.corpus, _GRANULARITY_CHARS),
            "our token counts alone": lambda: np.diff(tokenizer.encode(pieces).offsets),
            "our hashes alone": partial(text_hashes, texts),
        },
        options.repeats,
    )
    print(report(seconds, sum(map(len, pieces)) / 1e6, "M characters"))


def _read_and_chunk(settings: Input) -> list[Chunks]:
    """As stages read and chunk do, without what they count, hash and write."""
    return [
        chunk_document(text, granularity_chars=_GRANULARITY_CHARS)
        for split in plan_splits(settings, list_files(settings))
        for read in read_tables(split, settings)
        for text in read.table["text"].to_pylist()
        if text is not None
    ]


def _decode_and_scan(corpus: Path) -> int:
    """The number of newlines in a column, counted by numpy in Arrow's buffers, where no string is made."""
    texts = pq.read_table(corpus, columns=["text"], use_threads=False)["text"]
    buffers = [np.frombuffer(chunk.buffers()[2], np.uint8) for chunk in texts.chunks]
    return sum(int(np.count_nonzero(buffer == ord("\n"))) for buffer in buffers)


if __name__ == "__main__":
    main()
