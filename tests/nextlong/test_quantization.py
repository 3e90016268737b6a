"""int8: made once and in the cache, near to float32, and a text's vector is its own, whatever else is embedded."""

import shutil
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

import nextlong.quantization
from nextlong.config import Embedding
from nextlong.embedding import Embedder
from nextlong.errors import UserError
from nextlong.quantization import int8_model, scales_by_call
from tests.conftest import make_texts

TEXTS = [text[: 20 + 30 * place] for place, (_, text) in enumerate(make_texts(12, seed=5))]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "nextlong" / "models" / "int8"


@pytest.fixture
def folder(tmp_path: Path, model_folder: Path) -> Path:
    return Path(shutil.copytree(model_folder, tmp_path / "model"))


def load(folder: Path, **options: Any) -> Embedder:
    return Embedder.load(folder, Embedding(model=str(folder), **({"dtype": "float32"} | options)))


def vectors(folder: Path, texts: list[str], **options: Any) -> NDArray[Any]:
    return load(folder, **options).embed(texts).vectors


def test_int8_vectors_are_near_to_the_float32_ones_and_are_others(cache: Path, folder: Path) -> None:
    exact, made = vectors(folder, TEXTS), vectors(folder, TEXTS, precision="int8")
    cosines = (exact * made).sum(axis=1)
    assert 0.99 < cosines.min() < cosines.max() < 1
    assert "model/model.onnx in int8 on CPU" in load(folder, precision="int8").describe()


def test_a_text_has_the_same_int8_bits_whatever_is_embedded_with_it(cache: Path, folder: Path) -> None:
    alone = np.concatenate([vectors(folder, [text], precision="int8") for text in TEXTS])
    for batch_tokens in (1, 100, 100_000):
        together = vectors(folder, TEXTS[::-1], precision="int8", batch_tokens=batch_tokens)[::-1]
        np.testing.assert_array_equal(together, alone)
    embedder = load(folder, precision="int8")
    ids, _ = embedder._tokenize(TEXTS)
    in_one_call = embedder._vectors(ids, max(map(len, ids)))
    assert (in_one_call != alone).any(), "sharing a call changes nothing here, so that this test shows nothing"


def test_an_int8_file_of_the_folder_itself_is_given_one_text_a_call_too(cache: Path, folder: Path) -> None:
    wanted = vectors(folder, TEXTS, precision="int8")
    shutil.copyfile(next(cache.glob("*/model.onnx")), folder / "model_int8.onnx")
    np.testing.assert_array_equal(vectors(folder, TEXTS, file="model_int8.onnx"), wanted)
    assert not scales_by_call(folder / "model.onnx")


def test_it_is_made_once_in_the_cache_without_a_word_and_not_in_the_model_folder(
    cache: Path, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = sorted(folder.rglob("*"))
    load(folder, precision="int8")
    [made] = cache.glob("*/*")
    written = made.stat().st_mtime_ns
    load(folder, precision="int8")
    assert made.stat().st_mtime_ns == written
    assert sorted(folder.rglob("*")) == before
    assert sorted(each.suffix for each in cache.iterdir() if each.is_file()) == [".lock"]
    assert capfd.readouterr() == ("", "")


def test_another_file_of_the_same_name_has_another_version(cache: Path, folder: Path) -> None:
    load(folder, precision="int8")
    model = onnx.load(folder / "model.onnx")
    linear = next(each for each in model.graph.initializer if each.name == "linear")
    linear.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(linear), "linear"))
    onnx.save(model, folder / "model.onnx")
    assert (vectors(folder, TEXTS, precision="int8") * vectors(folder, TEXTS)).sum(axis=1).min() > 0.99
    assert len(list(cache.glob("*/model.onnx"))) == 2


def test_whoever_wants_it_meanwhile_waits_for_the_first(
    cache: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Path] = []
    quantize = nextlong.quantization._quantize
    monkeypatch.setattr(
        nextlong.quantization, "_quantize", lambda file, folder: (made.append(folder), quantize(file, folder))
    )
    threads = [threading.Thread(target=int8_model, args=(folder / "model.onnx", "one")) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert scales_by_call(int8_model(folder / "model.onnx", "one"))


def test_an_interrupted_one_leaves_nothing(cache: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(file: Path, folder: Path) -> None:
        folder.mkdir()
        (folder / "model.onnx").write_text("half")
        raise KeyboardInterrupt

    monkeypatch.setattr(nextlong.quantization, "_quantize", interrupted)
    with pytest.raises(KeyboardInterrupt):
        load(folder, precision="int8")
    assert [each for each in cache.iterdir() if each.suffix != ".lock"] == []


def test_weights_beside_the_file_are_found(cache: Path, folder: Path) -> None:
    wanted = vectors(folder, TEXTS, precision="int8")
    model = onnx.load(folder / "model.onnx")
    onnx.save(model, folder / "model.onnx", save_as_external_data=True, location="weights.data", size_threshold=0)
    np.testing.assert_array_equal(vectors(folder, TEXTS, precision="int8"), wanted)


def test_a_model_above_the_size_of_one_file_keeps_its_weights_beside_it(
    cache: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = vectors(folder, TEXTS, precision="int8")
    monkeypatch.setattr(nextlong.quantization, "_LARGEST_PROTOBUF_BYTES", 1000)
    made = int8_model(folder / "model.onnx", "large")
    assert len(list(made.parent.iterdir())) == 2
    shutil.copytree(made.parent, folder / "large")
    np.testing.assert_array_equal(vectors(folder, TEXTS, file="large/model.onnx"), wanted)


def test_without_the_package_onnx_one_sentence_says_what_to_install(
    cache: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UserError, match=r"embedding\.precision is 'int8'.*pip install 'nextlong\[int8\]'"):
        load(folder, precision="int8")
    assert load(folder).dimensions == 32


def test_a_file_without_float32_matrices_is_refused(cache: Path, folder: Path) -> None:
    model = onnx.load(folder / "model.onnx")
    for each in model.graph.initializer:
        each.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(each).astype(np.float16), each.name))
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT16, None))
    onnx.save(model, folder / "model_fp16.onnx")
    with pytest.raises(UserError, match=r"model_fp16\.onnx has no float32 matrices.*embedding\.file.*null"):
        load(folder, precision="int8", file="model_fp16.onnx")


def test_a_broken_file_is_told_of_by_name(cache: Path, folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"no model")
    with pytest.raises(UserError, match=r"model\.onnx cannot be read as ONNX.*again"):
        load(folder, precision="int8")


def test_int8_on_cuda_is_refused() -> None:
    with pytest.raises(UserError, match=r"int8.*for the CPU.*embedding\.device is 'cuda'"):
        Embedding(model="m", precision="int8", device="cuda")
