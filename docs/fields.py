"""The settings' dataclasses and the packaged recipes in, docs/recipes.md out: `python docs/fields.py` writes it."""

import dataclasses
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import docstring_parser
import yaml

from etl.recipe import RECIPES as DATA
from nextlong.recipes import Recipes, flat, sections
from training.recipe import RECIPES as TRAINING

PAGE = Path(__file__).with_name("recipes.md")

_WIDTH = 120
_WORDS = {int: "whole number", float: "number", bool: "true or false", str: "text", type(None): "null"}
_YOURS = {"input.path", "output", "tokenizer", "model.path", "data.folders", "base"}
_INTRODUCTION = """\
<!-- Made by: python docs/fields.py. Change the docstrings of the settings, not this page. -->

# Recipes

A recipe is a YAML file that states what differs from the defaults; this page has all its fields. A run of data has one
kind of recipe, a training another. Each field can also be given on the command line, as `--section.field value`. A
field or value that does not exist is refused with one sentence, before anything is computed.

Recipes come with the package and are called by name. Copy one, or start from it and give what is yours:

```sh
nextlong run default --input.path 'corpus/*.parquet' --output work --tokenizer llama
nextlong run recipe.yaml --synthesis.seed 1 --output work-2 --reuse work
nextlong run --fields       # this page's first half, in the terminal
nextlong train --fields     # its second half
```

In the lists below a field without a default has to be given. Sections (Sec.), equations (Eq.), tables, figures,
algorithms and appendices (App.) are those of the paper, [arXiv:2501.12766](https://arxiv.org/abs/2501.12766), unless
another source is named; [The method](method.md) explains the terms. A default without a source is our choice.
"""


def page() -> str:
    """The whole page, in Markdown."""
    parts = [_INTRODUCTION]
    for title, recipes in (("A run of data", DATA), ("A training", TRAINING)):
        parts += [f"## {title}\n", *_fields(recipes.kind), f"### Packaged recipes for `{recipes.command}`\n"]
        parts += [*_packaged(recipes)]
    return "\n".join(parts)


def _fields(kind: type) -> Iterator[str]:
    """A heading and a list for the plain fields, and for each section."""
    nested = sections(kind)
    plain = [field for field in dataclasses.fields(kind) if field.name not in nested]
    yield "### Without a section\n"
    yield "".join(_field(kind, field, "") for field in plain)
    about = _meanings(kind)
    for name, section in nested.items():
        yield f"### `{name}`\n"
        yield _wrapped(f"{_sentence(section.__doc__)} {_when_absent(kind, name, about[name])}")
        yield "".join(_field(section, field, f"{name}.") for field in dataclasses.fields(section))


def _when_absent(kind: type, name: str, meaning: str) -> str:
    default = next(field for field in dataclasses.fields(kind) if field.name == name).default
    return _in_yaml(meaning) if default is None else ""


def _field(kind: type, field: "dataclasses.Field[Any]", prefix: str) -> str:
    words = _type(get_type_hints(kind)[field.name])
    default = _default(field)
    stated = "" if default is dataclasses.MISSING else f"; default {_value(field.name, default)}"
    meaning = _in_yaml(_meanings(kind)[field.name])
    return _wrapped(f"- **`{prefix}{field.name}`** ({words}{stated}): {meaning}")


def _meanings(kind: type) -> dict[str, str]:
    """What the docstring below each field says. Raises KeyError, later, for a field without one."""
    found = docstring_parser.parse_from_object(kind)
    return {each.arg_name: " ".join((each.description or "").split()) for each in found.params}


def _in_yaml(meaning: str) -> str:
    return re.sub(r"\bNone\b", "null", meaning)


def _type(hint: Any) -> str:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (UnionType, Union):
        return " or ".join(dict.fromkeys(map(_type, arguments)))
    if origin is Literal:
        return ", ".join(f"`{each}`" for each in arguments)
    if origin is list:
        return f"list of {_WORDS[arguments[0]]}s"
    return "options by name" if origin is dict else _WORDS[hint]


def _default(field: "dataclasses.Field[Any]") -> Any:
    make = field.default_factory
    return field.default if make is dataclasses.MISSING else make()


def _value(name: str, value: Any) -> str:
    """As it stands in YAML; bytes also in GiB."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6).removesuffix("...\n").strip()
    size = f", which is {value // 2**30} GiB" if name.endswith("_bytes") and value else ""
    return f"`{text}`{size}"


def _packaged(recipes: Recipes[Any]) -> Iterator[str]:
    for name, path in recipes.packaged().items():
        text = path.read_text()
        comment = " ".join(line.removeprefix("# ") for line in text.splitlines() if line.startswith("# "))
        comment = re.sub(r" Yours: .*", "", comment)
        fields = yaml.safe_load(text)
        base = f"`base: {fields['base']}`, and " if "base" in fields else ""
        changes = [f"`{field}: {_value('', value)[1:-1]}`" for field, value in flat(fields) if field not in _YOURS]
        yield _wrapped(f"- **`{name}`**: {comment} It sets {base}{', '.join(changes)}.").rstrip("\n")
    yield ""


def _sentence(text: str | None) -> str:
    return " ".join((text or "").split())


def _wrapped(text: str) -> str:
    """Lines of at most 120 characters; code stays whole, and what follows in an item of a list is indented."""
    whole = re.sub(r"`[^`]*`", lambda code: code[0].replace(" ", "\0"), text.strip())
    indent = "  " if whole.startswith("- ") else ""
    lines = textwrap.fill(whole, _WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    return lines.replace("\0", " ") + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
