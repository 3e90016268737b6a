"""A recipe and what a sample says of its corpus in, what a run costs out: bytes, worker-hours and time of every stage.

Pure: `calibrate` reads the sample and measures the rates. A constant that is none of the recipe's says how it was
measured. Times are of one core that has nothing else to do; waiting for a network or a busy disk is in none of them.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd

from etl.draw import Strand, empty_strands
from etl.index import VECTORS_A_TASK
from etl.job import document_candidates, needs_embeddings
from etl.mine import CorpusMeans, meta_documents
from etl.pack import PART_TOKENS
from etl.recipe import Recipe
from etl.relate import DOCUMENTS_A_PART
from nextlong.config import Indexing
from nextlong.errors import UserError
from nextlong.indexing import bytes_per_vector, choose_factory, new_index, num_lists, num_training_vectors
from nextlong.mining import QUERIES_AT_ONCE
from nextlong.packing import documents_per_sequence
from nextlong.retrieval import ROWS_AT_ONCE
from nextlong.searching import EXACT_RERANK_RATIO

STAND_IN = "-"
"""In a recipe in place of a corpus or a tokenizer that is not there yet."""
PUBLISHED_CHUNKS = 644_275_250
PUBLISHED_GPU_HOURS = 928
PUBLISHED_CHUNKS_A_GPU_SECOND = 193
PUBLISHED_BYTES_A_CHUNK = 4096
PUBLISHED_SIZE = "2.4 TB"
"""LiteLong, App. E: 1,024 float32 numbers a chunk of 2,048 characters, which are 2.64 TB, 2.4 TiB."""
UNKNOWN_EMBEDDING = (
    "how fast workers embed is not known: no model was measured on a CPU. Give --model FOLDER to measure one, or "
    f"--gpus 1 or more to count GPUs (at {PUBLISHED_CHUNKS_A_GPU_SECOND} chunks/s, as published, if none was measured)."
)

_PAGE_TOKENS = 2**18  # zstd sees a Parquet page of 1 MiB at a time: what repeats within it is stored once
_BYTES_A_SEGMENT = 12  # measured: docstrings and textbooks, 12.0 to 12.6
_BYTES_A_PART = 2_000  # marker and manifest; measured: 900 to 2,100
_BYTES_A_LONG_PART = 6_000  # the same of stage interleave, with its table's footer
_BYTES_A_PACKED = 40  # a sequence that is one long document; measured: 30 to 60
_BYTES_A_LINK = 272  # of HNSW32 over the lists: 2 x 32 + 4 neighbours of 4 bytes
_TRIALS = {"Flat": 3, "SQ8": 3, "PQ": 12}  # searches while nprobe is doubled, for PQ at several rerank ratios
_TASK_SECONDS = 0.002  # of a worker, for Dask; measured: 1.7 to 2.5 ms, as many in the driver
_KMEANS_ROUNDS = 10  # FAISS, inverted lists
_PQ_TRAINING = 65_536  # FAISS: 256 vectors a centroid at most
_NPROBE, _PQ_RATIO = 32, 4.0  # reach target_recall 0.95 at 4 sqrt(n) lists: measured, docs/capacity.md
_WORKER_BYTES = 180 * 2**20  # a worker that has imported everything; measured: benchmarks/RESULTS.md
_TIMES_A_PART = 6  # a part's tables in memory against its text, measured: five to seven


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sample:
    """What some documents say about all of a corpus, under the recipe's tokenizer and granularity."""

    documents: pd.DataFrame
    """Columns of schemas.DOCUMENT_CHUNKS, one row a document of the sample, not cut."""
    chars_per_chunk: float
    tokens_per_chunk: float
    documents_bytes_per_char: float
    """Of the read stage's files."""
    chunks_bytes_per_char: float
    """Of the chunk stage's tables, token ids not included."""
    bytes_per_token: float
    """A compressed token id where nothing repeats."""
    bytes_per_candidate: float
    """A compressed id with its score, among as many chunks as the corpus has."""
    words_bytes_per_char: float = 0.0
    """Of a BM25 index, or of the keywords, where the recipe has them."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Corpus:
    """How large a corpus is, and a sample of it."""

    num_chars: float
    num_splits: int
    """Tasks that read it."""
    num_parts: int
    """Parts of documents, chunks and embeddings."""
    sample: Sample


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rates:
    """Seconds of one core a unit of work, measured on one machine."""

    machine: str
    measured_with: dict[str, str]
    """What the rates depend on: model, tokenizer, granularity, dimensions."""
    memory_bytes: int
    start: float
    """Importing the stages in a new worker."""
    load_tokenizer: float
    load_model: float
    part: float
    """Marker of a finished part."""
    written_byte: float
    """Writing and sha256."""
    cold_read: float
    """A row that is not in memory, in random order."""
    read_char: float
    """Both passes of stage read."""
    known_document: float
    """Finding copies, and the table of all documents, in the driver."""
    chunked_char: float
    embedded_chunk: float | None
    """None: no model, or one that a GPU ran."""
    embedded_chunk_on_gpu: float | None
    """Seconds of a GPU; None: there was none."""
    product: float
    """Of two numbers, in exact search for many queries at once, with one neighbour kept: training, finding lists."""
    product_of_few: float
    """The same for 256 queries at once, which some BLAS libraries multiply more slowly: recall."""
    searched_number: float
    """In exact search with 512 neighbours kept."""
    scanned_number: dict[str, float]
    """A number of a vector in an inverted list, by codec (Flat, SQ8, PQ)."""
    added_number: dict[str, float]
    """Encoding it, by codec."""
    pq_training_number: float
    """A number of a vector that a product quantizer is trained on."""
    graph_number: float
    """Finding the lists of a query by HNSW over 4,096 of them, a dimension."""
    candidate: float
    """Scoring it again, the rules, and writing it."""
    fetched_number: float
    """A number of a stored embedding that a batch of queries needs."""
    sketched_char: float
    words_char: float
    """BM25 index."""
    words_query: float
    words_query_text: float
    """A text of the index, for every query: its cost beyond `words_query`."""
    keyword_char: float
    compared_char: float
    """Looking for n-grams of evaluation texts."""
    generated_document: float
    """synthesis.query_model; 0: not set."""
    planned_segment: float
    filled_token: float
    used_segment: float
    """Counting reuse, in the driver."""
    gathered_document: dict[str, float]
    """By strategy: standard, knn and iclm (at 50 neighbours), quest."""
    averaged_number: float
    """Vectors of whole documents."""
    packed_token: float
    """Where several long documents make a sequence."""


class IndexSize(NamedTuple):
    """What is searched for neighbours."""

    factory: str
    """FAISS's, or bm25."""
    num_indexed: float
    num_lists: int
    """0: all vectors are compared."""
    nprobe: int
    rerank_ratio: float
    """How many times the candidates are proposed."""
    num_training: int
    bytes_each: int
    bytes_trained: float
    """Of an empty shard: the centroids of its lists and the graph over them."""
    num_shards: int

    @property
    def codec(self) -> str:
        """How vectors are stored in inverted lists."""
        return next((codec for codec in ("PQ", "SQ8") if f",{codec}" in self.factory), "Flat")

    @property
    def has_graph(self) -> bool:
        """Whether the lists of a query are found by HNSW."""
        return "_HNSW" in self.factory

    @property
    def num_bytes(self) -> float:
        """Of all shards."""
        return self.bytes_each * self.num_indexed + self.bytes_trained * self.num_shards


