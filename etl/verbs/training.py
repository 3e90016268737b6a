"""The verb that trains a model: train."""

import argparse
import contextlib
import sys

from etl.logs import hush, log_to
from etl.verb import add_verb, list_fields, show
from nextlong.errors import UserError


def add_train(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = add_verb(
        verbs,
        "train",
        "train a model on packed folders, or go on where it stopped",
        "nextlong train tiny --model.path tiny --data.folders '[shards]' --output out",
        _train,
    )
    parser.add_argument(
        "recipe", metavar="RECIPE.yaml", nargs="?", help="a file or a packaged name; fields: --section.key value"
    )
    parser.add_argument(
        "--ranks",
        "--gpus",
        type=int,
        metavar="N",
        help="processes here, one a GPU (default: 1, or torchrun's)",
    )
    parser.add_argument("--dry-run", action="store_true", help="say what memory and time it takes on so many ranks")
    parser.add_argument(
        "--length", type=int, metavar="TOKENS", help="for --dry-run without data (default: the folders')"
    )
    parser.add_argument(
        "--mfu", type=float, metavar="SHARE", default=0.4, help="of a GPU's peak, for --dry-run (default: 0.4)"
    )
    parser.add_argument("--fields", action="store_true", help="list the fields of a recipe, with defaults")


def _train(options: argparse.Namespace, overrides: list[str]) -> int:
    from training.hub import local_folder
    from training.recipe import RECIPES

    if options.fields:
        list_fields(RECIPES)
        return 0
    RECIPES.check_fields(overrides, options.parser.option_names())
    if options.recipe is None:
        raise UserError(f"train needs a RECIPE.yaml; these come with the package: {', '.join(RECIPES.packaged())}.")
    if options.ranks is not None and options.ranks < 1:
        raise UserError(f"--ranks is {options.ranks}, but it must be at least 1.")
    recipe = RECIPES.load(options.recipe, overrides)
    if options.dry_run:
        from training.page import page

        recipe = recipe.with_model(local_folder(recipe.model.path, config_only=True))
        show(page(recipe, ranks=options.ranks, length_tokens=options.length, mfu=options.mfu))
        return 0
    from training import launch

    if options.ranks is not None and not launch.is_rank():
        return launch.start_ranks(options.ranks, [options.recipe, *overrides])
    from etl.lock import locked

    try:
        from training import command
    except ImportError as error:
        raise UserError(
            f"training needs a package that is not here ({error}): pip install 'nextlong[train]'"
        ) from error
    with contextlib.ExitStack() as stack:
        rank = stack.enter_context(command.process_group())
        if rank:
            hush()
        recipe = recipe.with_model(local_folder(recipe.model.path))
        command.prepare(recipe, lambda folder: stack.enter_context(locked(folder)))
        if rank == 0:
            log_to(recipe.folder)
        made = command.train(recipe, progress=sys.stderr.isatty())
        if rank == 0:
            show(f"{made}: the trained model, for transformers, vLLM and lm-eval")
    return 0
