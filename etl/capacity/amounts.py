"""A recipe and what a sample says of its corpus in, all amounts of a run out: chunks, searches, long documents."""

import dataclasses
import math
from typing import NamedTuple

import numpy as np
import pandas as pd

from etl.draw import Strand, empty_strands
from etl.job import least_candidates, needs_embeddings, recall_top_k
from etl.mine import CorpusMeans, meta_documents
from etl.recipe import Recipe
from nextlong.indexing import bytes_per_vector, choose_factory, new_index, num_lists, num_training_vectors
from nextlong.searching import EXACT_RERANK_RATIO

STAND_IN = "-"
"""In a recipe in place of a corpus or a tokenizer that is not there yet."""
_BYTES_A_LINK = 272  # of HNSW32 over the lists: 2 x 32 + 4 neighbours of 4 bytes
_PQ_RATIO = 4.0  # reaches target_recall 0.95 at 4 sqrt(n) lists: measured, docs/capacity.md


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
            return self.num_documents * min(least_candidates(self.recipe), self.num_documents)
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
        min(lists, settings.nprobe or _lists_visited(known.recipe)),
        settings.rerank_ratio or (_PQ_RATIO if each < known.dimensions else EXACT_RERANK_RATIO),
        num_training_vectors(empty, int(number), settings.training_chunks),
        each,
        trained,
        math.ceil(number * each / max(1, settings.max_shard_bytes - trained)),
    )


def _lists_visited(recipe: Recipe) -> int:
    """What reaches target_recall 0.95 at 4 sqrt(n) lists: 32 for 32 neighbours, 128 for 512 (docs/capacity.md)."""
    return max(32, 1 << round(math.log2(32 * recall_top_k(recipe)) / 2))


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


def measured_with(recipe: Recipe, dimensions: int) -> dict[str, str]:
    """What rates depend on beside the machine."""
    tokens = recipe.chunking.granularity_tokens
    return {
        "model": recipe.embedding.model or "none",
        "dimensions": str(dimensions),
        "tokenizer": recipe.tokenizer if recipe.tokenizer != STAND_IN else "a stand-in",
        "granularity": f"{tokens:,} tokens" if tokens else f"{recipe.chunking.granularity_chars:,} characters",
    }
