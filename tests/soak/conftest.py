"""A corpus of many small parts, the bytes of an undisturbed run, and a recipe file for each that is disturbed."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from etl.inputs import Input
from etl.recipe import Recipe, resolved_yaml
from etl.work import Work
from nextlong.config import Chunking, Embedding, Indexing, Mining, Packing, Synthesis
from tests.conftest import TARGET, make_texts
from tests.etl.test_pipeline import data_files
from tests.processes import Run

_NUM_DOCUMENTS = 1500


@pytest.fixture(scope="session")
def soak_recipe(shared: Path, tokenizer_file: Path, model_folder: Path) -> Recipe:
    """Tens of parts in read, chunk, embed, mine, interleave and pack, and several index shards."""
    rows = [
        {"id": f"doc-{place}", "text": text, "source": topic}
        for place, (topic, text) in enumerate(make_texts(_NUM_DOCUMENTS, seed=2))
    ]
    pq.write_table(pa.Table.from_pylist(rows), shared / "soak.parquet", row_group_size=25)
    return Recipe(
        input=Input(path=str(shared / "soak.parquet"), id="id", source="source", part_rows=50),
        output="",
        tokenizer=str(tokenizer_file),
        chunking=Chunking(granularity_chars=300),
        embedding=Embedding(model=str(model_folder)),
        index=Indexing(max_shard_bytes=100_000),
        mining=Mining(near_duplicate_similarity=0.95),
        synthesis=Synthesis(target_length_tokens=TARGET, num_samples=400, docs_per_part=10),
        packing=Packing(sequence_length_tokens=2 * TARGET),
    )


@pytest.fixture
def recipe_file(soak_recipe: Recipe, tmp_path: Path) -> Path:
    """The recipe with the work folder beside it."""
    return _written(soak_recipe, tmp_path)


@pytest.fixture(scope="session")
def undisturbed(soak_recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """sha256 of every data file of a run that nothing disturbs, in one process."""
    file = _written(soak_recipe, tmp_path_factory.mktemp("undisturbed"))
    Run(file, "--workers", 0).wait()
    return data_files(Work.open(file.parent / "work"))


def _written(recipe: Recipe, folder: Path) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(resolved_yaml(dataclasses.replace(recipe, output=str(folder / "work"))))
    return path


@pytest.fixture
def check(undisturbed: dict[str, str], recipe_file: Path) -> Callable[..., None]:
    """Asserts that a work folder, the recipe's if none is given, holds the undisturbed bytes."""

    def same(work: Path | None = None) -> None:
        found = data_files(Work.open(work or recipe_file.parent / "work"))
        assert {name for name in found | undisturbed if found.get(name) != undisturbed.get(name)} == set()

    return same
