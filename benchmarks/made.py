"""Corpora and embeddings of any size, made in seconds: words by Zipf's law, grouped by topic; vectors in clusters.

A document's topic follows from its doc_id, a vector from chunk_id and doc_id: a part is the same whoever makes it.
"""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from etl.engine import Engine
from etl.job import Job
from etl.parts import PartResult, write_array

_WORDS = 2**15
_WORDS_A_LINE = 12
_CHUNKS_A_DOCUMENT = 4  # on average, as in the published corpus
_DOCUMENTS_A_TOPIC = 100
_FILE_CHARS = 8_000_000
_BLOCK = 4_096  # rows of normal numbers drawn at once
_TOPIC, _DOCUMENT, _CHUNK = range(3)


class _Words(NamedTuple):
    """A vocabulary, each word with a space at its end."""

    letters: NDArray[np.uint8]
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]


def write_corpus(folder: Path, num_chunks: int, granularity_chars: int) -> int:
    """Write Parquet files of documents that give about so many chunks; returns the number of topics."""
    rng, words = np.random.default_rng(0), _words()
    chars_a_line = _WORDS_A_LINE * float(words.lengths[_zipf(rng, 100_000)].mean())
    words_a_chunk = (granularity_chars - chars_a_line / 2) / chars_a_line * _WORDS_A_LINE
    num_topics = max(1, num_chunks // (_CHUNKS_A_DOCUMENT * _DOCUMENTS_A_TOPIC))
    chunks = rng.geometric(1 / _CHUNKS_A_DOCUMENT, num_chunks)
    chunks = chunks[: int(np.searchsorted(np.cumsum(chunks), num_chunks)) + 1]
    num_words = np.maximum(1, (chunks - rng.random(len(chunks)) / 2) * words_a_chunk).astype(np.int64)
    topics = topic_of(np.arange(len(num_words)), num_topics)
    for number, rows in enumerate(_files(num_words, chars_a_line / _WORDS_A_LINE)):
        texts = _texts(rng, words, topics[rows], num_words[rows])
        table = pa.table({"text": texts, "source": pa.array(topics[rows] % 7).cast(pa.string())})
        pq.write_table(table, folder / f"{number:05d}.parquet")
    return num_topics


def embed(job: Job, engine: Engine, dimensions: int, num_topics: int) -> None:
    """Write the embed stage of a job as a model would, with made vectors."""
    stage = job.work.start("embed")
    made: dict[str, Any] = {"dimensions": dimensions, "num_topics": num_topics}
    parts = [
        stage.part(number, _vectors_part, weight=rows, chunks=path, **made)
        for number, (path, rows) in enumerate(job.work["chunk"].tables())
    ]
    markers = engine.run(parts, doing="make embeddings", unit="chunk")
    stage.finish(markers, values={"dimensions": dimensions, "max_tokens": 0})


def topic_of(doc_ids: NDArray[np.int64], num_topics: int) -> NDArray[np.int64]:
    """A topic for each document, all equally often, neighbours in the corpus apart."""
    mixed = doc_ids.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(32)
    return (mixed % np.uint64(num_topics)).astype(np.int64)


def vectors_of(
    chunk_ids: NDArray[np.int64], doc_ids: NDArray[np.int64], dimensions: int, num_topics: int
) -> NDArray[np.float16]:
    """Unit vectors [n, dimensions]: near those of the own document, then of the own topic."""
    vectors = _normal(topic_of(doc_ids, num_topics), dimensions, _TOPIC)
    vectors += 0.5 * _normal(doc_ids, dimensions, _DOCUMENT)
    vectors += _normal(chunk_ids, dimensions, _CHUNK)
    return as_embeddings(vectors)


def as_embeddings(vectors: NDArray[np.float32]) -> NDArray[np.float16]:
    """Unit vectors of vectors [n, d] of even variance: in all directions but of falling variance, as embeddings are."""
    vectors = vectors @ _turned(vectors.shape[1])
    unit: NDArray[np.float16] = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
    return unit


@cache
def _turned(dimensions: int) -> NDArray[np.float32]:
    scales = 1 / (1 + np.arange(dimensions) / 8)
    rotation, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((dimensions, dimensions)))
    turned: NDArray[np.float32] = (scales[:, None] * rotation.T).astype(np.float32)
    return turned


def _normal(numbers: NDArray[np.int64], dimensions: int, what: int) -> NDArray[np.float32]:
    """Normal numbers [n, dimensions]; a row follows from its number alone."""
    rows = np.empty((len(numbers), dimensions), np.float32)
    blocks = numbers // _BLOCK
    for block in np.unique(blocks).tolist():
        here = blocks == block
        drawn = np.random.default_rng([what, block]).standard_normal((_BLOCK, dimensions), np.float32)
        rows[here] = drawn[numbers[here] % _BLOCK]
    return rows


def _vectors_part(folder: Path, name: str, *, chunks: Path, dimensions: int, num_topics: int) -> PartResult:
    table = pq.read_table(chunks, columns=["chunk_id", "doc_id"])
    vectors = vectors_of(table["chunk_id"].to_numpy(), table["doc_id"].to_numpy(), dimensions, num_topics)
    write_array(folder / f"{name}.npy", vectors)
    return PartResult(files=[f"{name}.npy"], rows=len(vectors))


def _words() -> _Words:
    rng = np.random.default_rng(1)
    lengths = rng.integers(2, 12, _WORDS) + 1
    letters = rng.integers(ord("a"), ord("z") + 1, int(lengths.sum())).astype(np.uint8)
    letters[np.cumsum(lengths) - 1] = ord(" ")
    return _Words(letters, np.cumsum(lengths) - lengths, lengths)


def _zipf(rng: np.random.Generator, number: int) -> NDArray[np.int64]:
    """Ranks of words, from 0, each about as often as 1 / (rank + 1)."""
    return (_WORDS ** rng.random(number)).astype(np.int64) - 1


def _files(num_words: NDArray[np.int64], chars_a_word: float) -> Iterator[slice]:
    """Documents of about _FILE_CHARS characters."""
    files = (np.cumsum(num_words) * chars_a_word // _FILE_CHARS).astype(np.int64)
    ends = [*(np.flatnonzero(np.diff(files)) + 1).tolist(), len(num_words)]
    return (slice(first, last) for first, last in zip([0, *ends[:-1]], ends, strict=True))


def _texts(
    rng: np.random.Generator, words: _Words, topics: NDArray[np.int64], num_words: NDArray[np.int64]
) -> pa.LargeStringArray:
    """Documents of so many words: half of them from all the vocabulary, half from the topic's, in lines."""
    number = int(num_words.sum())
    ids, is_own = _zipf(rng, number), rng.random(number, np.float32) < 0.5
    ids[is_own] = (ids[is_own] + np.repeat(topics * 211, num_words)[is_own]) % _WORDS
    lengths = words.lengths[ids]
    ends = np.cumsum(lengths)
    letters = words.letters[np.repeat(words.starts[ids] - (ends - lengths), lengths) + np.arange(ends[-1])]
    letters[ends[_WORDS_A_LINE - 1 :: _WORDS_A_LINE] - 1] = ord("\n")
    offsets = np.concatenate([[0], ends[np.cumsum(num_words) - 1]])
    return pa.LargeStringArray.from_buffers(len(num_words), pa.py_buffer(offsets), pa.py_buffer(letters))
