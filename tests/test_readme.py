"""What README.md shows runs: its demo, its Python, its recipe; and the commands of the pages on folders and shards."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from etl.cli import main
from etl.offline_model import offline_model
from etl.recipe import load_recipe

ROOT = Path(__file__).parent.parent
PAGES = ("README.md", "docs/formats.md", "docs/method.md", "docs/work-folder.md")
WITHOUT_WORKERS = ("plan", "status", "peek", "report", "clean", "trace", "train", "eval", "export-check")


def _blocks(language: str, page: str = "README.md") -> list[str]:
    blocks = re.findall(rf"```{language}\n(.*?)```", (ROOT / page).read_text(), re.S)
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


def test_a_run_is_explored_as_shown(demo: tuple[Path, str]) -> None:
    (code,) = _blocks("python", "docs/exploring.md")
    ran = subprocess.run([sys.executable, "-c", code], cwd=demo[0], capture_output=True, text=True, timeout=250)
    assert ran.returncode == 0, ran.stderr
    assert "own_document" in ran.stdout


def test_the_recipe_is_valid(tmp_path: Path) -> None:
    (recipe,) = _blocks("yaml")
    (tmp_path / "recipe.yaml").write_text(recipe)
    assert load_recipe(str(tmp_path / "recipe.yaml")).synthesis.num_samples == 32000


def test_the_commands_run(
    demo: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On the demo's recipe and folder, which stand for the reader's own; what two pages show is run once."""
    recipe = (demo[0] / "demo" / "recipe.yaml").read_text()
    (tmp_path / "small").mkdir()
    for path in (tmp_path / "recipe.yaml", tmp_path / "small" / "recipe.yaml"):
        path.write_text(recipe.replace(str(demo[0] / "demo" / "work"), str(path.parent / "work")))
    os.symlink(demo[0] / "demo" / "work", tmp_path / "work")
    monkeypatch.chdir(tmp_path)
    _make_inputs(demo[0] / "demo", tmp_path)
    commands = _commands()
    assert len(commands) >= 20
    for command in commands:
        status = main(_smaller(command))
        shown = capsys.readouterr()
        assert status == 0, (command, shown.err)
        assert command[0] != "compare" or len(re.findall(r"^\S+ +3  ", shown.out, re.M)) == 10, shown.out
    assert (tmp_path / "work-2" / "7-packed" / "manifest.json").is_file()


def _commands() -> list[list[str]]:
    """The words of every call of nextlong, but for the demo, which has run."""
    text = "".join(block for page in PAGES for block in _blocks("sh", page)).replace("\\\n", " ")
    lines = dict.fromkeys(tuple(shlex.split(line, comments=True)) for line in text.splitlines())
    return [list(words[1:]) for words in lines if words[:1] == ("nextlong",) and words[1] != "demo"]


def _smaller(command: list[str]) -> list[str]:
    """In this process; of a training its plan; of a comparison what so small a corpus can give."""
    more = [] if command[0] in WITHOUT_WORKERS else ["--workers", "0"]
    if command[0] == "train" and "--dry-run" not in command:
        more += ["--dry-run"]
    if command[0] == "compare":
        more += ["--synthesis.target_length_tokens", "2048", "--synthesis.num_samples", "3"]
        more += ["--embedding.max_tokens", "32"]
    if command[0] == "eval":
        more += ["--lengths", "512", "--tasks", "needle", "--number", "1", "--probes", "1", "--num-documents", "1"]
    return command + more


def _make_inputs(demo: Path, folder: Path) -> None:
    """What the commands name: tokenizers' folders, books, token ids, chats, and sequences that somebody else packed."""
    special = {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}
    template = "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>\n{% endfor %}"
    for name, extra in (("llama", {}), ("llama-instruct", {"chat_template": template})):
        (folder / name).mkdir()
        shutil.copy(demo / "tokenizer" / "tokenizer.json", folder / name)
        (folder / name / "tokenizer_config.json").write_text(json.dumps(special | extra))
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 8}
    config = {"model_type": "llama", "vocab_size": 16384, "eos_token_id": 0, **sizes}
    (folder / "llama" / "config.json").write_text(json.dumps(config))
    shutil.copytree(folder / "llama", folder / "tiny")
    (folder / "books").mkdir()
    shutil.copy(demo / "docstrings.parquet", folder / "books")
    pq.write_table(pa.table({"input_ids": [list(range(300)), list(range(40))]}), folder / "tokens.parquet")
    chat = [{"role": "user", "content": "How long?"}, {"role": "assistant", "content": "64K."}]
    (folder / "chats.jsonl").write_text(json.dumps({"messages": chat}) + "\n")
    _write_model(folder / "llama", folder / "trained" / "model")
    command = ["pack", "books/docstrings.parquet", "--tokenizer", "llama", "--length", "65536", "--fitting", "concat"]
    assert main([*command, "--format", "mds", "--workers", "0", "--out", "prolong-64k"]) == 0
    os.symlink("prolong-64k", folder / "held-out")


def _write_model(configured: Path, folder: Path) -> None:
    """Of random weights, as an export of a training is."""
    from transformers import AutoConfig, AutoModelForCausalLM

    AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(configured)).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(configured / name, folder)
