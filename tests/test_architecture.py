"""The arrows between the packages hold: etl -> nextlong <- training, and the method needs neither Dask nor torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def _top_level_imports(path: Path) -> set[str]:
    """Packages imported by a module outside its functions."""
    names: set[str] = set()
    tree = ast.parse(path.read_text())
    inside = {
        id(node) for function in ast.walk(tree) if isinstance(function, ast.FunctionDef) for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        if id(node) not in inside:
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module.split(".")[0])
    return names


def _modules(package: str) -> list[Path]:
    paths = sorted((ROOT / package).rglob("*.py"))
    assert paths, f"no modules in {package}"
    return paths


@pytest.mark.parametrize("path", _modules("nextlong"), ids=lambda path: path.name)
def test_the_method_imports_no_engine_and_no_trainer(path: Path) -> None:
    assert not _top_level_imports(path) & {"dask", "distributed", "torch", "transformers", "etl", "training", "pandas"}


@pytest.mark.parametrize("path", _modules("etl"), ids=lambda path: path.name)
def test_the_stages_import_no_trainer(path: Path) -> None:
    assert not _top_level_imports(path) & {"torch", "transformers", "training"}


@pytest.mark.parametrize("path", _modules("evaluation"), ids=lambda path: path.name)
def test_the_evaluation_imports_no_stages_and_no_trainer(path: Path) -> None:
    named = {name.split(".")[0] for node in ast.walk(ast.parse(path.read_text())) for name in _imported(node)}
    assert not named & {"etl", "training", "dask", "distributed", "pandas"}


@pytest.mark.parametrize("path", _modules("training"), ids=lambda path: path.name)
def test_the_trainer_imports_no_stages(path: Path) -> None:
    """__main__ is the command line, as torchrun calls it."""
    named = {name.split(".")[0] for node in ast.walk(ast.parse(path.read_text())) for name in _imported(node)}
    assert ("etl" in named) == (path.name == "__main__.py")
    assert not named & {"dask", "distributed", "pandas", "accelerate"}


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module] if isinstance(node, ast.ImportFrom) and node.module else []


LIGHT = ("config", "recipe", "shape", "flops", "estimate", "page", "launch")


def test_recipes_estimates_and_launches_of_trainings_load_no_torch() -> None:
    modules = ", ".join(f"training.{name}" for name in LIGHT)
    code = f"import sys, {modules}\nprint(sorted({{'torch', 'transformers', 'numpy', 'pyarrow'}} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_importing_the_method_loads_nothing_heavy() -> None:
    paths = [path.relative_to(ROOT).with_suffix("") for path in _modules("nextlong") if path.stem != "__init__"]
    modules = [".".join(path.parts) for path in paths]
    heavy = {"dask", "torch", "pandas", "transformers"}
    code = f"import sys, {', '.join(modules)}\nprint(sorted({heavy} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