class LongDocuments(NamedTuple):
    """What the long documents of one target length take."""

    target_length_tokens: int
    number: float
    num_queries: float
    """Meta-chunks of all documents that are mined for them."""
    num_candidates: float
    """Of all these."""
    num_segments: float
    """Chunks whose tokens are looked up."""
    num_parts: int

    @property
    def num_tokens(self) -> float:
        """Of all of them."""
        return self.number * self.target_length_tokens


@dataclasses.dataclass(frozen=True, kw_only=True)
class Workload:
    """All amounts of a run."""

    recipe: Recipe
    corpus: Corpus
    dimensions: int
    """0: nothing is embedded."""
    index: IndexSize | None
    """None: nothing is looked up."""
    long_documents: list[LongDocuments]

    @property
    def num_documents(self) -> float:
        """Of the corpus."""
        return self.corpus.num_chars / max(1.0, float(self.corpus.sample.documents["num_chars"].mean()))

    @property
    def num_chunks(self) -> float:
        """Of the corpus."""
        return self.corpus.num_chars / self.corpus.sample.chars_per_chunk

    @property
    def num_tokens(self) -> float:
        """Of the corpus."""
        return self.num_chunks * self.corpus.sample.tokens_per_chunk

    @property
    def vector_bytes(self) -> int:
        """Of one stored embedding."""
        return self.dimensions * np.dtype(self.recipe.embedding.dtype).itemsize

    @property
    def num_queries(self) -> float:
        """Searches for neighbours: of meta-chunks, or of whole documents."""
        match self.recipe.synthesis.retrieves:
            case "documents":
                return self.num_documents
            case "chunks":
                return sum(each.num_queries for each in self.long_documents)
        return 0.0

    @property
    def num_candidates(self) -> float:
        """Neighbours that all searches give."""
        if self.recipe.synthesis.retrieves == "documents":
            return self.num_documents * min(document_candidates(self.recipe), self.num_documents)
        return sum(each.num_candidates for each in self.long_documents) if self.num_queries else 0.0

    @property
    def num_lookups(self) -> float:
        """Chunks whose tokens are read for the long documents."""
        return sum(each.num_segments for each in self.long_documents)


