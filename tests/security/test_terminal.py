"""Control characters of documents, names and files are shown in what is printed and logged, and never sent."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from etl.parts import read_json, write_json
from etl.recipe import Recipe, resolved_yaml
from etl.terminal import Formatter, printable, printable_lines
from tests.conftest import make_texts
from tests.etl.test_cli import nextlong, refused

MakeRecipe = Callable[..., Recipe]
TITLE, COLOUR, CARRIAGE, BELL = "\x1b]0;owned\x07", "\x1b[31m", "\rover", "\x07"
C1, BIDI, ISOLATES, LINES = (
    "\x9b31m",
    "\u202a\u202b\u202c\u202d\u202e",
    "\u2066\u2067\u2068\u2069",
    "\x0b\x0c\x85\u2028",
)
HOSTILE = TITLE + COLOUR + CARRIAGE + BELL + C1 + BIDI + ISOLATES + LINES + "\x7f\x00\x08"
IN_A_NAME = "name\x1b[31m\nforged line\x9b\u202e"


def _unsafe(text: str) -> set[str]:
    return {each for each in text if not each.isprintable() and each not in "\n\t"}


def _safe(text: str) -> str:
    """A text that was printed or logged, after a look for what a terminal would obey."""
    assert not _unsafe(text)
    assert "\nforged line" not in text
    return text


@pytest.mark.parametrize("char", sorted(_unsafe(HOSTILE)), ids=ascii)
def test_every_control_character_is_shown(char: str) -> None:
    shown = printable(f"a{char}b")
    assert shown == "a" + char.encode("unicode_escape").decode() + "b"
    assert printable_lines(f"a{char}b\n\tc") == f"{shown}\n\tc"


def test_what_is_printable_stays() -> None:
    text = "Ünïcode, 日本語, عربى, emoji \N{GRINNING FACE}, back\\slash"
    assert printable(text) == text
    assert printable_lines(f"{text}\n\t{text}\n") == f"{text}\n\t{text}\n"
    assert printable("two\nlines\t") == "two\\nlines\\t"


def test_a_log_line_is_one_line_and_a_traceback_keeps_its_own() -> None:
    formatter = Formatter("%(levelname)s %(message)s")
    try:
        raise ValueError(HOSTILE)
    except ValueError as error:
        record = logging.LogRecord("etl", logging.ERROR, "", 0, "%s", (IN_A_NAME,), (type(error), error, None))
    first, *traceback = _safe(formatter.format(record)).split("\n")
    assert first == "ERROR name\\x1b[31m\\nforged line\\x9b\\u202e"
    assert len(traceback) == 1
    assert "\\x1b]0;owned\\x07" in traceback[0]


@pytest.fixture
def hostile_recipe(make_recipe: MakeRecipe, tmp_path: Path) -> Path:
    """A corpus whose texts, ids, sources and file name hold control characters, and folders that do too."""
    texts = make_texts(120)
    rows = [
        {"id": f"{HOSTILE}doc-{place}", "text": text.replace(". ", f". {HOSTILE} "), "source": HOSTILE + topic}
        for place, (topic, text) in enumerate(texts)
    ]
    folder = tmp_path / IN_A_NAME.replace("\n", "")
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist(rows), folder / "corpus.parquet")
    recipe = make_recipe(f"{folder.name}/work", input={"path": str(folder / "corpus.parquet")})
    (tmp_path / "recipe.yaml").write_text(resolved_yaml(recipe))
    return tmp_path / "recipe.yaml"


def test_verbs_show_them_and_send_none(hostile_recipe: Path) -> None:
    work = Path(yaml.safe_load(hostile_recipe.read_text())["output"])
    for arguments in [
        ["run", hostile_recipe, "--workers", 1],
        ["peek", work],
        ["peek", work, "--near-duplicates"],
        ["clean", work, "--from", "pack"],
    ]:
        ran = nextlong(*arguments)
        printed = _safe(ran.stdout) + _safe(ran.stderr)
        assert "\\x1b" in printed
        assert len(printed.splitlines()) > 1
    assert _safe((work / "run.log").read_text(encoding="utf-8"))


@pytest.mark.long
def test_verbs_with_tables_send_none(hostile_recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "comparison"
    for arguments in [
        ["compare", hostile_recipe, "--workers", 0, "--out", out, "--strategies", "nextlong", "standard"],
        ["plan", hostile_recipe, "--workers", 1],
    ]:
        ran = nextlong(*arguments)
        assert len((_safe(ran.stdout) + _safe(ran.stderr)).splitlines()) > 1
    assert _safe((out / "run.log").read_text(encoding="utf-8"))


def test_mistakes_are_told_without_them(hostile_recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "bad" / IN_A_NAME).mkdir(parents=True)
    (tmp_path / "bad" / IN_A_NAME / f"{IN_A_NAME}.jsonl").write_text('{"text": "a"}\nbroken\n')
    (tmp_path / f"{IN_A_NAME}.yaml").write_text(f"chunking: {{{json.dumps(IN_A_NAME)}: 1}}\n")
    other = ["--workers", 1, "--input.path", tmp_path / "bad", "--output", tmp_path / "other"]
    told = nextlong("run", hostile_recipe, *other, status=2)
    assert "\\x1b" in _safe(told.stdout + told.stderr)
    for arguments in [
        ["run", tmp_path / f"no{IN_A_NAME}.yaml"],
        ["run", tmp_path / f"{IN_A_NAME}.yaml"],
        ["run", hostile_recipe, "--workers", 0, "--input.path", tmp_path / "bad", "--output", tmp_path / "more"],
        ["run", hostile_recipe, "--synthesis.seed", IN_A_NAME],
        ["run", hostile_recipe, "--scheduler", f"tcp://{IN_A_NAME}:1"],
        ["peek", tmp_path / IN_A_NAME],
        ["peek", IN_A_NAME, IN_A_NAME],
        ["clean", tmp_path / "bad", "--from", IN_A_NAME],
        ["plan", hostile_recipe, "--rates", tmp_path / IN_A_NAME],
    ]:
        assert "\\x1b" in _safe(refused(*arguments)), arguments


def test_a_folder_of_somebody_else_sends_none(hostile_recipe: Path) -> None:
    """What summary.json and a manifest say, as well as the documents."""
    work = Path(yaml.safe_load(hostile_recipe.read_text())["output"])
    nextlong("run", hostile_recipe, "--workers", 0)
    summary: dict[str, Any] = read_json(work / "summary.json") or {}
    account = summary["stages"]["read"]["account"]
    account["documents"]["dropped"][HOSTILE] = 3
    account.setdefault("notes", {})[HOSTILE] = 3
    write_json(work / "summary.json", summary)
    shown = _safe(nextlong("peek", work).stdout)
    assert shown.count("\\x1b]0;owned\\x07") >= 2


@pytest.mark.long
def test_rates_of_another_machine_send_none(hostile_recipe: Path, tmp_path: Path) -> None:
    rates = tmp_path / "rates.json"
    nextlong("plan", hostile_recipe, "--workers", 1, "--write-rates", rates)
    rates.write_text(json.dumps(json.loads(rates.read_text()) | {"machine": HOSTILE}))
    assert "\\x1b]0;owned\\x07" in _safe(nextlong("plan", hostile_recipe, "--workers", 1, "--rates", rates).stdout)
