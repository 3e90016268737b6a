"""What a run costs: amounts and costs worked out by hand, and what must hold of them whatever the rates."""

import dataclasses
from typing import Any

import numpy as np
import pandas as pd
import pytest

from etl.capacity.amounts import STAND_IN, Corpus, Sample, measured_with, workload
from etl.capacity.costs import PUBLISHED_CHUNKS, Estimate, StageCost, Step, estimate
from etl.capacity.page import page
from etl.capacity.rates import Rates
from etl.inputs import Input
from etl.recipe import Recipe
from etl.strategies import STRATEGIES
from nextlong.config import Embedding, Indexing, Mining, Packing, Synthesis
from nextlong.errors import UserError

DIMENSIONS = 64
RATES = Rates(
    machine="a machine",
    measured_with={"model": "m", "dimensions": "64", "tokenizer": "a stand-in", "granularity": "2,048 characters"},
    memory_bytes=10**15,
    start=0.0,
    load_tokenizer=0.0,
    load_model=0.0,
    part=0.0,
    written_byte=1e-9,
    cold_read=1e-4,
    read_char=1e-6,
    known_document=1e-7,
    chunked_char=1e-6,
    embedded_chunk=0.5,
    embedded_chunk_on_gpu=None,
    product=1e-11,
    product_of_few=1e-10,
    searched_number=1e-10,
    scanned_number={"Flat": 1e-10, "SQ8": 1e-10, "PQ": 1e-10},
    added_number={"Flat": 1e-9, "SQ8": 1e-9, "PQ": 1e-8},
    pq_training_number=1e-6,
    graph_number=1e-8,
    candidate=1e-6,
    fetched_number=1e-8,
    sketched_char=1e-7,
    words_char=1e-7,
    words_query=1e-4,
    words_query_text=1e-7,
    keyword_char=1e-6,
    compared_char=1e-8,
    generated_document=0.0,
    planned_segment=1e-6,
    filled_token=1e-8,
    used_segment=1e-6,
    gathered_document={"standard": 1e-6, "knn": 1e-5, "iclm": 1e-5, "quest": 1e-5},
    averaged_number=1e-9,
    packed_token=1e-8,
)


def make_recipe(**sections: Any) -> Recipe:
    synthesis = {"target_length_tokens": 5_000} | sections.pop("synthesis", {})
    sections = {"embedding": Embedding(model="m")} | sections
    return Recipe(
        input=Input(path=STAND_IN), output=STAND_IN, tokenizer=STAND_IN, synthesis=Synthesis(**synthesis), **sections
    )


def make_corpus(num_chars: float = 80_000, num_parts: int = 4) -> Corpus:
    """Documents of four chunks of 2,000 characters and 500 tokens."""
    numbers = np.arange(5)
    documents = pd.DataFrame(
        {
            "doc_id": numbers,
            "source_id": "x",
            "source": "y",
            "first_chunk_id": 4 * numbers,
            "num_chunks": 4,
            "num_chars": 8_000,
            "num_tokens": 2_000,
        }
    )
    sample = Sample(
        documents=documents,
        chars_per_chunk=2_000.0,
        tokens_per_chunk=500.0,
        documents_bytes_per_char=0.25,
        chunks_bytes_per_char=0.5,
        bytes_per_token=1.5,
        bytes_per_candidate=6.0,
        words_bytes_per_char=1.0,
    )
    return Corpus(num_chars=num_chars, num_splits=num_parts, num_parts=num_parts, sample=sample)


def estimated(recipe: Recipe, corpus: Corpus | None = None, rates: Rates = RATES, *, on_gpu: bool = False) -> Estimate:
    needs_model = recipe.synthesis.retrieves is not None and recipe.mining.retrieval == "embeddings"
    amounts = workload(recipe, corpus or make_corpus(), DIMENSIONS if needs_model else 0)
    return estimate(amounts, rates, on_gpu=on_gpu)


def stage(found: Estimate, name: str) -> StageCost:
    return next(stage for stage in found.stages if stage.name == name)


def test_amounts_of_a_small_corpus_by_hand() -> None:
    amounts = estimated(make_recipe()).workload
    assert (amounts.num_documents, amounts.num_chunks, amounts.num_tokens) == (10, 40, 20_000)
    (made,) = amounts.long_documents
    assert made.number == 10  # every document has two chunks or more, and reaches 5,000 tokens
    assert made.num_queries == 40
    assert made.num_candidates == 40 * 36  # of other documents there are no more
    assert made.num_segments == 10 * (4 + 6)  # 5,000 tokens are four meta-chunks and six negatives of 500
    assert amounts.index is not None
    assert (amounts.index.factory, amounts.index.num_lists) == ("Flat", 0)


