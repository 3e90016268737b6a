"""A recipe or a number of characters in, the page of `nextlong plan` out."""

import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from etl.capacity.amounts import STAND_IN, workload
from etl.capacity.costs import UNKNOWN_EMBEDDING, Estimate, estimate
from etl.capacity.measure import measure
from etl.capacity.page import page
from etl.capacity.rates import keep_rates, read_rates
from etl.capacity.survey import survey
from etl.connect import local_engine
from etl.embed import loaded_embedder
from etl.job import needs_embeddings
from etl.recipe import RECIPES, Recipe
from nextlong.errors import UserError
from nextlong.model_folder import resolve_model

T = TypeVar("T")


def plan_page(recipe: Recipe, *, workers: int, gpus: int | None = None, **options: Any) -> str:
    """What `plan` estimates, with these of its options, as text for people."""
    rates_file = options.get("rates_file")
    source = f"of {rates_file}" if rates_file else "measured here"
    return page(plan(recipe, gpus=gpus, **options), workers=workers, gpus=gpus or 1, source=source)


def plan(
    recipe: Recipe,
    *,
    num_chars: float | None = None,
    num_chunks: float | None = None,
    gpus: int | None = None,
    rates_file: Path | None = None,
    write_rates: Path | None = None,
) -> Estimate:
    """What a run of a recipe costs; its input.path and tokenizer may be STAND_IN. Writes nothing but write_rates.

    num_chars, num_chunks: size of the corpus, of which the input is a sample; None: the input is all of it.
    gpus: 0: embed on workers; None: on GPUs if one was measured. rates_file: of another machine; None: measured here.
    Raises UserError for what a run would refuse before its first stage, and for a file that holds no rates.
    """
    with tempfile.TemporaryDirectory(prefix="nextlong-plan-") as name:
        folder, known = Path(name), read_rates(rates_file) if rates_file else None
        model_folder = _model_folder(recipe, is_optional=known is not None or bool(gpus))
        dimensions = _dimensions(recipe, model_folder)
        if known is None and dimensions and model_folder is None and not gpus:
            raise UserError(UNKNOWN_EMBEDDING)
        surveyed = survey(recipe, folder, num_chars=num_chars, num_chunks=num_chunks)
        rates = known or _on_a_worker(measure, recipe, surveyed, model_folder, dimensions, folder)
    if write_rates is not None:
        keep_rates(write_rates, rates)
    on_gpu = rates.embedded_chunk_on_gpu is not None if gpus is None else gpus > 0
    return estimate(workload(recipe, surveyed.corpus, dimensions), rates, on_gpu=on_gpu)


def _on_a_worker(call: Callable[..., T], *arguments: Any) -> T:
    """What a call gives on a local worker, whose memory and threads are set as in a run: some rates differ by half."""
    with local_engine(1) as engine:
        [result] = engine.map(partial(_apply, call), [arguments], doing="measure rates", unit="machine")
        return result


def _apply(call: Callable[..., T], arguments: Sequence[Any]) -> T:
    return call(*arguments)


def recipe_without_corpus(fields: list[str]) -> Recipe:
    """A recipe of fields alone, such as ["--synthesis.target_length_tokens", "131072"], for `plan`.

    Raises UserError for what is no field, has no such value, or is missing: the target length.
    """
    stand_ins = [f"--{name}={STAND_IN}" for name in ("input.path", "output", "tokenizer")]
    return RECIPES.parse([*stand_ins, *fields])


def _dimensions(recipe: Recipe, model_folder: Path | None) -> int:
    if not needs_embeddings(recipe):
        return 0
    if model_folder is not None:
        return loaded_embedder(model_folder, recipe.embedding).dimensions
    if recipe.embedding.dimensions is None:
        raise UserError("a plan without a model needs --dimensions, the length of an embedding, or --model FOLDER.")
    return recipe.embedding.dimensions


def _model_folder(recipe: Recipe, *, is_optional: bool) -> Path | None:
    """is_optional: a model that is not on this machine need not be fetched if the length of its embeddings is given."""
    model, dimensions = recipe.embedding.model, recipe.embedding.dimensions
    if not needs_embeddings(recipe) or model is None:
        return None
    if is_optional and dimensions is not None and not Path(model).expanduser().is_dir():
        return None
    return resolve_model(model, recipe.embedding.file).absolute()
