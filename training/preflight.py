"""A recipe, its model's configuration and its rows in; one sentence where they do not fit together, before any work."""

import hashlib
import logging
from pathlib import Path
from typing import Any

from nextlong.errors import UserError
from training.config import Training
from training.data import Rows

log = logging.getLogger(__name__)


def check(recipe: Training, config: Any, rows: Rows) -> None:
    """Raise UserError for shards of another tokenizer than the model's, or longer than its positions."""
    _check_tokenizer(recipe, config, rows)
    _check_positions(recipe, config, rows.length_tokens)
    needed = recipe.optimizer.steps * recipe.batch.global_tokens // rows.length_tokens
    log.info("%s rows of the %s at hand: %.2f passes", f"{needed:,}", f"{len(rows):,}", needed / len(rows))


def _check_tokenizer(recipe: Training, config: Any, rows: Rows) -> None:
    file = Path(recipe.model.path) / "tokenizer.json"
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


def _check_positions(recipe: Training, config: Any, length_tokens: int) -> None:
    """A longer context than the model was made for is no accident: the recipe says how it is reached."""
    most = config.max_position_embeddings
    if length_tokens > most and recipe.model.rope_theta is None and not recipe.model.extend_positions:
        raise UserError(
            f"data.folders have sequences of {length_tokens:,} tokens, but model.path {recipe.model.path} was made for "
            f"{most:,} positions. Set model.rope_theta to a larger base, or model.extend_positions to true to keep its "
            f"own."
        )
