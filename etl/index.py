"""Stage index: embeddings in, FAISS files out, with their recall against exact search; or texts in, a BM25 index out.

Train on a sample, add the parts of a shard in order, one task a shard; then, unless the index is exact, measure recall
and choose nprobe. Passes over the embeddings: one, and a second over all for the exact neighbours of the sample. For
neighbours of whole documents their vectors come first, in one more pass. BM25 is built by one task in memory.
"""

import os
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow.parquet as pq

from etl.engine import Engine
from etl.job import Job
from etl.lookup import RowStore, document_texts, embedding_store, loaded, row_store
from etl.parts import PartResult, write_array, write_json, written_aside
from etl.work import StageFolder
from nextlong.accounting import Account
from nextlong.bm25 import Bm25
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
from nextlong.retrieval import EmbeddingRetriever, Retriever, document_vectors

OpenStore = Callable[[], RowStore]


def run(job: Job, engine: Engine) -> dict[str, Any]:
    """Write the index of a job's chunks or documents; returns the manifest.

    Embeddings: trained.faiss, the shards, index.json. BM25: the folder bm25. Nothing where nothing is looked up.
    """
    stage = job.work.start("index")
    if stage.settings.get("skipped"):
        return stage.finish([], values=stage.settings)
    if stage.settings["retrieval"] == "bm25":
        texts = [path for path, _ in job.work["chunk"].tables()]
        part = stage.part(0, _words_part, prefix="bm25", chunks=texts, units=stage.settings["units"])
        [marker] = engine.run([part], doing="index words", unit="part")
        return stage.finish([marker], values=marker["values"])
    open_store: OpenStore = partial(embedding_store, job.work["embed"])
    vectors: list[dict[str, Any]] = []
    if stage.settings["units"] == "documents":
        vectors = _write_vectors(job, stage, engine)
        open_store = partial(row_store, stage, [marker["part"] for marker in vectors])
    arguments: dict[str, Any] = {"open_store": open_store, "indexing": job.recipe.index}
    train_part = stage.part(0, _train_part, prefix="trained", **arguments)
    ranges = engine.run([train_part], doing="train index", unit="part")[0]["values"]["ranges"]
    shards = [
        stage.part(number, _shard_part, prefix="shard", first=first, last=last, **arguments)
        for number, (first, last) in enumerate(ranges)
    ]
    markers = engine.run(shards, doing="build index", unit="shard")
    last = stage.part(0, _measure_part, prefix="index", shards=[f"{part.name}.faiss" for part in shards], **arguments)
    measured = engine.run([last], doing="measure recall", unit="part")[0]
    files = {name: facts for marker in [*vectors, measured] for name, facts in marker["files"].items()}
    return stage.finish(markers, files=files, values=measured["values"])


def document_vectors_store(stage: StageFolder) -> RowStore:
    """The vectors of whole documents that a finished stage holds, in the order of those with tokens."""
    names = sorted(path.stem for path in stage.path.glob("vectors-*.npy"))
    return row_store(stage, names)


def built(store: RowStore, indexing: Indexing) -> Index:
    """An index of all embeddings of a store, in memory."""
    empty = _trained(store, indexing)
    for array, first in zip(store.arrays, store.firsts, strict=True):
        add(empty, array, first)
    index = Index([empty], _facts(store, indexing, []))
    measure(index, store, indexing)
    return index


def open_retriever(stage: StageFolder, embeddings: StageFolder) -> Retriever:
    """What looks up neighbours in a finished stage, memory-mapped, once a process; embeddings: the stage before."""
    if stage.settings["retrieval"] == "bm25":
        bm25: Bm25 = loaded(lambda: Bm25.open(stage.path / "bm25"), "bm25", stage.path, of=[stage.manifest_file])
        return bm25
    is_chunks = stage.settings["units"] == "chunks"
    store = embedding_store(embeddings) if is_chunks else document_vectors_store(stage)
    return EmbeddingRetriever(open_index(stage).search, store.rows)


def open_index(stage: StageFolder) -> Index:
    """The index of a finished stage, memory-mapped, once a process."""
    return loaded(lambda: Index.open(stage.path), "index", stage.path, of=[stage.manifest_file])


