"""The command line's parser in, a script out that completes it in a shell: verbs, options, fields of recipes, files.

The script holds all that it completes, so that pressing the key starts no Python.
"""

import argparse
import dataclasses
from typing import Any, Literal, get_args, get_origin, get_type_hints

from nextlong.errors import UserError
from nextlong.recipes import Recipes, sections

_OF_TRAININGS = ("train",)
_OF_RUNS = ("run", "plan", "compare")


def script(parser: argparse.ArgumentParser, shell: str) -> str:
    """shell: bash, zsh or fish. Raises UserError where the package that writes it is not installed."""
    try:
        import shtab
    except ImportError as error:
        raise UserError("completion needs the package shtab. Run: pip install shtab") from error
    from etl.recipe import RECIPES
    from training.recipe import RECIPES as OF_TRAININGS

    verbs = _verbs(parser)
    for name, verb in verbs.items():
        if name in _OF_RUNS:
            _add_fields(verb, RECIPES)
        if name in _OF_TRAININGS:
            _add_fields(verb, OF_TRAININGS)
        for action in verb._actions:
            _say_what_files(action, shtab)
    text: str = shtab.complete(parser, shell)
    return text


def _verbs(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    [verbs] = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return dict(verbs.choices)


def _add_fields(parser: argparse.ArgumentParser, recipes: Recipes[Any]) -> None:
    """Options of a recipe's fields, with the values of those that have few."""
    kinds = {"": recipes.kind} | {f"{name}.": kind for name, kind in sections(recipes.kind).items()}
    taken = {name for action in parser._actions for name in action.option_strings}
    for prefix, kind in kinds.items():
        hints = get_type_hints(kind)
        for field in dataclasses.fields(kind):
            option = f"--{prefix}{field.name}"
            if f"{prefix}{field.name}." not in kinds and option not in taken:
                parser.add_argument(option, choices=_values(hints[field.name]) or None, help="")


def _values(hint: Any) -> list[str]:
    """Those that a type names: true and false, the members of a Literal, null beside them."""
    if hint is bool:
        return ["true", "false"]
    if get_origin(hint) is Literal:
        return [str(value) for value in get_args(hint)]
    if hint is type(None):
        return ["null"]
    values = [value for each in get_args(hint) for value in _values(each)]
    return [] if values == ["null"] else values


def _say_what_files(action: argparse.Action, shtab: Any) -> None:
    if action.choices is None and (action.dest in _FOLDERS or action.metavar == "DIR"):
        action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
    elif action.choices is None and (action.dest in _FILES or action.metavar == "FILE"):
        action.complete = shtab.FILE  # type: ignore[attr-defined]


_FOLDERS = ("work", "folder", "folders", "reuse", "output")
_FILES = ("recipe", "input", "input.path", "tokenizer", "embedding.model", "decontamination.path", "model.path")
