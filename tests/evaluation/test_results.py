"""What is there is not computed again, whatever ended the process that computed it."""

import json
import math
from pathlib import Path

import pytest

from evaluation.results import ROWS, Results, key_of, write_json
from nextlong.errors import UserError


def test_rows_are_there_after_a_restart(tmp_path: Path) -> None:
    results = Results(tmp_path / "out", "model")
    added = results.add(key_of("answer", ["a", 1]), {"kind": "answer", "output": "naïve \ud83d", "low": math.nan})
    assert added["low"] is None
    again = Results(tmp_path / "out", "model")
    assert again.get(key_of("answer", ["a", 1])) == added
    assert again.get(key_of("answer", ["a", 2])) is None


@pytest.mark.parametrize("torn", [b'{"key": "x", "ki', b'{"key": "x"}', b"\xff\x00\n", b"[1]\n"])
def test_half_a_row_is_computed_again(tmp_path: Path, torn: bytes) -> None:
    results = Results(tmp_path, "model")
    results.add("first", {"kind": "answer"})
    with open(tmp_path / ROWS, "ab") as file:
        file.write(torn)
    again = Results(tmp_path, "model")
    assert again.get("first") is not None
    assert again.get("x") is None
    again.add("x", {"kind": "loss"})
    assert [json.loads(line)["key"] for line in (tmp_path / ROWS).read_text().splitlines()] == ["first", "x"]


def test_results_of_another_model_are_not_mixed(tmp_path: Path) -> None:
    Results(tmp_path, "model")
    with pytest.raises(UserError, match=r"results of another model.* --out"):
        Results(tmp_path, "other")
    (tmp_path / "evaluation.json").write_text("no json")
    with pytest.raises(UserError, match="results of another model"):
        Results(tmp_path, "model")


def test_json_has_no_nan(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"mean": [1.0, math.nan, (math.inf, {"low": -math.inf})]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"mean": [1.0, None, [None, {"low": None}]]}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
