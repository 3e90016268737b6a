"""A recipe, its model's configuration and its rows in; one sentence where they do not fit together, before any work."""

import dataclasses
import hashlib
import logging
from typing import Any

from nextlong.errors import UserError
from training.config import Training
from training.data import Rows
from training.export import generation_config
from training.model import read_config

log = logging.getLogger(__name__)


def check(recipe: Training, config: Any, rows: Rows) -> None:
    """Raise UserError for shards of another tokenizer than the model's, or longer than its positions."""
    _check_tokenizer(recipe, config, rows)
    most = most_positions(recipe, config, rows)
    if most is not None and rows.length_tokens > most:
        raise UserError(
            f"data.folders have sequences of {rows.length_tokens:,} tokens, but model.path {recipe.model.path} was "
            f"made for {most:,} positions. Set model.rope_theta to a base above its own, {_own_theta(recipe):,.0f}, or "
            f"model.extend_positions to true to keep it."
        )
    generation_config(recipe, config)
    if recipe.model.from_scratch and list(recipe.model.folder.glob("*.safetensors")):
        log.warning("model.from_scratch: random weights in place of those in %s", recipe.model.path)
    _tell_passes(recipe, rows)


def most_positions(recipe: Training, config: Any, rows: Rows) -> int | None:
    """Tokens that a sequence may have; None: any number. A longer context than the model's is no accident.

    The recipe says how it is reached: by a larger RoPE base than the model's, or by model.extend_positions.
    """
    if recipe.model.extend_positions:
        return None
    most = int(config.max_position_embeddings)
    theta = recipe.model.rope_theta
    return max(most, rows.length_tokens) if theta is not None and theta > _own_theta(recipe) else most


def _own_theta(recipe: Training) -> float:
    own = read_config(dataclasses.replace(recipe.model, rope_theta=None))
    return float((getattr(own, "rope_parameters", None) or {}).get("rope_theta", 0))


def _tell_passes(recipe: Training, rows: Rows) -> None:
    needed = recipe.optimizer.steps * recipe.batch.global_tokens // rows.length_tokens
    for folder, taken in zip(rows.folders, rows.most(needed), strict=True):
        passes = taken / len(folder)
        log.info("%s: %s of its %s rows, %.2f passes", folder.path, f"{taken:,}", f"{len(folder):,}", passes)


def _check_tokenizer(recipe: Training, config: Any, rows: Rows) -> None:
    file = recipe.model.folder / "tokenizer.json"
    if not file.is_file():
        log.warning("model.path %s has no tokenizer.json to compare with that of the shards", recipe.model.path)
    elif (found := hashlib.sha256(file.read_bytes()).hexdigest()) != rows.tokenizer_sha256:
        raise UserError(
            f"data.folders were made with another tokenizer than that of model.path {recipe.model.path}: sha256 "
            f"{rows.tokenizer_sha256[:12]} and {found[:12]}. Make them with the model's."
        )
    if rows.vocab_size > config.vocab_size:
        raise UserError(
            f"data.folders have a vocabulary of {rows.vocab_size:,} ids, but the model knows {config.vocab_size:,}."
        )
