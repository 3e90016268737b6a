"""A recipe or a number of characters in, what `capacity` computes with out: a sample of the corpus, and measured rates.

The sample goes through the stages read and chunk themselves, in a temporary folder; the rates are the CPU seconds that
these, and the functions of the later stages, take in a worker process, so that others at work on the machine count
little. Some ten seconds in all.
"""

import dataclasses
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from etl import chunk, read
from etl.allocate import Draw, Planner
from etl.capacity import (
    STAND_IN,
    UNKNOWN_EMBEDDING,
    Corpus,
    Estimate,
    Rates,
    Sample,
    estimate,
    measured_with,
    page,
    workload,
)
from etl.docstrings import train_tokenizer, write_corpus
from etl.draw import all_documents
from etl.embed import loaded_embedder
from etl.engine import Engine, local_engine
from etl.inputs import Input, InputFile, Split, estimate_text_bytes, plan_splits, read_tables
from etl.interleave import fill
from etl.job import Job, needs_embeddings, prepare
from etl.lookup import RowStore, chunk_store, document_texts
from etl.measure import count_uses
from etl.mine import candidates_table, corpus_means
from etl.pack import pack_table
from etl.parts import Part, PartResult, file_facts, perform, write_array, write_table
from etl.recipe import Recipe, parse_recipe, recipe_parser
from etl.schemas import DOCUMENTS, KEYWORDS, meta, to_frame
from etl.work import Work
from nextlong.accounting import Account
from nextlong.bm25 import Bm25
from nextlong.concatenation import DocumentNeighbours, Documents, gather
from nextlong.config import Strategy, Synthesis
from nextlong.decontamination import collect_ngrams
from nextlong.embedding import Embedder
from nextlong.errors import UserError
from nextlong.indexing import add, new_index, sample_rows, train
from nextlong.keywords import QueryModel, keywords, load_stop_phrases
from nextlong.mining import QUERIES_AT_ONCE, Candidates, MetaDocument, mine
from nextlong.model_folder import resolve_model
from nextlong.near_duplicates import NearDuplicateRules
from nextlong.retrieval import EmbeddingRetriever, document_vectors
from nextlong.sampling import draw_order
from nextlong.searching import Index, Neighbours
from nextlong.sketching import sketch
from nextlong.tokenizing import Tokenizer, resolve_tokenizer

T = TypeVar("T")

_SAMPLE_CHARS = 4_000_000
_PLACES = 16  # of the sample, spread over the corpus
_STRIDE = 4  # every fourth document there: one large row group is seen beyond its beginning
_MOST_CHARS = 1_000_000  # of a document; what is longer is taken to go on like that
_STAND_IN_CHARS = 2_000_000
_VOCABULARY = 16_384
_EMBEDDED_CHUNKS = 64
_WORDS_CHUNKS = 1_000
_KEYWORD_CHARS = 300_000
_DIMENSIONS = 384  # where nothing is embedded; the rates are of a number
_CANDIDATES = 512
_FEW_QUERIES = 256  # as recall is measured
_FEW, _MANY = 2_000, 65_536  # stored embeddings that a processor's cache holds, and that it does not
_PQ_ROUNDS = 25  # of FAISS when it trains a product quantizer; two are measured
_LONG_TOKENS = 65_536  # of a long document made for measuring, at most
_MADE_TOKENS = 1_000_000  # of all of them
_GATHERED = 5_000  # documents


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


def plan_page(recipe: Recipe, *, workers: int, gpus: int | None = None, **options: Any) -> str:
    """What `plan` estimates, with these of its options, as text for people."""
    rates_file = options.get("rates_file")
    source = f"of {rates_file}" if rates_file else "measured here"
    return page(plan(recipe, gpus=gpus, **options), workers=workers, gpus=gpus or 1, source=source)


