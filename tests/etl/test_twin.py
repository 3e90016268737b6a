"""The chain gives, long document for long document, what a slow and obvious program gives."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer as FastTokenizer

from etl.lookup import embedding_store
from etl.recipe import Recipe
from nextlong.sampling import STAGE_DRAW, STAGE_POSITION
from tests import reference
from tests.etl.test_pipeline import run, table


@pytest.mark.parametrize(
    "synthesis",
    [
        {},
        {"position": "tail", "seed": 3},
        {"position": "random", "num_samples": None},
        {"budget": "paper"},
        {"budget": "paper", "overshoot_ratio": 1.3},
        {"max_meta_ratio": 0.2},
    ],
    ids=str,
)
def test_long_documents_equal_those_of_the_twin(make_recipe: Callable[..., Recipe], synthesis: dict[str, Any]) -> None:
    recipe = make_recipe(synthesis={"num_samples": 10} | synthesis)
    work, summary = run(recipe)
    texts = dict(zip(*[table(work, "read")[name].to_pylist() for name in ("doc_id", "text")], strict=True))
    documents, chunks = reference.chunk_corpus(texts, recipe.chunking.granularity_chars)
    encode = FastTokenizer.from_file(recipe.tokenizer)
    expected, outcomes, rules = reference.long_documents(
        documents,
        chunks=chunks,
        vectors=np.concatenate(embedding_store(work["embed"]).arrays),
        encode=lambda text: encode.encode(text, add_special_tokens=False).ids,
        mining=recipe.mining,
        synthesis=recipe.synthesis,
        granularity=recipe.chunking.granularity_chars,
        sampling_stage=STAGE_DRAW,
        interleaving_stage=STAGE_POSITION,
    )
    ours = table(work, "interleave").to_pylist()
    assert len(ours) == len(expected) > 4
    for one, other in zip(ours, expected, strict=True):
        assert (one["sample_id"], one["doc_id"]) == (other["sample_id"], other["doc_id"])
        assert [tuple(segment.values()) for segment in one["segments"]] == other["segments"]
        assert one["input_ids"] == other["input_ids"]
    account = summary["stages"]["interleave"]["account"]
    dropped = account["documents"]["dropped"]
    assert account["documents"]["kept"] == outcomes["kept"]
    assert dropped.get("too_short", 0) == outcomes["too_short"]
    assert dropped.get("meta_too_long", 0) == outcomes["meta_too_long"]
    if not outcomes["too_short"] and not outcomes["meta_too_long"]:
        skipped = account["candidates"]["dropped"]
        assert {name: skipped.get(name, 0) for name in ("already_used", "copy_in_document")} == {
            name: rules[name] for name in ("already_used", "copy_in_document")
        }
        mined = summary["stages"]["mine"]["account"]["candidates"]["dropped"]
        names = ("own_document", "exact_copy", "near_duplicate")
        assert {name: mined.get(name, 0) for name in names} == {name: rules[name] for name in names}
        assert rules["near_duplicate"] > 0
