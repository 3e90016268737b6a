"""The stages as functions on lazy Dask dataframes, for notebooks: read, chunk, embed, index, mine, interleave, pack.

They call what a run calls, with Dask's current scheduler or client; nothing is written. Random access (embeddings,
token ids, text hashes of all chunks) is gathered in memory: for exploring a corpus that fits it. A run reads files.
"""

from collections.abc import Sequence
from typing import Any

import dask
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pyarrow as pa

from etl import schemas
from etl.allocate import Draw, Planner, candidates_of, draws_of
from etl.chunk import chunk_partition
from etl.draw import empty_strands
from etl.embed import embed_partition, loaded_embedder
from etl.index import built
from etl.inputs import Input, list_files, plan_splits
from etl.interleave import fill
from etl.lookup import ChunkStore, RowStore
from etl.mine import CorpusMeans, candidates_table, meta_documents
from etl.pack import pack_partition
from etl.read import documents_schema, first_ids, mark_copies, read_partition, scan_partition
from etl.schemas import CHUNKS, LONG_DOCUMENTS, NEGATIVES, PACKED, meta, to_frame, vectors_of
from nextlong.chunking import text_hashes
from nextlong.config import Chunking, Embedding, Indexing, Mining, Synthesis
from nextlong.errors import UserError
from nextlong.mining import mine as mine_documents
from nextlong.model_folder import resolve_model
from nextlong.near_duplicates import NearDuplicateRules
from nextlong.packing import documents_per_sequence
from nextlong.retrieval import EmbeddingRetriever
from nextlong.searching import Index
from nextlong.sketching import sketch
from nextlong.tokenizing import Tokenizer

dask.config.set({"dataframe.convert-string": False})  # it would silently turn columns of lists into text


def read(settings: Input) -> dd.DataFrame:
    """The documents of a corpus as a lazy Dask dataframe (columns of schemas.DOCUMENTS), one partition a part.

    The first pass (counting and hashing) runs now, with Dask's current scheduler; the texts are read lazily.
    """
    splits = plan_splits(settings, list_files(settings))
    scans = dask.compute(*[dask.delayed(scan_partition)(split, settings) for split in splits])
    statuses = mark_copies(list(scans))
    return dd.from_map(
        read_partition, splits, first_ids(statuses), statuses, settings=settings, meta=meta(documents_schema(settings))
    )


def chunk(documents: dd.DataFrame, *, tokenizer: str, chunking: Chunking = Chunking()) -> dd.DataFrame:
    """The chunks of documents as a lazy Dask dataframe (columns of schemas.CHUNKS), one partition a partition.

    chunk_ids are dense and follow the documents' order, so each partition waits for the counts of those before it.
    """
    first_id: Any = 0
    numbered = []
    for partition in documents.to_delayed():
        chunks = dask.delayed(chunk_partition)(partition, tokenizer=tokenizer, chunking=chunking)
        numbered.append(dask.delayed(_numbered)(chunks, first_id))
        first_id = dask.delayed(_next_id)(chunks, first_id)
    return dd.from_delayed(numbered, meta=meta(CHUNKS))


def embed(chunks: dd.DataFrame, *, embedding: Embedding) -> dd.DataFrame:
    """The embeddings of chunks as a lazy Dask dataframe: chunk_id, embedding (a list of d numbers)."""
    if embedding.model is None:
        raise UserError("embedding.model is not set: give a model folder or a hub id.")
    folder = resolve_model(embedding.model, embedding.file).absolute()
    dimensions = loaded_embedder(folder, embedding).dimensions
    return chunks.map_partitions(
        embed_partition, model_folder=folder, embedding=embedding, meta=meta(schemas.embeddings(dimensions))
    )


def index(embeddings: dd.DataFrame, *, indexing: Indexing = Indexing()) -> Index:
    """Compute embeddings (chunk_id, embedding) and build their index, now and in memory."""
    return built(RowStore([vectors_of(embeddings.compute().sort_values("chunk_id"))]), indexing)


