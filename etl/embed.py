"""Stage embed: chunks in, one vector a chunk out, in chunk_id order; the model is loaded once a worker process."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from etl.engine import Engine
from etl.job import Job
from etl.lookup import loaded
from etl.parts import PartResult, write_array
from etl.schemas import embeddings, to_frame
from nextlong.accounting import Account
from nextlong.config import Embedding
from nextlong.embedding import Embedder
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
    parts = [
        stage.part(
            number,
            _embed_part,
            weight=rows,
            chunks=path,
            model_folder=job.model_folder,
            embedding=job.recipe.embedding,
        )
        for number, (path, rows) in enumerate(job.work["chunk"].tables())
    ]
    markers = engine.run(parts, doing="embed", unit="chunk", resource="GPU")
    return stage.finish(markers, values={name: markers[0]["values"][name] for name in ("dimensions", "max_tokens")})


def loaded_embedder(folder: Path, embedding: Embedding) -> Embedder:
    files = [find_onnx(folder, embedding.file), folder / "tokenizer.json"]
    return loaded(lambda: Embedder.load(folder, embedding), "embedder", folder, embedding, of=files)


def _embed_part(folder: Path, name: str, *, chunks: Path, model_folder: Path, embedding: Embedding) -> PartResult:
    texts = pq.read_table(chunks, columns=["text"])["text"].to_pylist()
    embedder = loaded_embedder(model_folder, embedding)
    embedded = embedder.embed(texts)
    write_array(folder / f"{name}.npy", embedded.vectors)
    account = Account()
    account.add("chunks", read=len(texts), kept=len(embedded.vectors))
    account.note("chunks_cut_at_model_limit", embedded.num_cut)
    account.note("model_tokens", embedded.num_tokens)
    account.note("padding_tokens", embedded.num_padding_tokens)
    values = {"dimensions": embedder.dimensions, "max_tokens": embedder.max_tokens, "provider": embedder.provider}
    return PartResult(files=[f"{name}.npy"], rows=len(texts), account=account, values=values)
