"""Stage mine of the methods compared with: documents in, their nearest documents (knn, iclm) or keywords (quest) out.

Standard looks up nothing. An index of documents too large to map is searched shard by shard, as in `mine`.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from etl import quarantine
from etl.draw import usable_documents
from etl.engine import Engine
from etl.job import Job, least_candidates
from etl.lookup import document_texts, documents_of, loaded
from etl.parts import Part, PartResult, read_array, write_array, write_table
from etl.schemas import DOCUMENT_NEIGHBOURS, KEYWORDS
from etl.search import Ask, open_retriever, search_shards
from etl.work import StageFolder
from nextlong.accounting import Account
from nextlong.config import Synthesis
from nextlong.keywords import QueryModel, keywords, load_stop_phrases
from nextlong.mining import QUERIES_AT_ONCE
from nextlong.retrieval import Retriever
from nextlong.searching import Neighbours

DOCUMENTS_A_PART = 4096


def run(job: Job, engine: Engine) -> dict[str, Any]:
    """Write what the recipe's strategy knows of every document with tokens; returns the manifest."""
    stage = job.work.start("mine")
    if stage.settings.get("skipped"):
        return stage.finish([], values=stage.settings)
    if job.recipe.synthesis.strategy == "quest":
        parts = _keyword_parts(job, stage)
    else:
        parts = search_shards(job, stage, engine, _neighbour_parts(job, stage), _ask_of)
    markers = engine.run(parts, doing="relate documents", unit="document")
    return stage.finish(markers, values=quarantine.collect(markers))


def _neighbour_parts(job: Job, stage: StageFolder) -> list[Part]:
    documents = usable_documents(job.work)
    doc_ids = documents.loc[documents["num_tokens"] > 0, "doc_id"].to_numpy(np.int64)
    path = stage.path / "documents-with-tokens.npy"  # a task would be as large as the corpus
    write_array(path, doc_ids)
    return [
        stage.part(
            number,
            _neighbour_part,
            weight=min(DOCUMENTS_A_PART, len(doc_ids) - first),
            doc_ids=path,
            places=range(first, min(first + DOCUMENTS_A_PART, len(doc_ids))),
            num_candidates=least_candidates(job.recipe),
            open_retriever=partial(open_retriever, job.work["index"], job.work["embed"]),
        )
        for number, first in enumerate(range(0, len(doc_ids), DOCUMENTS_A_PART))
    ]


def _neighbour_part(
    folder: Path,
    name: str,
    *,
    doc_ids: Path,
    places: range,
    num_candidates: int,
    open_retriever: Callable[[], Retriever],
) -> PartResult:
    """doc_ids: a file of all that are indexed, under their place in it."""
    known = read_array(doc_ids)
    account, ids, scores = Account(), [], []
    for queries, found in _neighbours(open_retriever(), places, num_candidates):
        for query, row_scores, row_ids in zip(queries.tolist(), *found, strict=True):
            others = np.flatnonzero((row_ids >= 0) & (row_ids != query))[:num_candidates]
            ids.append(known[row_ids[others]])
            scores.append(row_scores[others])
    offsets = np.cumsum([0, *map(len, ids)], dtype=np.int32)
    lists = [pa.ListArray.from_arrays(offsets, np.concatenate(values)) for values in (ids, scores)]
    write_table(
        folder / f"{name}.parquet", pa.table([known[places.start : places.stop], *lists], schema=DOCUMENT_NEIGHBOURS)
    )
    account.add("documents", read=len(places), kept=len(places))
    account.add("neighbours", read=int(offsets[-1]), kept=int(offsets[-1]))
    return PartResult(files=[f"{name}.parquet"], rows=len(places), account=account)


def _neighbours(
    retriever: Retriever, places: range, num_candidates: int
) -> Iterator[tuple[NDArray[np.int64], Neighbours]]:
    """Batches of documents with their neighbours, themselves among them."""
    for start in places[::QUERIES_AT_ONCE]:
        queries = np.arange(start, min(start + QUERIES_AT_ONCE, places.stop))
        yield queries, retriever.neighbours_of(queries, num_candidates + 1)


