"""Stage mine: meta-documents in, the candidates for negatives of each of their chunks out.

Meta-documents are drawn in seeded order; a part holds a fixed number of them, so that its bytes do not depend on who
mines it. The index and the embeddings are memory-mapped; nothing else is held beyond a part.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from etl.draw import draw_ranges, draws, first_draws, minable
from etl.engine import Engine
from etl.index import open_index
from etl.job import Job
from etl.lookup import chunk_store, embedding_store
from etl.parts import PartResult, write_table
from etl.schemas import NEGATIVES
from etl.work import StageFolder
from nextlong.accounting import Account
from nextlong.budgeting import negatives_per_chunk, num_candidates
from nextlong.config import Chunking, Mining, Synthesis
from nextlong.mining import Candidates, MetaDocument
from nextlong.mining import mine as mine_documents


class CorpusMeans(NamedTuple):
    """Measured on the whole corpus with the training tokenizer; they size the number of negatives."""

    chars_per_token: float
    """E of App. D.1."""
    tokens_per_chunk: float


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
    write_table(folder / f"{name}.parquet", candidates_table(mined))
    account.add("meta_documents", read=len(documents), kept=len(documents))
    account.add("meta_chunks", read=len(mined), kept=len(mined))
    return PartResult(files=[f"{name}.parquet"], rows=len(mined), account=account)


def candidates_table(mined: Sequence[Candidates]) -> pa.Table:
    offsets = np.cumsum([0, *[len(each.ids) for each in mined]], dtype=np.int32)
    ids = np.concatenate([np.empty(0, np.int64), *[each.ids for each in mined]])
    scores = np.concatenate([np.empty(0, np.float32), *[each.scores for each in mined]])
    lists = [pa.ListArray.from_arrays(offsets, values) for values in (ids, scores)]
    return pa.table([pa.array([each.chunk_id for each in mined], pa.int64()), *lists], schema=NEGATIVES)
