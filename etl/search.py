"""A finished index in, what looks up neighbours in it out.

A small index is mapped by every worker, one copy a host. A large one is searched by tasks over (shard, part of
queries), each of which holds one shard mapped; the results are the same.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from etl.engine import Engine
from etl.job import Job
from etl.lookup import RowStore, embedding_store, loaded, row_store
from etl.parts import Part, PartResult, finished, read_array, with_arguments, write_array
from etl.work import StageFolder
from nextlong.bm25 import Bm25
from nextlong.indexing import Vectors
from nextlong.retrieval import EmbeddingRetriever, Retriever, ShardSearch
from nextlong.searching import Index, Neighbours

Ask = Callable[[Retriever], None]
"""Asks a retriever what a part will ask it, in the same batches."""


def open_retriever(stage: StageFolder, embeddings: StageFolder) -> Bm25 | EmbeddingRetriever:
    """What looks up neighbours in a finished stage, memory-mapped, once a process; embeddings: the stage before."""
    if stage.settings["retrieval"] == "bm25":
        bm25: Bm25 = loaded(lambda: Bm25.open(stage.path / "bm25"), "bm25", stage.path, of=[stage.manifest_file])
        return bm25
    index = open_index(stage)
    return EmbeddingRetriever(index.search, _open_vectors(stage, embeddings).rows, index.rerank_ratio)


def open_index(stage: StageFolder) -> Index:
    """The index of a finished stage, memory-mapped, once a process."""
    return loaded(lambda: Index.open(stage.path), "index", stage.path, of=[stage.manifest_file])


def search_shards(
    job: Job, stage: StageFolder, engine: Engine, parts: Sequence[Part], ask_of: Callable[[Part], Ask]
) -> list[Part]:
    """The parts of a stage, as they are where the index is mapped whole; else as they are to run after this search.

    Every shard is searched alone for every unfinished part, one task each, and what it proposes is written aside; the
    part's open_retriever then merges it, to the results of a search over all shards. Shard after shard, so that a host
    reads each once. Disk: 12 bytes for each query, proposal and shard, until the stage is finished.
    """
    shards = _shards_to_search(job)
    missing = [part for part in parts if finished(part) is None] if shards else []
    stages = {"index": job.work["index"], "embeddings": job.work["embed"]}
    searches = [
        stage.part(
            number,
            _search_part,
            prefix=f"found-{part.name}",
            key=part.key,
            weight=part.weight,
            shard=shard,
            ask=ask_of(part),
            **stages,
        )
        for number, shard in enumerate(shards)
        for part in missing
    ]
    engine.run(searches, doing="search index shards", unit="query")
    searched = {part.name: _after_search(part, len(shards), stages) for part in missing}
    return [searched.get(part.name, part) for part in parts]


def _after_search(part: Part, num_shards: int, stages: dict[str, StageFolder]) -> Part:
    paths = [part.folder / f"found-{part.name}-{number:05d}.npy" for number in range(num_shards)]
    return with_arguments(part, open_retriever=partial(_open_found, paths=paths, **stages))


def _shards_to_search(job: Job) -> list[str]:
    """The index files to be searched by tasks of their own; none where they are mapped, or where there are none."""
    index, indexing = job.work["index"], job.recipe.index
    shards: list[str] = _facts_of(index).get("shards", [])
    size = sum((index.path / name).stat().st_size for name in shards)
    is_sharded = indexing.search == "sharded" or (indexing.search == "auto" and size > indexing.max_mapped_bytes)
    return shards if is_sharded else []


def _search_part(
    folder: Path, name: str, *, index: StageFolder, embeddings: StageFolder, shard: str, ask: Ask
) -> PartResult:
    opened = Index.open(index.path, _facts_of(index) | {"shards": [shard]})
    search = ShardSearch(opened.search, _open_vectors(index, embeddings).rows, opened.rerank_ratio)
    ask(search)
    proposals = search.proposals()
    write_array(folder / f"{name}.npy", proposals)
    return PartResult(files=[f"{name}.npy"], rows=len(proposals))


def _open_found(*, paths: Sequence[Path], index: StageFolder, embeddings: StageFolder) -> Retriever:
    proposals = [read_array(path) for path in paths]
    ratio, rows = _facts_of(index)["rerank_ratio"], _open_vectors(index, embeddings).rows
    return EmbeddingRetriever(partial(_search_mapped, index), rows, ratio, proposals)


def _search_mapped(index: StageFolder, queries: Vectors, top_k: int) -> Neighbours:
    """Maps all shards, one after the other: for the few queries with more equals than were proposed."""
    return open_index(index).search(queries, top_k)


def _facts_of(index: StageFolder) -> dict[str, Any]:
    """What index.json says."""
    facts: dict[str, Any] = (index.manifest() or {})["values"]
    return facts


def _open_vectors(stage: StageFolder, embeddings: StageFolder) -> RowStore:
    is_chunks = stage.settings["units"] == "chunks"
    return embedding_store(embeddings) if is_chunks else _document_vectors(stage)


def _document_vectors(stage: StageFolder) -> RowStore:
    """The vectors of whole documents that a finished stage holds, in the order of those with tokens."""
    names = sorted(path.stem for path in stage.path.glob("vectors-*.npy"))
    return row_store(stage, names)
