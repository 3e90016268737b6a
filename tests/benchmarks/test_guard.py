"""The guard fails where a ratio has fallen by more than it varies on record, and names it."""

import json
from pathlib import Path

import pytest

from benchmarks import guard


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "ratios.json"
    monkeypatch.setattr(guard, "RECORD", file)
    return file


def judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ratio: float, *options: str) -> int:
    ratios = tmp_path / "ratios.jsonl"
    ratios.write_text(json.dumps({"name": "chunk: loop", "ratio": ratio}) + "\n")
    monkeypatch.setattr("sys.argv", ["guard", str(ratios), *options])
    return guard.main()


def test_a_ratio_that_falls_below_its_tolerance_fails_and_is_named(
    record: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record.write_text(json.dumps({"chunk: loop": [1.0, 1.02]}))
    assert judge(tmp_path, monkeypatch, 0.91) == 0
    assert judge(tmp_path, monkeypatch, 0.89) == 1
    assert "chunk: loop: 0.89, below 0.90; on record: 1.00, 1.02" in capsys.readouterr().out


def test_ratios_that_vary_more_on_record_may_fall_further(
    record: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record.write_text(json.dumps({"chunk: loop": [1.0, 1.2, 1.3]}))
    assert judge(tmp_path, monkeypatch, 0.72) == 0
    assert judge(tmp_path, monkeypatch, 0.68) == 1


def test_what_is_not_on_record_does_not_fail_and_can_be_put_there(
    record: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert judge(tmp_path, monkeypatch, 2.0) == 0
    assert judge(tmp_path, monkeypatch, 2.0, "--accept") == 0
    assert judge(tmp_path, monkeypatch, 1.0) == 1
    assert judge(tmp_path, monkeypatch, 1.0, "--accept") == 0
    assert json.loads(record.read_text()) == {"chunk: loop": [2.0, 1.0]}


def test_ratios_of_one_name_are_told_apart_by_their_order(tmp_path: Path) -> None:
    lines = [{"name": "embed: loop", "ratio": ratio} for ratio in (1.0, 2.0)]
    (tmp_path / "ratios.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert guard.read(tmp_path / "ratios.jsonl") == {"embed: loop": 1.0, "embed: loop (2)": 2.0}