def workload(recipe: Recipe, corpus: Corpus, dimensions: int) -> Workload:
    """The amounts of a run; dimensions: of an embedding, 0 where nothing is embedded."""
    known = Workload(recipe=recipe, corpus=corpus, dimensions=dimensions, index=None, long_documents=[])
    weights = [1 if None in recipe.synthesis.wanted else each or 0 for each in recipe.synthesis.wanted]
    make = _extended if recipe.synthesis.strategy == "nextlong" else _gathered
    strands = zip(empty_strands(recipe.synthesis), weights, strict=True)
    return dataclasses.replace(
        known,
        index=_index_size(known),
        long_documents=[make(known, strand, weight / sum(weights)) for strand, weight in strands],
    )


def _index_size(known: Workload) -> IndexSize | None:
    units = known.recipe.synthesis.retrieves
    if units is None:
        return None
    number = known.num_chunks if units == "chunks" else known.num_documents
    if not needs_embeddings(known.recipe):
        return IndexSize("bm25", number, 0, 0, 1.0, 0, 0, 0.0, 1)
    settings = known.recipe.index
    factory = choose_factory(int(number), known.dimensions) if settings.factory == "auto" else settings.factory
    empty = new_index(factory, known.dimensions)
    lists, each = num_lists(empty), bytes_per_vector(empty)
    trained = lists * (4 * known.dimensions + (_BYTES_A_LINK if "_HNSW" in factory else 0))
    return IndexSize(
        factory,
        number,
        lists,
        min(lists, settings.nprobe or _NPROBE),
        settings.rerank_ratio or (_PQ_RATIO if each < known.dimensions else EXACT_RERANK_RATIO),
        num_training_vectors(empty, int(number), settings.training_chunks),
        each,
        trained,
        math.ceil(number * each / max(1, settings.max_shard_bytes - trained)),
    )


def _extended(known: Workload, strand: Strand, share: float) -> LongDocuments:
    """nextlong: what the sample's documents would become, times the documents that are drawn for this length."""
    recipe, sample = known.recipe, known.corpus.sample
    target, tokens_per_chunk = strand.target_length_tokens, sample.tokens_per_chunk
    eligible = sample.documents[sample.documents["num_chunks"] >= recipe.synthesis.min_meta_chunks]
    minable = strand.minable(eligible)
    means = CorpusMeans(sample.chars_per_chunk / tokens_per_chunk, tokens_per_chunk)
    wanted = [each.num_candidates for each in meta_documents(minable, means, strand, recipe.chunking, recipe.mining)]
    metas, tokens = (minable[name].to_numpy(np.float64) for name in ("num_chunks", "num_tokens"))
    candidates = metas * np.minimum(np.array(wanted, np.float64), np.maximum(known.num_chunks - metas, 0))
    is_repeated = recipe.synthesis.negatives == "self_repeat"
    reach = tokens + np.minimum(candidates, known.num_chunks) * tokens_per_chunk
    kept = (reach >= target) | is_repeated
    if not kept.any():
        return LongDocuments(target, 0.0, 0.0, 0.0, 0.0, 1)
    num_drawn = share * known.num_documents * len(eligible) / len(sample.documents)
    number = min(num_drawn * float(kept.sum()) / len(eligible), strand.num_samples or math.inf)
    num_mined = number / float(kept.mean())
    return LongDocuments(
        target,
        number,
        0.0 if is_repeated else num_mined * float(metas.mean()),
        0.0 if is_repeated else num_mined * float(candidates.mean()),
        number * float((metas + np.maximum(target - tokens, 0) / tokens_per_chunk)[kept].mean()),
        len(strand.ranges(math.ceil(num_mined * len(eligible) / len(minable)), int(num_drawn))),
    )


def _gathered(known: Workload, strand: Strand, share: float) -> LongDocuments:
    """Whole documents: a window ends in the middle of a document's length, on average of those met by their tokens."""
    synthesis, tokens = known.recipe.synthesis, known.corpus.sample.documents["num_tokens"].to_numpy(np.float64)
    target = strand.target_length_tokens
    overshoot = float((tokens**2).mean() / (2 * tokens.mean())) if tokens.any() else 0.0
    # quest repeats the documents of the rarer half of the keywords; measured on textbooks: 81 windows against 54.
    times = (1 + synthesis.keyword_oversampling) / 2 if synthesis.strategy == "quest" else 1.0
    number = min(share * times * known.num_tokens / (target + overshoot), strand.num_samples or math.inf)
    segments = number * target / known.corpus.sample.tokens_per_chunk
    return LongDocuments(
        target, number, 0.0, 0.0, segments, max(1, len(strand.ranges(math.ceil(number), math.ceil(number))))
    )


class Step(NamedTuple):
    """A pass of a stage; the next one begins when it is done."""

    name: str
    seconds: float
    """Of one worker (or GPU), all parts together."""
    num_parts: int = 1
    """Tasks of about equal size; 1: in the driver, or in one task."""
    on_gpu: bool = False
    every_worker: bool = False
    """Each worker does it for itself."""

    def shortest_seconds(self, workers: int, gpus: int) -> float:
        """On so many, a part never shared: 16 parts on 10 workers take as long as on 8."""
        if self.every_worker:
            return self.seconds
        return self.seconds * math.ceil(self.num_parts / max(1, gpus if self.on_gpu else workers)) / self.num_parts


