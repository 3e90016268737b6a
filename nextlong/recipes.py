"""A recipe's file and a command line's fields in, the dataclass of a whole run out: one thing, said in three ways.

Nothing that a file names is imported or opened before it is vetted, and a mistake is one sentence.
"""

import dataclasses
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar, get_args, get_type_hints

import yaml

from nextlong.errors import UserError
from nextlong.spelling import did_you_mean

R = TypeVar("R")

_BASE = "base"
_PASSWORD = re.compile(r"(?<=://)[^\s'\"]*@")  # of an address
_KINDS = {str: "a text", list: "a list", type(None): "empty"}  # in place of the value, which may be a password
_TYPES = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "list": "a list",
    "list[int]": "a list of whole numbers",
    "list[float]": "a list of numbers",
    "list[str]": "a list of texts",
    "NoneType": "null",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipes(Generic[R]):
    """The recipes of one kind: where they are, and how they are read."""

    kind: type[R]
    """The dataclass of the whole; its fields are sections, dataclasses too, and plain fields."""
    folder: Path
    """Of those that come with the package and are called by name."""
    command: str
    """Such as "nextlong run"; with --fields it lists the fields."""
    start: str
    """A sentence: what somebody who has no recipe does."""
    has_bases: bool = False
    """Whether a recipe may say `base: other`: it then states what differs from that one, beside it or packaged."""
    explain: Callable[[str, str | None], str | None] = lambda message, name: None
    """(what the parser says, the field's dotted name) -> a better sentence, or None."""

    def load(self, path: str, overrides: Sequence[str] = ()) -> R:
        """Read a recipe, a file or the name of a packaged one; overrides: ["--section.key", "1"].

        Raises UserError with the dotted name of what is wrong.
        """
        files = self._chain(self._find(path))
        return self.parse([*(word for file in files for word in ("--recipe", str(file))), *overrides])

    def packaged(self) -> dict[str, Path]:
        """The recipes that come with the package, by name."""
        return {path.stem: path for path in sorted(self.folder.glob("*.yaml"))}

    def parser(self) -> Any:
        """A parser for all fields, with their documentation as help."""
        from jsonargparse import ArgumentParser, set_parsing_settings

        set_parsing_settings(docstring_parse_attribute_docstrings=True)
        parser = ArgumentParser(prog=self.command, exit_on_error=False, allow_abbrev=False)
        parser.add_argument("--recipe", action="config", help="YAML file")
        if self.has_bases:
            parser.add_argument(f"--{_BASE}", type=str, help="another recipe, from which this one differs")
        parser.add_class_arguments(self.kind)
        return parser

    def parse(self, arguments: Sequence[str], parser: Any = None) -> R:
        """The recipe that arguments mean; UserError in one sentence when they mean none."""
        from argparse import ArgumentError

        parser = parser or self.parser()
        try:
            namespace = parser.parse_args(list(arguments))
            for name in ("recipe", _BASE):
                namespace.pop(name, None)
            values = parser.instantiate(namespace).items()
            return self.kind(**{name: value for name, value in values if name in self.names})
        except UserError:
            raise
        except (ArgumentError, ValueError, TypeError) as error:
            raise UserError(f"the recipe is not valid: {self._in_a_sentence(str(error))}") from error

    @property
    def names(self) -> set[str]:
        """The sections and the plain fields."""
        return _settings(self.kind)

    def fields(self) -> list[str]:
        """The dotted names of all fields that hold a value, such as "synthesis.seed" and "output"."""
        kinds = sections(self.kind)
        return [
            f"{name}.{field}" if field else name
            for name in (field.name for field in dataclasses.fields(self.kind))  # type: ignore[arg-type]
            for field in ([each.name for each in dataclasses.fields(kinds[name])] if name in kinds else [""])
        ]

    def check_fields(self, overrides: Sequence[str], options: Sequence[str] = ()) -> None:
        """Refuse what is neither an option nor a field, before its value is taken for a recipe.

        options: of the command line, which may be what was meant.
        """
        fields = self.fields()
        for word in overrides:
            given = word.partition("=")[0]
            name = given.rstrip("+").removeprefix("--")
            if not word.startswith("-"):
                raise UserError(f"{word} is one argument too many: one recipe, then options and --section.key value.")
            if name not in self.names and not any(f"{name}.".startswith(f"{field}.") for field in fields):
                meant = did_you_mean(name, [*fields, *(option.removeprefix("--") for option in options)], "--")
                lists = f" {self.command} --fields lists the fields."
                raise UserError(f"{given} is no option and no field of a recipe.{meant or lists}")

    def _find(self, path: str) -> Path:
        packaged = self.packaged()
        if Path(path).is_file():
            return Path(path)
        if path in packaged:
            return packaged[path]
        names = ", ".join(packaged)
        raise UserError(
            f"recipe {path}: there is no such file.{did_you_mean(path, packaged)} {self.start}; these come with the "
            f"package: {names}."
        )

    def _chain(self, path: Path) -> list[Path]:
        """A recipe's bases, the last of them first, and itself; each is vetted."""
        chain: list[Path] = []
        while path not in chain:
            chain.insert(0, path)
            base = vet(path, self.kind, has_base=self.has_bases)
            if base is None:
                return chain
            path = self._base(path, base)
        raise UserError(f"recipe {chain[-1]}: its bases go round in a circle, {' -> '.join(map(str, chain[::-1]))}.")

    def _base(self, path: Path, name: str) -> Path:
        beside, packaged = path.parent / f"{name}.yaml", self.packaged()
        if not re.fullmatch(r"[\w.-]+", name):
            raise UserError(
                f"recipe {path}: base is {name[:80]!r}, but it must be the name of a recipe beside it, without folder "
                f"and .yaml, or of one that comes with the package: {', '.join(packaged)}."
            )
        if beside.is_file():
            return beside
        if name in packaged:
            return packaged[name]
        raise UserError(
            f"recipe {path}: base is {name}, but there is no {beside}, and these come with the package: "
            f"{', '.join(packaged)}."
        )

    def _in_a_sentence(self, message: str) -> str:
        """What jsonargparse says of a value, with the valid ones, without Python's names of types and secrets."""
        message = _PASSWORD.sub("...@", " ".join(message.split()))
        if message.startswith("unrecognized arguments:"):
            return re.sub(r"(--[\w.-]+)=\S*", r"\1", message)
        found = re.match(r'Parser key "([^"]+)": (.*) (?:Got value|Given value): (.*)', message)
        if own := self.explain(message, found[1] if found else None):
            return own
        if not found:
            return message
        name, expected, value = found.groups()
        types = re.findall(r"Literal\[[^]]*\]|list\[\w+\]|<class '\w+'>|NoneType", expected.partition(" Errors: ")[0])
        words = []
        for each in dict.fromkeys(types):
            valid = re.findall(r"'([^']+)'", each)
            choice = valid[0] if len(valid) == 1 else f"one of {', '.join(valid)}"
            words.append(choice if "Literal" in each else _TYPES.get((valid or [each])[0], each))
        return f"{name} is {value}, but it must be {' or '.join(dict.fromkeys(words))}." if words else message


