"""Amounts and rates in, what a run costs out: bytes, worker-hours, GPU-hours and memory of every stage.

A constant that is none of the recipe's says how it was measured. Times are of one core that has nothing else to do;
waiting for a network or a busy disk is in none of them.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

from etl.capacity.amounts import Corpus, IndexSize, LongDocuments, Workload
from etl.capacity.rates import Rates
from etl.index import VECTORS_A_TASK
from etl.pack import PART_TOKENS
from etl.relate import DOCUMENTS_A_PART
from nextlong.config import Indexing
from nextlong.errors import UserError
from nextlong.mining import QUERIES_AT_ONCE
from nextlong.packing import documents_per_sequence
from nextlong.retrieval import ROWS_AT_ONCE

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
_TRIALS = {"Flat": 3, "SQ8": 3, "PQ": 12}  # searches while nprobe is doubled, for PQ at several rerank ratios
_TASK_SECONDS = 0.002  # of a worker, for Dask; measured: 1.7 to 2.5 ms, as many in the driver
_KMEANS_ROUNDS = 10  # FAISS, inverted lists
_PQ_TRAINING = 65_536  # FAISS: 256 vectors a centroid at most
_WORKER_BYTES = 180 * 2**20  # a worker that has imported everything; measured: benchmarks/RESULTS.md
_DRIVER_BYTES_A_DOCUMENT = 130  # measured, 2 M documents: 129 finding copies, 66 drawing documents
_TIMES_A_PART = 6  # a part's tables in memory against its text, measured: five to seven


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
        """Of the driver, while it finds copies."""
        return _DRIVER_BYTES_A_DOCUMENT * self.workload.num_documents

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
    memory = _WORKER_BYTES + min(ROWS_AT_ONCE, index.num_indexed) * amounts.vector_bytes
    return StageCost("mine", amounts.num_queries, "searches", size, memory, steps)


def _mine_steps(amounts: Workload, index: IndexSize, rates: Rates, parts: int) -> Iterator[Step]:
    """Searching and judging; of an index too large to map every shard is searched in tasks of its own, beforehand."""
    recipe, queries = amounts.recipe, amounts.num_queries
    searching = queries * (_search(amounts, index, rates) if recipe.synthesis.negatives != "random" else 0.0)
    judging = queries * _judge(amounts, index, rates) + parts * (rates.part + _TASK_SECONDS)
    if searching and is_searched_by_shard(recipe.index, index):
        yield Step("search shards", searching, parts * index.num_shards)
        yield Step("judge", judging, parts)
    else:
        yield Step("search", searching + judging, parts)


def is_searched_by_shard(settings: Indexing, index: IndexSize) -> bool:
    """Whether every shard of the index is searched by tasks of its own."""
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
