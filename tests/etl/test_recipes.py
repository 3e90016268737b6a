"""The packaged recipes load, name their source, and state only what differs from the defaults."""

import dataclasses
import re
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import yaml

import etl
from etl.recipe import Recipe, load_recipe

FOLDER = Path(etl.__file__).parent / "recipes"
PATHS = sorted(FOLDER.glob("*.yaml"))
OURS = ["--input.path", "mine/*.jsonl", "--output", "mine/work", "--tokenizer", "mine/tokenizer.json"]
PLACEHOLDERS = {"input.path", "output", "tokenizer"}

NO_MODEL = {"embedding.model": None}
NO_OVERLAP = {"mining.near_duplicate_overlap": None}
PAPER = NO_OVERLAP | {
    "chunking.long_paragraphs": "keep",
    "embedding.model": "jinaai/jina-embeddings-v3",
    "embedding.task_id": 4,
    "mining.num_candidates": 512,
    "mining.near_duplicate_similarity": None,
    "synthesis.budget": "paper",
}
MIXTURE = {
    "synthesis.target_length_tokens": [65_536, 524_288],
    "synthesis.num_samples": [42_664, 2_667],
    "packing.sequence_length_tokens": 524_288,
}
DIFFERENCES: dict[str, dict[str, Any]] = {
    "default": {},
    "iclm": NO_OVERLAP | {"synthesis.strategy": "iclm"},
    "knn": NO_OVERLAP | {"synthesis.strategy": "knn"},
    "nextlong-bm25": NO_MODEL | {"mining.retrieval": "bm25", "mining.near_duplicate_similarity": None},
    "nextlong-random": {"synthesis.negatives": "random"},
    "nextlong-random-candidates": {"synthesis.negatives": "random_candidates"},
    "nextlong-self-repeat": NO_MODEL | NO_OVERLAP | {"synthesis.negatives": "self_repeat"},
    "nextlong-skip-top": {"synthesis.skip_top": 3},
    "nextlong-tail": {"synthesis.negatives": "tail"},
    "paper-64k": PAPER | {"synthesis.target_length_tokens": 65_536},
    "paper-128k": PAPER,
    "paper-512k": PAPER | MIXTURE,
    "quest": NO_MODEL | NO_OVERLAP | {"synthesis.strategy": "quest"},
    "standard": NO_MODEL | NO_OVERLAP | {"synthesis.strategy": "standard"},
}
"""What sets each recipe apart from default.yaml."""


def _load(name: str) -> Recipe:
    return load_recipe(str(FOLDER / f"{name}.yaml"), OURS)


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values by dotted name."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat


def _defaults(kind: type, prefix: str = "") -> dict[str, Any]:
    """Default of every setting by dotted name; MISSING where there is none."""
    defaults: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        section = get_type_hints(kind)[field.name]
        if dataclasses.is_dataclass(section):
            assert isinstance(section, type)
            defaults |= _defaults(section, f"{prefix}{field.name}.")
        else:
            made = field.default_factory
            defaults[prefix + field.name] = field.default if made is dataclasses.MISSING else made()
    return defaults


def test_the_expected_recipes_are_there() -> None:
    assert {path.stem for path in PATHS} >= set(DIFFERENCES)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_recipe_loads_with_the_users_input_output_and_tokenizer(path: Path) -> None:
    recipe = load_recipe(str(path), OURS)
    assert (recipe.input.path, recipe.output, recipe.tokenizer) == tuple(OURS[1::2])
    assert set(_flat(yaml.safe_load(path.read_text()))) >= PLACEHOLDERS


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_recipe_begins_with_what_it_is_and_its_source(path: Path) -> None:
    comment = path.read_text().partition("\n\n")[0].splitlines()
    assert all(line.startswith("# ") for line in comment)
    sources = [line for line in comment if line.startswith("# Source: ")]
    assert len(sources) == 1
    assert re.search(r"arXiv:\d{4}\.\d{5}\b", sources[0])


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_recipe_states_only_what_differs_from_the_defaults(path: Path) -> None:
    stated, defaults = _flat(yaml.safe_load(path.read_text())), _defaults(Recipe)
    assert set(stated) <= set(defaults)
    assert {name for name, value in stated.items() if value == defaults[name]} == set()


def test_the_defaults_are_seen_through_sections() -> None:
    defaults = _defaults(Recipe)
    assert defaults["chunking.granularity_chars"] == 2048
    assert defaults["decontamination.text"] == "text"
    assert defaults["synthesis.target_length_tokens"] is defaults["tokenizer"] is dataclasses.MISSING


@pytest.mark.parametrize("name", DIFFERENCES)
def test_a_recipe_differs_from_the_default_one_in_nothing_else(name: str) -> None:
    default, recipe = (_flat(dataclasses.asdict(_load(each))) for each in ("default", name))
    assert recipe.keys() == default.keys()
    assert {name: value for name, value in recipe.items() if value != default[name]} == DIFFERENCES[name]


def test_the_default_recipe_is_ours() -> None:
    recipe = _load("default")
    assert recipe.embedding.model == "Alibaba-NLP/gte-modernbert-base"
    assert recipe.synthesis.budget == "exact"
    assert recipe.mining.near_duplicate_similarity == 0.95
    assert recipe.mining.near_duplicate_overlap == 0.8
    assert recipe.synthesis.targets == [131_072]


@pytest.mark.parametrize(
    ("name", "targets"),
    [("paper-64k", [65_536]), ("paper-128k", [131_072]), ("paper-512k", [65_536, 524_288])],
)
def test_the_papers_recipes_have_the_papers_settings(name: str, targets: list[int]) -> None:
    recipe = _load(name)
    assert (recipe.chunking.granularity_chars, recipe.chunking.granularity_tokens) == (2048, None)
    assert recipe.chunking.long_paragraphs == "keep"
    assert (recipe.mining.retrieval, recipe.mining.num_candidates) == ("embeddings", 512)
    assert recipe.mining.near_duplicate_similarity is recipe.mining.near_duplicate_overlap is None
    assert recipe.embedding.model == "jinaai/jina-embeddings-v3"
    synthesis = recipe.synthesis
    assert (synthesis.strategy, synthesis.negatives, synthesis.position) == ("nextlong", "top", "head")
    assert (synthesis.budget, synthesis.overshoot_ratio) == ("paper", 1.5)
    assert (synthesis.skip_top, synthesis.max_uses_per_chunk) == (0, None)
    assert synthesis.targets == targets
    assert yaml.safe_load((FOLDER / f"{name}.yaml").read_text())["tokenizer"] == "meta-llama/Meta-Llama-3-8B"


def test_the_papers_mixture_has_a_third_of_its_sequences_at_512k() -> None:
    recipe = _load("paper-512k")
    wanted = dict(zip(recipe.synthesis.targets, recipe.synthesis.wanted, strict=True))
    short, long = wanted[65_536] or 0, wanted[524_288] or 0
    sequences, left_over = divmod(short * 65_536, recipe.packing.sequence_length_tokens or 1)
    assert (left_over, sequences + long) == (0, 8_000)
    assert round(long / (sequences + long), 3) == 0.333


@pytest.mark.parametrize("name", DIFFERENCES)
def test_a_recipe_names_a_model_where_it_embeds_and_only_there(name: str) -> None:
    recipe = _load(name)
    embeds = recipe.synthesis.retrieves is not None and recipe.mining.retrieval == "embeddings"
    assert (recipe.embedding.model is not None) == embeds
    assert ("embedding" in yaml.safe_load((FOLDER / f"{name}.yaml").read_text())) == embeds