def joined(arguments: Sequence[str], plain_fields: Sequence[str]) -> list[str]:
    """--section.key value as one word: the value is no RECIPE.yaml, wherever that stands.

    plain_fields: those without a section, such as --output.
    """
    words: list[str] = []
    for argument in arguments:
        is_field = words and words[-1].startswith("--") and ("." in words[-1] or words[-1] in plain_fields)
        is_value = is_field and "=" not in words[-1]
        if is_value and not argument.startswith("--"):
            words[-1] += f"={argument}"
        else:
            words.append(argument)
    return words


def vet(path: Path, kind: type, *, has_base: bool = False) -> str | None:
    """Raise UserError unless a file holds fields of a recipe alone: sections as mappings, of their own settings.

    kind: the dataclass of the whole. has_base: the file may name another recipe as its base, which is returned.

    The parser would take a text in place of a section for a file to read or a class to import, and likewise fields of
    its own such as class_path; importing runs the module.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise UserError(f"recipe {path} is not valid YAML: {_reason(error)}") from error
    _check(path, data, _settings(kind) | ({_BASE} if has_base else set()), "")
    for name, section in sections(kind).items():
        if data.get(name) is not None:
            _check(path, data[name], _settings(section), f"{name}.")
    base = data.get(_BASE) if has_base else None
    if base is not None and not isinstance(base, str):
        raise UserError(f"recipe {path}: base is {_KINDS.get(type(base), 'no text')}, but it must be a recipe's name.")
    return base


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
        meant = did_you_mean(unknown[0][:80], known, prefix)
        raise UserError(f"recipe {path}: {prefix}{unknown[0][:80]} is no setting.{meant} There are {names}.")


def _reason(error: Exception) -> str:
    """Where and why, without the line itself, which may hold a password."""
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return " ".join(str(error).split())
    return f"{getattr(error, 'problem', None) or 'damaged'}, line {mark.line + 1}, column {mark.column + 1}"


def sections(kind: type) -> dict[str, Any]:
    """The dataclasses of a recipe's sections, by field."""
    hints: dict[str, Any] = get_type_hints(kind)
    kinds = {name: (hint, *get_args(hint)) for name, hint in hints.items()}  # a section may be None
    return {name: kind for name, each in kinds.items() for kind in each if dataclasses.is_dataclass(kind)}


def flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted name, value) of a recipe as dicts within each other."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def as_yaml(fields: dict[str, Any]) -> str:
    """A recipe's fields as YAML, in their order."""
    return yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)


def _settings(kind: Any) -> set[str]:
    return {field.name for field in dataclasses.fields(kind)}
