"""A run with int8 embeddings: the same bytes by whatever workers, batches and parts, and no mixture with others."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from etl import pipeline
from etl.engine import Engine
from etl.lookup import embedding_store
from etl.recipe import Recipe
from nextlong.errors import UserError


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def embedded(recipe: Recipe, engine: Engine) -> NDArray[Any]:
    job = pipeline.start(recipe)
    for stage in ("read", "chunk", "embed"):
        pipeline.run(job, engine, only=stage)
    return np.concatenate(embedding_store(job.work["embed"]).arrays)


def test_int8_vectors_do_not_depend_on_threads_batches_and_parts_and_others_do_not_join_them(
    make_recipe: Callable[..., Recipe], model_folder: Path
) -> None:
    from distributed import Client

    int8 = {"model": str(model_folder), "precision": "int8"}
    one = embedded(make_recipe("one", embedding=int8), Engine())
    other = make_recipe("other", input={"part_rows": 20}, embedding=int8 | {"batch_tokens": 50})
    with Client(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=":0") as client:
        np.testing.assert_array_equal(embedded(other, Engine(client)), one)
    assert len(one) > 100
    with pytest.raises(UserError, match=r"stage 'embed' on it differs .precision was .int8., is null.*--reuse"):
        pipeline.start(make_recipe("one"))
