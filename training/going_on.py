"""A recipe and the checkpoints of its run folder in; the step to begin with, and whose state to take, out."""

import logging
from pathlib import Path
from typing import Any

from nextlong.errors import UserError
from training.checkpoint import Checkpoints, newest_in
from training.config import Training

log = logging.getLogger(__name__)


def find(recipe: Training, checkpoints: Checkpoints, order: dict[str, Any]) -> tuple[int, Path | None]:
    """(steps that are done, the checkpoint to take weights and optimizer state from, or None).

    It is the newest of this run, or of the run that saving.init_from names. order: what decides which rows a step has.
    Raises UserError where the run was trained on other rows, or further than it is to be.
    """
    newest = checkpoints.newest()
    if newest is not None:
        _check(recipe, newest, order)
        log.info("going on after step %d", newest["step"])
        return int(newest["step"]), checkpoints.path(newest["step"])
    if recipe.saving.init_from is not None:
        path = newest_in(Path(recipe.saving.init_from).expanduser())
        log.info("weights and optimizer state of %s", path)
        return 0, path
    return 0, None


def _check(recipe: Training, newest: dict[str, Any], order: dict[str, Any]) -> None:
    remedy = "Give another output, and this one as saving.init_from."
    if newest["step"] > recipe.optimizer.steps:
        raise UserError(
            f"{recipe.output} is trained for {newest['step']} steps already, but optimizer.steps is "
            f"{recipe.optimizer.steps}. {remedy}"
        )
    if newest["rows_per_step"] != order["rows_per_step"]:
        raise UserError(
            f"{recipe.output} was trained with {newest['rows_per_step']} rows a step, but batch.global_tokens makes "
            f"{order['rows_per_step']}: rows would be left out or come twice. {remedy}"
        )
    if newest["order"] != order["order"]:
        raise UserError(
            f"{recipe.output} was trained on other data.folders, data.proportions or another data.seed (order "
            f"{newest['order'][:12]}, now {order['order'][:12]}): rows would be left out or come twice. {remedy}"
        )
