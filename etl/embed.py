"""Stage embed: chunks in, one vector a chunk out, in chunk_id order; the model is loaded once a worker process.

The chunks of a document that breaks the model have vectors of zeros, which no index holds.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from etl import quarantine
from etl.draw import all_documents
from etl.engine import Engine
from etl.job import Job
from etl.lookup import documents_of, loaded
from etl.parts import PartResult, write_array
from etl.schemas import embeddings, to_frame
from nextlong.accounting import Account
from nextlong.config import Embedding
from nextlong.embedding import Embedder
from nextlong.indexing import check_training
from nextlong.model_folder import find_onnx


def embed_partition(chunks: pd.DataFrame, *, model_folder: Path, embedding: Embedding) -> pd.DataFrame:
    """The embeddings of a partition of chunks."""
    embedder = loaded_embedder(model_folder, embedding)
    vectors = embedder.embed(chunks["text"].tolist()).vectors.astype(np.float16, copy=False)
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), embedder.dimensions)
    schema = embeddings(embedder.dimensions)
    return to_frame(pa.table([pa.array(chunks["chunk_id"]).cast(pa.int64()), column], schema=schema))


def run(job: Job, engine: Engine) -> dict[str, Any]:
    """Write the embeddings of a job's chunks as parts, an array [rows, d] each (none where none is needed)."""
    stage = job.work.start("embed")
    if job.model_folder is None:
        return stage.finish([], values=stage.settings)
    _check_index(job)
    parts = [
        stage.part(
            number,
            _embed_part,
            weight=rows,
            chunks=path,
            model_folder=job.model_folder,
            embedding=job.recipe.embedding,
            carefully=False,
        )
        for number, (path, rows) in enumerate(job.work["chunk"].tables())
    ]
    markers = engine.run(parts, doing="embed", unit="chunk", resource="GPU")
    quarantine.refuse_none_left(markers, "chunks", "model")
    values = {name: markers[0]["values"][name] for name in ("dimensions", "max_tokens")}
    return stage.finish(markers, values=values | quarantine.collect(markers))


def _check_index(job: Job) -> None:
    """Refuse an index for which there are too few vectors, before hours of making them."""
    indexing = job.recipe.index
    if indexing.factory == "auto" or job.model_folder is None:
        return
    if job.recipe.synthesis.retrieves == "documents":
        number = int((all_documents(job.work["chunk"])["num_tokens"] > 0).sum())
    else:
        number = (job.work["chunk"].manifest() or {})["rows"]
    dimensions = Embedder.load(job.model_folder, job.recipe.embedding).dimensions
    check_training(indexing.factory, dimensions, number, indexing.training_chunks)


def loaded_embedder(folder: Path, embedding: Embedding) -> Embedder:
    files = [find_onnx(folder, embedding.file), folder / "tokenizer.json"]
    return loaded(lambda: Embedder.load(folder, embedding), "embedder", folder, embedding, of=files)


def _embed_part(
    folder: Path, name: str, *, chunks: Path, model_folder: Path, embedding: Embedding, carefully: bool = False
) -> PartResult:
    how: dict[str, Any] = {"model_folder": model_folder, "embedding": embedding}
    return quarantine.write_without_poisoned(
        partial(_write_vectors, folder, name, chunks, **how),
        partial(_try_model, chunks, **how),
        pq.read_metadata(documents_of(chunks)).num_rows,
        carefully=carefully,
    )


def _try_model(chunks: Path, first: int, last: int, *, model_folder: Path, embedding: Embedding) -> None:
    num_chunks = pq.read_table(documents_of(chunks), columns=["num_chunks"])["num_chunks"].to_numpy()
    ends = np.cumsum(num_chunks, dtype=np.int64)
    texts = pq.read_table(chunks, columns=["text"])["text"]
    start, stop = ends[first] - num_chunks[first], ends[last - 1]
    loaded_embedder(model_folder, embedding).embed(texts.slice(start, stop - start).to_pylist())


def _write_vectors(
    folder: Path, name: str, chunks: Path, poisoned: Mapping[int, str], *, model_folder: Path, embedding: Embedding
) -> PartResult:
    documents = pq.read_table(documents_of(chunks))
    is_kept = np.repeat(quarantine.mask(documents.num_rows, poisoned), documents["num_chunks"].to_numpy())
    texts = pq.read_table(chunks, columns=["text"])["text"].filter(is_kept).to_pylist()
    embedder = loaded_embedder(model_folder, embedding)
    embedded = embedder.embed(texts)
    vectors = np.zeros((len(is_kept), embedder.dimensions), embedded.vectors.dtype)
    vectors[is_kept] = embedded.vectors
    write_array(folder / f"{name}.npy", vectors)
    account = Account()
    num_left_out = len(is_kept) - len(texts)
    account.add("chunks", read=len(is_kept), kept=len(texts), dropped={quarantine.REASON: num_left_out})
    account.note("chunks_cut_at_model_limit", embedded.num_cut)
    account.note("model_tokens", embedded.num_tokens)
    account.note("padding_tokens", embedded.num_padding_tokens)
    values = {"dimensions": embedder.dimensions, "max_tokens": embedder.max_tokens, "provider": embedder.provider}
    values |= quarantine.record(documents, poisoned)
    return PartResult(files=[f"{name}.npy"], rows=len(is_kept), account=account, values=values)