def _write_vectors(job: Job, stage: StageFolder, engine: Engine) -> list[dict[str, Any]]:
    tables = zip(job.work["chunk"].tables(), job.work["embed"].arrays(), strict=True)
    parts = [
        stage.part(number, _vectors_part, prefix="vectors", chunks=chunks, embeddings=embeddings)
        for number, ((chunks, _), embeddings) in enumerate(tables)
    ]
    return engine.run(parts, doing="average vectors", unit="part")


def _vectors_part(folder: Path, name: str, *, chunks: Path, embeddings: Path) -> PartResult:
    documents = pq.read_table(chunks.with_suffix(".documents.parquet"), columns=["num_chunks", "num_tokens"])
    vectors = document_vectors(np.load(embeddings, mmap_mode="r"), documents["num_chunks"].to_numpy())
    vectors = vectors[documents["num_tokens"].to_numpy() > 0]
    write_array(folder / f"{name}.npy", vectors)
    return PartResult(files=[f"{name}.npy"], rows=len(vectors))


def _words_part(folder: Path, name: str, *, chunks: Sequence[Path], units: str) -> PartResult:
    if units == "chunks":
        texts = (text for path in chunks for text in pq.read_table(path, columns=["text"])["text"].to_pylist())
    else:
        texts = (text for path in chunks for _, text in document_texts(path))
    index = Bm25.build(texts)
    target = folder / "bm25"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    index.save(target)
    for path in target.iterdir():
        with open(path, "rb") as file:
            os.fsync(file.fileno())
    account = Account()
    account.add(units, read=len(index), kept=len(index))
    files = sorted(f"bm25/{path.name}" for path in target.iterdir())
    return PartResult(
        files=files, rows=len(index), account=account, values={"retrieval": "bm25", "num_texts": len(index)}
    )


def _train_part(folder: Path, name: str, *, open_store: OpenStore, indexing: Indexing) -> PartResult:
    store = open_store()
    empty = _trained(store, indexing)
    with written_aside(folder / f"{name}.faiss") as aside:
        faiss.write_index(empty, str(aside))
    counts = [len(array) for array in store.arrays]
    ranges = list(shard_ranges(counts, bytes_per_vector(empty), indexing.max_shard_bytes))
    return PartResult(files=[f"{name}.faiss"], values={"ranges": ranges})


def _shard_part(
    folder: Path, name: str, *, open_store: OpenStore, indexing: Indexing, first: int, last: int
) -> PartResult:
    store = open_store()
    shard = faiss.read_index(str(folder / "trained-00000.faiss"))
    for array, first_id in list(zip(store.arrays, store.firsts, strict=True))[first:last]:
        add(shard, array, first_id)
    with written_aside(folder / f"{name}.faiss") as aside:
        faiss.write_index(shard, str(aside))
    account = Account()
    account.add("vectors", read=sum(len(array) for array in store.arrays[first:last]), kept=shard.ntotal)
    return PartResult(files=[f"{name}.faiss"], rows=shard.ntotal, account=account)


def _measure_part(
    folder: Path, name: str, *, open_store: OpenStore, indexing: Indexing, shards: list[str]
) -> PartResult:
    store = open_store()
    index = Index.open(folder, _facts(store, indexing, shards))
    measure(index, store, indexing)
    write_json(folder / "index.json", index.facts)
    return PartResult(files=["index.json"], values=index.facts)


def measure(index: Index, store: RowStore, indexing: Indexing) -> None:
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


def _facts(store: RowStore, indexing: Indexing, shards: list[str]) -> dict[str, Any]:
    dimensions = store.arrays[0].shape[1]
    facts = {"factory": _factory(store, indexing), "metric": "inner product", "dimensions": dimensions}
    return facts | {"num_chunks": len(store), "shards": shards, "nprobe": None, "recall": 1.0}


def _factory(store: RowStore, indexing: Indexing) -> str:
    return choose_factory(len(store), store.arrays[0].shape[1]) if indexing.factory == "auto" else indexing.factory


def _trained(store: RowStore, indexing: Indexing) -> Any:
    """An empty index, trained on a sample spread over the corpus if its factory needs training."""
    empty = new_index(_factory(store, indexing), store.arrays[0].shape[1])
    number = num_training_vectors(empty, len(store), indexing.training_chunks)
    if number:
        train(empty, store.rows(sample_rows(len(store), number)))
    return empty