def plan(
    recipe: Recipe,
    *,
    num_chars: float | None = None,
    num_chunks: float | None = None,
    gpus: int | None = None,
    rates_file: Path | None = None,
    write_rates: Path | None = None,
) -> Estimate:
    """What a run of a recipe costs; its input.path and tokenizer may be STAND_IN. Writes nothing but write_rates.

    num_chars, num_chunks: size of the corpus, of which the input is a sample; None: the input is all of it.
    gpus: 0: embed on workers; None: on GPUs if one was measured. rates_file: of another machine; None: measured here.
    Raises UserError for what a run would refuse before its first stage, and for a file that holds no rates.
    """
    with tempfile.TemporaryDirectory(prefix="nextlong-plan-") as name:
        folder, known = Path(name), read_rates(rates_file) if rates_file else None
        model_folder = _model_folder(recipe, is_optional=known is not None or bool(gpus))
        dimensions = _dimensions(recipe, model_folder)
        if known is None and dimensions and model_folder is None and not gpus:
            raise UserError(UNKNOWN_EMBEDDING)
        surveyed = survey(recipe, folder, num_chars=num_chars, num_chunks=num_chunks)
        rates = known or _on_a_worker(measure, recipe, surveyed, model_folder, dimensions, folder)
    if write_rates is not None:
        _write_rates(write_rates, rates)
    on_gpu = rates.embedded_chunk_on_gpu is not None if gpus is None else gpus > 0
    return estimate(workload(recipe, surveyed.corpus, dimensions), rates, on_gpu=on_gpu)


def _on_a_worker(call: Callable[..., T], *arguments: Any) -> T:
    """What a call gives on a local worker, whose memory and threads are set as in a run: some rates differ by half."""
    with local_engine(1) as engine:
        [result] = engine.map(partial(_apply, call), [arguments], doing="measure rates", unit="machine")
        return result


def _apply(call: Callable[..., T], arguments: Sequence[Any]) -> T:
    return call(*arguments)


def recipe_without_corpus(fields: list[str]) -> Recipe:
    """A recipe of fields alone, such as ["--synthesis.target_length_tokens", "131072"], for `plan`.

    Raises UserError for what is no field, has no such value, or is missing: the target length.
    """
    stand_ins = [f"--{name}={STAND_IN}" for name in ("input.path", "output", "tokenizer")]
    return parse_recipe(recipe_parser(), [*stand_ins, *fields])


def _write_rates(path: Path, rates: Rates) -> None:
    try:
        path.write_text(json.dumps(dataclasses.asdict(rates), indent=1) + "\n")
    except OSError as error:
        raise UserError(f"--write-rates {path} cannot be written: {error}. Give a file in a folder that is.") from error


