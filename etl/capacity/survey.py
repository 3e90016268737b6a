"""A recipe's input in, what a sample of it says of the whole out.

The sample goes through the stages read and chunk themselves, in a temporary folder.
"""

import dataclasses
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from etl import chunk, read
from etl.capacity.amounts import STAND_IN, Corpus, Sample
from etl.docstrings import train_tokenizer, write_corpus
from etl.draw import all_documents
from etl.engine import Engine
from etl.inputs import Input, InputFile, Split, estimate_text_bytes, plan_splits, read_tables
from etl.job import Job, prepare
from etl.lookup import chunk_store, document_texts
from etl.mine import candidates_table
from etl.parts import write_table
from etl.recipe import Recipe
from etl.schemas import KEYWORDS
from etl.work import Work
from nextlong.accounting import Account
from nextlong.bm25 import Bm25
from nextlong.config import Synthesis
from nextlong.indexing import sample_rows
from nextlong.keywords import keywords, load_stop_phrases
from nextlong.mining import Candidates
from nextlong.tokenizing import resolve_tokenizer

_SAMPLE_CHARS = 4_000_000
_PLACES = 16  # of the sample, spread over the corpus
_STRIDE = 4  # every fourth document there: one large row group is seen beyond its beginning
_MOST_CHARS = 1_000_000  # of a document; what is longer is taken to go on like that
_STAND_IN_CHARS = 2_000_000
_VOCABULARY = 16_384
_KEYWORD_CHARS = 300_000
CANDIDATES = 512
LONG_TOKENS = 65_536  # of a long document made for measuring, at most


class Surveyed(NamedTuple):
    """A corpus as its sample shows it, and a job whose corpus is the sample."""

    corpus: Corpus
    job: Job
    """Its stages read and chunk are finished."""
    decoded_char: float
    """Seconds; 0 for Parquet, as which the sample is written, and read again with the clock running."""


class _Drawn(NamedTuple):
    documents: pa.Table
    """source_id, text, source and the kept columns; very long texts are cut."""
    lengths: NDArray[np.int64]
    """Characters of each, not cut."""
    num_chars: float
    """Of the corpus, what is dropped included."""
    decoded_char: float = 0.0
    """As in Surveyed."""


def survey(
    recipe: Recipe, folder: Path, *, num_chars: float | None = None, num_chunks: float | None = None
) -> Surveyed:
    """Take a sample through the stages read and chunk in `folder`, and describe the corpus by it."""
    job = prepare(recipe) if recipe.input.path != STAND_IN else None
    drawn = _draw(job) if job else _stand_in(folder)
    sampled = _sample_job(recipe, drawn.documents, folder)
    manifest = read.run(sampled, Engine())
    chunk.run(sampled, Engine())
    chars = Account.from_dict(manifest["account"]).counts["chars"]
    sample = _describe(recipe, sampled.work, drawn.lengths, chars.kept, folder)
    is_whole = num_chars is None and num_chunks is None
    given = num_chars or (num_chunks or 0) * sample.chars_per_chunk
    size = drawn.num_chars * chars.kept / chars.read if is_whole else given
    sample = dataclasses.replace(sample, bytes_per_candidate=_candidate_bytes(size / sample.chars_per_chunk, folder))
    num_splits, num_parts = _count_parts(recipe.input, job if is_whole else None, size, sample)
    corpus = Corpus(num_chars=size, num_splits=num_splits, num_parts=num_parts, sample=sample)
    return Surveyed(corpus, sampled, drawn.decoded_char)