class StageCost(NamedTuple):
    """What one stage costs."""

    name: str
    amount: float
    unit: str
    num_bytes: float
    memory_bytes: float
    """What a worker holds, mapped files not counted."""
    steps: list[Step]

    def seconds(self, *, on_gpu: bool) -> float:
        """Of workers, or of GPUs, in all."""
        return sum(step.seconds for step in self.steps if step.on_gpu == on_gpu)

    def shortest_seconds(self, workers: int, gpus: int) -> float:
        """Of all steps, one after the other."""
        return sum(step.shortest_seconds(workers, gpus) for step in self.steps)


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What a run costs."""

    workload: Workload
    rates: Rates
    stages: list[StageCost]
    """In their order."""

    @property
    def num_bytes(self) -> float:
        """Of the finished work folder."""
        return sum(stage.num_bytes for stage in self.stages)

    @property
    def driver_bytes(self) -> float:
        """The table of all documents in the driver, which is sorted into strands: three copies at its peak."""
        documents = self.workload.corpus.sample.documents
        return 3.0 * float(documents.memory_usage(deep=True).sum()) / len(documents) * self.workload.num_documents

    def seconds(self, *, on_gpu: bool) -> float:
        """Of workers, or of GPUs, in all."""
        return sum(stage.seconds(on_gpu=on_gpu) for stage in self.stages)

    def shortest_seconds(self, workers: int, gpus: int) -> float:
        """From the first stage to the last, each waiting for the one before."""
        return sum(stage.shortest_seconds(workers, gpus) for stage in self.stages)

    def stage(self, name: str) -> StageCost:
        """One of them."""
        return next(stage for stage in self.stages if stage.name == name)

    def largest(self, cost: Callable[[StageCost], float]) -> tuple[StageCost, float]:
        """The stage with the largest cost, and its share of all."""
        stage = max(self.stages, key=cost)
        return stage, cost(stage) / (sum(map(cost, self.stages)) or 1.0)


def measured_with(recipe: Recipe, dimensions: int) -> dict[str, str]:
    """What rates depend on beside the machine."""
    tokens = recipe.chunking.granularity_tokens
    return {
        "model": recipe.embedding.model or "none",
        "dimensions": str(dimensions),
        "tokenizer": recipe.tokenizer if recipe.tokenizer != STAND_IN else "a stand-in",
        "granularity": f"{tokens:,} tokens" if tokens else f"{recipe.chunking.granularity_chars:,} characters",
    }


def estimate(amounts: Workload, rates: Rates, *, on_gpu: bool) -> Estimate:
    """What a run of these amounts costs at these rates. on_gpu: embed on GPUs, at the published rate if none was met.

    Raises UserError when chunks are embedded on workers whose rate is not known.
    """
    stages = [
        _read(amounts, rates),
        _chunk(amounts, rates),
        _embed(amounts, rates, on_gpu),
        _index(amounts, rates),
        _mine(amounts, rates),
        _interleave(amounts, rates),
        _pack(amounts, rates),
    ]
    return Estimate(amounts, rates, stages)


def _read(amounts: Workload, rates: Rates) -> StageCost:
    corpus = amounts.corpus
    each = rates.read_char + (rates.compared_char if amounts.recipe.decontamination.path else 0.0)
    seconds = each * corpus.num_chars + 2 * (rates.part + _TASK_SECONDS) * corpus.num_splits
    steps = [
        Step("start", rates.start, every_worker=True),
        Step("read", seconds, corpus.num_splits),
        Step("find copies", rates.known_document * amounts.num_documents),
    ]
    size = corpus.num_chars * corpus.sample.documents_bytes_per_char + _BYTES_A_PART * corpus.num_splits
    return StageCost("read", corpus.num_chars, "characters", size, _part_memory(corpus), steps)


def _part_memory(corpus: Corpus) -> float:
    return _WORKER_BYTES + _TIMES_A_PART * corpus.num_chars / corpus.num_parts


def _chunk(amounts: Workload, rates: Rates) -> StageCost:
    corpus, lookups = amounts.corpus, 16 * amounts.num_chunks  # an offset and a hash, in a part's arrays and in all's
    steps = [
        Step("load the tokenizer", rates.load_tokenizer, every_worker=True),
        Step(
            "cut",
            rates.chunked_char * corpus.num_chars + 2 * (rates.part + _TASK_SECONDS) * corpus.num_parts,
            corpus.num_parts,
        ),
        Step("write lookups", rates.written_byte * lookups),
    ]
    size = corpus.num_chars * corpus.sample.chunks_bytes_per_char + 4 * amounts.num_tokens + 2 * lookups
    size += _BYTES_A_PART * corpus.num_parts
    return StageCost("chunk", amounts.num_chunks, "chunks", size, _part_memory(corpus), steps)


def _embed(amounts: Workload, rates: Rates, on_gpu: bool) -> StageCost:
    if not amounts.dimensions:
        return StageCost("embed", 0.0, "chunks", 0.0, 0.0, [])
    each, parts = rates.embedded_chunk, amounts.corpus.num_parts
    if on_gpu:
        each = rates.embedded_chunk_on_gpu or 1 / PUBLISHED_CHUNKS_A_GPU_SECOND
    if each is None:
        raise UserError(UNKNOWN_EMBEDDING)
    steps = [
        Step("load the model", rates.load_model, every_worker=True),
        Step("embed", each * amounts.num_chunks, parts, on_gpu=on_gpu),
    ]
    size = amounts.vector_bytes * amounts.num_chunks
    memory = _part_memory(amounts.corpus) + size / parts
    return StageCost("embed", amounts.num_chunks, "chunks", size + _BYTES_A_PART * parts, memory, steps)


def _index(amounts: Workload, rates: Rates) -> StageCost:
    index = amounts.index
    if index is None:
        return StageCost("index", 0.0, "vectors", 0.0, 0.0, [])
    if index.factory == "bm25":
        size = amounts.corpus.num_chars * amounts.corpus.sample.words_bytes_per_char
        words = Step("index words", rates.words_char * amounts.corpus.num_chars)
        # 45 bytes a different word of a text while it is built (nextlong.bm25) against the 16 that are stored.
        return StageCost("index", index.num_indexed, "texts", size, _WORKER_BYTES + 3 * size, [words])
    size, dimensions, parts = index.num_bytes, amounts.dimensions, amounts.corpus.num_parts
    # While a shard grows, twice its bytes may be held, and a part of float32 vectors.
    building = 2 * size / index.num_shards + 4 * dimensions * index.num_indexed / parts
    memory = _WORKER_BYTES + max(building, 8.0 * index.num_training * dimensions)
    steps = list(_index_steps(amounts, index, rates))
    if amounts.recipe.synthesis.retrieves == "documents":
        steps.insert(0, Step("average vectors", rates.averaged_number * amounts.num_chunks * dimensions, parts))
        size += 4 * dimensions * index.num_indexed
    return StageCost("index", index.num_indexed, "vectors", size + _BYTES_A_PART, memory, steps)


def _index_steps(amounts: Workload, index: IndexSize, rates: Rates) -> Iterator[Step]:
    dimensions, queries = amounts.dimensions, amounts.recipe.index.recall_queries
    numbers = index.num_indexed * dimensions
    adding = numbers * rates.added_number[index.codec] + index.num_indexed * _find_lists(amounts, index, rates)
    writing = rates.written_byte * index.num_bytes
    if index.num_lists:
        centroids = index.num_training * index.num_lists * dimensions * _KMEANS_ROUNDS * rates.product
        codes = min(index.num_training, _PQ_TRAINING) * dimensions * rates.pq_training_number
        yield Step("train", centroids + (codes if index.codec == "PQ" else 0.0))
    if index.num_lists and index.num_indexed / index.num_shards > VECTORS_A_TASK:
        yield Step("add", adding + writing, amounts.corpus.num_parts)
        yield Step("join", 2 * writing, index.num_shards)  # reads and writes
    else:
        yield Step("add", adding + writing, index.num_shards)
    if index.num_lists:
        trials = 1 if amounts.recipe.index.nprobe else _TRIALS[index.codec]
        yield Step(
            "measure recall", queries * (numbers * rates.product_of_few + trials * _search(amounts, index, rates))
        )


def _find_lists(amounts: Workload, index: IndexSize, rates: Rates) -> float:
    """Seconds in which a vector finds its nearest lists in one shard; of a graph they grow with the logarithm."""
    if index.has_graph:
        return rates.graph_number * amounts.dimensions * math.log(index.num_lists, 4096)
    return rates.product * amounts.dimensions * index.num_lists


def _search(amounts: Workload, index: IndexSize, rates: Rates) -> float:
    """Seconds a query. What has no lists is taken for exact search."""
    if index.factory == "bm25":
        return rates.words_query + rates.words_query_text * index.num_indexed
    numbers = index.num_indexed * amounts.dimensions
    if not index.num_lists:
        return numbers * rates.searched_number
    visited = numbers * index.nprobe / index.num_lists
    return index.num_shards * _find_lists(amounts, index, rates) + visited * rates.scanned_number[index.codec]


def _mine(amounts: Workload, rates: Rates) -> StageCost:
    recipe, corpus, index = amounts.recipe, amounts.corpus, amounts.index
    if recipe.synthesis.strategy == "quest":
        seconds = rates.keyword_char * corpus.num_chars + rates.generated_document * amounts.num_documents
        size = corpus.num_chars * corpus.sample.words_bytes_per_char
        step = Step("keywords", seconds, corpus.num_parts)
        return StageCost("mine", amounts.num_documents, "documents", size, _part_memory(corpus), [step])
    if index is None:
        return StageCost("mine", 0.0, "searches", 0.0, 0.0, [])
    parts = math.ceil(amounts.num_documents / DOCUMENTS_A_PART)
    if recipe.synthesis.strategy == "nextlong":
        parts = sum(each.num_parts for each in amounts.long_documents)
    steps = list(_mine_steps(amounts, index, rates, parts))
    size = amounts.num_candidates * corpus.sample.bytes_per_candidate + _BYTES_A_PART * parts
    if recipe.mining.near_duplicate_overlap is not None and recipe.synthesis.strategy == "nextlong":
        steps.insert(0, Step("sketch", rates.sketched_char * corpus.num_chars, corpus.num_parts))
        size += 256 * amounts.num_chunks  # 64 hashes of 4 bytes
    memory = _WORKER_BYTES + 8.0 * min(ROWS_AT_ONCE, index.num_indexed) * amounts.dimensions
    return StageCost("mine", amounts.num_queries, "searches", size, memory, steps)


def _mine_steps(amounts: Workload, index: IndexSize, rates: Rates, parts: int) -> Iterator[Step]:
    """Searching and judging; of an index too large to map every shard is searched in tasks of its own, beforehand."""
    recipe, queries = amounts.recipe, amounts.num_queries
    searching = queries * (_search(amounts, index, rates) if recipe.synthesis.negatives != "random" else 0.0)
    judging = queries * _judge(amounts, index, rates) + parts * (rates.part + _TASK_SECONDS)
    if searching and _is_searched_by_shard(recipe.index, index):
        yield Step("search shards", searching, parts * index.num_shards)
        yield Step("judge", judging, parts)
    else:
        yield Step("search", searching + judging, parts)


def _is_searched_by_shard(settings: Indexing, index: IndexSize) -> bool:
    is_large = settings.search == "auto" and index.num_bytes > settings.max_mapped_bytes
    return index.factory != "bm25" and (is_large or settings.search == "sharded")


def _judge(amounts: Workload, index: IndexSize, rates: Rates) -> float:
    """Seconds in which the proposals for one query are scored again from the stored embeddings, and judged."""
    candidates = amounts.num_candidates / max(1.0, amounts.num_queries)
    if index.factory == "bm25":
        return rates.candidate * candidates
    proposals = candidates * index.rerank_ratio
    at_once = max(1.0, min(QUERIES_AT_ONCE, ROWS_AT_ONCE / max(1.0, proposals)))
    # Of so many drawn at random, the different ones: each is fetched once.
    fetched = index.num_indexed * -math.expm1(-at_once * proposals / index.num_indexed) / at_once
    cold = fetched * _cold_share(amounts.vector_bytes * amounts.num_chunks, rates) * rates.cold_read
    return proposals * rates.candidate + fetched * amounts.dimensions * rates.fetched_number + cold


def _cold_share(num_bytes: float, rates: Rates) -> float:
    """The share of randomly read rows that a machine's memory cannot hold."""
    return max(0.0, 1 - rates.memory_bytes / num_bytes) if num_bytes else 0.0


