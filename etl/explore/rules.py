"""A chunk of a run in, its neighbours out with what the rules say of each: candidate, or dropped and why (Sec. 5.4)."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from etl.explore.document import Document, chunk_at, open_document
from etl.explore.neighbours import neighbour_frame
from etl.lookup import chunk_store
from etl.recipe import Recipe
from etl.search import open_retriever
from etl.stage_rows import finished
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
    stage = finished(work, "index")
    if stage.settings.get("units") != "chunks":
        raise UserError(f"{work.path} looked up no chunks (synthesis.strategy={recipe.synthesis.strategy}).")
    doc_id = int(chunk_at(work, chunk_id)["doc_id"])
    found = open_retriever(stage, work["embed"]).neighbours_of(np.array([chunk_id]), top_k)
    is_there = found.ids[0] >= 0
    frame = neighbour_frame(work, found.ids[0][is_there].tolist(), found.scores[0][is_there])
    return frame.assign(verdict=_verdicts(work, recipe.mining, chunk_id, open_document(work, doc_id), frame))


def _verdicts(work: Work, mining: Mining, chunk_id: int, document: Document, frame: pd.DataFrame) -> list[str]:
    """The rules in the order in which mining applies them."""
    ids, scores = frame["chunk_id"].to_numpy(np.int64), frame["score"].to_numpy(np.float32)
    own = document.chunks["chunk_id"].to_numpy(np.int64)
    texts = dict(zip([*ids, *own], [*frame["text"], *document.chunks["text"]], strict=True))
    similarity = mining.near_duplicate_similarity if mining.retrieval == "embeddings" else None

    def sketches(wanted: NDArray[np.int64]) -> NDArray[np.uint32]:
        return sketch([texts[each] for each in wanted])

    rules = NearDuplicateRules(similarity, mining.near_duplicate_overlap, sketches)
    near = NearDuplicates(rules).find(np.full(len(ids), chunk_id), ids, scores)
    hashes = chunk_store(work["chunk"]).hashes
    dropped = {
        "own_document": np.isin(ids, own),
        "exact_copy": np.isin(hashes(ids), hashes(own)),
        "near_duplicate": near.by_similarity,
        "near_duplicate_by_overlap": near.by_overlap,
    }
    verdicts: list[str] = np.select(list(dropped.values()), list(dropped), CANDIDATE).tolist()
    return verdicts
