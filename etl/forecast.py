"""A recipe in, what a run would do out: parts, disk and time, from a short measurement on this machine; writes nothing.

The first million characters stand for all; chunking, tokenizing, embedding and searching are timed on it.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from etl.chunk import chunk_documents
from etl.inputs import Input, Split, estimate_text_bytes, plan_splits, read_tables
from etl.job import Job, prepare
from etl.recipe import Recipe
from nextlong.bm25 import Bm25
from nextlong.budgeting import num_candidates
from nextlong.config import Synthesis
from nextlong.decontamination import words
from nextlong.embedding import Embedder
from nextlong.errors import UserError
from nextlong.indexing import Index, add, bytes_per_vector, choose_factory, new_index
from nextlong.tokenizing import Tokenizer

_SAMPLE_CHARS = 1_000_000
_SAMPLE_CHUNKS = 48
_SAMPLE_VECTORS = 20_000
_ZSTD_RATIO = 0.4  # of text and of token ids, measured on English prose


class Forecast(NamedTuple):
    """Estimates for one run."""

    num_parts: int
    num_chars: float
    num_chunks: float
    num_tokens: float
    num_long_documents: float
    num_queries: float
    """Meta-chunks, or documents, whose neighbours are looked up."""
    index_kind: str
    """Its FAISS factory, bm25, or none."""
    bytes_by_stage: dict[str, float]
    seconds_by_stage: dict[str, float]
    """Worker-seconds: divide by the number of workers."""


def forecast(recipe: Recipe) -> Forecast:
    """Estimate a run of a recipe. Raises UserError for what a run would refuse before its first stage."""
    job = prepare(recipe)
    splits = plan_splits(recipe.input, job.files)
    text_bytes = estimate_text_bytes(recipe.input, job.files)
    read_seconds, texts = _timed(lambda: _first_texts(splits, recipe.input))
    sample = _documents(texts)
    chunk_seconds, part = _timed(lambda: chunk_documents(sample, Tokenizer(job.tokenizer_file), recipe.chunking))
    sample_bytes = sum(len(text.encode()) for text in texts)
    scale = text_bytes / max(1, sample_bytes)
    num_chars = sum(map(len, texts)) * scale
    num_chunks, num_tokens = part.chunks.num_rows * scale, len(part.tokens.ids) * scale
    eligible = part.documents["num_chunks"].to_numpy()
    eligible = eligible[eligible >= recipe.synthesis.min_meta_chunks]
    wanted = _num_long_documents(recipe.synthesis, len(eligible) * scale, num_tokens)
    num_queries = _num_queries(recipe.synthesis, sum(wanted), eligible, part.documents.num_rows * scale)
    long_tokens = sum(number * target for number, target in zip(wanted, recipe.synthesis.targets, strict=True))
    looked_up = _retrieval(job, part.chunks["text"].to_pylist(), num_chunks)
    candidates = num_candidates(recipe.mining.num_candidates, 0)
    packed = (recipe.packing.sequence_length_tokens or 0) > min(recipe.synthesis.targets)
    return Forecast(
        max(len(splits), -(-text_bytes // (splits[0].part_bytes or text_bytes)) if splits else 0),
        num_chars,
        num_chunks,
        num_tokens,
        sum(wanted),
        num_queries,
        looked_up.index_kind,
        {
            "read": num_chars * _ZSTD_RATIO,
            "chunk": num_chars * _ZSTD_RATIO + 4 * num_tokens + 24 * num_chunks,
            "embed": looked_up.bytes_per_vector * num_chunks,
            "index": looked_up.index_bytes,
            "mine": num_queries * candidates * 12 * 0.7,
            "interleave": long_tokens * 4 * _ZSTD_RATIO,
            "pack": long_tokens * 4 * _ZSTD_RATIO if packed else 200 * sum(wanted),
        },
        {
            "read": 2 * read_seconds * scale,
            "chunk": chunk_seconds * scale,
            "embed": looked_up.embed_seconds * num_chunks,
            "mine": looked_up.search_seconds * num_queries,
        },
    )


def as_text(estimate: Forecast, recipe: Recipe, workers: int) -> str:
    """The estimates for people."""
    size, seconds, workers = estimate.bytes_by_stage, estimate.seconds_by_stage, max(1, workers)
    gigabytes = ", ".join(f"{stage} {each / 1e9:,.2f}" for stage, each in size.items())
    times = ", ".join(f"{stage} {each / workers:,.0f} s" for stage, each in seconds.items())
    targets = " or ".join(f"{target:,}" for target in recipe.synthesis.targets)
    minutes = sum(seconds.values()) / workers / 60
    return "\n".join(
        [
            f"input   about {estimate.num_chars / 1e6:,.1f} M characters in {estimate.num_parts} parts",
            f"chunks  about {estimate.num_chunks:,.0f}, {estimate.num_tokens / 1e6:,.1f} M tokens",
            f"index   {estimate.index_kind}",
            f"output  {estimate.num_long_documents:,.0f} long documents of {targets} tokens at most, with about "
            f"{estimate.num_queries:,.0f} look-ups of neighbours",
            f"disk    about {sum(size.values()) / 1e9:,.2f} GB: {gigabytes}",
            f"time    about {minutes:,.1f} minutes on {workers} workers of this speed: {times}",
            "Measured on a few chunks here; building the index and writing are not in the time. Nothing was written.",
        ]
    )


def _first_texts(splits: Sequence[Split], settings: Input) -> list[str]:
    """Texts from the start of the input, up to a million characters. Raises UserError when there are none."""
    texts: list[str] = []
    for split in splits:
        for read in read_tables(split, settings):
            texts += [text[:_SAMPLE_CHARS] for text in read.table["text"].drop_null().to_pylist() if text.strip()]
            if sum(map(len, texts)) >= _SAMPLE_CHARS:
                return texts
    if not texts:
        raise UserError("the input has no document with a text, so there is nothing to measure. Check input.text.")
    return texts


def _documents(texts: list[str]) -> pa.Table:
    names = pa.array([""] * len(texts), pa.string())
    ids = pa.array(range(len(texts)), pa.int64())
    return pa.table({"doc_id": ids, "source_id": names, "text": pa.array(texts, pa.large_string()), "source": names})


class _Retrieval(NamedTuple):
    """What looking up neighbours costs."""

    index_kind: str
    bytes_per_vector: float
    index_bytes: float
    embed_seconds: float
    """A chunk."""
    search_seconds: float
    """A query."""


def _num_long_documents(synthesis: Synthesis, num_eligible: float, num_tokens: float) -> list[float]:
    """Of each target length, at most; several lengths are taken to share the corpus equally."""
    share = 1 / len(synthesis.targets)
    return [
        min(wanted or np.inf, share * (num_eligible if synthesis.strategy == "nextlong" else num_tokens / target))
        for wanted, target in zip(synthesis.wanted, synthesis.targets, strict=True)
    ]


def _num_queries(
    synthesis: Synthesis, num_samples: float, eligible: NDArray[np.integer], num_documents: float
) -> float:
    if synthesis.retrieves is None:
        return 0
    if synthesis.retrieves == "documents":
        return num_documents
    return num_samples * float(eligible.mean() if len(eligible) else 0)


def _retrieval(job: Job, texts: list[str], num_chunks: float) -> _Retrieval:
    if job.recipe.synthesis.retrieves is None:
        return _Retrieval("none", 0, 0, 0, 0)
    candidates = num_candidates(job.recipe.mining.num_candidates, 0)
    if job.model_folder is None:
        bm25 = Bm25.build(texts)
        few = np.arange(min(len(texts), _SAMPLE_CHUNKS))
        seconds, _ = _timed(lambda: bm25.neighbours_of(few, candidates))
        num_words = sum(len(set(words(text))) for text in texts) / max(1, len(texts))
        return _Retrieval("bm25", 0, 12 * num_words * num_chunks, 0, seconds / len(few) * num_chunks / len(texts))
    embed_seconds, dimensions = _embedding(job.model_folder, job.recipe, texts[:_SAMPLE_CHUNKS])
    chosen = job.recipe.index.factory
    factory = choose_factory(int(num_chunks), dimensions) if chosen == "auto" else chosen
    return _Retrieval(
        factory,
        dimensions * np.dtype(job.recipe.embedding.dtype).itemsize,
        num_chunks * bytes_per_vector(new_index(factory, dimensions)),
        embed_seconds,
        _search_seconds(dimensions, factory, num_chunks, candidates),
    )


def _embedding(model_folder: Path, recipe: Recipe, texts: list[str]) -> tuple[float, int]:
    """Seconds a chunk, the model's loading not counted, and the dimensions of a vector."""
    embedder = Embedder.load(model_folder, recipe.embedding)
    embedder.embed(texts[:4])
    seconds, _ = _timed(lambda: embedder.embed(texts))
    return seconds / max(1, len(texts)), embedder.dimensions


def _search_seconds(dimensions: int, factory: str, num_chunks: float, candidates: int) -> float:
    """Seconds a query: exact search scales with the chunks; inverted lists are taken to visit a sixteenth of them."""
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((_SAMPLE_VECTORS, dimensions)).astype(np.float32)
    flat = new_index("Flat", dimensions)
    add(flat, vectors, 0)
    seconds, _ = _timed(lambda: Index([flat], {"factory": "Flat"}).search(vectors[:256], candidates))
    share = 1.0 if factory == "Flat" else 1 / 16
    return seconds / 256 * max(1.0, share * num_chunks / _SAMPLE_VECTORS)


def _timed(call: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    result = call()
    return time.perf_counter() - started, result
