"""What the pages name exists: links, files, modules, settings, commands and recipes; and they become a site."""

import argparse
import ast
import configparser
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from etl.cli import _PLAIN_FIELDS, _parser
from etl.recipe import RECIPES as DATA
from nextlong.recipes import as_yaml, joined, sections
from training.recipe import RECIPES as TRAINING

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
PACKAGES = ("nextlong", "etl", "training", "evaluation")
OTHERS_YAML = ("distributed", "apiVersion")  # of Dask and Kubernetes

assert len(PAGES) > 10
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def _blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.S | re.M)


def _prose(page: Path) -> str:
    """Without what stands between fences."""
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.S | re.M)


def _code(page: Path) -> list[str]:
    """What stands in backticks within a line."""
    return re.findall(r"`([^`\n]+)`", _prose(page))


def _anchors(page: Path) -> set[str]:
    """As code hosts and the site make them of headings."""
    titles = re.findall(r"^#+ (.*)$", _prose(page), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", _prose(page)):
        if not target.startswith(("https://", "http://")):
            name, _, anchor = target.partition("#")
            there = page.parent / name if name else page
            assert there.exists(), target
            assert not anchor or anchor in _anchors(there), target


@each_page
def test_files_that_are_named_exist(page: Path) -> None:
    folders = tuple(f"{path.name}/" for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith("."))
    for name in (code for code in _code(page) if re.fullmatch(r"[\w./-]+", code)):
        if name.startswith(folders) and not name.startswith(("demo/", "build/")):
            assert (ROOT / name).exists(), name
        elif re.fullmatch(r"test_\w+\.py", name):
            assert any((ROOT / "tests").rglob(name)), name


def _fields() -> set[str]:
    """The dotted names of both kinds of recipes."""
    kinds = [(name, kind) for recipes in (DATA, TRAINING) for name, kind in sections(recipes.kind).items()]
    return {f"{name}.{field}" for name, kind in kinds for field in kind.__dataclass_fields__}


@each_page
def test_settings_that_are_named_exist(page: Path) -> None:
    fields = _fields()
    named = {name.partition(".")[0] for name in fields}
    for code in _code(page):
        found = re.match(r"-{0,2}((\w+)\.(\w+))(?![\w./(])", code)
        if found and found[2] in named and not re.fullmatch(r"\w+\.(yaml|json|npy|parquet|py|md)", found[1]):
            assert found[1] in fields, code


def _commands(page: Path) -> Iterator[list[str]]:
    """The words of each call of nextlong; torchrun's calls of the trainer are those of its verb train."""
    for block in _blocks(page, "sh"):
        text = re.sub(r"<<END\n.*?^END$", "", block, flags=re.S | re.M).replace("\\\n", " ")
        for line in text.splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["nextlong"]:
                yield words[1:]
            elif words[:1] == ["torchrun"]:
                yield ["train", *words[words.index("training") + 1 :]]


@each_page
def test_commands_are_understood(page: Path, tmp_path: Path) -> None:
    for words in _commands(page):
        options, rest = _parser().parse_known_args(joined(words, _PLAIN_FIELDS))
        recipes = {"run": DATA, "plan": DATA, "compare": DATA, "train": TRAINING}.get(options.verb)
        assert recipes is not None or not rest, rest
        if rest:
            recipes.check_fields(rest)
            assert _is_recipe(recipes, options.recipe, rest, tmp_path), words


@each_page
def test_verbs_and_options_within_a_line_exist(page: Path) -> None:
    verbs = next(action.choices for action in _parser()._actions if isinstance(action, argparse._SubParsersAction))
    for code in (code for code in _code(page) if code.startswith("nextlong ")):
        verb, *rest = code.split()[1:]
        plain = [word for word in rest if word.startswith("--") and "." not in word]
        assert verb in verbs, code
        assert set(plain) <= {*verbs[verb]._option_string_actions, *_PLAIN_FIELDS}, code


def _is_recipe(recipes: Any, name: str | None, overrides: list[str], folder: Path) -> bool:
    """A reader's own recipe is stood for by one that comes with the package."""
    is_own = name is None or name.endswith(".yaml")
    return bool(recipes.load(next(iter(recipes.packaged())) if is_own else name, overrides))


@each_page
def test_extras_that_are_named_exist(page: Path) -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    named = re.findall(r"'(?:\.|nextlong)\[([\w,]+)\]'", page.read_text())
    assert {extra for each in named for extra in each.split(",")} <= set(setup["options.extras_require"])


@each_page
def test_recipes_are_valid(page: Path, tmp_path: Path) -> None:
    """A fragment is what a recipe that comes with the package says otherwise."""
    for block in _blocks(page, "yaml"):
        fields = yaml.safe_load(block)
        if fields.keys() & set(OTHERS_YAML):
            continue
        recipes, whole = (DATA, "default") if set(fields) <= DATA.names else (TRAINING, "base")
        (tmp_path / "recipe.yaml").write_text(as_yaml(yaml.safe_load(recipes.packaged()[whole].read_text()) | fields))
        assert recipes.load(str(tmp_path / "recipe.yaml"))


@each_page
def test_python_compiles(page: Path) -> None:
    for block in _blocks(page, "python"):
        ast.parse(block)


@each_page
def test_lines_can_be_read(page: Path) -> None:
    """But for rows of tables, which cannot be broken, and what programs print."""
    for width, text in ((120, _prose(page)), (140, page.read_text())):
        assert not [line for line in text.splitlines() if len(line) > width and not line.startswith("|")]


def test_the_page_of_recipes_says_what_the_settings_are() -> None:
    made = runpy.run_path(str(ROOT / "docs" / "fields.py"))["page"]()
    assert (ROOT / "docs" / "recipes.md").read_text() == made, "renew it: python docs/fields.py"


def test_reasons_that_are_explained_are_those_that_are_counted() -> None:
    rows = re.findall(r"^\| (`.*?`) \| .*$", (ROOT / "docs" / "work-folder.md").read_text(), re.M)
    reasons = {code for row in rows for code in re.findall(r"`([a-z_]+)`", row) if "_" in code}
    sources = "".join(path.read_text() for package in PACKAGES[:2] for path in (ROOT / package).rglob("*.py"))
    assert len(reasons) > 15
    assert not [reason for reason in reasons if not re.search(rf"\b{reason}\b", sources)]


def test_the_map_names_every_module() -> None:
    _, _, the_map = (ROOT / "README.md").read_text().partition("## Map")
    named = set(re.findall(r"\w+", the_map))
    modules = {path.stem for package in PACKAGES for path in (ROOT / package).glob("*.py") if path.stem[0] != "_"}
    folders = {path.parent.name for package in PACKAGES for path in (ROOT / package).glob("*/*.py")}
    assert len(modules) > 80
    assert not (modules | folders) - named


def test_the_site_is_built_without_a_warning_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "-W", "-q", "-b", "html", str(ROOT / "docs"), str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=250)
    assert ran.returncode == 0, ran.stderr
    pages = list(tmp_path.glob("*.html"))
    assert len(pages) >= len(PAGES)
    assert not [
        page for page in pages if re.search(r"<(script|link|img)[^>]+(src|href)=\"(https?:)?//", page.read_text())
    ]
    assert (tmp_path / "searchindex.js").stat().st_size > 10_000
