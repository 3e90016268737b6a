"""Finished runs of every strategy on the small corpus."""

from collections.abc import Callable
from pathlib import Path

import pytest

from etl import compare
from etl.engine import Engine
from etl.inputs import Input
from etl.recipe import Recipe
from nextlong.config import Chunking, Embedding, Synthesis

STRATEGIES = ("nextlong", "nextlong-self-repeat", "nextlong-bm25", "standard", "knn", "iclm", "quest")


@pytest.fixture(scope="session")
def work_of(
    tmp_path_factory: pytest.TempPathFactory, corpus_file: Path, tokenizer_file: Path, model_folder: Path
) -> Callable[[str], Path]:
    """The finished work folder of a strategy, made when it is first asked for; tests do not write to it."""
    recipe = Recipe(
        input=Input(path=str(corpus_file), id="id", source="source", part_rows=40),
        output="unused",
        tokenizer=str(tokenizer_file),
        chunking=Chunking(granularity_chars=300),
        embedding=Embedding(model=str(model_folder)),
        synthesis=Synthesis(target_length_tokens=1024, num_samples=24, docs_per_part=8),
    )
    out = tmp_path_factory.mktemp("strategies")
    compared = compare.compare(compare.prepare_all(recipe, STRATEGIES, out), out, Engine())
    assert all(each.facts for each in compared)
    return lambda strategy: out / strategy
