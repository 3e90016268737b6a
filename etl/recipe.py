"""A recipe: YAML, command line and dataclass are one thing; it states only what differs from the defaults."""

import dataclasses
import re
from pathlib import Path
from typing import Any, get_args

import yaml

from etl.cluster import Cluster, Kind
from etl.inputs import Input
from etl.vet import vet
from nextlong.config import Chunking, Decontamination, Embedding, Indexing, Mining, Packing, Synthesis
from nextlong.errors import UserError

_PASSWORD = re.compile(r"(?<=://)[^\s'\"]*@")  # of an address
_TYPES = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "list": "a list",
    "list[int]": "a list of whole numbers",
    "list[str]": "a list of texts",
    "NoneType": "null",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides the data: from the corpus to packed sequences."""

    input: Input
    """The corpus."""
    output: str
    """The work folder; it can be moved when it is finished, and resumed when it is not."""
    tokenizer: str
    """tokenizer.json, its folder, or a hub id: the tokenizer of the model to be trained."""
    decontamination: Decontamination = Decontamination()
    """Which evaluation texts no document may share an n-gram with."""
    chunking: Chunking = Chunking()
    """How documents become chunks."""
    embedding: Embedding = Embedding()
    """How chunks become vectors."""
    index: Indexing = Indexing()
    """How vectors become an index."""
    mining: Mining = Mining()
    """Which neighbours may become negatives."""
    synthesis: Synthesis
    """How meta-documents become long documents."""
    packing: Packing = Packing()
    """How long documents become sequences."""
    cluster: Cluster | None = None
    """Where the work is done; None: as the command line says (--workers, --scheduler), by default a worker a core."""

    def __post_init__(self) -> None:
        from nextlong.packing import documents_per_sequence

        for target in self.synthesis.targets:
            documents_per_sequence(self.packing.sequence_length_tokens, target)


def load_recipe(path: str, overrides: list[str] | None = None) -> Recipe:
    """Read a recipe, a file or the name of a packaged one such as "default"; overrides: ["--synthesis.seed", "1"].

    Paths are relative to the current directory. Raises UserError with the dotted name of what is wrong.
    """
    packaged = packaged_recipes()
    if not Path(path).is_file():
        if path not in packaged:
            raise UserError(
                f"recipe {path}: there is no such file. 'nextlong demo' writes one to start from; these come with the "
                f"package: {', '.join(packaged)}."
            )
        path = str(packaged[path])
    vet(Path(path), Recipe)
    return parse_recipe(recipe_parser(), ["--recipe", path, *(overrides or [])])


def packaged_recipes() -> dict[str, Path]:
    """The recipes that come with the package, by name."""
    folder = Path(__file__).with_name("recipes")
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def recipe_parser() -> Any:
    """A parser for all recipe fields, with their documentation as help."""
    from jsonargparse import ArgumentParser, set_parsing_settings

    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    parser = ArgumentParser(prog="nextlong run", exit_on_error=False)
    parser.add_argument("--recipe", action="config", help="YAML file")
    parser.add_class_arguments(Recipe)
    return parser


def parse_recipe(parser: Any, arguments: list[str]) -> Recipe:
    """The recipe that arguments mean; UserError in one sentence when they mean none."""
    from argparse import ArgumentError

    try:
        namespace = parser.parse_args(arguments)
        namespace.pop("recipe", None)
        return Recipe(**{name: value for name, value in parser.instantiate(namespace).items() if name in field_names()})
    except UserError:
        raise
    except (ArgumentError, ValueError, TypeError) as error:
        raise UserError(f"the recipe is not valid: {_in_a_sentence(str(error))}") from error


def _in_a_sentence(message: str) -> str:
    """What jsonargparse says of a value, with the valid ones, without Python's names of types, and without secrets."""
    message = _PASSWORD.sub("...@", " ".join(message.split()))
    if message.startswith("unrecognized arguments:"):
        return re.sub(r"(--[\w.-]+)=\S*", r"\1", message)
    found = re.match(r'Parser key "([^"]+)": (.*) (?:Got value|Given value): (.*)', message)
    if (found and found[1].startswith("cluster")) or "etl.cluster.Cluster" in message:
        return _of_cluster(message)
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


def _of_cluster(message: str) -> str:
    """What is wrong with the section `cluster`; its values are not told, since they may be passwords."""
    own = re.search(r"cluster\.(kind|workers|wait_minutes) is .*?, but it must be .*?\.(?= |$)", message)
    kinds = ", ".join(get_args(Kind))
    others = "options by name, workers, and wait_minutes"
    return own[0] if own else f"cluster must be null, or have kind (one of {kinds}), {others}."


def field_names() -> set[str]:
    """The sections of a recipe and its plain fields."""
    return {field.name for field in dataclasses.fields(Recipe)}


def resolved_yaml(recipe: Recipe) -> str:
    """The recipe as YAML, defaults included; without `cluster`, which decides nothing about the data and may hold
    passwords."""
    fields = {name: value for name, value in dataclasses.asdict(recipe).items() if name != "cluster"}
    return yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)
