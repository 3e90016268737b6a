"""Finished runs of the small corpus, made once for all that only look."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import pytest

from etl import pipeline
from etl.engine import Engine
from etl.explore import Run
from etl.inputs import Input
from etl.recipe import Recipe
from nextlong.config import Chunking, Embedding, Mining, Packing, Synthesis
from tests.conftest import TARGET


@pytest.fixture(autouse=True)
def _synchronous() -> Iterator[None]:
    with dask.config.set(scheduler="synchronous"):
        yield


@pytest.fixture(scope="session")
def recipe_of(corpus_file: Path, tokenizer_file: Path, model_folder: Path) -> Any:
    """recipe_of(output, mining={...}, synthesis={...}): twelve small parts, two long documents a sequence."""

    def make(output: Path, mining: Any = None, synthesis: Any = None) -> Recipe:
        return Recipe(
            input=Input(path=str(corpus_file), id="id", source="source", part_rows=10),
            output=str(output),
            tokenizer=str(tokenizer_file),
            chunking=Chunking(granularity_chars=300),
            embedding=Embedding(model=str(model_folder)),
            mining=Mining(**(mining or {})),
            synthesis=Synthesis(
                **({"target_length_tokens": TARGET, "num_samples": 24, "docs_per_part": 8} | (synthesis or {}))
            ),
            packing=Packing(sequence_length_tokens=2 * TARGET),
        )

    return make


def made(recipe: Recipe) -> Run:
    """The finished run of a recipe."""
    pipeline.run(pipeline.start(recipe), Engine())
    return Run(recipe.output)


@pytest.fixture(scope="session")
def run(recipe_of: Any, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Strategy nextlong by embeddings."""
    return made(recipe_of(tmp_path_factory.mktemp("explore") / "work"))
