"""Stage index: embeddings in, FAISS files out, with their recall against exact search; or texts in, a BM25 index out.

Train on a sample; add each part of the embeddings to inverted lists of its own, a task a part; join those of a shard in
part order, a task a shard: the bytes of a single build. Where adding is copying (Flat), and to a shard of one part or
few vectors, the shard's task adds. Then, unless the index is exact, one task measures recall and chooses nprobe and the
rerank ratio. Passes over the embeddings: one, and one more for the exact neighbours of the recall's sample. For
neighbours of whole documents their vectors come first, in one more pass.

Memory of a task: the training sample; or the trained index and a part; or a shard (at worst twice, while it grows) and
a part: the last is compared with the machine's before training, for all tasks that a host may run at once. Disk: the
index, and until the stage is finished its inverted lists once more. BM25 is built by one task in memory.
"""

import dataclasses
import logging
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import psutil
import pyarrow.parquet as pq

from etl import quarantine
from etl.engine import Engine
from etl.job import Job
from etl.lookup import RowStore, document_texts, documents_of, embedding_store, row_store
from etl.parts import PartResult, finished, folder_aside, read_array, write_array, write_json, written_aside
from etl.work import StageFolder
from nextlong.accounting import Account
from nextlong.bm25 import Bm25
from nextlong.config import AUTO_CANDIDATES, Indexing
from nextlong.indexing import (
    add,
    bytes_per_vector,
    check_memory,
    choose_factory,
    has_mergeable_lists,
    merge_lists,
    new_index,
    num_training_vectors,
    read_index,
    sample_rows,
    shard_ranges,
    train,
    write_lists,
    zeros,
)
from nextlong.retrieval import EmbeddingRetriever, document_vectors
from nextlong.searching import Index, choose_search, exact_neighbours, recall

log = logging.getLogger(__name__)

OpenStore = Callable[[], RowStore]
VECTORS_A_TASK = 2**17  # a shard of no more is built by one task in seconds; lists on disk would cost more than that


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
    indexing = dataclasses.replace(job.recipe.index, recall_top_k=stage.settings["recall_top_k"])
    arguments: dict[str, Any] = {"open_store": open_store, "indexing": indexing}
    markers = _build(stage, engine, arguments)
    names = [f"{marker['part']}.faiss" for marker in markers]
    last = stage.part(0, _measure_part, prefix="index", shards=names, **arguments)
    measured = engine.run([last], doing="measure recall", unit="part")[0]
    if measured["values"]["recall"] < job.recipe.index.target_recall:
        log.warning("index: recall %.3f is below index.target_recall", measured["values"]["recall"])
    files = {name: facts for marker in [*vectors, measured] for name, facts in marker["files"].items()}
    return stage.finish(markers, files=files, values=measured["values"])


def _build(stage: StageFolder, engine: Engine, arguments: dict[str, Any]) -> list[dict[str, Any]]:
    """Train, add and join; returns the markers of the shards. Nothing is added for shards that are there."""
    training = stage.part(0, train_part, prefix="trained", num_builders=engine.tasks_a_host, **arguments)
    trained = engine.run([training], doing="train index", unit="part")[0]["values"]
    counts, adding, shards = trained["counts"], [], []
    for number, (first, last) in enumerate(trained["ranges"]):
        places, weight = range(first, last), sum(counts[first:last])
        shards.append(stage.part(number, shard_part, prefix="shard", weight=weight, places=places, **arguments))
        is_spread = trained["has_mergeable_lists"] and len(places) > 1 and weight > VECTORS_A_TASK
        if is_spread and finished(shards[-1]) is None:
            adding += [
                stage.part(place, add_part, prefix="added", weight=counts[place], place=place, **arguments)
                for place in places
            ]
    engine.run(adding, doing="add vectors", unit="vector")
    return engine.run(shards, doing="build index", unit="vector")


def built(store: RowStore, indexing: Indexing) -> Index:
    """An index of all embeddings of a store, in memory."""
    empty = _trained(store, indexing)
    for array, first in zip(store.arrays, store.firsts, strict=True):
        add(empty, array, first)
    index = Index([empty], _facts(store, indexing, []))
    measure(index, store, indexing)
    return index


def _write_vectors(job: Job, stage: StageFolder, engine: Engine) -> list[dict[str, Any]]:
    tables = zip(job.work["chunk"].tables(), job.work["embed"].arrays(), strict=True)
    poisoned = quarantine.doc_ids(job.work)
    parts = [
        stage.part(number, _vectors_part, prefix="vectors", chunks=chunks, embeddings=embeddings, poisoned=poisoned)
        for number, ((chunks, _), embeddings) in enumerate(tables)
    ]
    return engine.run(parts, doing="average vectors", unit="part")


def _vectors_part(folder: Path, name: str, *, chunks: Path, embeddings: Path, poisoned: list[int]) -> PartResult:
    documents = pq.read_table(documents_of(chunks), columns=["doc_id", "num_chunks", "num_tokens"])
    vectors = document_vectors(read_array(embeddings), documents["num_chunks"].to_numpy())
    is_poisoned = np.isin(documents["doc_id"].to_numpy(), poisoned)
    vectors = vectors[(documents["num_tokens"].to_numpy() > 0) & ~is_poisoned]
    write_array(folder / f"{name}.npy", vectors)
    return PartResult(files=[f"{name}.npy"], rows=len(vectors))


