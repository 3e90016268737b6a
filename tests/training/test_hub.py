"""A model by its hub id is what lies in the hub's cache; other paths are never asked for."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nextlong.errors import UserError
from tests.training.made import SIZES, arguments, write_model, write_packed
from tests.training.ranks import ROOT, environment
from training.hub import local_folder


@pytest.fixture
def cached(tmp_path: Path) -> Path:
    """A cache as huggingface_hub lays it out, with some/model in it."""
    home = tmp_path / "hub"
    repository = home / "models--some--model"
    write_model(repository / "snapshots" / ("0" * 40))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    return home


def test_a_hub_id_is_trained_from_the_cache(cached: Path, tmp_path: Path) -> None:
    snapshot = cached / "models--some--model" / "snapshots" / ("0" * 40)
    packed = write_packed(tmp_path / "packed", snapshot)
    for path, status in (("some/model", 0), ("some/other", 2)):
        words = ["train", "tiny", *arguments(Path(path), packed, tmp_path / "run", "--optimizer.steps=1")]
        ran = subprocess.run(
            [sys.executable, "-m", "etl.cli", *words], cwd=ROOT, capture_output=True, text=True, timeout=200,
            env=environment() | {"HF_HUB_CACHE": str(cached), "HF_HUB_OFFLINE": "1"},
        )  # fmt: skip
        assert ran.returncode == status, ran.stderr
        if status:
            assert (
                "model.path is 'some/other', but there is no such folder, and the hub gave no such model" in ran.stderr
            )
        else:
            assert (tmp_path / "run" / "model" / "config.json").is_file()
            assert (tmp_path / "run" / "model" / "tokenizer.json").read_text() == (
                snapshot / "tokenizer.json"
            ).read_text()
            shutil.rmtree(tmp_path / "run")


def test_a_dry_run_needs_its_configuration_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    import huggingface_hub

    from etl.cli import main

    asked = []

    def snapshot_download(name: str, *, allow_patterns: list[str]) -> str:
        asked.append((name, allow_patterns))
        return str(write_model(tmp_path / "model"))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    words = ["--model.path=some/model", "--batch.sequence_tokens=64", "--batch.global_tokens=64", "--dry-run"]
    assert main(["train", "tiny", "--data.folders=[none]", "--output=none", *words]) == 0
    assert asked == [("some/model", ["config.json"])]
    assert f"vocabulary {SIZES['vocab_size']}" in capsys.readouterr().out


@pytest.mark.parametrize("path", ["tiny", "./a/b", "~/a", "/a/b", "a/b/c", "../b", "a\\b", "a/b c"])
def test_other_paths_are_never_asked_for(path: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "snapshot_download", None)
    monkeypatch.chdir(tmp_path)
    assert local_folder(path) == path
    (tmp_path / "some" / "model").mkdir(parents=True)
    assert local_folder("some/model") == "some/model"
    with pytest.raises(UserError, match="the hub gave no such model"):
        local_folder("other/model")