def test_bytes_of_a_small_corpus_by_hand() -> None:
    found = estimated(make_recipe())
    assert stage(found, "read").num_bytes == 80_000 * 0.25 + 4 * 2_000
    assert stage(found, "chunk").num_bytes == 80_000 * 0.5 + 20_000 * 4 + 40 * 32 + 4 * 2_000
    assert stage(found, "embed").num_bytes == 40 * DIMENSIONS * 2 + 4 * 2_000
    assert stage(found, "index").num_bytes == 40 * (DIMENSIONS * 4 + 8) + 2_000
    assert stage(found, "mine").num_bytes == 40 * 36 * 6 + 2_000 * found.workload.long_documents[0].num_parts
    assert found.num_bytes == sum(each.num_bytes for each in found.stages)


def test_the_paper_s_samples_take_the_searches_and_lookups_of_their_length() -> None:
    recipe = make_recipe(synthesis={"target_length_tokens": 131_072, "num_samples": 32_000})
    (made,) = estimated(recipe, make_corpus(1e12, 15_000)).workload.long_documents
    assert made.number == 32_000
    assert made.num_queries == 32_000 * 4
    assert made.num_candidates == 32_000 * 4 * 512
    assert made.num_segments == pytest.approx(32_000 * (4 + (131_072 - 2_000) / 500))
    assert made.num_parts == 263  # 122 long documents a part


def test_a_part_is_not_shared_among_workers() -> None:
    embed = stage(estimated(make_recipe()), "embed")
    assert embed.seconds(on_gpu=False) == pytest.approx(20.0, abs=0.1)
    seconds = [embed.shortest_seconds(workers, 0) for workers in (1, 2, 3, 4, 100)]
    assert seconds == pytest.approx([20.0, 10.0, 10.0, 5.0, 5.0], abs=0.1)


def test_stages_follow_one_another_and_each_is_bounded_by_its_parts() -> None:
    steps = [Step("load", 3.0, every_worker=True), Step("map", 8.0, 4), Step("reduce", 5.0)]
    cost = StageCost("index", 1, "vectors", 0, 0, steps)
    assert cost.seconds(on_gpu=False) == 16
    assert [cost.shortest_seconds(workers, 0) for workers in (1, 2, 4, 1_000)] == [16, 12, 10, 10]


def test_more_workers_are_never_slower() -> None:
    found = estimated(make_recipe(synthesis={"num_samples": 160}), make_corpus(1e9, 16))
    seconds = [found.shortest_seconds(workers, 1) for workers in range(1, 40)]
    assert seconds == sorted(seconds, reverse=True)
    assert seconds[0] == pytest.approx(found.seconds(on_gpu=False))
    assert seconds[15] == seconds[-1] > 0


def test_a_larger_corpus_costs_more() -> None:
    recipe = make_recipe(index=Indexing(factory="Flat"))
    found = [estimated(recipe, make_corpus(chars, 16)) for chars in (1e6, 1e7, 1e9, 1e11)]
    for name in ("read", "chunk", "embed", "index", "mine", "interleave"):
        sizes = [stage(each, name).num_bytes for each in found]
        seconds = [stage(each, name).seconds(on_gpu=False) for each in found]
        assert sizes == sorted(sizes), name
        assert seconds == sorted(seconds), name
        assert seconds[0] > 0, name


def test_the_index_follows_the_number_of_chunks() -> None:
    factories, shards = [], []
    for chunks in (10_000, 500_000, 10_000_000, PUBLISHED_CHUNKS):
        amounts = estimated(make_recipe(), make_corpus(2_000.0 * chunks, 16)).workload
        assert amounts.index is not None
        factories.append(amounts.index.factory)
        shards.append(amounts.index.num_shards)
        assert amounts.index.nprobe <= amounts.index.num_lists
    assert factories == ["Flat", "IVF2048,Flat", "IVF16384_HNSW32,SQ8", "IVF131072_HNSW32,PQ8"]
    assert shards == [1, 1, 1, 2]


def test_an_index_too_large_to_map_is_searched_shard_by_shard() -> None:
    recipe = make_recipe(index=Indexing(max_mapped_bytes=2**30))
    mapped, sharded = (estimated(each, make_corpus(1e12, 100)) for each in (make_recipe(), recipe))
    assert [step.name for step in stage(mapped, "mine").steps] == ["search"]
    assert [step.name for step in stage(sharded, "mine").steps] == ["search shards", "judge"]
    assert stage(sharded, "mine").seconds(on_gpu=False) == pytest.approx(stage(mapped, "mine").seconds(on_gpu=False))


def test_embeddings_that_memory_cannot_hold_are_read_from_the_disk() -> None:
    recipe = make_recipe(synthesis={"num_samples": 1_000})
    corpus = make_corpus(1e10, 16)
    small = dataclasses.replace(RATES, memory_bytes=10**6)
    warm, cold = (stage(estimated(recipe, corpus, rates), "mine").seconds(on_gpu=False) for rates in (RATES, small))
    assert cold > 2 * warm


