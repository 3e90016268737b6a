"""What the README shows runs: its demo, its Python, its recipe and its commands."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from etl.offline_model import offline_model
from etl.recipe import load_recipe

README = (Path(__file__).parent.parent / "README.md").read_text()


def _blocks(language: str) -> list[str]:
    blocks = re.findall(rf"```{language}\n(.*?)```", README, re.S)
    assert blocks
    return blocks


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder in which `nextlong demo` ran, and what it printed."""
    offline_model()
    folder = tmp_path_factory.mktemp("readme")
    command = [sys.executable, "-m", "etl.cli", "demo", "--documents", "40", "--workers", "2"]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=250)
    assert ran.returncode == 0, ran.stderr
    return folder, ran.stdout


def test_the_demo_says_what_it_used_and_shows_a_long_document(demo: tuple[Path, str]) -> None:
    _, shown = demo
    for words in ("docstrings of installed packages", "byte-level BPE", "all-MiniLM-L6-v2", "65,536 tokens"):
        assert words in shown
    assert "META 1 of" in shown
    assert "For real work" in shown


def test_a_demo_of_another_size_is_refused(demo: tuple[Path, str]) -> None:
    folder, _ = demo
    command = [sys.executable, "-m", "etl.cli", "demo", "--documents", "41"]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert (ran.returncode, "--out demo-2" in ran.stderr) == (2, True)


def test_the_python_example_runs(demo: tuple[Path, str]) -> None:
    (code,) = _blocks("python")
    ran = subprocess.run([sys.executable, "-c", code], cwd=demo[0], capture_output=True, text=True, timeout=250)
    assert ran.returncode == 0, ran.stderr
    lines = ran.stdout.splitlines()
    assert lines[0] == "8192"
    assert lines[1].startswith("meta ")


def test_the_recipe_is_valid(tmp_path: Path) -> None:
    (recipe,) = _blocks("yaml")
    (tmp_path / "recipe.yaml").write_text(recipe)
    assert load_recipe(str(tmp_path / "recipe.yaml")).synthesis.num_samples == 32000


def test_the_commands_run(demo: tuple[Path, str], tmp_path: Path) -> None:
    """On the demo's recipe and folder, which stand for the reader's own."""
    text = "".join(_blocks("sh")).replace("\\\n", " ")
    commands = [shlex.split(line, comments=True) for line in text.splitlines()]
    commands = [command for command in commands if command and command[0] == "nextlong" and command[1] != "demo"]
    assert len(commands) >= 6
    recipe = (demo[0] / "demo" / "recipe.yaml").read_text()
    (tmp_path / "small").mkdir()
    for path in (tmp_path / "recipe.yaml", tmp_path / "small" / "recipe.yaml"):
        path.write_text(recipe.replace(str(demo[0] / "demo" / "work"), str(path.parent / "work")))
    os.symlink(demo[0] / "demo" / "work", tmp_path / "work")
    _make_inputs(demo[0] / "demo", tmp_path)
    for command in commands:
        arguments = command[1:] + (
            [] if command[1] in ("plan", "peek", "clean", "trace", "train") else ["--workers", "0"]
        )
        if command[1] == "train" and "--dry-run" not in command:
            arguments += ["--dry-run"]
        if command[1] == "compare":  # of so small a corpus
            arguments += ["--synthesis.target_length_tokens", "2048", "--synthesis.num_samples", "3"]
        ran = subprocess.run(
            [sys.executable, "-m", "etl.cli", *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=200
        )
        assert ran.returncode == 0, (command, ran.stderr)
        assert command[1] != "compare" or len(re.findall(r"^\S+ +3  ", ran.stdout, re.M)) == 10, ran.stdout
    assert (tmp_path / "work-2" / "7-packed" / "manifest.json").is_file()


def _make_inputs(demo: Path, folder: Path) -> None:
    """What the commands name: a tokenizer's folder, books, and sequences that somebody else packed."""
    (folder / "llama").mkdir()
    shutil.copy(demo / "tokenizer" / "tokenizer.json", folder / "llama")
    (folder / "llama" / "tokenizer_config.json").write_text('{"eos_token": "<|endoftext|>"}')
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 8}
    (folder / "llama" / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": 16384} | sizes))
    (folder / "books").mkdir()
    shutil.copy(demo / "docstrings.parquet", folder / "books")
    command = ["pack", "books/docstrings.parquet", "--tokenizer", "llama", "--length", "65536", "--fitting", "concat"]
    subprocess.run(
        [sys.executable, "-m", "etl.cli", *command, "--format", "mds", "--workers", "0", "--out", "prolong-64k"],
        cwd=folder,
        check=True,
        capture_output=True,
    )
