"""Held-out loss: what a slow, obvious twin finds, whatever the ranks; and every target is in one bucket and role."""

import dataclasses
import json
import shutil
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nextlong.errors import UserError
from tests.training.made import LENGTH, write_model, write_packed
from training.config import Data, Evaluation, Model

ROWS, BUCKETS = 5, 3
EDGES = {"at_0_11": range(12), "at_12_23": range(12, 24), "at_24_47": range(24, 48)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model and two packed folders; the model begins with random weights of float64."""
    folder = tmp_path_factory.mktemp("evaluation")
    write_model(folder / "model")
    write_packed(folder / "first", folder / "model", rows=7)
    write_packed(folder / "second", folder / "model", rows=3, seed=1, roles=("document",))
    return folder


@pytest.fixture(scope="module")
def _group() -> Iterator[None]:
    import torch.distributed as dist

    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def _settings(folder: Path, *names: str, **changed: Any) -> Evaluation:
    given = Evaluation(folders=[str(folder / name) for name in names], every_steps=3, rows=ROWS, buckets=BUCKETS)
    return dataclasses.replace(given, **changed)


def _measure(folder: Path, settings: Evaluation, sp: int = 1) -> dict[str, Any]:
    from training.model import build
    from training.parallel import make_ranks
    from training.stopping import Stop

    ranks, stop = make_ranks(sp=sp), Stop()
    evaluator = _evaluator(settings, sp=sp)
    model = build(Model(path=str(folder / "model"), precision="float64", from_scratch=True), ranks)
    told = evaluator.measure(model, stop)
    assert told is not None
    assert told == evaluator.measure(model, stop), "deterministic, to the last digit"
    stop.asked = True
    assert evaluator.measure(model, stop) is None
    assert model.training
    return told


def _evaluator(settings: Evaluation, *, sp: int = 1, most_tokens: int | None = LENGTH, trained_on: str = "") -> Any:
    """trained_on: a packed folder; its own first one."""
    from training.data import Rows
    from training.evaluation import Evaluator
    from training.parallel import make_ranks

    rows = Rows(Data(folders=[trained_on or settings.folders[0]]))
    return Evaluator(settings, make_ranks(sp=sp), rows, most_tokens=most_tokens)


def _on_ranks(rank: int, folder: Path, store: Path) -> None:
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    for sp in (1, 2):
        told = _measure(folder, _settings(folder, "first", "second"), sp)
        (folder / f"rank-{rank}-sp-{sp}.json").write_text(json.dumps(told))
    dist.destroy_process_group()


def _twin(folder: Path, name: str, rows: int) -> dict[str, list[float]]:
    """Losses by group: every document alone through a plain transformers model, a target at a time."""
    import torch
    from transformers import AutoModelForCausalLM

    from nextlong.packed_folder import Folder
    from training.model import build, num_matrix_parameters, plain_name
    from training.parallel import make_ranks
    from training.shape import Shape

    built = build(Model(path=str(folder / "model"), precision="float64", from_scratch=True), make_ranks())
    assert num_matrix_parameters(built) == Shape.read(str(folder / "model")).num_matrix_parameters
    plain = AutoModelForCausalLM.from_config(built.lm.config, attn_implementation="eager", dtype=torch.float64)
    plain.load_state_dict({plain_name(name): each.full_tensor() for name, each in built.state_dict().items()})
    groups: dict[str, list[float]] = defaultdict(list)
    packed = Folder.open(str(folder / name))
    for row in range(rows):
        found = packed.reader.read(row, row + 1)
        roles = {
            place: role
            for role in ("meta", "negative")
            for start, end in packed.segments(row, role).tolist()
            for place in range(start, end)
        }
        for start, end in found.pieces(0).tolist():
            ids = torch.from_numpy(found.input_ids[0, start:end].astype(np.int64))
            with torch.no_grad():
                logits = plain(ids[None]).logits[0]
            for place in range(1, end - start):
                loss = float(torch.nn.functional.cross_entropy(logits[place - 1], ids[place]))
                groups["all"].append(loss)
                groups[roles[start + place]].append(loss)
                groups[next(name for name, edge in EDGES.items() if place in edge)].append(loss)
    return groups


@pytest.mark.usefixtures("_group")
def test_the_loss_is_that_of_the_twin_by_place_and_by_role(folder: Path) -> None:
    told, groups = _measure(folder, _settings(folder, "first")), _twin(folder, "first", ROWS)
    assert told["loss"] == pytest.approx(np.mean(groups.pop("all")), rel=1e-9)
    assert set(groups) == {"meta", "negative", *EDGES}
    for name, losses in groups.items():
        assert told[f"loss_{name}"] == pytest.approx(np.mean(losses), rel=1e-9)
        assert told[f"targets_{name}"] == len(losses) > 10
    assert "folders" not in told


@pytest.mark.usefixtures("_group")
def test_every_target_is_in_one_bucket_and_at_most_one_role(folder: Path) -> None:
    told = _measure(folder, _settings(folder, "first", "second"))
    assert sum(told[f"targets_{name}"] for name in EDGES) == told["targets"] == (ROWS + 3) * (LENGTH - 3)
    first, second = (told["folders"][str(folder / name)] for name in ("first", "second"))
    assert first["targets_meta"] + first["targets_negative"] == first["targets"]
    assert "loss_meta" not in second
    assert (first["targets"], second["targets"]) == (ROWS * (LENGTH - 3), 3 * (LENGTH - 3))
    mean = (first["loss"] * first["targets"] + second["loss"] * second["targets"]) / told["targets"]
    assert told["loss"] == pytest.approx(mean, rel=1e-12)


@pytest.mark.long
@pytest.mark.usefixtures("_group")
def test_two_ranks_find_what_one_does_side_by_side_and_on_one_sequence(folder: Path, tmp_path: Path) -> None:
    """Five rows on two ranks: one has a row less, and must not be waited for without end."""
    import torch.multiprocessing as mp

    one = _measure(folder, _settings(folder, "first", "second"))
    mp.spawn(_on_ranks, args=(folder, tmp_path / "store"), nprocs=2)
    for sp in (1, 2):
        told = [json.loads((folder / f"rank-{rank}-sp-{sp}.json").read_text()) for rank in (0, 1)]
        assert told[0] == told[1]
        _equal(told[0], one)


def _equal(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        if isinstance(value, dict):
            _equal(found[name], value)
        else:
            assert found[name] == pytest.approx(value, rel=1e-10)


@pytest.mark.usefixtures("_group")
def test_it_is_due_at_its_steps_and_at_the_end(folder: Path) -> None:
    found = _evaluator(_settings(folder, "first"))
    assert [step for step in range(1, 9) if found.is_due(step, is_last=step == 8)] == [3, 6, 8]
    none = _evaluator(Evaluation(), trained_on=str(folder / "first"))
    assert not none.is_due(100, is_last=True)


@pytest.mark.usefixtures("_group")
def test_mistakes_are_told_before_anything_is_trained(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "model", tmp_path / "model")
    (tmp_path / "model" / "tokenizer.json").write_text("{}")
    write_packed(tmp_path / "other", tmp_path / "model")
    write_packed(tmp_path / "bare", folder / "model")
    shutil.rmtree(tmp_path / "bare" / "provenance")
    trained_on = str(folder / "first")
    for settings, most_tokens, sentence in (
        (_settings(tmp_path, "other"), LENGTH, "other was made with another tokenizer than data.folders"),
        (_settings(folder, "first"), LENGTH - 1, "first has sequences of 48 tokens, but the model is made for 47 pos"),
        (_settings(tmp_path, "bare"), LENGTH, "provenance .*rows-00000.parquet cannot be read .*evaluation.folders"),
        (_settings(tmp_path, "none"), LENGTH, "evaluation.folders: .*none is no packed folder"),
    ):
        with pytest.raises(UserError, match=sentence):
            _evaluator(settings, most_tokens=most_tokens, trained_on=trained_on)
    assert _evaluator(_settings(folder, "first"), most_tokens=None)


@pytest.mark.usefixtures("_group")
def test_buckets_double_up_to_the_length(folder: Path) -> None:
    told = _measure(folder, _settings(folder, "first", buckets=5))
    names = [name.removeprefix("loss_at_") for name in told if name.startswith("loss_at_")]
    assert names == ["0_2", "3_5", "6_11", "12_23", "24_47"]
    one = _measure(folder, _settings(folder, "first", buckets=1))
    assert one["loss_at_0_47"] == one["loss"]
