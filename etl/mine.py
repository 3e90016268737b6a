"""Stage mine: meta-documents in, the candidates for negatives of each of their chunks out.

Meta-documents are drawn in seeded order; a part holds a fixed number of them, so that its bytes do not depend on who
mines it. The index and the embeddings are memory-mapped; nothing else is held beyond a part.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import dask
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pyarrow as pa

from etl.draw import draw_ranges, draws, first_draws, minable
from etl.engine import Engine
from etl.index import open_index
from etl.job import Job
from etl.lookup import EmbeddingStore, chunk_store, embedding_store
from etl.parts import PartResult, write_table
from etl.schemas import NEGATIVES, meta, to_frame, vectors_of
from etl.work import StageFolder
from nextlong.accounting import Account
from nextlong.budgeting import negatives_per_chunk, num_candidates
from nextlong.chunking import text_hashes
from nextlong.config import Chunking, Mining, Synthesis
from nextlong.indexing import Index
from nextlong.mining import Candidates, MetaDocument
from nextlong.mining import mine as mine_documents


class CorpusMeans(NamedTuple):
    """Measured on the whole corpus with the training tokenizer; they size the number of negatives."""

    chars_per_token: float
    """E of App. D.1."""
    tokens_per_chunk: float


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
    hashes of all chunks are gathered in memory: for exploring; a run reads them from files.
    """
    partitions = chunks.to_delayed()
    hashes = dask.delayed(_gather_hashes)(partitions)
    store = dask.delayed(_gather_embeddings)(embeddings.to_delayed())
    means = dask.delayed(means_of)(partitions)
    options = {"synthesis": synthesis, "chunking": chunking, "mining": mining, "meta_doc_ids": meta_doc_ids}
    mined = [dask.delayed(mine_partition)(part, store, hashes, index, means, **options) for part in partitions]
    return dd.from_delayed(mined, meta=meta(NEGATIVES))


