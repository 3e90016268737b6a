"""A chunk of a run in, its neighbours out with what the rules say of each: candidate, or dropped and why (Sec. 5.4)."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from etl.explore.neighbours import neighbour_frame
from etl.explore.stages import finished
from etl.lookup import chunk_store
from etl.recipe import Recipe
from etl.search import open_retriever
from etl.show import chunk_origins
from etl.work import Work
from nextlong.config import Mining
from nextlong.errors import UserError
from nextlong.near_duplicates import NearDuplicateRules, NearDuplicates
from nextlong.sketching import sketch

CANDIDATE = "candidate"
"""What may become a negative."""


def judged_neighbours(work: Work, recipe: Recipe, chunk_id: int, top_k: int) -> pd.DataFrame:
    """The top_k neighbours of a chunk, itself among them, as `neighbours_of_text` gives them, and a column `verdict`.

    The verdict is candidate, own_document, exact_copy, near_duplicate or near_duplicate_by_overlap, as in accounts, if
    the chunk's document were extended. Raises UserError for an unknown chunk_id and a run that looks up no chunks.
    """
    stage, there = finished(work, "index"), (finished(work, "chunk").manifest() or {})["rows"]
    if stage.settings.get("units") != "chunks":
        raise UserError(f"{work.path} looked up no chunks (synthesis.strategy={recipe.synthesis.strategy}).")
    if not 0 <= chunk_id < there:
        raise UserError(f"{work.path} has no chunk {chunk_id}. It has {there:,}, numbered from 0.")
    found = open_retriever(stage, work["embed"]).neighbours_of(np.array([chunk_id]), top_k)
    is_there = found.ids[0] >= 0
    frame = neighbour_frame(work, found.ids[0][is_there].tolist(), found.scores[0][is_there])
    return frame.assign(verdict=_verdicts(work, recipe.mining, chunk_id, frame))


def _verdicts(work: Work, mining: Mining, chunk_id: int, frame: pd.DataFrame) -> list[str]:
    """The rules in the order in which mining applies them."""
    query = chunk_origins(work, [chunk_id])[chunk_id]
    ids, scores = frame["chunk_id"].to_numpy(np.int64), frame["score"].to_numpy(np.float32)
    similarity = mining.near_duplicate_similarity if mining.retrieval == "embeddings" else None
    texts = dict(zip(ids.tolist(), frame["text"], strict=True)) | {chunk_id: query.text}

    def sketches(wanted: NDArray[np.int64]) -> NDArray[np.uint32]:
        found: NDArray[np.uint32] = sketch([texts[each] for each in wanted.tolist()])
        return found

    rules = NearDuplicateRules(similarity, mining.near_duplicate_overlap, sketches)
    near = NearDuplicates(rules).find(chunk_id, ids, scores)
    own = frame["doc_id"].to_numpy() == query.doc_id
    copy = _are_copies(work, ids, chunk_id - query.chunk_index, query.doc_id)
    names = ("own_document", "exact_copy", "near_duplicate", "near_duplicate_by_overlap")
    verdicts: list[str] = np.select([own, copy, near.by_similarity, near.by_overlap], names, CANDIDATE).tolist()
    return verdicts


def _are_copies(work: Work, ids: NDArray[np.int64], first_chunk_id: int, doc_id: int) -> NDArray[np.bool_]:
    """Which chunks repeat one of a document's."""
    from etl.explore.document import open_document

    hashes = chunk_store(work["chunk"]).hashes
    num_chunks = len(open_document(work, doc_id).chunks)
    return np.isin(hashes(ids), hashes(np.arange(first_chunk_id, first_chunk_id + num_chunks)))
