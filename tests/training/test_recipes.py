"""The packaged recipes load, name their source, state what differs from their base, and have the published numbers."""

import dataclasses
import re
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import yaml

import training
from nextlong.errors import UserError
from nextlong.recipes import Recipes, as_yaml, flat
from training.config import Training
from training.recipe import RECIPES

FOLDER = Path(training.__file__).parent / "recipes"
PATHS = sorted(FOLDER.glob("*.yaml"))
OURS = ["--model.path", "mine/model", "--data.folders", "[mine/packed]", "--output", "mine/run"]
PLACEHOLDERS = {"model.path", "data.folders", "output"}
PUBLISHED: dict[str, dict[str, Any]] = {
    "llama3-8b-64k": {
        "model.rope_theta": 8e6, "batch.sequence_tokens": 65_536, "batch.global_tokens": 64 * 65_536,
        "optimizer.steps": 500, "optimizer.learning_rate": 1e-5, "warmup": 50, "parallel.sp": 1,
    },
    "llama3-8b-128k": {
        "model.rope_theta": 2e8, "batch.sequence_tokens": 131_072, "batch.global_tokens": 4 << 20,
        "optimizer.steps": 1000, "optimizer.learning_rate": 4e-5, "warmup": 200, "parallel.sp": 1,
    },
    "llama3-8b-512k": {
        "model.rope_theta": 1.28e8, "batch.sequence_tokens": 524_288, "batch.global_tokens": 128 * 524_288 // 8,
        "optimizer.steps": 500, "optimizer.learning_rate": 1e-5, "warmup": 50, "parallel.sp": 8,
    },
    "sft": {
        "model.rope_theta": None, "batch.sequence_tokens": 65_536, "batch.global_tokens": 64 * 65_536,
        "optimizer.steps": 250, "optimizer.learning_rate": 2e-5, "warmup": 12, "parallel.sp": 2,
    },
}  # fmt: skip
"""Tables 8 and 9, train_64K.sh, train_512K.sh, train_sft.sh."""
COMMON = {
    "optimizer.beta1": 0.9,
    "optimizer.beta2": 0.95,
    "optimizer.weight_decay": 0.1,
    "optimizer.clip": 1.0,
    "optimizer.min_ratio": 0.1,
    "model.precision": "bfloat16",
    "model.checkpointing": True,
    "data.negative_weight": 1.0,
}


def _flat(recipe: Training) -> dict[str, Any]:
    return dict(flat(dataclasses.asdict(recipe))) | {"warmup": recipe.optimizer.num_warmup}


def _stated(path: Path) -> dict[str, Any]:
    return {name: value for name, value in flat(yaml.safe_load(path.read_text())) if name != "base"}


def _defaults() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for section, kind in get_type_hints(Training).items():
        for field in dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ():
            found[f"{section}.{field.name}"] = field.default
    return found


def test_the_expected_recipes_are_there() -> None:
    assert set(RECIPES.packaged()) == {"tiny", "base", *PUBLISHED}


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_recipe_loads_by_name_with_the_users_model_data_and_output(path: Path) -> None:
    recipe = RECIPES.load(path.stem, OURS)
    assert (recipe.model.path, recipe.data.folders, recipe.output) == ("mine/model", ["mine/packed"], "mine/run")
    assert RECIPES.load(str(path), OURS) == recipe


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_recipe_begins_with_what_it_is_and_its_source(path: Path) -> None:
    comment = path.read_text().partition("\n\n")[0].splitlines()
    assert all(line.startswith("# ") and len(line) <= 120 for line in comment)
    assert len([line for line in comment if line.startswith("# Source: ")]) == 1
    assert re.search(r"arXiv:2501\.12766|none, ours", "\n".join(comment))
    assert comment[-1].startswith("# Yours: ")


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_recipe_states_only_what_differs_from_its_base(path: Path) -> None:
    stated, base = _stated(path), yaml.safe_load(path.read_text()).get("base")
    before = _defaults() if base is None else _flat(RECIPES.load(base))
    assert {name: value for name, value in stated.items() if value == before.get(name)} == {}
    assert (base is None) == (path.stem == "base")


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_recipes_have_the_published_numbers(name: str) -> None:
    recipe = _flat(RECIPES.load(name, OURS))
    wanted = COMMON | PUBLISHED[name]
    assert {each: recipe[each] for each in wanted} == wanted