def _interleave(amounts: Workload, rates: Rates) -> StageCost:
    synthesis, long_documents = amounts.recipe.synthesis, amounts.long_documents
    tokens, lookups = sum(each.num_tokens for each in long_documents), amounts.num_lookups
    parts = sum(each.num_parts for each in long_documents)
    cold = _cold_share(4 * amounts.num_tokens, rates) * rates.cold_read
    filling = tokens * rates.filled_token + lookups * cold + parts * (rates.part + _TASK_SECONDS)
    known = amounts.num_documents * rates.known_document
    if synthesis.strategy == "nextlong":
        is_ordered = synthesis.max_uses_per_chunk is not None  # each part knows what those before it used
        plan = Step(
            "plan", lookups * rates.planned_segment + parts * (rates.part + _TASK_SECONDS), 1 if is_ordered else parts
        )
    else:
        plan = Step("gather", amounts.num_documents * rates.gathered_document[synthesis.strategy])
    steps = [
        Step("order documents", known),
        plan,
        Step("fill", filling, parts),
        Step("count reuse", lookups * rates.used_segment),
    ]
    size = sum(_stored_tokens(amounts, each) for each in long_documents)
    size += lookups * _BYTES_A_SEGMENT + parts * _BYTES_A_LONG_PART
    number = sum(each.number for each in long_documents)
    memory = _WORKER_BYTES + 3 * 4 * tokens / parts  # the ids, their table, and the column as it is written
    return StageCost("interleave", number, "long documents", size, memory, steps)


