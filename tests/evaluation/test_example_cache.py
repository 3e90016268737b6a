"""Examples are made once for what decides them, and again where their file is damaged."""

import logging
from pathlib import Path
from typing import Any

import pytest

from evaluation import example_cache
from evaluation.example import Example
from evaluation.example_cache import cached_examples
from tests.evaluation.tokenizers_made import made

TOLD: dict[str, Any] = {"tokenizer_sha256": "5", "number": 1, "seed": 0, "depths": [0.2, 0.5], "hay": None}


def ask(folder: Path, task: str = "multikey", length: int = 900, **changed: Any) -> list[Example]:
    return cached_examples(folder, task, made("byte_level"), length, **(TOLD | changed))


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A task for each time that examples were made."""
    real, seen = example_cache.examples, []

    def counted(task: str, *others: Any, **named: Any) -> list[Example]:
        seen.append(task)
        return real(task, *others, **named)

    monkeypatch.setattr(example_cache, "examples", counted)
    return seen


def test_examples_are_made_once(tmp_path: Path, calls: list[str]) -> None:
    first = ask(tmp_path / "cache")
    assert ask(tmp_path / "cache") == first
    assert len(first) == 2
    assert isinstance(first[0].answers, tuple)
    assert calls == ["multikey"]
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".jsonl"]


@pytest.mark.parametrize(
    "changed",
    [
        {"task": "needle"},
        {"length": 901},
        {"tokenizer_sha256": "6"},
        {"number": 2},
        {"seed": 1},
        {"depths": [0.2, 0.51]},
        {"hay": "needles"},
        {"hay": "Another text. " * 50},
    ],
)
def test_whatever_decides_examples_has_its_own_file(tmp_path: Path, calls: list[str], changed: dict[str, Any]) -> None:
    ask(tmp_path)
    ask(tmp_path, **changed)
    assert len(calls) == len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("damage", ["cut", "bit", "empty", "no head", "other text"])
def test_a_damaged_file_is_made_again(
    tmp_path: Path, calls: list[str], damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    first = ask(tmp_path)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    places = {"cut": whole[:-100], "empty": b"", "no head": whole.partition(b"\n")[2], "other text": b"[]\n\xff\x00"}
    middle = len(whole) // 2
    path.write_bytes(places.get(damage, whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]))
    with caplog.at_level(logging.WARNING):
        assert ask(tmp_path) == first
    assert "are made again: the file is damaged" in caplog.text
    assert path.read_bytes() == whole
    assert len(calls) == 2


def test_a_folder_that_cannot_be_written_is_a_warning(
    tmp_path: Path, calls: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    with caplog.at_level(logging.WARNING):
        assert len(ask(tmp_path / "file")) == 2
    assert "are not kept for the next" in caplog.text
    assert (tmp_path / "file").read_text() == "in the way"
