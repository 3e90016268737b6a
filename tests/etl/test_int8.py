"""A run with int8 embeddings: another stage than one with the file's own, and the same bytes whoever makes them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from etl.engine import Engine
from etl.job import prepare
from etl.lookup import embedding_store
from etl.pipeline import run
from etl.recipe import Recipe
from nextlong.errors import UserError


def test_other_workers_and_batches_make_the_same_int8_bytes_and_another_precision_is_refused(
    make_recipe: Callable[..., Recipe], two_workers: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = str(make_recipe().embedding.model)
    made = []
    for name, engine, batch_tokens in [("one", Engine(None), 4096), ("two", two_workers, 100)]:
        recipe = make_recipe(name, embedding={"model": model, "precision": "int8", "batch_tokens": batch_tokens})
        run(recipe, engine, only="embed")
        made.append(np.concatenate(embedding_store(prepare(recipe).work["embed"]).arrays))
    np.testing.assert_array_equal(*made)
    with pytest.raises(UserError, match=r"embedding|precision"):
        run(make_recipe("one", embedding={"model": model}), Engine(None), only="embed")