def _stored_tokens(amounts: Workload, each: LongDocuments) -> float:
    """Bytes of all token ids of long documents: what a page of their file repeats is stored once.

    Whole documents enter one window (quest: few). A corpus of n tokens has been seen by d long documents of t tokens,
    in none of which a chunk stands twice, to a part of 1 - (1 - t / n)^d.
    """
    synthesis, sample, target = amounts.recipe.synthesis, amounts.corpus.sample, each.target_length_tokens
    different = 1.0
    if synthesis.negatives == "self_repeat":
        different = min(1.0, float(sample.documents["num_tokens"].mean()) / target)
    elif synthesis.strategy == "nextlong" and each.number:
        seen = min(1.0, target / amounts.num_tokens)
        in_page = min(_PAGE_TOKENS, each.num_tokens / each.num_parts)
        different = amounts.num_tokens * (1 - (1 - seen) ** (in_page / target)) / in_page
    return each.num_tokens * sample.bytes_per_token * different


def _pack(amounts: Workload, rates: Rates) -> StageCost:
    seconds, size, number, parts = 0.0, 0.0, 0.0, 0
    for each in amounts.long_documents:
        members = documents_per_sequence(amounts.recipe.packing.sequence_length_tokens, each.target_length_tokens)
        number += each.number / members
        parts += max(1, math.ceil(each.num_tokens / PART_TOKENS))
        size += _stored_tokens(amounts, each) if members > 1 else each.number * _BYTES_A_PACKED
        seconds += each.num_tokens * rates.packed_token if members > 1 else 0.0
    step = Step("pack", seconds + (rates.part + _TASK_SECONDS) * parts, parts)
    return StageCost("pack", number, "sequences", size + _BYTES_A_PART, _WORKER_BYTES, [step])