def test_gpus_embed_at_their_own_rate_or_the_published_one() -> None:
    published = stage(estimated(make_recipe(), make_corpus(2_000.0 * PUBLISHED_CHUNKS, 16), on_gpu=True), "embed")
    assert published.seconds(on_gpu=True) / 3600 == pytest.approx(928, rel=0.002)
    measured = dataclasses.replace(RATES, embedded_chunk_on_gpu=0.001)
    assert stage(estimated(make_recipe(), None, measured, on_gpu=True), "embed").seconds(on_gpu=True) == 0.04
    unknown = dataclasses.replace(RATES, embedded_chunk=None)
    with pytest.raises(UserError, match="how fast workers embed is not known"):
        estimated(make_recipe(), None, unknown)


def test_the_largest_cost_is_named() -> None:
    found = estimated(make_recipe())
    slowest, share = found.largest(lambda each: each.shortest_seconds(1, 1))
    assert (slowest.name, share > 0.9) == ("embed", True)
    widest, _ = found.largest(lambda each: each.num_bytes)
    assert widest.num_bytes == max(each.num_bytes for each in found.stages)
    text = page(found, workers=1, gpus=1, source="measured here")
    assert f"embed (embed) takes {share:.0%} of the time, {widest.name} " in text


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_has_a_page(name: str) -> None:
    sections = STRATEGIES[name]
    found = estimated(make_recipe(synthesis=sections["synthesis"], mining=Mining(**sections.get("mining", {}))))
    assert all(each.number > 0 for each in found.workload.long_documents)
    text = page(found, workers=2, gpus=1, source="measured here")
    needs_model = found.workload.dimensions > 0
    assert needs_model == (name not in ("nextlong-self-repeat", "standard", "quest") and "bm25" not in name)
    assert ("LiteLong" in text) == needs_model
    assert "Nothing was written." in text


def test_repeats_need_no_search_and_are_stored_once() -> None:
    top, repeated = (
        estimated(make_recipe(synthesis={"negatives": negatives, "target_length_tokens": 20_000}), make_corpus(1e8, 8))
        for negatives in ("top", "self_repeat")
    )
    assert repeated.workload.num_queries == 0
    assert stage(repeated, "interleave").num_bytes < 0.2 * stage(top, "interleave").num_bytes


def test_several_lengths_share_the_documents() -> None:
    lengths = {"target_length_tokens": [5_000, 10_000], "num_samples": [100, 300]}
    found = estimated(make_recipe(synthesis=lengths), make_corpus(1e8, 8)).workload.long_documents
    assert [each.number for each in found] == [100, 300]
    few = estimated(make_recipe(synthesis=lengths)).workload.long_documents
    assert [each.number for each in few] == [2.5, 7.5]  # ten documents, in proportion


def test_a_target_that_no_document_reaches_gives_none() -> None:
    recipe = make_recipe(synthesis={"target_length_tokens": 100_000, "num_samples": 4})  # the corpus has 20,000 tokens
    found = estimated(recipe)
    assert found.workload.long_documents[0].number == 0
    text = page(found, workers=1, gpus=1, source="here")
    assert "of the sample no long document of 100,000 tokens can be made" in text
    few = estimated(make_recipe(synthesis={"num_samples": 40}))
    assert "about 10 of the 40 long documents of 5,000 tokens" in page(few, workers=1, gpus=1, source="here")


def test_packing_several_costs_their_tokens_again() -> None:
    one, two = (
        stage(estimated(make_recipe(packing=Packing(sequence_length_tokens=length)), make_corpus(1e8, 8)), "pack")
        for length in (5_000, 10_000)
    )
    assert two.amount == one.amount / 2
    assert two.num_bytes > 10 * one.num_bytes


def test_the_page_stands_beside_the_published_figures() -> None:
    corpus = make_corpus(2_000.0 * PUBLISHED_CHUNKS, 16)
    text = page(estimated(make_recipe(), corpus, on_gpu=True), workers=64, gpus=8, source="measured here")
    assert (
        "published   644,275,250 chunks of 1,024 float32 numbers: 928 GPU-hours (193 chunks/s a GPU) and 2.4 TB" in text
    )
    assert "for 644.3 M chunks: 927 GPU-hours, 2.64 TB; this plan: 927 GPU-hours, 82.47 GB" in text
    assert "no GPU was measured: embedding at the published 193 chunks/s" in text
    assert "time on 64 workers, 8 GPUs" in text


def test_rates_of_another_setting_are_told() -> None:
    other = make_recipe(embedding=Embedding(model="other"))
    assert "measured with model m, this plan has other" in page(estimated(other), workers=1, gpus=1, source="here")
    assert "measured with" not in page(estimated(make_recipe()), workers=1, gpus=1, source="here")
    assert measured_with(make_recipe(), DIMENSIONS) == RATES.measured_with