def read_rates(path: Path) -> Rates:
    """Rates that `plan` wrote. Raises UserError for a file that is missing or holds something else."""
    try:
        return Rates(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(
            f"--rates {path} cannot be used: {error}. Write such a file with nextlong plan --write-rates FILE."
        ) from error


def _dimensions(recipe: Recipe, model_folder: Path | None) -> int:
    if not needs_embeddings(recipe):
        return 0
    if model_folder is not None:
        return loaded_embedder(model_folder, recipe.embedding).dimensions
    if recipe.embedding.dimensions is None:
        raise UserError("a plan without a model needs --dimensions, the length of an embedding, or --model FOLDER.")
    return recipe.embedding.dimensions


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
    seconds, pieces = _cpu(lambda: [_some(place, settings, stride, most_chars) for place in places])
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
    for table, _ in read_tables(split, settings):
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
    rows = np.append(np.arange(0, len(ids), _LONG_TOKENS, dtype=np.int32), np.int32(len(ids)))
    return _stored_bytes(pa.table({"input_ids": pa.ListArray.from_arrays(rows, ids)}), folder) / max(1, len(ids))


def _candidate_bytes(num_chunks: float, folder: Path) -> float:
    """Of one compressed candidate among so many chunks: random ids, and scores as near each other as real ones."""
    rng, number = np.random.default_rng(0), max(1, int(num_chunks))
    k = min(_CANDIDATES, number)
    scores = -np.sort(-rng.normal(0.4, 0.1, (64, k))).round(6).astype(np.float32)
    rows = [Candidates(row, rng.integers(0, number, k), scores[row], np.arange(k)) for row in range(64)]
    return _stored_bytes(candidates_table(rows), folder) / (64 * k)


def _words_bytes(recipe: Recipe, work: Work, folder: Path) -> float:
    """A character, of the BM25 index or of the keywords; 0 where the recipe has neither."""
    synthesis, texts = recipe.synthesis, _texts(work)
    is_quest = synthesis.strategy == "quest"
    if is_quest or synthesis.retrieves == "documents":
        texts = [text for path, _ in work["chunk"].tables() for _, text in document_texts(path)]
    if is_quest:
        number = max(16, _KEYWORD_CHARS * len(texts) // sum(map(len, texts)))
        some = [texts[place] for place in sample_rows(len(texts), number)]
        table = pa.table([np.arange(len(some)), [_keywords(recipe, text) for text in some]], schema=KEYWORDS)
        return _stored_bytes(table, folder) / sum(map(len, some))
    if synthesis.retrieves is None or recipe.mining.retrieval != "bm25":
        return 0.0
    (folder / "bm25").mkdir()
    Bm25.build(texts).save(folder / "bm25")
    return sum(path.stat().st_size for path in (folder / "bm25").iterdir()) / sum(map(len, texts))


def _keywords(recipe: Recipe, text: str) -> list[str]:
    stop_phrases = load_stop_phrases(recipe.synthesis.keyword_stop_phrases)
    return keywords(text, min_score=recipe.synthesis.keyword_min_score, stop_phrases=stop_phrases)


def _stored_bytes(table: pa.Table, folder: Path) -> int:
    write_table(folder / "stored.parquet", table)
    return (folder / "stored.parquet").stat().st_size


def _texts(work: Work) -> list[str]:
    """The chunks of the sample."""
    return [text for path, _ in work["chunk"].tables() for text in pq.read_table(path)["text"].to_pylist()]


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


def _model_folder(recipe: Recipe, *, is_optional: bool) -> Path | None:
    """is_optional: a model that is not on this machine need not be fetched if the length of its embeddings is given."""
    model, dimensions = recipe.embedding.model, recipe.embedding.dimensions
    if not needs_embeddings(recipe) or model is None:
        return None
    if is_optional and dimensions is not None and not Path(model).expanduser().is_dir():
        return None
    return resolve_model(model, recipe.embedding.file).absolute()


def measure(recipe: Recipe, surveyed: Surveyed, model_folder: Path | None, dimensions: int, folder: Path) -> Rates:
    """Rates of this machine. model_folder: None: nothing embeds here; dimensions: of an embedding, 0: nothing does."""
    loading, _ = _cpu(Tokenizer, surveyed.job.tokenizer_file)
    job = prepare(dataclasses.replace(surveyed.job.recipe, output=str(folder / "measured")))
    chunk.chunk_partition(meta(DOCUMENTS), tokenizer=str(job.tokenizer_file), chunking=recipe.chunking)  # loads it
    reading, manifest = _cpu(read.run, job, Engine())
    chunking, _ = _cpu(chunk.run, job, Engine())
    chars, texts = Account.from_dict(manifest["account"]).counts["chars"], _texts(job.work)
    return Rates(
        machine=_machine(),
        measured_with=measured_with(recipe, dimensions),
        memory_bytes=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        load_tokenizer=loading,
        read_char=reading / chars.read + 2 * surveyed.decoded_char,
        chunked_char=chunking / chars.kept,
        **_embedding(recipe, model_folder, texts),
        **_starting_and_writing(folder),
        **_driving(job.work, folder),
        **_comparing(max(8, (dimensions or _DIMENSIONS) // 8 * 8)),
        **_mining(dimensions or _DIMENSIONS, folder),
        **_reading_words(recipe, texts),
        **_making_long_documents(recipe, job.work, folder),
        gathered_document=_gathering(),
    )


def _machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else 'unknown processor'}, {os.cpu_count()} cores"


def _cpu(call: Callable[..., Any], *arguments: Any, repeats: int = 1) -> tuple[float, Any]:
    """CPU seconds of this process, the least of some calls, and what the last one gave."""
    seconds = math.inf
    for _ in range(repeats):
        started = time.process_time()
        result = call(*arguments)
        seconds = min(seconds, time.process_time() - started)
    return seconds, result


def _wall(call: Callable[[], Any]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _embedding(recipe: Recipe, model_folder: Path | None, texts: list[str]) -> dict[str, Any]:
    """Of chunks of all lengths; on a GPU what counts is the clock."""
    if model_folder is None:
        return {"load_model": 0.0, "embedded_chunk": None, "embedded_chunk_on_gpu": None}
    load, embedder = _cpu(Embedder.load, model_folder, recipe.embedding)
    is_gpu = embedder.provider != "CPU"
    some = sorted(texts, key=len)
    some = [some[place] for place in sample_rows(len(some), _EMBEDDED_CHUNKS * (8 if is_gpu else 1))]
    embedder.embed(some[-8:])
    if is_gpu:
        on_gpu = _wall(lambda: embedder.embed(some)) / len(some)
        return {"load_model": load, "embedded_chunk": None, "embedded_chunk_on_gpu": on_gpu}
    seconds = _cpu(embedder.embed, some)[0] / len(some)
    return {"load_model": load, "embedded_chunk": seconds, "embedded_chunk_on_gpu": None}


def _starting_and_writing(folder: Path) -> dict[str, Any]:
    """What a new worker imports, bytes with their sha256, a small part, and rows that are read from the disk."""
    script = "import time, distributed; t = time.process_time(); import etl.pipeline; print(time.process_time() - t)"
    started = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    path, array = folder / "array.npy", np.random.default_rng(0).integers(0, 2**62, 2**22)
    written = _cpu(write_array, path, array)[0] + _cpu(file_facts, path)[0]
    small = [Part(folder=folder, name=str(n), fingerprint="", function=_small_part, arguments={}) for n in range(16)]
    return {
        "start": float(started.stdout),
        "written_byte": written / array.nbytes,
        "part": _wall(lambda: list(map(perform, small))) / len(small),
        "cold_read": _cold_read(path, array.nbytes),
    }


def _small_part(folder: Path, name: str) -> PartResult:
    write_table(folder / f"{name}.parquet", KEYWORDS.empty_table())
    pq.read_table(folder / f"{name}.parquet")
    return PartResult(files=[f"{name}.parquet"])


def _cold_read(path: Path, num_bytes: int) -> float:
    """Seconds of one read of a page in random order, after the system was told to forget the file."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        places = np.random.default_rng(0).permutation(num_bytes // 2**16)[:200].tolist()
        return _wall(lambda: [os.pread(descriptor, 2**11, place * 2**16) for place in places]) / len(places)
    finally:
        os.close(descriptor)


def _driving(work: Work, folder: Path) -> dict[str, Any]:
    """What the driver does for each document: finding copies, and the table of all documents in drawn order."""
    documents = pq.read_table(work["chunk"].tables()[0][0].with_suffix(".documents.parquet"))
    many = documents.take(np.arange(_MANY) % documents.num_rows)
    write_table(folder / "documents.parquet", many)
    scan = read.scan_partition(Split(()), Input(path=STAND_IN))
    scan = np.zeros(_MANY, scan.dtype)
    scan["high"] = np.random.default_rng(0).permutation(_MANY)

    def order() -> pd.DataFrame:
        table = to_frame(pq.read_table(folder / "documents.parquet"))
        return table.iloc[draw_order(table["num_chunks"].to_numpy(), min_meta_chunks=1, seed=0)]

    seconds = _cpu(lambda: read.mark_copies([scan]))[0] + _cpu(order)[0]
    return {"known_document": seconds / _MANY}


def _comparing(dimensions: int) -> dict[str, Any]:
    """Exact search at two sizes, and inverted lists, a number of a vector; random vectors cost as much as real ones."""
    import faiss

    vectors = np.random.default_rng(0).standard_normal((2**15, dimensions)).astype(np.float32)
    queries, few = vectors[:QUERIES_AT_ONCE], vectors[: 2**13]
    flat = new_index("Flat", dimensions)
    index = Index([flat], {"factory": "Flat"})
    add(flat, few, 0)
    many_queries, _ = _cpu(index.search, vectors[:_FEW], 1, repeats=2)
    few_queries, _ = _cpu(index.search, vectors[:_FEW_QUERIES], 1, repeats=2)
    small, _ = _cpu(index.search, queries, _CANDIDATES, repeats=2)
    add(flat, vectors[len(few) :], len(few))
    large, _ = _cpu(index.search, queries, _CANDIDATES, repeats=2)
    scanned, added = {}, {}
    for codec in ("Flat", "SQ8", "PQ"):
        lists = new_index(f"IVF64,{codec}{dimensions // 8 if codec == 'PQ' else ''}", dimensions)
        train(lists, vectors[:_FEW])
        added[codec] = _cpu(add, lists, few, 0)[0] / few.size
        scanned[codec] = _scanned(Index([lists], {"factory": codec}), queries) / few.size
    graph = faiss.index_factory(dimensions, "HNSW32", faiss.METRIC_INNER_PRODUCT)
    graph.add(vectors[:4096])
    return {
        "product": many_queries / _FEW / few.size,
        "product_of_few": few_queries / _FEW_QUERIES / few.size,
        "searched_number": max(0.0, large - small) / QUERIES_AT_ONCE / (vectors.size - few.size),
        "scanned_number": scanned,
        "added_number": added,
        "pq_training_number": _pq_training(vectors) / vectors.size,
        "graph_number": _cpu(graph.search, queries, 32, repeats=2)[0] / queries.size,
        "averaged_number": _cpu(document_vectors, few, np.full(len(few) // 4, 4))[0] / few.size,
    }


def _pq_training(vectors: NDArray[np.float32]) -> float:
    """Seconds of training a product quantizer, on so many vectors that they are multiplied as fast as more would be."""
    import faiss

    seconds = []
    for rounds in (1, 3):
        lists = new_index(f"IVF1,PQ{vectors.shape[1] // 8}", vectors.shape[1])
        faiss.downcast_index(lists).pq.cp.niter = rounds  # type: ignore[attr-defined]
        seconds.append(_cpu(train, lists, vectors)[0])
    return max(0.0, seconds[1] - seconds[0]) / 2 * _PQ_ROUNDS


def _scanned(index: Index, queries: NDArray[np.float32]) -> float:
    """Seconds a query in which all vectors would be scanned, from the difference between 8 and 40 of 64 lists."""
    seconds = []
    for nprobe in (8, 40):
        index.set_nprobe(nprobe)
        seconds.append(_cpu(index.search, queries, _CANDIDATES, repeats=2)[0])
    return max(0.0, seconds[1] - seconds[0]) * 2 / len(queries)


def _mining(dimensions: int, folder: Path) -> dict[str, Any]:
    """Judging random candidates, of embeddings that are in the processor's cache and of such that are not."""
    few = np.random.default_rng(0).standard_normal((_FEW, dimensions)).astype(np.float16)
    warm, warm_rows = _judged(few, folder)
    cold, cold_rows = _judged(np.resize(few, (_MANY, dimensions)), folder)
    fetched = max(0.0, cold - warm) / (cold_rows - warm_rows) / dimensions
    candidate = max(0.0, warm - warm_rows * dimensions * fetched) / (QUERIES_AT_ONCE * _CANDIDATES)
    return {"fetched_number": fetched, "candidate": candidate}


def _judged(vectors: NDArray[np.float16], folder: Path) -> tuple[float, int]:
    """Seconds of mining some documents with random candidates, and how many different ones these are."""
    ids = np.random.default_rng(0).integers(0, len(vectors), (QUERIES_AT_ONCE, _CANDIDATES + 30))
    found = Neighbours(np.zeros(ids.shape, np.float32), ids)
    documents = [MetaDocument(number, 4 * number, 4, _CANDIDATES) for number in range(QUERIES_AT_ONCE // 4)]
    hashes = np.arange(len(vectors), dtype=np.uint64)

    def judge() -> None:
        mined = mine(
            documents,
            retriever=EmbeddingRetriever(lambda queries, top_k: found, RowStore([vectors]).rows),
            fetch_hashes=lambda chunk_ids: hashes[chunk_ids],
            rules=NearDuplicateRules(0.95, None, None),
        )
        _stored_bytes(candidates_table(mined.candidates), folder)

    return _cpu(judge)[0], len(np.unique(ids))


def _reading_words(recipe: Recipe, texts: list[str]) -> dict[str, Any]:
    """BM25 at two sizes, keywords, sketches, and the n-grams of decontamination."""
    some = [texts[place] for place in sample_rows(len(texts), _WORDS_CHUNKS // 5)]
    texts = list(islice(cycle(texts), _WORDS_CHUNKS))
    num_chars, some_chars = sum(map(len, texts)), sum(map(len, some))
    few = Bm25.build(texts[: len(texts) // 4])
    building, many = _cpu(Bm25.build, texts)
    short, long = (_cpu(index.neighbours_of, np.arange(32), _CANDIDATES)[0] / 32 for index in (few, many))
    each = max(0.0, long - short) / (len(many) - len(few))
    _keywords(recipe, some[0])  # loads its library, as does the next
    sketch(some[:1])
    ngrams, _ = collect_ngrams([some[::2]], recipe.decontamination.ngram_words)
    model = recipe.synthesis.query_model
    return {
        "words_char": building / num_chars,
        "words_query": max(0.0, short - each * len(few)),
        "words_query_text": each,
        "keyword_char": _cpu(_keywords, recipe, "\n".join(some))[0] / some_chars,
        "sketched_char": _cpu(sketch, some)[0] / some_chars,
        "compared_char": _cpu(lambda: list(map(ngrams.first_file, some)))[0] / some_chars,
        "generated_document": _cpu(lambda: QueryModel.load(model).queries(texts[0]))[0] if model else 0.0,
    }


def _making_long_documents(recipe: Recipe, work: Work, folder: Path) -> dict[str, Any]:
    """Planning with random candidates from the sample, filling, counting reuse, and packing two to a sequence."""
    store, means = chunk_store(work["chunk"]), corpus_means(work["chunk"])
    rng, documents = np.random.default_rng(0), all_documents(work["chunk"])
    target = max(1, min(*recipe.synthesis.targets, _LONG_TOKENS, int(documents["num_tokens"].sum()) // 4))
    synthesis = Synthesis(target_length_tokens=target, max_meta_ratio=1.0)
    fitting = documents[documents["num_tokens"] <= target // 2]
    rows = fitting if len(fitting) else documents
    drawn = rows.iloc[np.arange(max(2, _MADE_TOKENS // target)) % len(rows)].assign(sample_id=0)
    draws = [Draw(*row) for row in zip(*[drawn[name].tolist() for name in Draw._fields], strict=True)]
    k = min(_CANDIDATES, len(store))
    candidates = {
        meta_chunk: Candidates(meta_chunk, rng.permutation(len(store))[:k], np.ones(k, np.float32), np.arange(k))
        for draw in draws
        for meta_chunk in range(draw.first_chunk_id, draw.first_chunk_id + draw.num_chunks)
    }
    planner = Planner(
        store=store, means=means, synthesis=synthesis, chunking=recipe.chunking, target_length_tokens=target
    )
    planning, plans = _cpu(planner.plan, draws, candidates)
    path = folder / "long.parquet"

    def write() -> pa.Table:
        table, _ = fill(plans, store)
        write_table(path, table, rows_per_group=max(1, _MADE_TOKENS // target))
        file_facts(path)
        return table

    filling, table = _cpu(write)
    segments = sum(map(len, table["segments"].to_pylist()))
    tokens = table.num_rows * target
    counting, _ = _cpu(count_uses, [path], work["chunk"])
    packing, _ = _cpu(lambda: _stored_bytes(pack_table(pq.read_table(path), 2, target), folder))
    return {
        "planned_segment": planning / max(1, segments),
        "filled_token": filling / max(1, tokens),
        "used_segment": counting / max(1, segments),
        "packed_token": packing / max(1, tokens),
    }


def _gathering() -> dict[str, float]:
    """Seconds a document, with 50 neighbours and five of a thousand keywords each."""
    rng, ids = np.random.default_rng(0), np.arange(_GATHERED)
    documents = Documents(ids, rng.integers(100, 2_000, _GATHERED))
    others = (ids[:, None] + rng.integers(1, _GATHERED, (_GATHERED, 50))) % _GATHERED
    neighbours = DocumentNeighbours(ids, others, np.ones(others.shape, np.float32))
    words = {each: [str(word) for word in rng.integers(0, 1_000, 5)] for each in ids.tolist()}
    known: dict[Strategy, dict[str, Any]] = {
        "standard": {},
        "knn": {"neighbours": neighbours},
        "iclm": {"neighbours": neighbours},
        "quest": {"keywords": words},
    }
    seconds: dict[str, float] = {}
    for strategy, given in known.items():
        synthesis = Synthesis(strategy=strategy, target_length_tokens=_LONG_TOKENS)
        seconds[strategy] = _cpu(partial(gather, documents, synthesis, **given))[0] / _GATHERED
    return seconds