def _words_part(folder: Path, name: str, *, chunks: Sequence[Path], units: str) -> PartResult:
    if units == "chunks":
        texts = (text for path in chunks for text in pq.read_table(path, columns=["text"])["text"].to_pylist())
    else:
        texts = (text for path in chunks for _, text in document_texts(path))
    index = Bm25.build(texts)
    target = folder / "bm25"
    target.mkdir(exist_ok=True)
    with folder_aside(target) as aside:
        index.save(aside)
    account = Account()
    account.add(units, read=len(index), kept=len(index))
    files = sorted(f"bm25/{path.name}" for path in target.iterdir())
    return PartResult(
        files=files, rows=len(index), account=account, values={"retrieval": "bm25", "num_texts": len(index)}
    )


def train_part(folder: Path, name: str, *, open_store: OpenStore, indexing: Indexing, num_builders: int) -> PartResult:
    """Writes the empty, trained index; says which parts each shard is to hold."""
    store = open_store()
    counts = [len(array) for array in store.arrays]
    check_memory(
        _factory(store, indexing),
        _dimensions(store),
        counts,
        max_shard_bytes=indexing.max_shard_bytes,
        available_bytes=_available_bytes(),
        num_builders=num_builders,
    )
    empty = _trained(store, indexing)
    path = folder / f"{name}.faiss"
    with written_aside(path) as aside:
        faiss.write_index(empty, str(aside))
    ranges = shard_ranges(counts, bytes_per_vector(empty), indexing.max_shard_bytes - path.stat().st_size)
    values = {"ranges": list(ranges), "counts": counts, "has_mergeable_lists": has_mergeable_lists(empty)}
    return PartResult(files=[path.name], values=values)


def _available_bytes() -> int:
    from distributed.system import MEMORY_LIMIT  # the container's, where there is one

    return int(min(psutil.virtual_memory().available, MEMORY_LIMIT))


def add_part(folder: Path, name: str, *, open_store: OpenStore, indexing: Indexing, place: int) -> PartResult:
    """Adds one part of the vectors to a copy of the trained index; writes the inverted lists alone."""
    store = open_store()
    index = read_index(folder / "trained-00000.faiss")
    add(index, store.arrays[place], store.firsts[place])
    with written_aside(folder / f"{name}.faiss") as aside:
        write_lists(index, aside)
    return PartResult(files=[f"{name}.faiss"], rows=index.ntotal)


def shard_part(folder: Path, name: str, *, open_store: OpenStore, indexing: Indexing, places: range) -> PartResult:
    """Joins the lists of the parts at some places; adds the vectors of those that have none."""
    store = open_store()
    shard = read_index(folder / "trained-00000.faiss")
    for place in places:
        lists = folder / f"added-{place:05d}.faiss"
        if lists.exists():
            merge_lists(shard, lists)
        else:
            add(shard, store.arrays[place], store.firsts[place])
    with written_aside(folder / f"{name}.faiss") as aside:
        faiss.write_index(shard, str(aside))
    account = Account()
    num_missing = sum(len(zeros(store.arrays[place])) for place in places)
    num_read = sum(len(store.arrays[place]) for place in places)
    account.add("vectors", read=num_read, kept=shard.ntotal, dropped={"zero_vector": num_missing})
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
    """Choose nprobe and the rerank ratio where they are left open; put them and the recall into the index's facts.

    Recall is that of a search as mining makes it, scored again from the stored embeddings, against exact search.
    """
    ratios = (indexing.rerank_ratio,) if indexing.rerank_ratio else index.rerank_ratios
    if index.is_exact:
        index.facts["rerank_ratio"] = ratios[0]
        return
    query_ids = sample_rows(len(store), indexing.recall_queries)
    wanted = AUTO_CANDIDATES if indexing.recall_top_k == "auto" else indexing.recall_top_k
    queries, top_k = store.rows(query_ids), min(wanted, len(store))
    exact = exact_neighbours(queries, store.arrays, top_k)

    @cache
    def recall_at(nprobe: int, ratio: float) -> float:
        index.set_nprobe(nprobe)
        return recall(EmbeddingRetriever(index.search, store.rows, ratio).neighbours_of(query_ids, top_k).ids, exact)

    nprobe, ratio = choose_search(
        recall_at,
        nprobe=indexing.nprobe,
        ratios=ratios,
        num_lists=index.num_lists,
        target_recall=indexing.target_recall,
    )
    index.set_nprobe(nprobe)
    index.facts |= {
        "nprobe": nprobe,
        "rerank_ratio": ratio,
        "recall_before_reranking": recall(index.search(queries, top_k).ids, exact),
        "recall": recall_at(nprobe, ratio),
        "recall_top_k": top_k,
        "recall_queries": len(queries),
    }


def _facts(store: RowStore, indexing: Indexing, shards: list[str]) -> dict[str, Any]:
    facts = {"factory": _factory(store, indexing), "metric": "inner product", "dimensions": _dimensions(store)}
    exact = {"recall_before_reranking": 1.0, "recall": 1.0}
    return facts | {"num_chunks": len(store), "shards": shards, "nprobe": None} | exact


def _factory(store: RowStore, indexing: Indexing) -> str:
    return choose_factory(len(store), _dimensions(store)) if indexing.factory == "auto" else indexing.factory


def _dimensions(store: RowStore) -> int:
    return int(store.arrays[0].shape[1])


def _trained(store: RowStore, indexing: Indexing) -> Any:
    """An empty index, trained on a sample spread over the corpus if its factory needs training."""
    empty = new_index(_factory(store, indexing), _dimensions(store))
    number = num_training_vectors(empty, len(store), indexing.training_chunks)
    if number:
        train(empty, store.rows(sample_rows(len(store), number)))
    return empty