def _ask_of(part: Part) -> Ask:
    return partial(_ask, places=part.arguments["places"], num_candidates=part.arguments["num_candidates"])


def _ask(retriever: Retriever, *, places: range, num_candidates: int) -> None:
    for _ in _neighbours(retriever, places, num_candidates):
        pass


def _keyword_parts(job: Job, stage: StageFolder) -> list[Part]:
    return [
        stage.part(number, _keyword_part, weight=rows, chunks=path, synthesis=job.recipe.synthesis, carefully=False)
        for number, (path, rows) in enumerate(job.work["chunk"].tables())
    ]


def _keyword_part(
    folder: Path, name: str, *, chunks: Path, synthesis: Synthesis, carefully: bool = False
) -> PartResult:
    return quarantine.write_without_poisoned(
        partial(_write_keywords, folder, name, chunks, synthesis=synthesis),
        partial(_try_keywords, chunks, synthesis=synthesis),
        _documents_with_tokens(chunks).num_rows,
        carefully=carefully,
    )


def _try_keywords(chunks: Path, first: int, last: int, *, synthesis: Synthesis) -> None:
    find = _open_finder(synthesis)
    for _, text in islice(document_texts(chunks), first, last):
        find(text)


def _write_keywords(
    folder: Path, name: str, chunks: Path, poisoned: Mapping[int, str], *, synthesis: Synthesis
) -> PartResult:
    find = _open_finder(synthesis)
    texts = (each for place, each in enumerate(document_texts(chunks)) if place not in poisoned)
    found = {doc_id: find(text) for doc_id, text in texts}
    write_table(folder / f"{name}.parquet", pa.table([list(found), list(found.values())], schema=KEYWORDS))
    account, num_read = Account(), len(found) + len(poisoned)
    account.add("documents", read=num_read, kept=len(found), dropped={quarantine.REASON: len(poisoned)})
    account.note("documents_without_keyword", sum(not words for words in found.values()))
    values = quarantine.record(_documents_with_tokens(chunks), poisoned)
    return PartResult(files=[f"{name}.parquet"], rows=len(found), account=account, values=values)


def _documents_with_tokens(chunks: Path) -> pa.Table:
    """What `document_texts` tells apart, as rows of schemas.DOCUMENT_CHUNKS."""
    documents = pq.read_table(documents_of(chunks))
    return documents.filter(pc.greater(documents["num_tokens"], 0))


def _open_finder(synthesis: Synthesis) -> Callable[[str], list[str]]:
    """(text) -> its keywords, or those of the queries that it answers, where there is a model."""
    stop_phrases, folder = load_stop_phrases(synthesis.keyword_stop_phrases), synthesis.query_model
    model = loaded(lambda: QueryModel.load(folder), "queries", folder) if folder else None

    def find(text: str) -> list[str]:
        source = "\n".join(model.queries(text)) if model else text
        return keywords(source, min_score=synthesis.keyword_min_score, stop_phrases=stop_phrases)

    return find


def read_neighbours(mine: StageFolder) -> pa.Table:
    """The neighbours of all documents of a finished stage (columns of schemas.DOCUMENT_NEIGHBOURS)."""
    tables = [pq.read_table(path) for path, _ in mine.tables()]
    return pa.concat_tables([DOCUMENT_NEIGHBOURS.empty_table(), *tables])


def read_keywords(mine: StageFolder) -> dict[int, list[str]]:
    """The keywords of all documents of a finished stage, by doc_id."""
    tables = [KEYWORDS.empty_table(), *[pq.read_table(path) for path, _ in mine.tables()]]
    table = pa.concat_tables(tables)
    return dict(zip(table["doc_id"].to_pylist(), table["keywords"].to_pylist(), strict=True))
