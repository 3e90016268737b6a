"""A surveyed corpus in, measured rates out: CPU seconds that the stages' functions take in a worker process.

CPU seconds, so that others at work on the machine count little. Some ten seconds in all.
"""

import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from etl import chunk, read
from etl.allocate import Planner, draws_of
from etl.capacity.amounts import STAND_IN, measured_with
from etl.capacity.rates import Rates
from etl.capacity.survey import CANDIDATES, LONG_TOKENS, Surveyed, cpu_seconds, keywords_of, stored_bytes, texts_of
from etl.draw import all_documents, with_names
from etl.engine import Engine
from etl.inputs import Input, Split
from etl.interleave import fill
from etl.job import prepare
from etl.lookup import RowStore, chunk_store
from etl.measure import count_uses
from etl.mine import candidates_table, corpus_means
from etl.pack import pack_table
from etl.parts import Part, PartResult, file_facts, perform, write_array, write_table
from etl.recipe import Recipe
from etl.schemas import DOCUMENTS, KEYWORDS, meta, to_frame
from etl.work import Work
from nextlong.accounting import Account
from nextlong.bm25 import Bm25
from nextlong.concatenation import DocumentNeighbours, Documents, gather
from nextlong.config import Strategy, Synthesis
from nextlong.decontamination import collect_ngrams
from nextlong.embedding import Embedder
from nextlong.indexing import add, new_index, sample_rows, train
from nextlong.keywords import QueryModel
from nextlong.mining import QUERIES_AT_ONCE, Candidates, MetaDocument, mine
from nextlong.near_duplicates import NearDuplicateRules
from nextlong.retrieval import EmbeddingRetriever, document_vectors
from nextlong.sampling import draw_order
from nextlong.searching import Index, Neighbours
from nextlong.sketching import sketch
from nextlong.tokenizing import Tokenizer

_EMBEDDED_CHUNKS = 64
_WORDS_CHUNKS = 1_000
_DIMENSIONS = 384  # where nothing is embedded; the rates are of a number
_FEW_QUERIES = 256  # as recall is measured
_FEW, _MANY = 2_000, 65_536  # stored embeddings that a processor's cache holds, and that it does not
_PQ_ROUNDS = 25  # of FAISS when it trains a product quantizer; two are measured
_MADE_TOKENS = 1_000_000  # of all of them
_GATHERED = 5_000  # documents


def measure(recipe: Recipe, surveyed: Surveyed, model_folder: Path | None, dimensions: int, folder: Path) -> Rates:
    """Rates of this machine. model_folder: None: nothing embeds here; dimensions: of an embedding, 0: nothing does."""
    loading, _ = cpu_seconds(Tokenizer, surveyed.job.tokenizer_file)
    job = prepare(dataclasses.replace(surveyed.job.recipe, output=str(folder / "measured")))
    chunk.chunk_partition(meta(DOCUMENTS), tokenizer=str(job.tokenizer_file), chunking=recipe.chunking)  # loads it
    reading, manifest = cpu_seconds(read.run, job, Engine())
    chunking, _ = cpu_seconds(chunk.run, job, Engine())
    chars, texts = Account.from_dict(manifest["account"]).counts["chars"], texts_of(job.work)
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


