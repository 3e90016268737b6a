"""Any text in, its neighbours in a run out, by the run's own model and index, or by its words where it has BM25."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from etl.draw import usable_documents
from etl.embed import loaded_embedder
from etl.lookup import loaded
from etl.origins import chunk_origins
from etl.recipe import Recipe
from etl.search import open_retriever
from etl.stage_rows import finished
from etl.work import RECIPE_FILE, StageFolder, Work
from nextlong.errors import UserError
from nextlong.indexing import Vectors
from nextlong.model_folder import find_onnx, fingerprint, resolve_model
from nextlong.retrieval import EmbeddingRetriever
from nextlong.searching import Neighbours

COLUMNS = ["rank", "score", "chunk_id", "doc_id", "source_id", "text"]


def neighbours_of_text(work: Work, recipe: Recipe, text: str, top_k: int) -> pd.DataFrame:
    """The chunks nearest to a text, nearest first: rank (0 the nearest), score, chunk_id, doc_id, source_id, text.

    Where the run looked up whole documents (knn, iclm) a row is a document, by its first chunk. Raises UserError for a
    run that looked up nothing, or whose model is gone or is another one.
    """
    if top_k < 1:
        raise UserError(f"k is {top_k}, but it must be at least 1.")
    stage = finished(work, "index")
    if stage.settings.get("skipped"):
        raise UserError(
            f"{work.path} has no index: synthesis.strategy={recipe.synthesis.strategy} looked up nothing. "
            f"Make a run with strategy nextlong."
        )
    found = _found(work, recipe, stage, text, top_k)
    is_there = found.ids[0] >= 0
    return neighbour_frame(work, _chunk_ids(work, stage, found.ids[0][is_there]), found.scores[0][is_there])


def _found(work: Work, recipe: Recipe, stage: StageFolder, text: str, top_k: int) -> Neighbours:
    retriever = open_retriever(stage, work["embed"])
    if isinstance(retriever, EmbeddingRetriever):
        return retriever.neighbours_of_vectors(embed(work, recipe, [text]), top_k)
    return retriever.neighbours([text], top_k)


def embed(work: Work, recipe: Recipe, texts: Sequence[str]) -> Vectors:
    """Vectors [n, d] of texts, by the model that made the run's. Raises UserError where it is gone, or another one."""
    settings, model = finished(work, "embed").settings, recipe.embedding.model
    if settings.get("skipped") or model is None:
        raise UserError(f"{work.path} has no embeddings: {settings.get('skipped', 'its recipe names no model')}.")
    try:
        folder = resolve_model(model, recipe.embedding.file).absolute()
        identity = loaded(
            lambda: fingerprint(folder, recipe.embedding), "model", folder, of=_model_files(folder, recipe)
        )
    except UserError as error:
        raise UserError(
            f"the model that made {work.path} is needed to embed a text, and is not there: {error} "
            f"Where it moved, change embedding.model in {work.path / RECIPE_FILE}."
        ) from error
    if identity != settings["model"]:
        raise UserError(
            f"{folder} is another model than the one that made {work.path}: its scores would mean nothing. "
            f"Put that one in its place, or run the recipe anew."
        )
    return loaded_embedder(folder, recipe.embedding).embed(texts).vectors


def _model_files(folder: Path, recipe: Recipe) -> list[Path]:
    return [find_onnx(folder, recipe.embedding.file), folder / "tokenizer.json", folder / "config.json"]


def _chunk_ids(work: Work, stage: StageFolder, ids: NDArray[np.int64]) -> list[int]:
    """What an index's ids mean: chunks, or places among the documents with tokens, of which the first chunk."""
    if stage.settings["units"] == "chunks":
        return [int(each) for each in ids]
    documents = usable_documents(work)
    firsts = documents.loc[documents["num_tokens"] > 0, "first_chunk_id"].to_numpy()
    return [int(each) for each in firsts[ids]]


def neighbour_frame(work: Work, chunk_ids: list[int], scores: NDArray[np.float32]) -> pd.DataFrame:
    """Chunks in their order as a frame, with where they come from."""
    origins = chunk_origins(work, chunk_ids)
    rows = [
        (rank, score, chunk, origins[chunk].doc_id, origins[chunk].source_id, origins[chunk].text)
        for rank, (chunk, score) in enumerate(zip(chunk_ids, scores.tolist(), strict=True))
    ]
    return pd.DataFrame(rows, columns=COLUMNS)