def mine(
    chunks: dd.DataFrame,
    *,
    embeddings: dd.DataFrame,
    index: Index,
    synthesis: Synthesis,
    chunking: Chunking = Chunking(),
    mining: Mining = Mining(),
    meta_doc_ids: Sequence[int] | None = None,
) -> dd.DataFrame:
    """Candidates for the chunks of meta-documents as a lazy Dask dataframe (columns of schemas.NEGATIVES).

    Every document with enough chunks is a meta-document, or those of `meta_doc_ids`; none is drawn. Embeddings and text
    hashes of all chunks are gathered in memory: for exploring; a run reads them from files. For strategy nextlong by
    embeddings, one target length, and negatives top, tail or random_candidates; UserError for others: use a run.
    """
    _check_supported(synthesis, mining)
    partitions = chunks.to_delayed()
    sketches = dask.delayed(_gather_sketches)(partitions) if mining.near_duplicate_overlap is not None else None
    hashes = dask.delayed(_gather_hashes)(partitions)
    store = dask.delayed(_gather_embeddings)(embeddings.to_delayed())
    means = dask.delayed(means_of)(partitions)
    options = {"synthesis": synthesis, "chunking": chunking, "mining": mining, "meta_doc_ids": meta_doc_ids}
    mined = [
        dask.delayed(mine_partition)(part, store, hashes, sketches, index, means, **options) for part in partitions
    ]
    return dd.from_delayed(mined, meta=meta(NEGATIVES))


def interleave(
    negatives: dd.DataFrame,
    *,
    chunks: dd.DataFrame,
    tokenizer: str,
    synthesis: Synthesis,
    chunking: Chunking = Chunking(),
) -> dd.DataFrame:
    """Long documents as a lazy Dask dataframe (columns of schemas.LONG_DOCUMENTS), one partition a partition.

    The document's doc_id serves as sample_id. The token ids of all chunks are gathered in memory: for exploring; a run
    reads them from files. Serves what `mine` does, and no max_uses_per_chunk, which goes from partition to partition.
    """
    _check_supported(synthesis, Mining())
    partitions = chunks.to_delayed()
    store = dask.delayed(memory_store)(partitions, tokenizer)
    means = dask.delayed(means_of)(partitions)
    documents = dask.delayed(_all_draws)(partitions)
    made = [
        dask.delayed(interleave_partition)(part, documents, store, means, synthesis=synthesis, chunking=chunking)
        for part in negatives.to_delayed()
    ]
    return dd.from_delayed(made, meta=meta(LONG_DOCUMENTS))


def pack(
    long_documents: dd.DataFrame, *, target_length_tokens: int, sequence_length_tokens: int | None = None
) -> dd.DataFrame:
    """Packed sequences as a lazy Dask dataframe (columns of schemas.PACKED), each partition packed by itself.

    A partition's last documents that fill no sequence are left out; a run packs across partitions.
    """
    per_sequence = documents_per_sequence(sequence_length_tokens, target_length_tokens)
    return long_documents.map_partitions(
        pack_partition, per_sequence=per_sequence, length_tokens=target_length_tokens, meta=meta(PACKED)
    )


def mine_partition(
    chunks: pd.DataFrame,
    store: RowStore,
    hashes: Any,
    sketches: Any,
    index: Index,
    means: CorpusMeans,
    *,
    synthesis: Synthesis,
    chunking: Chunking,
    mining: Mining,
    meta_doc_ids: Sequence[int] | None,
) -> pd.DataFrame:
    """Candidates for the meta-chunks among a partition of whole documents' chunks."""
    documents = documents_of(chunks)
    if meta_doc_ids is not None:
        documents = documents[documents["doc_id"].isin(meta_doc_ids)]
    documents = documents[documents["num_chunks"] >= synthesis.min_meta_chunks]
    [strand] = empty_strands(synthesis)
    mined = mine_documents(
        meta_documents(strand.minable(documents), means, strand, chunking, mining),
        retriever=EmbeddingRetriever(index.search, store.rows, index.rerank_ratio),
        fetch_hashes=lambda ids: hashes[ids],
        rules=NearDuplicateRules(
            mining.near_duplicate_similarity, mining.near_duplicate_overlap, lambda ids: sketches[ids]
        ),
    )
    return to_frame(candidates_table(mined.candidates))