def test_the_512k_stage_goes_on_from_the_64k_stage() -> None:
    recipe = RECIPES.load("llama3-8b-512k")
    assert recipe.saving.init_from is not None
    assert recipe.model.path == RECIPES.load("llama3-8b-64k").model.path


def test_a_resolved_recipe_is_a_recipe(tmp_path: Path) -> None:
    recipe = RECIPES.load("llama3-8b-512k", OURS)
    (tmp_path / "resolved.yaml").write_text(as_yaml(dataclasses.asdict(recipe)))
    assert RECIPES.load(str(tmp_path / "resolved.yaml")) == recipe


def test_the_command_line_comes_after_the_recipe_and_the_recipe_after_its_base(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("base: ours\noptimizer: {learning_rate: 3.0}\ndata: {folders: [a, b]}\n")
    (tmp_path / "ours.yaml").write_text("base: sft\noptimizer: {learning_rate: 2.0, steps: 7}\n")
    recipe = RECIPES.load(str(tmp_path / "mine.yaml"), ["--optimizer.clip=0.5", "--parallel.sp=4"])
    assert dataclasses.astuple(recipe.optimizer)[:2] == (7, 3.0)
    assert (recipe.optimizer.clip, recipe.optimizer.warmup_ratio, recipe.parallel.sp) == (0.5, 0.05, 4)
    assert recipe.data.folders == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base: other", r"base is other, but there is no .*other.yaml, and these come with the package: base, "),
        ("base: ../other", r"base is '../other', but it must be the name of a recipe beside it"),
        ("base: /etc/passwd", r"base is '/etc/passwd', but it must be the name"),
        ("base: https://a.b/c", r"base is 'https://a.b/c', but it must be the name"),
        ("base: [base]", r"base is a list, but it must be a recipe's name"),
        ("base: 3", r"base is no text, but it must be"),
        ("base: mine", r"its bases go round in a circle, .*mine.yaml"),
        ("base: base\nmodel: {class_path: os.path}", r"model.class_path is no setting. There are checkpointing, "),
        ("base: base\nmodel: other.yaml", r"model is a text, but it must be settings"),
        ("base: base\nsteps: 3", r"steps is no setting. There are base, batch, "),
        ("base: base\noptimizer: {steps: many}", r"optimizer.steps is many, but it must be a whole number"),
        ("base: base\ndata: {proportions: half}", r"data.proportions is half, but it must be a list of numbers or nul"),
        ("base: base\nmodel: {precision: fp8}", r"model.precision is fp8, but it must be one of bfloat16, float32, f"),
        ("base: base\noptimizer: {clip: 0}", r"optimizer.clip is 0.0, but it must be above 0"),
        ("base: base\nbatch: {sequence_tokens: 0}", r"batch.sequence_tokens is 0, but it must be at least 1"),
        ("output: x", r"the recipe is not valid: .*model"),
        ("- 1", r"it is a list, but it must be settings"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_sentence(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as told:
        RECIPES.load(str(path))
    assert "\n" not in str(told.value)


def test_what_is_no_recipe_names_those_that_there_are() -> None:
    with pytest.raises(UserError, match=r"recipe nowhere: there is no such file. .* base, llama3-8b-128k, "):
        RECIPES.load("nowhere")


def test_a_base_is_vetted_too(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("base: ours\n")
    (tmp_path / "ours.yaml").write_text("model: {__path__: other.yaml}\n")
    with pytest.raises(UserError, match=r"ours.yaml: model.__path__ is no setting"):
        RECIPES.load(str(tmp_path / "mine.yaml"))


def test_a_recipe_without_bases_has_none(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("base: base\n")
    plain = Recipes(kind=Training, folder=FOLDER, command="nextlong train", start="")
    with pytest.raises(UserError, match="base is no setting"):
        plain.load(str(tmp_path / "mine.yaml"))
