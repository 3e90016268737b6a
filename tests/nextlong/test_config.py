"""Settings are checked once, at construction, in one sentence each."""

from collections.abc import Callable
from typing import Any

import pytest

from nextlong.config import Chunking, Embedding, Indexing, Mining, Packing, Synthesis
from nextlong.errors import UserError


@pytest.mark.parametrize(
    ("make", "values", "message"),
    [
        (Chunking, {"granularity_chars": 0}, "chunking.granularity_chars is 0, but it must be at least 1"),
        (Chunking, {"granularity_tokens": 4}, "chunking.granularity_tokens is 4"),
        (Chunking, {"granularity_tokens": 64, "long_paragraphs": "keep"}, "counts characters as the published"),
        (Embedding, {"model": ""}, "embedding.model is ''"),
        (Embedding, {"model": "m", "dimensions": 0}, "embedding.dimensions is 0"),
        (Embedding, {"model": "m", "batch_tokens": 0}, "embedding.batch_tokens is 0"),
        (Embedding, {"model": "m", "task_id": -1}, "embedding.task_id is -1"),
        (Indexing, {"factory": ""}, "index.factory is ''"),
        (Indexing, {"target_recall": 1.5}, "index.target_recall is 1.5, but it must be above 0 and at most 1"),
        (Indexing, {"nprobe": 0}, "index.nprobe is 0"),
        (Indexing, {"recall_top_k": 0}, "index.recall_top_k is 0, but it must be at least 1, or auto"),
        (Mining, {"num_candidates": 0}, "mining.num_candidates is 0"),
        (Mining, {"near_duplicate_similarity": 1.2}, "near_duplicate_similarity is 1.2"),
        (Synthesis, {"target_length_tokens": 0}, "synthesis.target_length_tokens is 0"),
        (Synthesis, {"target_length_tokens": 9, "num_samples": 0}, "synthesis.num_samples is 0"),
        (Synthesis, {"target_length_tokens": 9, "max_meta_ratio": 0.0}, "synthesis.max_meta_ratio is 0.0"),
        (Synthesis, {"target_length_tokens": 9, "seed": -1}, "synthesis.seed is -1"),
        (Packing, {"sequence_length_tokens": 0}, "packing.sequence_length_tokens is 0"),
    ],
)
def test_a_bad_value_is_refused_by_its_dotted_name(
    make: Callable[..., Any], values: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        make(**values)


def test_defaults_are_valid() -> None:
    assert Chunking().granularity_chars == 2048
    assert Synthesis(target_length_tokens=65536).budget == "exact"
    assert Mining().near_duplicate_similarity == 0.95