def mine_partition(
    chunks: pd.DataFrame,
    store: EmbeddingStore,
    hashes: Any,
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
    wanted = meta_documents(documents, means, synthesis, chunking, mining)
    mined, _ = mine_documents(
        wanted,
        search=index.search,
        fetch_vectors=store.rows,
        fetch_hashes=lambda ids: hashes[ids],
        near_duplicate_similarity=mining.near_duplicate_similarity,
    )
    return to_frame(_table(mined))


def documents_of(chunks: pd.DataFrame) -> pd.DataFrame:
    """One row a document of a partition of chunks: doc_id, first_chunk_id, num_chunks, num_chars, num_tokens."""
    documents = chunks.groupby("doc_id", sort=True).agg(
        first_chunk_id=("chunk_id", "min"),
        num_chunks=("chunk_id", "size"),
        num_chars=("num_chars", "sum"),
        num_tokens=("num_tokens", "sum"),
    )
    return documents.reset_index()


def run(job: Job, engine: Engine, *, num_draws: int | None = None) -> dict[str, Any]:
    """Mine the first `num_draws` drawn documents as parts; returns the manifest.

    None: as many as give num_samples documents if none falls short; the interleave stage asks for more when some do.
    """
    stage, recipe = job.work.start("mine"), job.recipe
    drawn = draws(job.work, recipe.synthesis)
    if num_draws is None:
        num_draws = first_draws(drawn, recipe.synthesis)
    means = corpus_means(job.work["chunk"])
    parts = [
        stage.part(
            number,
            _mine_part,
            key=f"{first}-{last}",
            weight=int(drawn["num_chunks"].iloc[first:last].sum()),
            documents=meta_documents(
                minable(drawn.iloc[first:last], recipe.synthesis),
                means,
                recipe.synthesis,
                recipe.chunking,
                recipe.mining,
            ),
            chunks=job.work["chunk"],
            embeddings=job.work["embed"],
            index=job.work["index"],
            near_duplicate_similarity=recipe.mining.near_duplicate_similarity,
        )
        for number, (first, last) in enumerate(draw_ranges(num_draws, len(drawn), recipe.synthesis))
    ]
    markers = engine.run(parts, doing="mine negatives", unit="chunk")
    return stage.finish(markers, values={"num_draws": num_draws, **means._asdict()})


def corpus_means(chunks: StageFolder) -> CorpusMeans:
    """The means over a finished chunk stage."""
    manifest = chunks.manifest()
    account = Account.from_dict(manifest["account"] if manifest else {})
    kept = {unit: account.counts[unit].kept for unit in ("chars", "tokens", "chunks")}
    return CorpusMeans(kept["chars"] / max(1, kept["tokens"]), kept["tokens"] / max(1, kept["chunks"]))


def means_of(partitions: Sequence[pd.DataFrame]) -> CorpusMeans:
    """The means over partitions of chunks in memory."""
    chars, tokens = (sum(int(part[name].sum()) for part in partitions) for name in ("num_chars", "num_tokens"))
    return CorpusMeans(chars / max(1, tokens), tokens / max(1, sum(map(len, partitions))))


def meta_documents(
    documents: pd.DataFrame, means: CorpusMeans, synthesis: Synthesis, chunking: Chunking, mining: Mining
) -> list[MetaDocument]:
    """The documents to extend, each with the number of candidates to retrieve for its chunks."""
    columns = ("doc_id", "first_chunk_id", "num_chunks", "num_chars", "num_tokens")
    rows = zip(*[documents[name].tolist() for name in columns], strict=True)
    return [
        MetaDocument(
            doc_id,
            first,
            num_chunks,
            num_candidates(mining.num_candidates, _negatives(num_chunks, chars, tokens, means, synthesis, chunking)),
        )
        for doc_id, first, num_chunks, chars, tokens in rows
    ]


def _negatives(
    num_chunks: int, chars: int, tokens: int, means: CorpusMeans, synthesis: Synthesis, chunking: Chunking
) -> int:
    """About how many negatives each chunk of a document takes: k of App. D.1, or what the exact budget leaves."""
    if synthesis.budget == "paper":
        return paper_negatives(num_chunks, chars, means, synthesis, chunking)
    return int(np.ceil((synthesis.target_length_tokens - tokens) / (num_chunks * means.tokens_per_chunk)))


def paper_negatives(num_chunks: int, chars: int, means: CorpusMeans, synthesis: Synthesis, chunking: Chunking) -> int:
    """k of App. D.1 for one meta-document; a granularity in tokens counts as so many times E characters."""
    granularity = chunking.granularity_tokens
    return negatives_per_chunk(
        target_length_tokens=synthesis.target_length_tokens,
        chars_per_token=means.chars_per_token,
        overshoot_ratio=synthesis.overshoot_ratio,
        meta_chars=chars,
        num_meta_chunks=num_chunks,
        granularity_chars=granularity * means.chars_per_token if granularity else chunking.granularity_chars,
    )


def _mine_part(
    folder: Path,
    name: str,
    *,
    documents: list[MetaDocument],
    chunks: StageFolder,
    embeddings: StageFolder,
    index: StageFolder,
    near_duplicate_similarity: float | None,
) -> PartResult:
    mined, account = mine_documents(
        documents,
        search=open_index(index).search,
        fetch_vectors=embedding_store(embeddings).rows,
        fetch_hashes=chunk_store(chunks).hashes,
        near_duplicate_similarity=near_duplicate_similarity,
    )
    write_table(folder / f"{name}.parquet", _table(mined))
    account.add("meta_documents", read=len(documents), kept=len(documents))
    account.add("meta_chunks", read=len(mined), kept=len(mined))
    return PartResult(files=[f"{name}.parquet"], rows=len(mined), account=account)


def _table(mined: Sequence[Candidates]) -> pa.Table:
    offsets = np.cumsum([0, *[len(each.ids) for each in mined]], dtype=np.int32)
    ids = np.concatenate([np.empty(0, np.int64), *[each.ids for each in mined]])
    scores = np.concatenate([np.empty(0, np.float32), *[each.scores for each in mined]])
    lists = [pa.ListArray.from_arrays(offsets, values) for values in (ids, scores)]
    return pa.table([pa.array([each.chunk_id for each in mined], pa.int64()), *lists], schema=NEGATIVES)


def _gather_hashes(partitions: Sequence[pd.DataFrame]) -> Any:
    return np.concatenate([text_hashes(part["text"].tolist()) for part in partitions])


def _gather_embeddings(partitions: Sequence[pd.DataFrame]) -> EmbeddingStore:
    return EmbeddingStore([vectors_of(part) for part in partitions if len(part)])