def page(found: Estimate, *, workers: int, gpus: int, source: str) -> str:
    """The estimate for people. source: where the rates are from."""
    workers, gpus = max(1, workers), max(1, gpus)
    lines = [*_amounts(found.workload), "", *_table(found, workers, gpus), "", *_extremes(found, workers, gpus)]
    notes = [f"{'note':<12}{note}" for note in _notes(found)]
    rates = f"{'rates':<12}{source}: {found.rates.machine}"
    return "\n".join([*lines, *_published(found), rates, *notes, "Nothing was written."])


def _amounts(amounts: Workload) -> Iterator[str]:
    corpus, long_documents = amounts.corpus, amounts.long_documents
    size = measured_with(amounts.recipe, amounts.dimensions)["granularity"]
    parts = f"{corpus.num_parts:,} part{'s' if corpus.num_parts > 1 else ''}"
    yield f"{'input':<12}{_count(corpus.num_chars)} characters, {_count(amounts.num_documents)} documents, {parts}"
    yield f"{'chunks':<12}{_count(amounts.num_chunks)} of at most {size}, {_count(amounts.num_tokens)} tokens"
    if amounts.dimensions:
        numbers = f"{amounts.dimensions:,} numbers of {amounts.recipe.embedding.dtype}"
        yield f"{'embeddings':<12}{numbers}, {amounts.vector_bytes:,} bytes a chunk"
    yield f"{'index':<12}{_index_words(amounts)}"
    each = amounts.num_candidates / max(1.0, amounts.num_queries)
    searches = f"{_count(amounts.num_queries)} searches for {each:,.0f} candidates each" if each else "no searches"
    yield f"{'lookups':<12}{searches}; {_count(amounts.num_lookups)} chunks read for the long documents"
    made = ", ".join(f"{_count(each.number)} of {each.target_length_tokens:,} tokens" for each in long_documents)
    yield f"{'output':<12}long documents: {made}"


def _index_words(amounts: Workload) -> str:
    index = amounts.index
    if index is None:
        return "none"
    if index.factory == "bm25":
        return f"bm25 of {_count(index.num_indexed)} texts"
    lists = f", {index.nprobe:,} of {index.num_lists:,} lists visited a search" if index.num_lists else ""
    size = _size(index.num_bytes)
    return f"{index.factory}{lists}; {size} in {index.num_shards:,} shard{'s' if index.num_shards > 1 else ''}"


def _table(found: Estimate, workers: int, gpus: int) -> Iterator[str]:
    on_gpu = found.seconds(on_gpu=True) > 0
    where = f"{workers:,} worker{'s' if workers > 1 else ''}" + (
        f", {gpus:,} GPU{'s' if gpus > 1 else ''}" if on_gpu else ""
    )
    yield f"{'stage':<12}{'work':<28}{'disk':>9}{'worker-hours':>14}{'GPU-hours':>11}{'tasks':>9}  time on {where}"
    for stage in found.stages:
        tasks = max((step.num_parts for step in stage.steps if not step.every_worker), default=0)
        work = f"{_count(stage.amount)} {stage.unit}" if stage.steps else "nothing to do"
        hours = [_hours(stage.seconds(on_gpu=is_gpu)) for is_gpu in (False, True)]
        time = _time(stage.shortest_seconds(workers, gpus))
        yield f"{stage.name:<12}{work:<28}{_size(stage.num_bytes):>9}{hours[0]:>14}{hours[1]:>11}{tasks:>9,}  {time}"
    hours = [_hours(found.seconds(on_gpu=is_gpu)) for is_gpu in (False, True)]
    time = _time(found.shortest_seconds(workers, gpus))
    yield f"{'all':<40}{_size(found.num_bytes):>9}{hours[0]:>14}{hours[1]:>11}{'':>9}  {time}"


