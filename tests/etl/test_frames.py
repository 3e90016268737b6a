"""The same stages on Dask dataframes, lazily: what a notebook computes is what a run writes."""

from collections.abc import Callable

import dask
import dask.dataframe as dd
import numpy as np
import pyarrow as pa
import pytest

from etl import frames
from etl.lookup import embedding_store
from etl.recipe import Recipe
from etl.schemas import CHUNKS, DOCUMENTS, LONG_DOCUMENTS, NEGATIVES, PACKED, to_table
from tests.conftest import TARGET
from tests.etl.test_pipeline import run, table


@pytest.fixture(autouse=True)
def _synchronous() -> object:
    with dask.config.set(scheduler="synchronous"):
        yield


def _table(frame: dd.DataFrame, schema: pa.Schema) -> pa.Table:
    return to_table(frame.compute(), schema)


def test_the_lazy_chain_gives_what_a_run_writes(make_recipe: Callable[..., Recipe]) -> None:
    recipe = make_recipe(synthesis={"num_samples": None})
    work, _ = run(recipe)
    documents = frames.read(recipe.input)
    chunks = frames.chunk(documents, tokenizer=recipe.tokenizer, chunking=recipe.chunking)
    vectors = frames.embed(chunks, embedding=recipe.embedding)
    index = frames.index(vectors)
    negatives = frames.mine(
        chunks,
        embeddings=vectors,
        index=index,
        synthesis=recipe.synthesis,
        chunking=recipe.chunking,
        mining=recipe.mining,
    )
    long_documents = frames.interleave(
        negatives, chunks=chunks, tokenizer=recipe.tokenizer, synthesis=recipe.synthesis, chunking=recipe.chunking
    )
    packed = frames.pack(long_documents, target_length_tokens=TARGET)
    assert documents.npartitions == chunks.npartitions == 3
    assert _table(documents, DOCUMENTS).equals(table(work, "read"))
    assert _table(chunks, CHUNKS).equals(table(work, "chunk"))
    assert np.array_equal(
        np.stack(vectors.compute()["embedding"].to_numpy()), np.concatenate(embedding_store(work["embed"]).arrays)
    )
    mined = {row["chunk_id"]: row for row in _table(negatives, NEGATIVES).to_pylist()}
    assert mined == {row["chunk_id"]: row for row in table(work, "mine").to_pylist()}
    by_document = {row["doc_id"]: row for row in _table(long_documents, LONG_DOCUMENTS).to_pylist()}
    written = table(work, "interleave").to_pylist()
    assert len(by_document) == len(written) > 50
    for row in written:
        assert by_document[row["doc_id"]]["input_ids"] == row["input_ids"]
        assert by_document[row["doc_id"]]["segments"] == row["segments"]
    assert _table(packed, PACKED).num_rows == len(written)


def test_nothing_is_computed_before_it_is_asked_for(
    make_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = make_recipe()
    documents = frames.read(recipe.input)
    calls = []
    monkeypatch.setattr("etl.chunk.chunk_documents", lambda *arguments: calls.append(arguments))
    chunks = frames.chunk(documents, tokenizer=recipe.tokenizer)
    assert calls == []
    assert chunks.columns.tolist() == CHUNKS.names
    assert str(chunks.dtypes["chunk_id"]) == "int64[pyarrow]"


def test_chosen_documents_alone_are_extended(make_recipe: Callable[..., Recipe]) -> None:
    recipe = make_recipe()
    chunks = frames.chunk(frames.read(recipe.input), tokenizer=recipe.tokenizer, chunking=recipe.chunking)
    vectors = frames.embed(chunks, embedding=recipe.embedding)
    frame = chunks.compute()
    chosen = frame.doc_id.value_counts().sort_index().loc[lambda counts: counts > 3].index[:2].tolist()
    negatives = frames.mine(
        chunks, embeddings=vectors, index=frames.index(vectors), synthesis=recipe.synthesis, meta_doc_ids=chosen
    )
    assert negatives.compute().chunk_id.tolist() == frame[frame.doc_id.isin(chosen)].chunk_id.tolist()
    long_documents = frames.interleave(
        negatives, chunks=chunks, tokenizer=recipe.tokenizer, synthesis=recipe.synthesis
    ).compute()
    assert long_documents.doc_id.tolist() == chosen