def _draw(job: Job) -> _Drawn:
    """Documents from places spread evenly over a corpus, and how many characters it has."""
    settings = job.recipe.input
    splits, num_bytes = plan_splits(settings, job.files), estimate_text_bytes(settings, job.files)
    stride = min(_STRIDE, max(1, num_bytes // _SAMPLE_CHARS))
    most_chars = _SAMPLE_CHARS // max(1, min(_PLACES, len(splits)))
    places = [_narrowed(splits[place], stride * most_chars) for place in sample_rows(len(splits), _PLACES)]
    seconds, pieces = cpu_seconds(lambda: [_some(place, settings, stride, most_chars) for place in places])
    documents = pa.concat_tables([settings.columns.schema.empty_table(), *[piece.documents for piece in pieces]])
    text = documents["text"]
    lengths, read_bytes = pc.fill_null(pc.utf8_length(text), 0).to_numpy(), sum(piece.text_bytes for piece in pieces)
    num_chars = num_bytes * lengths.sum() / max(1, pc.sum(pc.binary_length(text)).as_py() or 0)
    if jsonl_bytes := sum(map(_jsonl_bytes, places)):
        num_chars *= read_bytes / jsonl_bytes  # the rest of a line is JSON around the text
    cut = pc.utf8_slice_codeunits(text, 0, _MOST_CHARS)
    documents = documents.set_column(documents.schema.get_field_index("text"), "text", cut)
    is_parquet = all(file.format == "parquet" for file in job.files)
    return _Drawn(documents, lengths, float(num_chars), 0.0 if is_parquet else seconds / max(1, read_bytes))


def _jsonl_bytes(split: Split) -> int:
    """Of the span of a jsonl file that a place is; 0 for other formats, and where only the compressed size is known."""
    span = split.spans[0]
    return span.stop - span.start if span.file.format == "jsonl" and span.stop is not None else 0


def _narrowed(split: Split, num_bytes: int) -> Split:
    """Of a split of jsonl so many bytes, which are then read to their end."""
    if not _jsonl_bytes(split):
        return split
    span = split.spans[0]
    return Split((span._replace(stop=min(span.stop or 0, span.start + num_bytes)),))


class _Piece(NamedTuple):
    documents: pa.Table
    text_bytes: int
    """Of all documents that were read, not of these alone."""


def _some(split: Split, settings: Input, stride: int, most_chars: int) -> _Piece:
    """Every stride-th document of a split, until they have so many characters; of a span of jsonl to its end."""
    tables, num_rows, num_chars, text_bytes = [], 0, 0, 0
    for table, *_ in read_tables(split, settings):
        tables.append(table.take(np.arange(-num_rows % stride, table.num_rows, stride)))
        num_rows += table.num_rows
        num_chars += pc.sum(pc.utf8_length(tables[-1]["text"])).as_py() or 0
        text_bytes += pc.sum(pc.binary_length(table["text"])).as_py() or 0
        if num_chars >= most_chars and not _jsonl_bytes(split):
            break
    return _Piece(pa.concat_tables([settings.columns.schema.empty_table(), *tables]), text_bytes)


def _stand_in(folder: Path) -> _Drawn:
    """Docstrings of installed packages, where there is no corpus yet."""
    path = folder / "docstrings.parquet"
    write_corpus(path, num_documents=None, num_chars=_STAND_IN_CHARS, seed=0)
    documents = pq.read_table(path).rename_columns(["source_id", "text", "source"])
    lengths = pc.utf8_length(documents["text"]).to_numpy()
    return _Drawn(documents, lengths, float(lengths.sum()))


def _sample_job(recipe: Recipe, documents: pa.Table, folder: Path) -> Job:
    """A job whose corpus is the sample; of the recipe it has what decides the stages read and chunk."""
    file, tokenizer = folder / "sample.parquet", folder / "tokenizer" / "tokenizer.json"
    write_table(file, documents)
    if recipe.tokenizer == STAND_IN:
        train_tokenizer(documents["text"].drop_null().to_pylist(), tokenizer, _VOCABULARY)
    else:
        tokenizer = resolve_tokenizer(recipe.tokenizer)
    has_ids = documents["source_id"].null_count == 0
    sample = Input(path=str(file), id="source_id" if has_ids else None, source="source", keep=recipe.input.keep)
    return prepare(
        Recipe(
            input=sample,
            output=str(folder / "work"),
            tokenizer=str(tokenizer),
            chunking=recipe.chunking,
            synthesis=Synthesis(strategy="standard", target_length_tokens=1),
        )
    )


def _describe(recipe: Recipe, work: Work, lengths: NDArray[np.int64], num_chars: int, folder: Path) -> Sample:
    """What the finished stages of the sample say, but for candidates, whose size depends on the corpus' size."""
    documents = all_documents(work["chunk"])
    per_char = dict.fromkeys(("read", "chunk"), 0.0)
    for stage in per_char:
        per_char[stage] = sum(path.stat().st_size for path in work[stage].path.glob("*.parquet")) / num_chars
    whole = lengths[documents["doc_id"].to_numpy(np.int64)] / documents["num_chars"].to_numpy(np.float64)
    for name in ("num_chunks", "num_chars", "num_tokens"):
        documents[name] = np.rint(documents[name].to_numpy(np.float64) * whole).astype(np.int64)
    num_chunks = int(documents["num_chunks"].sum())
    return Sample(
        documents=documents,
        chars_per_chunk=int(documents["num_chars"].sum()) / num_chunks,
        tokens_per_chunk=int(documents["num_tokens"].sum()) / num_chunks,
        documents_bytes_per_char=per_char["read"],
        chunks_bytes_per_char=per_char["chunk"],
        bytes_per_token=_token_bytes(work, folder, shuffled=recipe.synthesis.negatives == "random"),
        bytes_per_candidate=0.0,
        words_bytes_per_char=_words_bytes(recipe, work, folder),
    )


def _token_bytes(work: Work, folder: Path, *, shuffled: bool) -> float:
    """Of one compressed token id, of chunks in order or at random: neighbours are about as near as chunks in order.

    Measured on textbooks: 1.26 bytes in order, 1.24 in long documents; 1.47 at random, 1.49 with random negatives.
    """
    store = chunk_store(work["chunk"])
    order = np.random.default_rng(0).permutation(len(store)) if shuffled else np.arange(len(store))
    ids = store.read_tokens(order.tolist(), store.num_tokens(order).tolist())
    rows = np.append(np.arange(0, len(ids), LONG_TOKENS, dtype=np.int32), np.int32(len(ids)))
    return stored_bytes(pa.table({"input_ids": pa.ListArray.from_arrays(rows, ids)}), folder) / max(1, len(ids))


def _candidate_bytes(num_chunks: float, folder: Path) -> float:
    """Of one compressed candidate among so many chunks: random ids, and scores as near each other as real ones."""
    rng, number = np.random.default_rng(0), max(1, int(num_chunks))
    k = min(CANDIDATES, number)
    scores = -np.sort(-rng.normal(0.4, 0.1, (64, k))).round(6).astype(np.float32)
    rows = [Candidates(row, rng.integers(0, number, k), scores[row], np.arange(k)) for row in range(64)]
    return stored_bytes(candidates_table(rows), folder) / (64 * k)


def _words_bytes(recipe: Recipe, work: Work, folder: Path) -> float:
    """A character, of the BM25 index or of the keywords; 0 where the recipe has neither."""
    synthesis, texts = recipe.synthesis, texts_of(work)
    is_quest = synthesis.strategy == "quest"
    if is_quest or synthesis.retrieves == "documents":
        texts = [text for path, _ in work["chunk"].tables() for _, text in document_texts(path)]
    if is_quest:
        number = max(16, _KEYWORD_CHARS * len(texts) // sum(map(len, texts)))
        some = [texts[place] for place in sample_rows(len(texts), number)]
        table = pa.table([np.arange(len(some)), [keywords_of(recipe, text) for text in some]], schema=KEYWORDS)
        return stored_bytes(table, folder) / sum(map(len, some))
    if synthesis.retrieves is None or recipe.mining.retrieval != "bm25":
        return 0.0
    (folder / "bm25").mkdir()
    Bm25.build(texts).save(folder / "bm25")
    return sum(path.stat().st_size for path in (folder / "bm25").iterdir()) / sum(map(len, texts))


def _count_parts(settings: Input, job: Job | None, num_chars: float, sample: Sample) -> tuple[int, int]:
    """Tasks of the read stage, and parts of those after it; job: None: as if the corpus were one jsonl file."""
    if job is None:
        file = InputFile("corpus.jsonl", "corpus.jsonl", max(1, int(num_chars)), "jsonl")
        splits = plan_splits(Input(path=file.path, part_bytes=settings.part_bytes), [file])
    else:
        splits = plan_splits(settings, job.files)
    if settings.part_rows is None:
        return len(splits), max(len(splits), math.ceil(num_chars / (splits[0].part_bytes or num_chars)))
    num_documents = num_chars / max(1.0, float(sample.documents["num_chars"].mean()))
    num_parts = math.ceil(num_documents / settings.part_rows)
    return (num_parts, num_parts) if job is None else (len(splits), max(len(splits), num_parts))


def keywords_of(recipe: Recipe, text: str) -> list[str]:
    """Keywords of a text by the recipe's settings."""
    stop_phrases = load_stop_phrases(recipe.synthesis.keyword_stop_phrases)
    return keywords(text, min_score=recipe.synthesis.keyword_min_score, stop_phrases=stop_phrases)


def stored_bytes(table: pa.Table, folder: Path) -> int:
    """Bytes of a table as a stage writes it."""
    write_table(folder / "stored.parquet", table)
    return (folder / "stored.parquet").stat().st_size


def texts_of(work: Work) -> list[str]:
    """The chunks of the sample."""
    return [text for path, _ in work["chunk"].tables() for text in pq.read_table(path)["text"].to_pylist()]


def cpu_seconds(call: Callable[..., Any], *arguments: Any, repeats: int = 1) -> tuple[float, Any]:
    """CPU seconds of this process, the least of some calls, and what the last one gave."""
    seconds = math.inf
    for _ in range(repeats):
        started = time.process_time()
        result = call(*arguments)
        seconds = min(seconds, time.process_time() - started)
    return seconds, result