def interleave_partition(
    negatives: pd.DataFrame,
    documents: dict[int, Draw],
    store: ChunkStore,
    means: CorpusMeans,
    *,
    synthesis: Synthesis,
    chunking: Chunking,
) -> pd.DataFrame:
    """The long documents of a partition of candidates; documents: by the chunk_id of their first chunk."""
    drawn = [documents[chunk_id] for chunk_id in negatives["chunk_id"].tolist() if chunk_id in documents]
    planner = Planner(
        store=store,
        means=means,
        synthesis=synthesis,
        chunking=chunking,
        target_length_tokens=synthesis.targets[0],
    )
    plans = planner.plan(drawn, candidates_of(pa.Table.from_pandas(negatives, preserve_index=False)))
    return to_frame(fill(plans, store)[0])


def documents_of(chunks: pd.DataFrame) -> pd.DataFrame:
    """One row a document of a partition of chunks: doc_id, first_chunk_id, num_chunks, num_chars, num_tokens."""
    documents = chunks.groupby("doc_id", sort=True).agg(
        first_chunk_id=("chunk_id", "min"),
        num_chunks=("chunk_id", "size"),
        num_chars=("num_chars", "sum"),
        num_tokens=("num_tokens", "sum"),
    )
    return documents.reset_index()


def means_of(partitions: Sequence[pd.DataFrame]) -> CorpusMeans:
    """The means over partitions of chunks in memory."""
    chars, tokens = (sum(int(part[name].sum()) for part in partitions) for name in ("num_chars", "num_tokens"))
    return CorpusMeans(chars / max(1, tokens), tokens / max(1, sum(map(len, partitions))))


def memory_store(chunks: Sequence[pd.DataFrame], tokenizer: str) -> ChunkStore:
    """A chunk store of all chunks held in memory, for small corpora."""
    texts = [text for part in chunks for text in part["text"].tolist()]
    joiners = [joiner for part in chunks for joiner in part["joiner"].tolist()]
    tokens = Tokenizer.load(tokenizer).encode([text + joiner for text, joiner in zip(texts, joiners, strict=True)])
    return ChunkStore(tokens.offsets, text_hashes(texts), tokens.ids)


def _numbered(chunks: pd.DataFrame, first_id: int) -> pd.DataFrame:
    return chunks.assign(chunk_id=chunks["chunk_id"] + first_id)


def _next_id(chunks: pd.DataFrame, first_id: int) -> int:
    return first_id + len(chunks)


def _gather_hashes(partitions: Sequence[pd.DataFrame]) -> Any:
    return np.concatenate([text_hashes(part["text"].tolist()) for part in partitions])


def _gather_sketches(partitions: Sequence[pd.DataFrame]) -> Any:
    return np.concatenate([sketch(part["text"].tolist()) for part in partitions])


def _check_supported(synthesis: Synthesis, mining: Mining) -> None:
    for name, value, valid in (
        ("synthesis.strategy", synthesis.strategy, ("nextlong",)),
        ("synthesis.negatives", synthesis.negatives, ("top", "tail", "random_candidates")),
        ("synthesis.max_uses_per_chunk", synthesis.max_uses_per_chunk, (None,)),
        ("number of target lengths", len(synthesis.targets), (1,)),
        ("mining.retrieval", mining.retrieval, ("embeddings",)),
    ):
        if value not in valid:
            raise UserError(
                f"{name} is {value}, but on a Dask dataframe it can be {', '.join(map(str, valid))} only. "
                f"For the others write a recipe and use etl.pipeline, or nextlong run."
            )


def _gather_embeddings(partitions: Sequence[pd.DataFrame]) -> RowStore:
    return RowStore([vectors_of(part) for part in partitions if len(part)])


def _all_draws(partitions: Sequence[pd.DataFrame]) -> dict[int, Draw]:
    """Every document of a corpus in memory, by its first chunk; its doc_id stands for what only a run knows."""
    documents = pd.concat([documents_of(part) for part in partitions])
    names = documents["doc_id"].astype(str)
    documents = documents.assign(sample_id=documents["doc_id"], source_id=names, source="")
    return {draw.first_chunk_id: draw for draw in draws_of(documents)}
