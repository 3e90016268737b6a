"""Tokenize on one thread, against tokenizers' encode_batch_fast on the same strings, and against datatools' tokenize.

python -m benchmarks.tokenization --corpus CORPUS.parquet --tokenizer TOKENIZER

datatools reads the same file and writes the ids as MDS, whole documents at a time, into the page cache; its imports are
not counted, and its environment is set up by the first call. Against it stands our whole stage chunk: documents read,
chunked, tokenized and hashed, tables and ids written with checksums and fsync.
"""

import os
import statistics
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq
from tokenizers import Tokenizer as FastTokenizer

from benchmarks.measure import corpus_arguments, medians, report, timed
from benchmarks.peers.environments import call
from etl import chunk, pipeline
from etl.engine import Engine
from etl.inputs import Input
from etl.job import Job, prepare
from etl.parts import discard
from etl.recipe import Recipe, resolved_yaml
from nextlong.chunking import chunk_document
from nextlong.config import Synthesis
from nextlong.tokenizing import Tokenizer, resolve_tokenizer

os.environ["TOKENIZERS_PARALLELISM"] = "false"


def main() -> None:
    """Print the ratios."""
    options = corpus_arguments(__doc__).parse_args()
    file = resolve_tokenizer(options.tokenizer)
    num_tokens = _against_library(options.corpus, file, options.repeats)
    with tempfile.TemporaryDirectory() as folder:
        _against_datatools(options.corpus, file, Path(folder), options.repeats, num_tokens)


def _against_library(corpus: Path, file: Path, repeats: int) -> int:
    texts = pq.read_table(corpus, columns=["text"])["text"].drop_null().to_pylist()
    chunks = map(chunk_document, texts)
    pieces = [text + joiner for each in chunks for text, joiner in zip(*each, strict=True)]
    ours, raw = Tokenizer(file), FastTokenizer.from_file(str(file))
    num_tokens = len(ours.encode(pieces).ids)
    print(f"{len(pieces):,} chunks, {num_tokens:,} tokens, strings in memory")
    candidates: dict[str, Callable[[], object]] = {
        "ours": partial(ours.encode, pieces),
        "tokenizers encode_batch_fast": partial(raw.encode_batch_fast, pieces, add_special_tokens=False),
    }
    print(report(medians(candidates, repeats), num_tokens, "tokens"))
    return num_tokens


def _against_datatools(corpus: Path, file: Path, folder: Path, repeats: int, num_tokens: int) -> None:
    job = _read(corpus, file, folder / "work")
    ours, theirs = [], []
    for number in range(repeats + 1):
        took = call("datatools", "datatools_tokenize", corpus, file, "--out", folder / f"datatools-{number}")
        theirs.append(took["seconds"])
        discard(job.work["chunk"].path)
        ours.append(timed(lambda: chunk.run(job, Engine())))
    print("from file to file")
    seconds = {"ours": statistics.median(ours[1:]), "datatools tokenize": statistics.median(theirs[1:])}
    print(report(seconds, num_tokens, "tokens"))


def _read(corpus: Path, file: Path, work: Path) -> Job:
    """A job whose documents are read."""
    recipe = Recipe(
        input=Input(path=str(corpus)),
        output=str(work),
        tokenizer=str(file),
        synthesis=Synthesis(strategy="standard", target_length_tokens=65_536),  # needs no model
    )
    job = prepare(recipe)
    job.work.claim(resolved_yaml(recipe), "")
    pipeline.run(job, Engine(), only="read")
    return job


if __name__ == "__main__":
    main()
