"""What does not fit together is told in one sentence, before any work; a loss that is no number ends a run well."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nextlong.errors import UserError
from tests.training.conftest import LENGTH, Recipe, metrics, pack
from tests.training.ranks import launch
from training.config import Batching, Saving, check_heads
from training.data import Data, Rows
from training.model import Model, read_config
from training.optimizer import Optimizer


def _edited(folder: str, copy: Path, name: str, change: Callable[[dict[str, Any]], None]) -> str:
    """A copy of a folder with another JSON file."""
    shutil.copytree(folder, copy)
    told = json.loads((copy / name).read_text())
    change(told)
    (copy / name).write_text(json.dumps(told))
    return str(copy)


@pytest.fixture
def mistakes(
    recipe: Recipe, models: Callable[[str], str], packed: Callable[[str], str], tokenizer_file: Path, tmp_path: Path
) -> list[tuple[dict[str, Any], str]]:
    """Recipes for two ranks, and what is told of each."""
    other = tmp_path / "other-tokenizer"
    shutil.copytree(models("llama"), other)
    (other / "tokenizer.json").write_text((other / "tokenizer.json").read_text() + "\n")
    empty = tmp_path / "empty"
    empty.mkdir()
    bare = tmp_path / "bare"
    shutil.copytree(models("llama"), bare, ignore=shutil.ignore_patterns("*.safetensors"))
    wider = _edited(models("llama"), tmp_path / "wider", "config.json", lambda told: told.update(intermediate_size=97))
    small = _edited(models("llama"), tmp_path / "small", "config.json", lambda told: told.update(vocab_size=64))
    encoder = _edited(
        models("llama"), tmp_path / "t5", "config.json",
        lambda told: (told.clear(), told.update(model_type="t5", architectures=["T5Model"])),
    )  # fmt: skip
    gpt = _edited(
        models("llama"), tmp_path / "gpt", "config.json",
        lambda told: (told.clear(), told.update(model_type="gpt2", n_embd=16, n_head=2, n_layer=1)),
    )  # fmt: skip
    masked = _edited(packed("masked"), tmp_path / "broken", "manifest.json", lambda told: told.update(rows=0))
    ids = [[place % 50 + 1 for place in range(LENGTH)]] * 8
    pq.write_table(pa.table({"input_ids": ids, "mask": [[0] * LENGTH] * 8}), tmp_path / "none.parquet")
    none = pack(tmp_path / "none", tokenizer_file, kind="tokens", path=tmp_path / "none.parquet", eos=None)
    (tmp_path / "no-json").mkdir()
    (tmp_path / "no-json" / "config.json").write_text("{")
    sp = {"parallel": {"sp": 2}}
    told: list[tuple[dict[str, Any], str]] = [
        (recipe(kind="llama-odd", **sp), "the model has 3 attention heads, which parallel.sp = 2 does not divide"),
        (recipe(parallel={"sp": 3}), "parallel.sp is 3, but it must divide the number of ranks, 2"),
        (
            recipe(parallel={"sp": 2, "dp_replicate": 2}),
            r"sp \* parallel.dp_replicate is 4, but must divide .* ranks, 2",
        ),
        (
            recipe(batch={"global_tokens": 3 * LENGTH}),
            "has 3 rows, which 2 data-parallel ranks with 1 rows a micro-ste",
        ),
        (recipe(batch={"global_tokens": LENGTH}), "has 1 row, which 2 data-parallel ranks"),
        (
            recipe(batch={"global_tokens": 1000}),
            "batch.global_tokens is 1,000, which is no multiple .*96. Take e.g. 960",
        ),
        (
            recipe(batch={"global_tokens": 2**20 * LENGTH}),
            r"has 1,048,576 rows, 1,048,576 of them of .*arrow, which has \d+: one would come",
        ),
        (recipe(model={"path": str(other)}), r"another tokenizer than that of model.path .*sha256 \w{12} and \w{12}"),
        (recipe(kind="llama-short"), "sequences of 96 tokens, but model.path .* made for 64 positions.*rope_theta"),
        (recipe(model={"path": str(empty)}), "empty is no folder of transformers: it has no config.json"),
        (recipe(model={"path": str(tmp_path / "nowhere")}), "nowhere is no folder of transformers"),
        (recipe(model={"path": str(tmp_path / "no-json")}), "no-json: there is no model that can be read"),
        (recipe(model={"path": str(bare)}), "bare holds no safetensors"),
        (recipe(model={"path": wider}), "wider: its weights are not those that its config.json describes"),
        (recipe(model={"path": small}), "have a vocabulary of 600 ids, but the model knows 64"),
        (recipe(model={"path": encoder}), "is a t5, whose config.json states no max_position_embeddings"),
        (recipe(model={"path": gpt}), "GPT2LMHeadModel is not built of model.layers"),
        (recipe(kind="mistral-window"), "attends to a sliding window of 32 tokens"),
        (recipe(kind="llama-dropout"), "has attention_dropout 0.1"),
        (recipe(data={"folders": [str(empty)]}), "empty is no packed folder"),
        (recipe(data={"folders": [masked]}), "broken has no sequence"),
        (recipe(data={"folders": [none]}), r"step 0 has no target at all \(row \d+ of .*\): is everything masked"),
        (recipe(saving={"init_from": str(empty)}), "empty holds no whole checkpoint"),
    ]
    return told


def test_mistakes_are_told_in_one_sentence_on_all_ranks(
    mistakes: list[tuple[dict[str, Any], str]], tmp_path: Path
) -> None:
    answers = launch("train", [{"recipe": told} for told, _ in mistakes], tmp_path / "ranks", ranks=2)
    for answer, (told, sentence) in zip(answers, mistakes, strict=True):
        assert (answer["error"] or "nothing").startswith("UserError: "), (told, answer)
        assert re.search(sentence, answer["error"]), (sentence, answer)
        assert "\n" not in answer["error"]


def test_a_checkpoint_goes_on_only_where_it_belongs(
    recipe: Recipe, packed: Callable[[str], str], tmp_path: Path
) -> None:
    first = recipe("first", optimizer={"steps": 2}, saving={"every_steps": 1})
    wrong = [
        (first | recipe("first", batch={"global_tokens": 8 * LENGTH}), "trained with 4 rows a step, but .* makes 8"),
        (first | recipe("first", data={"seed": 1}), r"or another data.seed \(order \w{12}, now \w{12}\)"),
        (first | recipe("first", data={"folders": [packed("masked")]}), "on other data.folders"),
        (first | recipe("first", optimizer={"steps": 1}), "trained for 2 steps already, but optimizer.steps is 1"),
        (first | recipe("first", kind="qwen3"), "checkpoint .*step-00000002 is damaged or of another model"),
    ]
    launch("train", [{"recipe": first}], tmp_path / "one", ranks=1)
    half = recipe("half", saving={"every_steps": 1})
    shutil.copytree(first["output"], half["output"])
    newest = Path(half["output"]) / "checkpoints" / "step-00000002"
    for path in newest.glob("*.distcp"):
        path.unlink()
    gone = recipe("gone", saving={"every_steps": 1})
    shutil.copytree(first["output"], gone["output"])
    (Path(gone["output"]) / "checkpoints" / "step-00000002" / ".metadata").unlink()
    wrong += [(each, "step-00000002 is damaged or of another model.*delete it to go on") for each in (half, gone)]
    answers = launch("train", [{"recipe": told} for told, _ in wrong], tmp_path / "two", ranks=2)
    for answer, (_, sentence) in zip(answers, wrong, strict=True):
        assert re.search(f"^UserError: .*{sentence}", answer["error"] or "nothing"), (sentence, answer)


@pytest.mark.long
def test_a_loss_that_is_no_number_and_a_full_disk_end_the_run_with_the_checkpoint_before(
    recipe: Recipe, models: Callable[[str], str], packed: Callable[[str], str], tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    rows = Rows(Data(folders=[packed("arrow")]))
    seen = [set(rows.read(number).input_ids[0].tolist()) for number in range(24)]
    number, token = next(
        (number, token)
        for number in range(12, 24)
        for token in seen[number]
        if not any(token in other for place, other in enumerate(seen) if place != number)
        and token != rows.read(number).input_ids[0, -1]
    )
    broken = tmp_path / "broken"
    shutil.copytree(models("llama"), broken)
    weights = load_file(broken / "model.safetensors")
    weights["model.embed_tokens.weight"][token] = float("nan")
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    told = recipe(model={"path": str(broken)}, saving={"every_steps": 1})
    full = recipe("full", optimizer={"steps": 60}, saving={"every_steps": 20})
    request = [{"recipe": told}, {"recipe": full, "full_in_save": 40}, {"recipe": full}]
    answer, *others = launch("train", request, tmp_path / "ranks", ranks=2)
    sentence = "RuntimeError: checkpoint .*step-00000040 could not be written .*No space left on device.*: make room"
    assert re.search(sentence, others[0]["error"])
    first = [each["step"] for each in metrics(full)].index(20, 21)  # what was done when it went on
    assert 40 <= first < 60  # it is told before the next save
    assert others[1]["error"] is None
    assert "going on after step 20" in others[1]["log"]
    step = number // 4
    assert answer["error"].startswith(f"DivergedError: step {step}: the loss is nan")
    folder, row = rows.place(number)
    assert f"on row {row} of {rows.folders[folder].path}. The last checkpoint is kept" in answer["error"]
    assert [each["step"] for each in metrics(told)] == list(range(step))
    kept = sorted((Path(told["output"]) / "checkpoints").glob("*/complete.json"))
    assert [json.loads(path.read_text())["step"] for path in kept] == [step - 1, step]
    assert not (Path(told["output"]) / "model").exists()


@pytest.mark.parametrize(("heads", "kv_heads", "sp"), [(8, 2, 4), (8, 8, 8), (8, 1, 8), (6, 2, 2)])
def test_heads_that_can_be_dealt_out(heads: int, kv_heads: int, sp: int) -> None:
    check_heads(heads, kv_heads, sp)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: check_heads(8, 3, 2), "has 3 key and value heads and parallel.sp is 2: one must divide the other"),
        (lambda: check_heads(32, 8, 3), "32 attention heads, which parallel.sp = 3 does not divide"),
        (lambda: Batching(global_tokens=0), "batch.global_tokens is 0, but it must be at least 1"),
        (lambda: Saving(keep=0), "saving.keep is 0, but it must be at least 1"),
        (lambda: Optimizer(steps=0, learning_rate=1), "optimizer.steps is 0, but it must be at least 1"),
        (lambda: Optimizer(steps=1, learning_rate=-1), "optimizer.learning_rate is -1, but it must be above 0"),
        (lambda: Optimizer(steps=1, learning_rate=1, min_ratio=2), "optimizer.min_ratio is 2, but it must be from 0"),
        (lambda: read_config(Model(path="gpt2")), "gpt2 is no folder of transformers"),
    ],
)
def test_what_is_out_of_bounds_is_told(make: Callable[[], object], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        make()


def test_the_schedule_warms_up_and_falls_to_its_least() -> None:
    settings = Optimizer(steps=11, learning_rate=2.0, warmup_steps=2, min_ratio=0.1)
    rates = [settings.rate(step) for step in range(11)]
    assert rates[:3] == [1.0, 2.0, 2.0]
    assert rates == [*rates[:2], *sorted(rates[2:], reverse=True)]
    assert rates[6] == pytest.approx(1.1)
    assert rates[10] == pytest.approx(0.2)