def _extremes(found: Estimate, workers: int, gpus: int) -> Iterator[str]:
    slowest, of_time = found.largest(lambda stage: stage.shortest_seconds(workers, gpus))
    step = max(slowest.steps, key=lambda step: step.shortest_seconds(workers, gpus))
    widest, of_disk = found.largest(lambda stage: stage.num_bytes)
    fullest, _ = found.largest(lambda stage: stage.memory_bytes)
    on_one = ", on one worker alone" if step.num_parts == 1 and workers > 1 and not step.every_worker else ""
    costs = (
        f"{slowest.name} ({step.name}{on_one}) takes {of_time:.0%} of the time, {widest.name} {of_disk:.0%} of the disk"
    )
    yield f"{'largest':<12}{costs}"
    memory = f"a worker up to {_size(fullest.memory_bytes)} ({fullest.name}), the driver {_size(found.driver_bytes)}"
    yield f"{'memory':<12}{memory}{_mapped(found)}"


def _mapped(found: Estimate) -> str:
    index, settings = found.workload.index, found.workload.recipe.index
    if index is None:
        return ""
    if _is_searched_by_shard(settings, index):
        return f"; mapped by the workers of a host: one index shard of {_size(index.num_bytes / index.num_shards)}"
    return f"; mapped by the workers of a host: the index, {_size(found.stage('index').num_bytes)}"


def _published(found: Estimate) -> Iterator[str]:
    """The published cost of embedding (LiteLong, App. E), and what it would be for as many chunks as there are here."""
    amounts = found.workload
    if not amounts.dimensions:
        return
    whole = f"{PUBLISHED_GPU_HOURS} GPU-hours ({PUBLISHED_CHUNKS_A_GPU_SECOND} chunks/s a GPU) and {PUBLISHED_SIZE}"
    yield f"{'published':<12}{PUBLISHED_CHUNKS:,} chunks of 1,024 float32 numbers: {whole} (LiteLong, App. E)"
    seconds = amounts.num_chunks / PUBLISHED_CHUNKS_A_GPU_SECOND
    theirs = f"{_hours(seconds)} GPU-hours, {_size(PUBLISHED_BYTES_A_CHUNK * amounts.num_chunks)}"
    embed = found.stage("embed")
    hours = f"{_hours(embed.seconds(on_gpu=True))} GPU-hours" if embed.seconds(on_gpu=True) else ""
    hours = hours or f"{_hours(embed.seconds(on_gpu=False))} worker-hours"
    yield f"{'':<12}for {_count(amounts.num_chunks)} chunks: {theirs}; this plan: {hours}, {_size(embed.num_bytes)}"


def _notes(found: Estimate) -> Iterator[str]:
    """What a reader should know before trusting the page."""
    amounts, recipe, index = found.workload, found.workload.recipe, found.workload.index
    if recipe.input.path == STAND_IN:
        yield "no corpus was given: docstrings of installed packages stand in for its text"
    if found.seconds(on_gpu=True) and found.rates.embedded_chunk_on_gpu is None:
        yield f"no GPU was measured: embedding at the published {PUBLISHED_CHUNKS_A_GPU_SECOND} chunks/s a GPU"
    for name, value in measured_with(recipe, amounts.dimensions).items():
        if found.rates.measured_with.get(name) != value:
            yield f"the rates were measured with {name} {found.rates.measured_with.get(name)}, this plan has {value}"
    if index is not None and index.num_lists and not recipe.index.nprobe:
        yield f"{index.nprobe} lists a search: enough for a recall of 0.95 among 64,000 chunks; a run measures its own"
    for each, wanted in zip(amounts.long_documents, recipe.synthesis.wanted, strict=True):
        if not each.number:
            yield f"of the sample no long document of {each.target_length_tokens:,} tokens can be made"
        elif each.number < (wanted or 0):
            many = f"{_count(each.number)} of the {wanted:,} long documents of {each.target_length_tokens:,} tokens"
            yield f"the corpus gives about {many} that are wanted"


def _count(number: float) -> str:
    """Four digits: 123,456 or 12.35 M."""
    for size, name in ((1e12, " T"), (1e9, " G"), (1e6, " M")):
        if number >= size:
            return f"{number / size:.4g}{name}"
    return f"{number:,.0f}"


def _size(num_bytes: float) -> str:
    for size, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if num_bytes >= size:
            return f"{num_bytes / size:,.2f} {name}"
    return f"{num_bytes:,.0f} B" if num_bytes else "-"


def _hours(seconds: float) -> str:
    hours = seconds / 3600
    return "-" if not seconds else f"{hours:,.0f}" if hours >= 100 else f"{hours:.3g}"


def _time(seconds: float) -> str:
    for size, name in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:,.1f} {name}"
    return f"{seconds:,.1f} seconds"
