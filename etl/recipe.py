"""A recipe: YAML, command line and dataclass are one thing; it states only what differs from the defaults."""

import dataclasses
import re
from pathlib import Path
from typing import get_args

from etl.cluster import Cluster, Kind
from etl.inputs import Input
from nextlong.config import Chunking, Decontamination, Embedding, Indexing, Mining, Packing, Synthesis
from nextlong.recipes import Recipes, as_yaml


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
    return RECIPES.load(path, overrides or [])


def _of_cluster(message: str, name: str | None) -> str | None:
    """What is wrong with the section `cluster`; its values are not told, since they may be passwords."""
    if not (name or "").startswith("cluster") and "etl.cluster.Cluster" not in message:
        return None
    own = re.search(r"cluster\.(kind|workers|wait_minutes) is .*?, but it must be .*?\.(?= |$)", message)
    kinds = ", ".join(get_args(Kind))
    others = "options by name, workers, and wait_minutes"
    return own[0] if own else f"cluster must be null, or have kind (one of {kinds}), {others}."


RECIPES = Recipes(
    kind=Recipe,
    folder=Path(__file__).with_name("recipes"),
    command="nextlong run",
    start="'nextlong demo' writes one to start from",
    explain=_of_cluster,
)
"""How recipes of data are found and read."""


def resolved_yaml(recipe: Recipe) -> str:
    """The recipe as YAML, defaults included; without `cluster`, which decides nothing about the data and may hold
    passwords."""
    fields = {name: value for name, value in dataclasses.asdict(recipe).items() if name != "cluster"}
    return as_yaml(fields)
