"""A recipe's file in; a refusal of what would make its parser import or open something that the file names, out."""

import dataclasses
from pathlib import Path
from typing import Any, get_args, get_type_hints

import yaml

from nextlong.errors import UserError

_KINDS = {str: "a text", list: "a list", type(None): "empty"}  # in place of the value, which may be a password


def vet(path: Path, recipe: type) -> None:
    """Raise UserError unless a file holds fields of a recipe alone: sections as mappings, of their own settings.

    recipe: the dataclass of the whole.

    The parser would take a text in place of a section for a file to read or a class to import, and likewise fields of
    its own such as class_path; importing runs the module.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise UserError(f"recipe {path} is not valid YAML: {_reason(error)}") from error
    _check(path, data, _settings(recipe), "")
    for name, section in sections(recipe).items():
        if data.get(name) is not None:
            _check(path, data[name], _settings(section), f"{name}.")


def _check(path: Path, data: Any, known: set[str], prefix: str) -> None:
    where = prefix.rstrip(".") or "it"
    if not isinstance(data, dict):
        raise UserError(
            f"recipe {path}: {where} is {_KINDS.get(type(data), 'one value')}, but it must be settings, a line "
            "'name: value' each."
        )
    unknown = sorted({str(name) for name in data} - known)
    if unknown:
        names = ", ".join(sorted(known))
        raise UserError(f"recipe {path}: {prefix}{unknown[0][:80]} is no setting. There are {names}.")


def _reason(error: Exception) -> str:
    """Where and why, without the line itself, which may hold a password."""
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return " ".join(str(error).split())
    return f"{getattr(error, 'problem', None) or 'damaged'}, line {mark.line + 1}, column {mark.column + 1}"


def sections(recipe: type) -> dict[str, Any]:
    """The dataclasses of a recipe's sections, by field."""
    hints: dict[str, Any] = get_type_hints(recipe)
    kinds = {name: (hint, *get_args(hint)) for name, hint in hints.items()}  # the cluster may be None
    return {name: kind for name, each in kinds.items() for kind in each if dataclasses.is_dataclass(kind)}


def _settings(kind: Any) -> set[str]:
    return {field.name for field in dataclasses.fields(kind)}