def _wall(call: Callable[[], Any]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _embedding(recipe: Recipe, model_folder: Path | None, texts: list[str]) -> dict[str, Any]:
    """Of chunks of all lengths; on a GPU what counts is the clock."""
    if model_folder is None:
        return {"load_model": 0.0, "embedded_chunk": None, "embedded_chunk_on_gpu": None}
    load, embedder = cpu_seconds(Embedder.load, model_folder, recipe.embedding)
    is_gpu = embedder.provider != "CPU"
    some = sorted(texts, key=len)
    some = [some[place] for place in sample_rows(len(some), _EMBEDDED_CHUNKS * (8 if is_gpu else 1))]
    embedder.embed(some[-8:])
    if is_gpu:
        on_gpu = _wall(lambda: embedder.embed(some)) / len(some)
        return {"load_model": load, "embedded_chunk": None, "embedded_chunk_on_gpu": on_gpu}
    seconds = cpu_seconds(embedder.embed, some)[0] / len(some)
    return {"load_model": load, "embedded_chunk": seconds, "embedded_chunk_on_gpu": None}


def _starting_and_writing(folder: Path) -> dict[str, Any]:
    """What a new worker imports, bytes with their sha256, a small part, and rows that are read from the disk."""
    script = "import time, distributed; t = time.process_time(); import etl.pipeline; print(time.process_time() - t)"
    started = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    path, array = folder / "array.npy", np.random.default_rng(0).integers(0, 2**62, 2**22)
    written = cpu_seconds(write_array, path, array)[0] + cpu_seconds(file_facts, path)[0]
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

    seconds = cpu_seconds(lambda: read.mark_copies([scan]))[0] + cpu_seconds(order)[0]
    return {"known_document": seconds / _MANY}


def _comparing(dimensions: int) -> dict[str, Any]:
    """Exact search at two sizes, and inverted lists, a number of a vector; random vectors cost as much as real ones."""
    import faiss

    vectors = np.random.default_rng(0).standard_normal((2**15, dimensions)).astype(np.float32)
    queries, few = vectors[:QUERIES_AT_ONCE], vectors[: 2**13]
    flat = new_index("Flat", dimensions)
    index = Index([flat], {"factory": "Flat"})
    add(flat, few, 0)
    many_queries, _ = cpu_seconds(index.search, vectors[:_FEW], 1, repeats=2)
    few_queries, _ = cpu_seconds(index.search, vectors[:_FEW_QUERIES], 1, repeats=2)
    small, _ = cpu_seconds(index.search, queries, CANDIDATES, repeats=2)
    add(flat, vectors[len(few) :], len(few))
    large, _ = cpu_seconds(index.search, queries, CANDIDATES, repeats=2)
    scanned, added = {}, {}
    for codec in ("Flat", "SQ8", "PQ"):
        lists = new_index(f"IVF64,{codec}{dimensions // 8 if codec == 'PQ' else ''}", dimensions)
        train(lists, vectors[:_FEW])
        added[codec] = cpu_seconds(add, lists, few, 0)[0] / few.size
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
        "graph_number": cpu_seconds(graph.search, queries, 32, repeats=2)[0] / queries.size,
        "averaged_number": cpu_seconds(document_vectors, few, np.full(len(few) // 4, 4))[0] / few.size,
    }


def _pq_training(vectors: NDArray[np.float32]) -> float:
    """Seconds of training a product quantizer, on so many vectors that they are multiplied as fast as more would be."""
    import faiss

    seconds = []
    for rounds in (1, 3):
        lists = new_index(f"IVF1,PQ{vectors.shape[1] // 8}", vectors.shape[1])
        faiss.downcast_index(lists).pq.cp.niter = rounds  # type: ignore[attr-defined]
        seconds.append(cpu_seconds(train, lists, vectors)[0])
    return max(0.0, seconds[1] - seconds[0]) / 2 * _PQ_ROUNDS


def _scanned(index: Index, queries: NDArray[np.float32]) -> float:
    """Seconds a query in which all vectors would be scanned, from the difference between 8 and 40 of 64 lists."""
    seconds = []
    for nprobe in (8, 40):
        index.set_nprobe(nprobe)
        seconds.append(cpu_seconds(index.search, queries, CANDIDATES, repeats=2)[0])
    return max(0.0, seconds[1] - seconds[0]) * 2 / len(queries)


def _mining(dimensions: int, folder: Path) -> dict[str, Any]:
    """Judging random candidates, of embeddings that are in the processor's cache and of such that are not."""
    few = np.random.default_rng(0).standard_normal((_FEW, dimensions)).astype(np.float16)
    warm, warm_rows = _judged(few, folder)
    cold, cold_rows = _judged(np.resize(few, (_MANY, dimensions)), folder)
    fetched = max(0.0, cold - warm) / (cold_rows - warm_rows) / dimensions
    candidate = max(0.0, warm - warm_rows * dimensions * fetched) / (QUERIES_AT_ONCE * CANDIDATES)
    return {"fetched_number": fetched, "candidate": candidate}


def _judged(vectors: NDArray[np.float16], folder: Path) -> tuple[float, int]:
    """Seconds of mining some documents with random candidates, and how many different ones these are."""
    ids = np.random.default_rng(0).integers(0, len(vectors), (QUERIES_AT_ONCE, CANDIDATES + 30))
    found = Neighbours(np.zeros(ids.shape, np.float32), ids)
    documents = [MetaDocument(number, 4 * number, 4, CANDIDATES) for number in range(QUERIES_AT_ONCE // 4)]
    hashes = np.arange(len(vectors), dtype=np.uint64)

    def judge() -> None:
        mined = mine(
            documents,
            retriever=EmbeddingRetriever(lambda queries, top_k: found, RowStore([vectors]).rows),
            fetch_hashes=lambda chunk_ids: hashes[chunk_ids],
            rules=NearDuplicateRules(0.95, None, None),
        )
        stored_bytes(candidates_table(mined.candidates), folder)

    return cpu_seconds(judge)[0], len(np.unique(ids))


def _reading_words(recipe: Recipe, texts: list[str]) -> dict[str, Any]:
    """BM25 at two sizes, keywords, sketches, and the n-grams of decontamination."""
    some = [texts[place] for place in sample_rows(len(texts), _WORDS_CHUNKS // 5)]
    texts = list(islice(cycle(texts), _WORDS_CHUNKS))
    num_chars, some_chars = sum(map(len, texts)), sum(map(len, some))
    few = Bm25.build(texts[: len(texts) // 4])
    building, many = cpu_seconds(Bm25.build, texts)
    short, long = (cpu_seconds(index.neighbours_of, np.arange(32), CANDIDATES)[0] / 32 for index in (few, many))
    each = max(0.0, long - short) / (len(many) - len(few))
    keywords_of(recipe, some[0])  # loads its library, as does the next
    sketch(some[:1])
    ngrams, _ = collect_ngrams([some[::2]], recipe.decontamination.ngram_words)
    model = recipe.synthesis.query_model
    return {
        "words_char": building / num_chars,
        "words_query": max(0.0, short - each * len(few)),
        "words_query_text": each,
        "keyword_char": cpu_seconds(keywords_of, recipe, "\n".join(some))[0] / some_chars,
        "sketched_char": cpu_seconds(sketch, some)[0] / some_chars,
        "compared_char": cpu_seconds(lambda: list(map(ngrams.first_file, some)))[0] / some_chars,
        "generated_document": cpu_seconds(lambda: QueryModel.load(model).queries(texts[0]))[0] if model else 0.0,
    }


def _making_long_documents(recipe: Recipe, work: Work, folder: Path) -> dict[str, Any]:
    """Planning with random candidates from the sample, filling, counting reuse, and packing two to a sequence."""
    store, means = chunk_store(work["chunk"]), corpus_means(work["chunk"])
    rng, documents = np.random.default_rng(0), all_documents(work["chunk"])
    target = max(1, min(*recipe.synthesis.targets, LONG_TOKENS, int(documents["num_tokens"].sum()) // 4))
    synthesis = Synthesis(target_length_tokens=target, max_meta_ratio=1.0)
    fitting = documents[documents["num_tokens"] <= target // 2]
    rows = fitting if len(fitting) else documents
    drawn = rows.iloc[np.arange(max(2, _MADE_TOKENS // target)) % len(rows)].assign(sample_id=0)
    draws = draws_of(with_names(drawn, work["chunk"]))
    k = min(CANDIDATES, len(store))
    candidates = {
        meta_chunk: Candidates(meta_chunk, rng.permutation(len(store))[:k], np.ones(k, np.float32), np.arange(k))
        for draw in draws
        for meta_chunk in range(draw.first_chunk_id, draw.first_chunk_id + draw.num_chunks)
    }
    planner = Planner(
        store=store, means=means, synthesis=synthesis, chunking=recipe.chunking, target_length_tokens=target
    )
    planning, plans = cpu_seconds(planner.plan, draws, candidates)
    path = folder / "long.parquet"

    def write() -> pa.Table:
        table, _ = fill(plans, store)
        write_table(path, table, rows_per_group=max(1, _MADE_TOKENS // target))
        file_facts(path)
        return table

    filling, table = cpu_seconds(write)
    segments = sum(map(len, table["segments"].to_pylist()))
    tokens = table.num_rows * target
    counting, _ = cpu_seconds(count_uses, [path], work["chunk"])
    packing, _ = cpu_seconds(lambda: stored_bytes(pack_table(pq.read_table(path), 2, target), folder))
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
        synthesis = Synthesis(strategy=strategy, target_length_tokens=LONG_TOKENS)
        seconds[strategy] = cpu_seconds(partial(gather, documents, synthesis, **given))[0] / _GATHERED
    return seconds
