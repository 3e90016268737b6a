"""The chain gives, long document for long document, what a slow and obvious program gives."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer as FastTokenizer

from etl.lookup import embedding_store
from etl.recipe import Recipe
from etl.work import Work
from nextlong.bm25 import Bm25
from nextlong.keywords import QueryModel, keywords, load_stop_phrases
from nextlong.sampling import STAGE_DRAW, STAGE_POSITION
from tests import reference
from tests.conftest import TARGET
from tests.etl.test_pipeline import run, table
from tests.marks import in_soak

MakeRecipe = Callable[..., Recipe]


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"synthesis": {"position": "tail", "seed": 3}},
        pytest.param({"synthesis": {"position": "random", "num_samples": None}}, marks=pytest.mark.long),
        {"synthesis": {"negatives": "random", "budget": "paper"}, "mining": {"num_candidates": 40}},
        {"synthesis": {"negatives": "tail", "skip_top": 2, "position": "random"}},
        {"synthesis": {"target_length_tokens": [1024, 512], "num_samples": None, "max_uses_per_chunk": 2}},
        {"chunking": {"granularity_tokens": 64}},
        {"mining": {"retrieval": "bm25"}},
        *in_soak(
            {"synthesis": {"budget": "paper"}},
            {"synthesis": {"negatives": "self_repeat"}},
            {"synthesis": {"negatives": "random_candidates"}, "mining": {"num_candidates": 40}},
            {"synthesis": {"max_uses_per_chunk": 1, "docs_per_part": 3}, "mining": {"num_candidates": 60}},
            {"synthesis": {"budget": "paper", "overshoot_ratio": 1.3}},
            {"synthesis": {"max_meta_ratio": 0.2}},
            {"synthesis": {"negatives": "random"}},
            {"synthesis": {"negatives": "tail"}, "mining": {"num_candidates": 40}},
            {"synthesis": {"negatives": "self_repeat", "budget": "paper"}},
            {"synthesis": {"skip_top": 3}},
            {"synthesis": {"max_uses_per_chunk": 2, "num_samples": None}},
            {"synthesis": {"target_length_tokens": [512, 1024], "num_samples": [5, 4]}},
            {"chunking": {"granularity_chars": 300, "long_paragraphs": "keep"}, "synthesis": {"budget": "paper"}},
            {"mining": {"retrieval": "bm25"}, "synthesis": {"negatives": "random", "budget": "paper"}},
            {"mining": {"near_duplicate_similarity": None}},
        ),
    ],
    ids=str,
)
def test_long_documents_equal_those_of_the_twin(make_recipe: MakeRecipe, sections: dict[str, Any]) -> None:
    recipe = make_recipe(**sections | {"synthesis": {"num_samples": 10} | sections.get("synthesis", {})})
    work, summary = run(recipe)
    expected, outcomes, rules = _long_documents(recipe, work)
    ours = table(work, "interleave").to_pylist()
    assert len(expected) > 4
    _check_documents(ours, expected)
    for document in ours:
        by_rank, distances = reference.hardness([reference.Segment(*each.values()) for each in document["segments"]])
        np.testing.assert_allclose(
            np.array(document["similarity_by_rank"], float), np.array(by_rank, float), rtol=1e-6, atol=1e-7
        )
        assert document["meta_distances"] == distances
    account = summary["stages"]["interleave"]["account"]
    dropped = account["documents"]["dropped"]
    assert account["documents"]["kept"] == outcomes["kept"]
    assert dropped.get("too_short", 0) == outcomes["too_short"]
    assert dropped.get("meta_too_long", 0) == outcomes["meta_too_long"]
    if not outcomes["too_short"] and not outcomes["meta_too_long"]:
        names = ("already_used", "over_used", "copy_in_document")
        assert _counts(account, names) == {name: rules[name] for name in names}
        if recipe.synthesis.negatives != "self_repeat":
            names = ("own_document", "exact_copy", "near_duplicate")
            assert _counts(summary["stages"]["mine"]["account"], names) == {name: rules[name] for name in names}


@pytest.mark.parametrize(
    "synthesis",
    [
        {"strategy": "standard", "num_samples": 6, "seed": 5},
        {"strategy": "standard", "target_length_tokens": [512, 1024, 2048], "num_samples": [4, 3, 1]},
        {"strategy": "knn", "num_samples": 7, "docs_per_part": 2},
        {"strategy": "knn", "target_length_tokens": [512, 2048], "num_samples": None},
        {"strategy": "iclm", "num_samples": 9},
        {"strategy": "iclm", "target_length_tokens": [2048, 512], "num_samples": 4},
        {"strategy": "quest", "num_samples": 5, "keyword_oversampling": 3},
        {"strategy": "quest", "target_length_tokens": [512, 1024], "num_samples": None, "keyword_min_score": 5.0},
        *in_soak(*({"strategy": each} for each in ("standard", "knn", "iclm", "quest"))),
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "sections",
    [{}, *in_soak({"chunking": {"granularity_tokens": 64}}, {"mining": {"num_candidates": 6}})],
    ids=["chars", "tokens", "few candidates"],
)
def test_windows_of_documents_equal_those_of_the_twin(
    make_recipe: MakeRecipe, synthesis: dict[str, Any], sections: dict[str, Any]
) -> None:
    recipe = make_recipe(synthesis={"num_samples": None} | synthesis, **sections)
    work, summary = run(recipe)
    expected = _windows(recipe, work)
    assert len(expected) > 3
    ours = table(work, "interleave").to_pylist()
    _check_documents(sorted(ours, key=lambda document: document["sample_id"]), expected)
    kept = {doc_id for document in expected for doc_id in document["documents"]}
    documents = summary["stages"]["interleave"]["account"]["documents"]
    assert documents["kept"] == len(kept)
    assert documents["read"] == documents["kept"] + sum(documents["dropped"].values())


@pytest.mark.parametrize("strategy", ["knn", "iclm"])
def test_windows_by_shared_words_equal_those_of_the_twin(make_recipe: MakeRecipe, strategy: str) -> None:
    recipe = make_recipe(
        mining={"retrieval": "bm25", "num_candidates": 10},
        synthesis={"strategy": strategy, "num_samples": None},
        embedding={"model": None},
    )
    work, _ = run(recipe)
    assert not list((work.path / "3-embeddings").glob("*.npy"))
    expected = _windows(recipe, work)
    assert len(expected) > 3
    _check_documents(table(work, "interleave").to_pylist(), expected)


def test_keywords_of_generated_queries_and_own_stop_phrases(
    make_recipe: MakeRecipe, tmp_path: Path, query_folder: Path
) -> None:
    """quest with a doc2query model on disk: the documents share what its queries name, less the phrases of a file."""
    words = ["water cycle", "river rain", "sun heat", "warm cloud"]
    texts = [f"{words[n % 4]} is {words[n // 4]}. " * 30 for n in range(16)]
    path = tmp_path / "weather.parquet"
    pq.write_table(pa.table({"id": [f"doc-{n}" for n in range(16)], "text": texts}), path)
    queries = QueryModel.load(str(query_folder))
    every = {
        n: keywords("\n".join(queries.queries(text)), min_score=1, stop_phrases=frozenset())
        for n, text in enumerate(texts)
    }
    often = max(sorted({each for found in every.values() for each in found}), key=lambda each: str(every).count(each))
    (tmp_path / "stop.txt").write_text(f"# one a line\n{often}\n")
    synthesis = {
        "strategy": "quest",
        "target_length_tokens": 300,
        "query_model": str(query_folder),
        "keyword_min_score": 1.0,
        "keyword_stop_phrases": str(tmp_path / "stop.txt"),
    }
    recipe = make_recipe(input={"path": str(path), "source": None}, synthesis=synthesis)
    work, _ = run(recipe)
    found = {row["doc_id"]: row["keywords"] for row in table(work, "mine").to_pylist()}
    assert any(often in each for each in every.values())
    assert found == {doc_id: [each for each in listed if each != often] for doc_id, listed in every.items()}
    expected = reference.concatenated(**_corpus(recipe, work), synthesis=recipe.synthesis, keywords=found)
    assert len(expected) > 0
    _check_documents(table(work, "interleave").to_pylist(), expected)


@pytest.mark.parametrize("strategy", ["nextlong", "standard", "knn", "iclm", "quest"])
def test_a_corpus_of_many_languages_equals_the_twins(make_recipe: MakeRecipe, tmp_path: Any, strategy: str) -> None:
    path = tmp_path / "languages.parquet"
    pq.write_table(pa.table({"id": [f"doc-{n}" for n in range(60)], "text": _texts_of_many_languages(60)}), path)
    recipe = make_recipe(
        input={"path": str(path), "source": None, "part_rows": 20},
        chunking={"granularity_chars": 60},
        synthesis={"strategy": strategy, "num_samples": 8, "target_length_tokens": 1500},
    )
    work, _ = run(recipe)
    ours = table(work, "interleave").to_pylist()
    expected = _long_documents(recipe, work)[0] if strategy == "nextlong" else _windows(recipe, work)
    assert len(expected) > 2
    _check_documents(ours, expected)
    chunks = table(work, "chunk").to_pylist()
    decode = FastTokenizer.from_file(recipe.tokenizer).decode
    seen = "".join(decode(document["input_ids"]) for document in ours)
    for word in ("北京", "العربية", "🎉", "def main"):
        assert word in seen
    texts = {row["doc_id"]: row["text"] for row in table(work, "read").to_pylist()}
    for doc_id in {row["doc_id"] for row in chunks}:
        whole = "".join(row["text"] + row["joiner"] for row in chunks if row["doc_id"] == doc_id)
        assert whole == texts[doc_id]


def _texts_of_many_languages(number: int) -> list[str]:
    rng = np.random.default_rng(4)
    pieces = [
        "北京是中国的首都。长城很长，历史悠久。",
        "اللغة العربية جميلة. العلم نور والجهل ظلام.",
        "😀🎉👩‍👩‍👧‍👦 emoji 🚀 🏳️‍🌈 party",
        "def main(argv):\n    return {k: v for k, v in zip(argv[::2], argv[1::2])}",
        "The neural network learns representations. Gradient descent updates weights.",
        "Быстрая лиса. Ленивая собака спит.",
        "नमस्ते दुनिया। हिन्दी में लिखो।",
    ]
    return ["\n".join(pieces[n] for n in rng.integers(0, len(pieces), rng.integers(4, 20))) for _ in range(number)]


def _counts(account: dict[str, Any], names: tuple[str, ...]) -> dict[str, int]:
    return {name: account["candidates"]["dropped"].get(name, 0) for name in names}


def _check_documents(ours: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    assert len(ours) == len(expected)
    for one, other in zip(ours, expected, strict=True):
        assert (one["sample_id"], one["doc_id"]) == (other["sample_id"], other["doc_id"])
        assert [tuple(segment.values()) for segment in one["segments"]] == other["segments"]
        assert one["input_ids"] == other["input_ids"]


def _corpus(recipe: Recipe, work: Work) -> dict[str, Any]:
    """What the twin is given: chunked by itself where characters count, else our chunks."""
    if recipe.chunking.granularity_tokens is None:
        texts = dict(zip(*[table(work, "read")[name].to_pylist() for name in ("doc_id", "text")], strict=True))
        documents, chunks = reference.chunk_corpus(
            texts, recipe.chunking.granularity_chars, recipe.chunking.long_paragraphs
        )
    else:
        documents, chunks = {}, {}
        for row in table(work, "chunk").to_pylist():
            documents.setdefault(row["doc_id"], []).append(row["chunk_id"])
            chunks[row["chunk_id"]] = (row["text"], row["joiner"])
    encode = FastTokenizer.from_file(recipe.tokenizer)
    return {
        "documents": documents,
        "chunks": chunks,
        "encode": lambda text: encode.encode(text, add_special_tokens=False).ids,
    }


def _vectors(recipe: Recipe, work: Work, chunks: dict[int, tuple[str, str]]) -> Any:
    if recipe.mining.retrieval == "bm25":
        index = Bm25.build([text for text, _ in chunks.values()])  # which is compared with Lucene's formula elsewhere
        everything = np.arange(len(chunks))[None]
        return lambda query: index.scores_of(np.array([query]), everything)[0].tolist()
    arrays = embedding_store(work["embed"]).arrays if work["embed"].tables() else []
    return np.concatenate(arrays) if arrays else None


def _long_documents(recipe: Recipe, work: Work) -> Any:
    corpus = _corpus(recipe, work)
    mining = recipe.mining
    if mining.retrieval == "bm25":
        import dataclasses

        mining = dataclasses.replace(mining, near_duplicate_similarity=None)
    encode, chunks = corpus["encode"], corpus["chunks"]
    whole = {chunk_id: text + joiner for chunk_id, (text, joiner) in chunks.items()}
    chars_per_token = sum(map(len, whole.values())) / sum(len(encode(text)) for text in whole.values())
    tokens = recipe.chunking.granularity_tokens
    return reference.long_documents(
        **corpus,
        vectors=_vectors(recipe, work, chunks),
        mining=mining,
        synthesis=recipe.synthesis,
        granularity=tokens * chars_per_token if tokens else recipe.chunking.granularity_chars,
        sampling_stage=STAGE_DRAW,
        interleaving_stage=STAGE_POSITION,
    )


def _windows(recipe: Recipe, work: Work) -> list[dict[str, Any]]:
    corpus, synthesis = _corpus(recipe, work), recipe.synthesis
    documents, chunks = corpus["documents"], corpus["chunks"]
    texts = {
        doc_id: "".join("".join(chunks[chunk]) for chunk in chunk_ids)
        for doc_id, chunk_ids in sorted(documents.items())
        if chunk_ids
    }
    given: dict[str, Any] = {}
    number = recipe.mining.num_candidates
    given["num_candidates"] = {"iclm": 50}.get(synthesis.strategy, 512) if number == "auto" else number
    if synthesis.strategy == "quest":
        stop_phrases = load_stop_phrases(None)
        given["keywords"] = {
            doc_id: keywords(text, min_score=synthesis.keyword_min_score, stop_phrases=stop_phrases)
            for doc_id, text in texts.items()
        }
    elif recipe.mining.retrieval == "bm25":
        given["neighbours"] = _neighbours_by_words(texts, given["num_candidates"])
    elif synthesis.strategy != "standard":
        given["vectors"] = _vectors(recipe, work, chunks)
    return reference.concatenated(**corpus, synthesis=synthesis, **given)


def _neighbours_by_words(texts: dict[int, str], most: int) -> dict[int, list[tuple[int, float]]]:
    index, doc_ids = Bm25.build(texts.values()), list(texts)
    scores = index.scores_of(np.arange(len(texts)), np.tile(np.arange(len(texts)), (len(texts), 1))).tolist()
    neighbours = {}
    for row, doc_id in enumerate(doc_ids):
        others = [(doc_ids[i], score) for i, score in enumerate(scores[row]) if i != row and score > 0]
        neighbours[doc_id] = sorted(others, key=lambda pair: (-pair[1], pair[0]))[:most]
    return neighbours


def test_the_corpus_of_the_twin_tests_has_near_duplicates_and_copies(make_recipe: MakeRecipe) -> None:
    work, summary = run(make_recipe(synthesis={"num_samples": None}))
    dropped = summary["stages"]["mine"]["account"]["candidates"]["dropped"]
    assert min(dropped[name] for name in ("own_document", "exact_copy", "near_duplicate")) > 0
    assert len(table(work, "interleave")) > TARGET // 64
