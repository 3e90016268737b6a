"""Stage mine: meta-documents in, the candidates for negatives of each of their chunks out.

Meta-documents are drawn in seeded order; a part holds a fixed number of them, so that its bytes do not depend on who
mines it. The index and the embeddings are memory-mapped; nothing else is held beyond a part. An index too large to map
is searched shard by shard beforehand: `search_shards`. What the methods compared with look up instead is in `relate`.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from etl import quarantine, relate
from etl.draw import Strand, all_documents, strands
from etl.engine import Engine
from etl.job import Job
from etl.lookup import RowStore, chunk_store, row_store
from etl.parts import Part, PartResult, write_array, write_table
from etl.schemas import NEGATIVES
from etl.search import Ask, open_retriever, search_shards
from etl.work import StageFolder
from nextlong.accounting import Account
from nextlong.budgeting import negatives_per_chunk, num_candidates
from nextlong.config import Chunking, Mining, Synthesis
from nextlong.mining import Candidates, MetaDocument, RandomChunks
from nextlong.mining import mine as mine_documents
from nextlong.near_duplicates import NearDuplicateRules, total
from nextlong.retrieval import Retriever
from nextlong.sketching import sketch


class CorpusMeans(NamedTuple):
    """Measured on the whole corpus with the training tokenizer; they size the number of negatives."""

    chars_per_token: float
    """E of App. D.1."""
    tokens_per_chunk: float


def run(job: Job, engine: Engine, *, num_draws: Sequence[int] | None = None) -> dict[str, Any]:
    """Mine the first `num_draws` drawn documents of each strand as parts; returns the manifest.

    None: as many as give num_samples documents if none falls short; the interleave stage asks for more when some do.
    """
    if job.recipe.synthesis.strategy != "nextlong":
        return relate.run(job, engine)
    stage, all_strands = job.work.start("mine"), strands(job.work, job.recipe.synthesis)
    draws = list(num_draws or [strand.first_draws() for strand in all_strands])
    means = corpus_means(job.work["chunk"])
    values = {"num_draws": draws, **means._asdict()}
    if job.recipe.synthesis.retrieves is None:
        return stage.finish([], values=values)
    sketches = _write_sketches(job, stage, engine)
    arguments = _mining_arguments(job, stage, [marker["part"] for marker in sketches])
    parts = [
        part
        for strand, number in zip(all_strands, draws, strict=True)
        for part in _strand_parts(stage, strand, number, means, job, arguments)
    ]
    if arguments["random_of"] is None:
        parts = search_shards(job, stage, engine, parts, _ask_of)
    markers = engine.run(parts, doing="mine negatives", unit="chunk")
    values["near_duplicates"] = total([marker["values"]["near_duplicates"] for marker in markers])
    files = {name: facts for marker in sketches for name, facts in marker["files"].items()}
    return stage.finish(markers, files=files, values=values)


def _mining_arguments(job: Job, stage: StageFolder, sketches: list[str]) -> dict[str, Any]:
    recipe = job.recipe
    return {
        "chunks": job.work["chunk"],
        "open_retriever": partial(open_retriever, job.work["index"], job.work["embed"]),
        "open_sketches": partial(row_store, stage, sketches) if sketches else None,
        # A BM25 score is no cosine similarity.
        "similarity": recipe.mining.near_duplicate_similarity if recipe.mining.retrieval == "embeddings" else None,
        "overlap": recipe.mining.near_duplicate_overlap,
        "random_of": _random_chunks(job) if recipe.synthesis.negatives == "random" else None,
    }


def _random_chunks(job: Job) -> RandomChunks:
    chunks, poisoned = job.work["chunk"], quarantine.doc_ids(job.work)
    excluded = [np.empty(0, np.int64)]
    if poisoned:
        documents = all_documents(chunks)
        rows = documents[documents["doc_id"].isin(poisoned)]
        ranges = zip(rows["first_chunk_id"], rows["num_chunks"], strict=True)
        excluded += [np.arange(first, first + n) for first, n in ranges]
    return RandomChunks(job.recipe.synthesis.seed, (chunks.manifest() or {})["rows"], np.concatenate(excluded))


def _strand_parts(
    stage: StageFolder, strand: Strand, num_draws: int, means: CorpusMeans, job: Job, arguments: dict[str, Any]
) -> list[Part]:
    recipe, parts = job.recipe, []
    for number, (first, last) in enumerate(strand.ranges(num_draws)):
        wanted = strand.minable(strand.drawn(first, last))
        documents = meta_documents(wanted, means, strand, recipe.chunking, recipe.mining)
        weight = int(wanted["num_chunks"].sum())
        key = f"{first}-{last}"
        parts.append(
            stage.part(
                number, _mine_part, prefix=strand.prefix, key=key, weight=weight, documents=documents, **arguments
            )
        )
    return parts


def _write_sketches(job: Job, stage: StageFolder, engine: Engine) -> list[dict[str, Any]]:
    """MinHash sketches of all chunks, where overlap is a rule: one pass over the texts, 256 bytes a chunk."""
    if job.recipe.mining.near_duplicate_overlap is None:
        return []
    parts = [
        stage.part(number, _sketch_part, prefix="sketch", weight=rows, chunks=path)
        for number, (path, rows) in enumerate(job.work["chunk"].tables())
    ]
    return engine.run(parts, doing="sketch chunks", unit="chunk")


def _sketch_part(folder: Path, name: str, *, chunks: Path) -> PartResult:
    sketches = sketch(pq.read_table(chunks, columns=["text"])["text"].to_pylist())
    write_array(folder / f"{name}.npy", sketches)
    return PartResult(files=[f"{name}.npy"], rows=len(sketches))


def corpus_means(chunks: StageFolder) -> CorpusMeans:
    """The means over a finished chunk stage."""
    manifest = chunks.manifest()
    account = Account.from_dict(manifest["account"] if manifest else {})
    kept = {unit: account.counts[unit].kept for unit in ("chars", "tokens", "chunks")}
    return CorpusMeans(kept["chars"] / max(1, kept["tokens"]), kept["tokens"] / max(1, kept["chunks"]))


def meta_documents(
    documents: pd.DataFrame, means: CorpusMeans, strand: Strand, chunking: Chunking, mining: Mining
) -> list[MetaDocument]:
    """The documents to extend, each with the number of candidates to retrieve for its chunks."""
    columns = ("doc_id", "first_chunk_id", "num_chunks", "num_chars", "num_tokens")
    rows = zip(*[documents[name].tolist() for name in columns], strict=True)
    return [
        MetaDocument(
            doc_id,
            first,
            num_chunks,
            num_candidates(mining.num_candidates, _negatives(num_chunks, chars, tokens, means, strand, chunking)),
        )
        for doc_id, first, num_chunks, chars, tokens in rows
    ]


def _negatives(num_chunks: int, chars: int, tokens: int, means: CorpusMeans, strand: Strand, chunking: Chunking) -> int:
    """About how many negatives each chunk of a document takes: k of App. D.1, or what the exact budget leaves."""
    target = strand.target_length_tokens
    if strand.synthesis.budget == "paper":
        return paper_negatives(num_chunks, chars, means, target, strand.synthesis, chunking)
    return int(np.ceil((target - tokens) / (num_chunks * means.tokens_per_chunk)))


def paper_negatives(
    num_chunks: int, chars: int, means: CorpusMeans, target: int, synthesis: Synthesis, chunking: Chunking
) -> int:
    """k of App. D.1 for one meta-document; a granularity in tokens counts as so many times E characters."""
    granularity = chunking.granularity_tokens
    return negatives_per_chunk(
        target_length_tokens=target,
        chars_per_token=means.chars_per_token,
        overshoot_ratio=synthesis.overshoot_ratio,
        meta_chars=chars,
        num_meta_chunks=num_chunks,
        granularity_chars=granularity * means.chars_per_token if granularity else chunking.granularity_chars,
    )


def _ask_of(part: Part) -> Ask:
    return partial(_ask, documents=part.arguments["documents"])


def _ask(retriever: Retriever, *, documents: list[MetaDocument]) -> None:
    """All that mining these documents asks, by mining them: with no neighbours there is nothing to apply rules to."""
    mine_documents(
        documents,
        retriever=retriever,
        fetch_hashes=lambda ids: np.zeros(len(ids), np.uint64),
        rules=NearDuplicateRules(None),
    )


def _mine_part(
    folder: Path,
    name: str,
    *,
    documents: list[MetaDocument],
    chunks: StageFolder,
    open_retriever: Callable[[], Retriever],
    open_sketches: Callable[[], RowStore] | None,
    similarity: float | None,
    overlap: float | None,
    random_of: RandomChunks | None,
) -> PartResult:
    mined = mine_documents(
        documents,
        retriever=open_retriever(),
        fetch_hashes=chunk_store(chunks).hashes,
        rules=NearDuplicateRules(similarity, overlap, open_sketches and open_sketches().rows),
        random_of=random_of,
    )
    num_chunks = len(mined.candidates)
    write_table(folder / f"{name}.parquet", candidates_table(mined.candidates))
    mined.account.add("meta_documents", read=len(documents), kept=len(documents))
    mined.account.add("meta_chunks", read=num_chunks, kept=num_chunks)
    values = {"near_duplicates": mined.near_duplicates.to_dict()}
    return PartResult(files=[f"{name}.parquet"], rows=num_chunks, account=mined.account, values=values)


def candidates_table(mined: Sequence[Candidates]) -> pa.Table:
    offsets = np.cumsum([0, *[len(each.ids) for each in mined]], dtype=np.int32)
    ids = np.concatenate([np.empty(0, np.int64), *[each.ids for each in mined]])
    scores = np.concatenate([np.empty(0, np.float32), *[each.scores for each in mined]])
    lists = [pa.ListArray.from_arrays(offsets, values) for values in (ids, scores)]
    return pa.table([pa.array([each.chunk_id for each in mined], pa.int64()), *lists], schema=NEGATIVES)
