"""The method's settings: frozen dataclasses, checked once at construction; every default is stated here only."""

import dataclasses
import math
import re
from typing import Literal, get_args

from nextlong.errors import UserError

AUTO_CANDIDATES = 512
"""Candidates a meta-chunk, of which the paper keeps the negatives (Sec. 5.4)."""


def require(holds: bool, name: str, value: object, bound: str) -> None:
    """Raise UserError naming the setting, its value and its bound unless `holds`."""
    if not holds:
        raise UserError(f"{name} is {value!r}, but it must be {bound}. Change it in the recipe or on the command line.")


def check_numbers(settings: object, section: str) -> None:
    """Raise UserError for a number of a settings dataclass that no machine can count to, or that is none."""
    for field in dataclasses.fields(settings):  # type: ignore[arg-type]
        value = getattr(settings, field.name)
        wide = field.name == "seed" or field.name.endswith("_bytes")
        most = 2**63 - 1 if wide else 2**31 - 1
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, int):
                require(abs(number) <= most, f"{section}.{field.name}", number, f"at most {most:,}")
            elif isinstance(number, float):
                require(math.isfinite(number), f"{section}.{field.name}", number, "a finite number")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chunking:
    """How a document becomes chunks (Sec. 3.1.1)."""

    granularity_chars: int = 2048
    """Greatest size of a chunk in characters (Sec. 5.3, Fig. 6: 2,048 is best overall)."""
    granularity_tokens: int | None = None
    """Greatest size of a chunk in tokens of the recipe's tokenizer; None: measure in characters."""
    long_paragraphs: Literal["split", "keep"] = "split"
    """split: cut a paragraph above the granularity, lose nothing; keep: the published chunker, chunk for chunk."""

    def __post_init__(self) -> None:
        check_numbers(self, "chunking")
        require(self.granularity_chars >= 1, "chunking.granularity_chars", self.granularity_chars, "at least 1")
        tokens = self.granularity_tokens
        require(tokens is None or tokens >= 8, "chunking.granularity_tokens", tokens, "at least 8, or null")
        if tokens is not None and self.long_paragraphs == "keep":
            raise UserError(
                "chunking.long_paragraphs is 'keep', which counts characters as the published chunker does, but "
                "chunking.granularity_tokens is set. Use 'split', or set granularity_tokens to null."
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Embedding:
    """How a chunk becomes a vector (Sec. 3.1.2, Eq. 2)."""

    model: str | None = None
    """A folder with model.onnx (or onnx/model.onnx), tokenizer.json and config.json, or a hub id. None: only where
    nothing is embedded (mining.retrieval: bm25, or a strategy that retrieves nothing)."""
    file: str | None = None
    """ONNX file inside the folder, e.g. onnx/model_fp16.onnx; None: model.onnx, then onnx/model.onnx."""
    precision: Literal["int8"] | None = None
    """int8: a version with 8-bit matrices, made once in the user's cache by the package onnx, for the CPU: faster, and
    not quite the same neighbours (benchmarks/RESULTS.md). None: as the file is."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: CUDA when a device and its libraries really load, else the CPU."""
    max_tokens: int | None = None
    """Longest input in the model's own tokens; what exceeds it is cut and counted. None: the model's limit."""
    dimensions: int | None = None
    """Matryoshka: keep this many leading numbers and normalise again. None: all."""
    dtype: Literal["float16", "float32"] = "float16"
    """Type of the stored vectors; float16 halves the 2.4 TB published for float32."""
    pooling: Literal["mean", "cls"] | None = None
    """Pooling of a token-level output; None: as the model's 1_Pooling/config.json says, else mean."""
    prefix: str = ""
    """Put before every chunk, for models trained with one (e.g. "passage: ")."""
    task_id: int | None = None
    """Value of the model's task_id input (jina-embeddings-v3: 1 retrieval.passage, 4 text-matching)."""
    batch_tokens: int = 4096
    """Padded tokens a model call; bounds the memory of activations."""

    def __post_init__(self) -> None:
        check_numbers(self, "embedding")
        require(self.model != "", "embedding.model", self.model, "a model folder or hub id")
        for name in ("max_tokens", "dimensions"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"embedding.{name}", value, "at least 1, or null")
        require(self.batch_tokens >= 1, "embedding.batch_tokens", self.batch_tokens, "at least 1")
        if self.precision == "int8" and self.device == "cuda":
            raise UserError(
                "embedding.precision is 'int8', which is for the CPU, but embedding.device is 'cuda'. Set precision to "
                "null (embedding.file can name a float16 file), or use 'cpu'."
            )
        require(self.task_id is None or self.task_id >= 0, "embedding.task_id", self.task_id, "at least 0, or null")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Indexing:
    """How vectors become a FAISS index (Sec. 3.1.2, Eq. 3)."""

    factory: str = "auto"
    """A FAISS factory string; auto: by the number of chunks (Flat; IVF,Flat; IVF,SQ8; IVF,PQ)."""
    training_chunks: int = 262_144
    """Most vectors the index is trained on, drawn evenly over the corpus."""
    nprobe: int | None = None
    """Inverted lists visited a query; None: the smallest power of two that reaches target_recall on a sample."""
    rerank_ratio: float | None = None
    """How many times the wanted neighbours FAISS proposes; all are scored again from the stored embeddings. None: 1.05,
    or for codes below 8 bits a dimension (PQ) the smallest of 2, 4, 8, 16 that reaches target_recall on a sample."""
    target_recall: float = 0.95
    """Recall, after scoring again, that nprobe and rerank_ratio are chosen for."""
    recall_queries: int = 256
    """Chunks whose exact neighbours are computed to measure the recall of an index that is not Flat."""
    recall_top_k: int | Literal["auto"] = "auto"
    """Neighbours a query in that measurement; fewer need fewer lists. auto: as many as mining.num_candidates says."""
    max_shard_bytes: int = 8 * 2**30
    """Greatest size of one index file; a larger index is written as several, each self-contained, of whole parts. A
    worker holds up to twice as much while it builds one."""
    search: Literal["auto", "mapped", "sharded"] = "auto"
    """mapped: every worker maps all index files, one copy a host. sharded: a task searches one file for the queries of
    one part; the proposals, 12 bytes each, lie on disk until the stage is finished. auto: sharded above
    max_mapped_bytes. The results are the same."""
    max_mapped_bytes: int = 64 * 2**30
    """Size of all index files together up to which search=auto maps them; a host should have it as free memory."""

    def __post_init__(self) -> None:
        check_numbers(self, "index")
        require(bool(self.factory), "index.factory", self.factory, "a FAISS factory string, or auto")
        for name in ("training_chunks", "recall_queries", "max_shard_bytes", "max_mapped_bytes"):
            require(getattr(self, name) >= 1, f"index.{name}", getattr(self, name), "at least 1")
        top_k = self.recall_top_k
        require(top_k == "auto" or top_k >= 1, "index.recall_top_k", top_k, "at least 1, or auto")
        self._check_lists()
        ratio = self.rerank_ratio
        require(ratio is None or ratio >= 1, "index.rerank_ratio", ratio, "at least 1, or null")
        modes = ("auto", "mapped", "sharded")
        require(self.search in modes, "index.search", self.search, f"one of {', '.join(modes)}")
        require(self.nprobe is None or self.nprobe >= 1, "index.nprobe", self.nprobe, "at least 1, or null")
        require(0 < self.target_recall <= 1, "index.target_recall", self.target_recall, "above 0 and at most 1")

    def _check_lists(self) -> None:
        lists = re.search(r"IVF(\d+)", self.factory)
        if lists and int(lists[1]) > self.training_chunks:
            raise UserError(
                f"index.factory asks for {int(lists[1]):,} inverted lists, but index.training_chunks is "
                f"{self.training_chunks:,}, and each needs a training vector. Use fewer lists, or more training_chunks."
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mining:
    """How neighbours are found, and which of them may become hard negatives (Sec. 5.4, App. D.1)."""

    retrieval: Literal["embeddings", "bm25"] = "embeddings"
    """embeddings: FAISS over the model's vectors; bm25: words alone, no model (LiteLong's BM25-NExtLong)."""
    num_candidates: int | Literal["auto"] = "auto"
    """Candidates of other documents a meta-chunk (knn, iclm: a document). auto: max(512, 2 k), 512 as in Sec. 5.4; for
    iclm 50, as in-context-pretraining is configured."""
    near_duplicate_similarity: float | None = 0.95
    """A candidate at or above this cosine similarity is a false negative and dropped; None: keep them, as the paper
    does. BM25 scores are no such similarity: with retrieval=bm25 use near_duplicate_overlap."""
    near_duplicate_overlap: float | None = None
    """A candidate that shares this part of its word 5-grams (Jaccard, by MinHash) is dropped likewise; None: keep."""

    def __post_init__(self) -> None:
        check_numbers(self, "mining")
        number = self.num_candidates
        require(number == "auto" or number >= 1, "mining.num_candidates", number, "at least 1, or auto")
        for name in ("near_duplicate_similarity", "near_duplicate_overlap"):
            value = getattr(self, name)
            require(value is None or 0 < value <= 1, f"mining.{name}", value, "above 0 and at most 1, or null")


Strategy = Literal["nextlong", "standard", "knn", "iclm", "quest"]
Negatives = Literal["top", "random", "random_candidates", "tail", "self_repeat"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Synthesis:
    """How documents become long documents (Sec. 3.1, Algorithm 1, App. D.1; the methods compared with: Table 1)."""

    strategy: Strategy = "nextlong"
    """nextlong; or whole documents one after the other: standard (random order), knn (a document and its nearest), iclm
    (along a path through the neighbour graph), quest (those that share a keyword)."""
    target_length_tokens: int | list[int]
    """Length of every long document, in tokens of the recipe's tokenizer. A list: several lengths in one run, each
    meta-document (or document) used for one of them."""
    num_samples: int | list[int] | None = None
    """Long documents wanted, with several lengths of each; None: as many as the corpus gives, every document once."""
    seed: int = 0
    """Seed of every draw."""
    negatives: Negatives = "top"
    """Which candidates of a meta-chunk are inserted: the most similar (top), the least similar of them (tail), in
    random order (random_candidates), random chunks of the corpus (random), or the meta-chunk again (self_repeat)."""
    skip_top: int = 0
    """Candidates left out at the top of every list; later work finds the first ranks often relevant (Doc-REFRAG: 3)."""
    max_uses_per_chunk: int | None = None
    """In how many long documents one chunk may serve as a negative; None: no cap. Planned in drawn order, one part
    after the other."""
    budget: Literal["exact", "paper"] = "exact"
    """exact: known token counts, every meta-chunk kept; paper: k of App. D.1, then truncated to the target."""
    overshoot_ratio: float = 1.5
    """w of App. D.1, used by budget=paper."""
    max_meta_ratio: float = 0.5
    """budget=exact: a meta-document above this share of the target is dropped as meta_too_long."""
    position: Literal["head", "tail", "random"] = "head"
    """Where the meta-chunk stands among its negatives (App. B.1, Table 5: head is best)."""
    min_meta_chunks: int = 2
    """Fewest chunks of a meta-document; with one chunk nothing is separated."""
    docs_per_part: int | None = None
    """Meta-documents a part of mining and interleaving; None: a sixteenth of the samples, at most 16 M tokens."""
    query_model: str | None = None
    """quest: folder of a local doc2query model (a transformers sequence-to-sequence model) whose generated queries give
    the keywords; None: the document's own text gives them."""
    keyword_min_score: float = 3.0
    """quest: lowest RAKE score of a keyword."""
    keyword_stop_phrases: str | None = None
    """quest: file of phrases that are no keyword, one a line, # begins a comment; None: ours."""
    keyword_oversampling: int = 2
    """quest: how often the documents of rare keys enter (rare: the half of the keys with the fewest documents)."""

    def __post_init__(self) -> None:
        check_numbers(self, "synthesis")
        self._check_lengths()
        require(self.min_meta_chunks >= 1, "synthesis.min_meta_chunks", self.min_meta_chunks, "at least 1")
        number = self.keyword_oversampling
        require(1 <= number <= 100, "synthesis.keyword_oversampling", number, "at least 1 and at most 100")
        require(self.query_model != "", "synthesis.query_model", self.query_model, "a model folder, or null")
        for name in ("max_uses_per_chunk", "docs_per_part"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"synthesis.{name}", value, "at least 1, or null")
        for name in ("seed", "skip_top", "keyword_min_score"):
            require(getattr(self, name) >= 0, f"synthesis.{name}", getattr(self, name), "at least 0")
        ratio = self.overshoot_ratio
        require(0 < ratio <= 100, "synthesis.overshoot_ratio", ratio, "above 0 and at most 100")
        require(0 < self.max_meta_ratio <= 1, "synthesis.max_meta_ratio", self.max_meta_ratio, "above 0 and at most 1")
        for name, valid in (("strategy", get_args(Strategy)), ("negatives", get_args(Negatives))):
            value = getattr(self, name)
            require(value in valid, f"synthesis.{name}", value, f"one of {', '.join(valid)}")
        if self.skip_top and self.negatives in ("random", "self_repeat"):
            raise UserError(
                f"synthesis.skip_top is {self.skip_top}, but synthesis.negatives={self.negatives} has no ranks to "
                f"skip. Set skip_top to 0, or negatives to top, tail or random_candidates."
            )

    def _check_lengths(self) -> None:
        lengths, samples = self.target_length_tokens, self.num_samples
        for length in self.targets:
            require(length >= 1, "synthesis.target_length_tokens", lengths, "at least 1")
        is_list = isinstance(lengths, list)
        require(bool(self.targets), "synthesis.target_length_tokens", lengths, "one length or several")
        require(len(set(self.targets)) == len(self.targets), "synthesis.target_length_tokens", lengths, "all different")
        fits = not isinstance(samples, list) or (is_list and len(samples) == len(self.targets))
        require(fits, "synthesis.num_samples", samples, "one number, or as many as there are target lengths")
        for number in samples if isinstance(samples, list) else [samples]:
            require(number is None or number >= 1, "synthesis.num_samples", samples, "at least 1, or null")

    @property
    def targets(self) -> list[int]:
        """The target lengths as a list."""
        lengths = self.target_length_tokens
        return lengths if isinstance(lengths, list) else [lengths]

    @property
    def wanted(self) -> list[int | None]:
        """For every target length how many long documents are wanted; None: as many as there are."""
        samples = self.num_samples
        return list(samples) if isinstance(samples, list) else [samples] * len(self.targets)

    @property
    def retrieves(self) -> Literal["chunks", "documents"] | None:
        """What the strategy looks up by similarity: neighbours of chunks, of whole documents, or nothing."""
        if self.strategy == "nextlong":
            return None if self.negatives == "self_repeat" else "chunks"
        return "documents" if self.strategy in ("knn", "iclm") else None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Decontamination:
    """Which evaluation texts no document may share an n-gram with."""

    path: str | list[str] = dataclasses.field(default_factory=list)
    """Files, globs, folders or fsspec URLs of evaluation texts (parquet, jsonl, text); empty: nothing is compared."""
    text: str | list[str] = "text"
    """Columns with the evaluation texts; a text file is one text."""
    ngram_words: int = 13
    """A document that shares so many consecutive words with an evaluation text is dropped."""

    def __post_init__(self) -> None:
        check_numbers(self, "decontamination")
        addresses = [self.path] if isinstance(self.path, str) else self.path
        require(all(addresses), "decontamination.path", self.path, "addresses of files")
        require(len(set(self.columns)) == len(self.columns), "decontamination.text", self.text, "all different")
        require(bool(self.columns) and all(self.columns), "decontamination.text", self.text, "names of columns")
        require(self.ngram_words >= 1, "decontamination.ngram_words", self.ngram_words, "at least 1")

    @property
    def columns(self) -> list[str]:
        """The columns with evaluation texts as a list."""
        return [self.text] if isinstance(self.text, str) else self.text


@dataclasses.dataclass(frozen=True, kw_only=True)
class Packing:
    """How long documents become sequences of one fixed length."""

    sequence_length_tokens: int | None = None
    """Length of a packed sequence, a multiple of every target length; None: a sequence is one long document."""

    def __post_init__(self) -> None:
        check_numbers(self, "packing")
        length = self.sequence_length_tokens
        require(length is None or length >= 1, "packing.sequence_length_tokens", length, "at least 1, or null")
