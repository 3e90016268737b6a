"""Stage index: embeddings in, FAISS files out, with their recall against exact search.

Train on a sample, add the parts of a shard in order, one task a shard; then, unless the index is exact, measure recall
and choose nprobe. Passes over the embeddings: one, and a second over all for the exact neighbours of the sample.
"""

from pathlib import Path
from typing import Any

import faiss

from etl.engine import Engine
from etl.job import Job
from etl.lookup import EmbeddingStore, embedding_store, loaded
from etl.parts import PartResult, write_json, written_aside
from etl.work import StageFolder
from nextlong.accounting import Account
from nextlong.config import Indexing
from nextlong.indexing import (
    Index,
    add,
    bytes_per_vector,
    choose_factory,
    choose_nprobe,
    exact_neighbours,
    new_index,
    num_training_vectors,
    recall,
    sample_rows,
    shard_ranges,
    train,
)


def run(job: Job, engine: Engine) -> dict[str, Any]:
    """Write the index of a job's embeddings: trained.faiss, the shards, index.json; returns the manifest."""
    stage = job.work.start("index")
    arguments: dict[str, Any] = {"embeddings": job.work["embed"], "indexing": job.recipe.index}
    train_part = stage.part(0, _train_part, prefix="trained", **arguments)
    ranges = engine.run([train_part], doing="train index", unit="part")[0]["values"]["ranges"]
    shards = [
        stage.part(number, _shard_part, prefix="shard", first=first, last=last, **arguments)
        for number, (first, last) in enumerate(ranges)
    ]
    markers = engine.run(shards, doing="build index", unit="shard")
    last = stage.part(0, _measure_part, prefix="index", shards=[f"{part.name}.faiss" for part in shards], **arguments)
    measured = engine.run([last], doing="measure recall", unit="part")[0]
    return stage.finish(markers, files=measured["files"], values=measured["values"])


def built(store: EmbeddingStore, indexing: Indexing) -> Index:
    """An index of all embeddings of a store, in memory."""
    empty = _trained(store, indexing)
    for array, first in zip(store.arrays, store.firsts, strict=True):
        add(empty, array, first)
    index = Index([empty], _facts(store, indexing, []))
    measure(index, store, indexing)
    return index


def open_index(stage: StageFolder) -> Index:
    """The index of a finished stage, memory-mapped, once a process."""
    return loaded(lambda: Index.open(stage.path), "index", stage.path, stage.fingerprint)


def _train_part(folder: Path, name: str, *, embeddings: StageFolder, indexing: Indexing) -> PartResult:
    store = embedding_store(embeddings)
    empty = _trained(store, indexing)
    with written_aside(folder / f"{name}.faiss") as aside:
        faiss.write_index(empty, str(aside))
    counts = [len(array) for array in store.arrays]
    ranges = list(shard_ranges(counts, bytes_per_vector(empty), indexing.max_shard_bytes))
    return PartResult(files=[f"{name}.faiss"], values={"ranges": ranges})


def _shard_part(
    folder: Path, name: str, *, embeddings: StageFolder, indexing: Indexing, first: int, last: int
) -> PartResult:
    store = embedding_store(embeddings)
    shard = faiss.read_index(str(folder / "trained-00000.faiss"))
    for array, first_id in list(zip(store.arrays, store.firsts, strict=True))[first:last]:
        add(shard, array, first_id)
    with written_aside(folder / f"{name}.faiss") as aside:
        faiss.write_index(shard, str(aside))
    account = Account()
    account.add("chunks", read=sum(len(array) for array in store.arrays[first:last]), kept=shard.ntotal)
    return PartResult(files=[f"{name}.faiss"], rows=shard.ntotal, account=account)


def _measure_part(
    folder: Path, name: str, *, embeddings: StageFolder, indexing: Indexing, shards: list[str]
) -> PartResult:
    store = embedding_store(embeddings)
    index = Index.open(folder, _facts(store, indexing, shards))
    measure(index, store, indexing)
    write_json(folder / "index.json", index.facts)
    return PartResult(files=["index.json"], values=index.facts)


def measure(index: Index, store: EmbeddingStore, indexing: Indexing) -> None:
    """Choose nprobe where it is left open, and put it and the recall against exact search into the index's facts."""
    if index.is_exact:
        return
    queries = store.rows(sample_rows(len(store), indexing.recall_queries))
    top_k = min(indexing.recall_top_k, len(store))
    exact = exact_neighbours(queries, store.arrays, top_k)

    def recall_at(nprobe: int) -> float:
        index.set_nprobe(nprobe)
        return recall(index.search(queries, top_k).ids, exact)

    nprobe = indexing.nprobe or choose_nprobe(recall_at, index.num_lists, indexing.target_recall)
    index.facts |= {
        "nprobe": nprobe,
        "recall": recall_at(nprobe),
        "recall_top_k": top_k,
        "recall_queries": len(queries),
    }


def _facts(store: EmbeddingStore, indexing: Indexing, shards: list[str]) -> dict[str, Any]:
    dimensions = store.arrays[0].shape[1]
    facts = {"factory": _factory(store, indexing), "metric": "inner product", "dimensions": dimensions}
    return facts | {"num_chunks": len(store), "shards": shards, "nprobe": None, "recall": 1.0}


def _factory(store: EmbeddingStore, indexing: Indexing) -> str:
    return choose_factory(len(store), store.arrays[0].shape[1]) if indexing.factory == "auto" else indexing.factory


def _trained(store: EmbeddingStore, indexing: Indexing) -> Any:
    """An empty index, trained on a sample spread over the corpus if its factory needs training."""
    empty = new_index(_factory(store, indexing), store.arrays[0].shape[1])
    number = num_training_vectors(empty, len(store), indexing.training_chunks)
    if number:
        train(empty, store.rows(sample_rows(len(store), number)))
    return empty
