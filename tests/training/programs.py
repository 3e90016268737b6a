"""What ranks do in the tests: started by torchrun, a request in, an answer out, both JSON."""

import errno
import itertools
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from nextlong.errors import UserError
from training import trainer
from training.boundaries import Batch, collate
from training.config import Batching, Data, Evaluation, Parallel, Saving, Training
from training.evaluation import Evaluator
from training.model import Model, PackedLM, build, plain_name
from training.optimizer import Optimizer
from training.parallel import Ranks, make_ranks
from training.step import Stepper, Taken

Request = Any


def make_batch(vocab_size: int, rows: list[list[int]], *, seed: int, multiple: int, masked: float = 0.0) -> Batch:
    """Random tokens in documents of these lengths, a share of them no targets."""
    rng = np.random.default_rng(seed)
    length = sum(rows[0])
    ids = rng.integers(0, vocab_size, (len(rows), length)).astype(np.uint32)
    ends = [np.cumsum(lengths) for lengths in rows]
    pieces = [np.stack([each - lengths, each], axis=1) for each, lengths in zip(ends, rows, strict=True)]
    mask = (rng.random(ids.shape) >= masked).astype(np.uint8) if masked else None
    return collate(ids, pieces, mask, multiple=multiple)


def alone(twin: Any, batch: Batch) -> Tensor:
    """The losses [T] of every document run alone through plain transformers (its eager softmax is float32)."""
    losses = []
    for start, end in itertools.pairwise(batch.cu_seqlens.tolist()):
        logits = twin(batch.input_ids[None, start:end], use_cache=False).logits[0]
        losses.append(torch.nn.functional.cross_entropy(logits, batch.targets[start:end], reduction="none"))
    return torch.cat(losses)


def difference(found: Tensor, expected: Tensor, scale: float = 0.0) -> float:
    """Of norms, relative; scale: a norm below which `expected` counts as nothing."""
    return float((found - expected).norm() / max(float(expected.norm()), scale, 1e-300))


def gradients(request: Request) -> list[dict[str, Any]]:
    """Loss and gradients of batches against every document alone; and which losses a changed document moves."""
    return [_gradients(**case) for case in request]


def _gradients(
    model: str,
    precision: str,
    sp: int,
    checkpointing: bool,
    layouts: list[list[list[int]]],
    masked: float = 0.0,
    dp_replicate: int = 1,
) -> dict[str, Any]:
    from transformers import AutoModelForCausalLM

    ranks = make_ranks(sp=sp, dp_replicate=dp_replicate)
    ours = build(Model(path=model, precision=precision, checkpointing=checkpointing), ranks)  # type: ignore[arg-type]
    twin = AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, precision), attn_implementation="sdpa")
    worst = {"loss": 0.0, "losses": 0.0, "gradient": 0.0, "norm": 0.0, "weighted": 0.0}
    moved = unmoved = 0
    for seed, layout in enumerate(layouts):
        batches = [
            make_batch(twin.config.vocab_size, layout, seed=100 * seed + rank, multiple=sp, masked=masked * (rank + 1))
            for rank in range(ranks.data_size)
        ]
        found = _against(ours, twin, ranks, batches)
        worst = {name: max(worst[name], found[name]) for name in worst}
        both = _perturbed(ours, ranks, batches[ranks.data_rank])
        moved, unmoved = moved + both[0], unmoved + both[1]
    return {**worst, "moved": moved, "unmoved": unmoved, "layouts": len(layouts)}


def _against(ours: PackedLM, twin: Any, ranks: Ranks, batches: list[Batch]) -> dict[str, float]:
    num_targets = sum(batch.num_targets for batch in batches)
    loss, losses = ours(batches[ranks.data_rank])
    (loss * (dist.get_world_size() / num_targets)).backward()
    loss = loss.detach().clone()
    dist.all_reduce(loss)
    expected = [alone(twin, batch) for batch in batches]
    (sum(each.sum() for each in expected) / num_targets).backward()
    grads = {plain_name(name): each.grad.full_tensor() for name, each in ours.named_parameters()}
    twins = {name: each.grad for name, each in twin.named_parameters()}
    assert grads.keys() == twins.keys()
    norm = torch.stack([each.norm() for each in twins.values()]).norm()
    found = {
        "loss": difference(loss, torch.stack([each.sum() for each in expected]).sum().detach()),
        "losses": difference(whole(losses, ranks), expected[ranks.data_rank].detach()),
        "gradient": max(difference(grads[name], twins[name], float(norm) / 1000) for name in grads),
        "norm": difference(torch.stack([each.norm() for each in grads.values()]).norm(), norm),
    }
    found["weighted"] = _weighted(ours, ranks, batches[ranks.data_rank], losses)
    ours.reshard()  # else its parameters are those of the forward pass, whose gradients are nothing
    ours.zero_grad(set_to_none=True)
    twin.zero_grad(set_to_none=True)
    worst: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(worst, found)
    return {name: max(each[name] for each in worst) for name in found}


def _weighted(ours: PackedLM, ranks: Ranks, batch: Batch, losses: Tensor) -> float:
    """How far the loss by weights is from the losses times them."""
    weights = torch.rand(len(batch.input_ids), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        total, _ = ours(batch._replace(weights=weights))
    part = len(losses) * ranks.sequence_rank
    return difference(total.double(), (losses.double() * weights[part : part + len(losses)]).sum())


def whole(losses: Tensor, ranks: Ranks) -> Tensor:
    """The losses of all ranks of a sequence."""
    if ranks.sequence_group is None:
        return losses
    parts = [torch.empty_like(losses) for _ in range(ranks.sequence_size)]
    dist.all_gather(parts, losses, group=ranks.sequence_group)
    return torch.cat(parts)


def _perturbed(ours: PackedLM, ranks: Ranks, batch: Batch) -> tuple[int, int]:
    """(losses of a changed document that moved, losses of others that did not); raises where one of those did."""
    bounds = batch.cu_seqlens.tolist()
    place = (len(bounds) - 1) // 2
    inside = slice(bounds[place], bounds[place + 1])
    ids = batch.input_ids.clone()
    ids[inside] = (ids[inside] + 1) % ours.lm.config.vocab_size
    with torch.no_grad():
        before = whole(ours(batch)[1], ranks)
        after = whole(ours(batch._replace(input_ids=ids))[1], ranks)
    is_same = before == after
    outside = torch.ones_like(is_same)
    outside[inside] = False
    assert is_same[outside].all(), "a document moved another"
    return int((~is_same[inside]).sum()), int(outside.sum())


def recipe_of(told: dict[str, Any]) -> Training:
    """A recipe of its sections as dicts."""
    kinds: dict[str, Callable[..., Any]] = {
        "model": Model, "data": Data, "batch": Batching, "optimizer": Optimizer, "parallel": Parallel, "saving": Saving,
        "evaluation": Evaluation,
    }  # fmt: skip
    return Training(output=told["output"], **{name: kinds[name](**told[name]) for name in kinds if name in told})


def train(request: Request) -> list[dict[str, Any]]:
    """Train by recipes, one after the other; hooks send signals to one rank at a moment that is asked for."""
    return [_train(**each) for each in request]


def _train(
    recipe: dict[str, Any],
    signal_after: int | None = None,
    kill_in_save: int | None = None,
    full_in_save: int | None = None,
    whole_after: int | None = None,
    signal_in_evaluation: bool = False,
    forgets_moments: bool = False,
) -> dict[str, Any]:
    told: dict[str, Any] = {"error": None, "log": [], "whole": [], "groups": []}
    with (
        _logged(told["log"]),
        _weights_kept(),
        _after_step(signal_after, _signal_last_rank),
        _ended_in_save(kill_in_save, _kill),
        _ended_in_save(full_in_save, _fill),
        _after_step(whole_after, partial(_list_whole, Path(recipe["output"]) / "checkpoints", told["whole"])),
        _signal_in_evaluation(signal_in_evaluation),
        _optimizer_watched(told["groups"], forgets_moments),
    ):
        try:
            told["folder"] = str(trainer.train(recipe_of(recipe)))
        except (UserError, RuntimeError, KeyboardInterrupt) as error:
            told["error"] = f"{type(error).__name__}: {error}"
    return told


@contextmanager
def _logged(lines: list[str]) -> Iterator[None]:
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("training")
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    yield
    logger.removeHandler(handler)


@contextmanager
def _weights_kept() -> Iterator[None]:
    """The trained weights, unrounded, beside the exported folder."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    export = trainer.export.export

    def keep(model: PackedLM, recipe: Training, folder: Path) -> Path:
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        state = get_model_state_dict(model, options=options)
        if dist.get_rank() == 0:
            torch.save({plain_name(name): each for name, each in state.items()}, folder.parent / "weights.pt")
        return export(model, recipe, folder)

    trainer.export.export = keep  # type: ignore[assignment]
    yield
    trainer.export.export = export


@contextmanager
def _after_step(last: int | None, call: Callable[[], None]) -> Iterator[None]:
    """Something happens when so many steps are done."""
    take = Stepper.take

    def taken(self: Stepper, number: int, micro_steps: list[Batch]) -> Taken:
        told = take(self, number, micro_steps)
        if number + 1 == last:
            call()
        return told

    Stepper.take = taken  # type: ignore[method-assign]
    yield
    Stepper.take = take  # type: ignore[method-assign]


def _signal_last_rank() -> None:
    if dist.get_rank() == dist.get_world_size() - 1:
        os.kill(os.getpid(), signal.SIGTERM)


def _list_whole(checkpoints: Path, found: list[str]) -> None:
    """Those that are whole between two saves, when there was time to write them."""
    deadline = time.monotonic() + 20
    while not found and time.monotonic() < deadline:
        time.sleep(0.02)
        found.extend(path.parent.name for path in sorted(checkpoints.glob("*/complete.json")))


@contextmanager
def _signal_in_evaluation(is_sent: bool) -> Iterator[None]:
    """SIGTERM to the last rank alone, when the second held-out row is to be measured."""
    rows = Evaluator._rows

    def signalled(self: Evaluator, folder: Any) -> Iterator[Any]:
        for place, row in enumerate(rows(self, folder)):
            if is_sent and place == 1:
                _signal_last_rank()
            yield row

    Evaluator._rows = signalled  # type: ignore[method-assign]
    yield
    Evaluator._rows = rows  # type: ignore[method-assign]


@contextmanager
def _optimizer_watched(groups: list[dict[str, Any]], forgets_moments: bool) -> Iterator[None]:
    """What the optimizer is at the end, less its parameters; one that forgets gets none of the moments of before."""
    make, load = trainer.make_adamw, trainer.checkpoint.load_state
    made: list[torch.optim.AdamW] = []

    def kept(*arguments: Any) -> torch.optim.AdamW:
        made.append(make(*arguments))
        return made[-1]

    def loaded(path: Path, model: PackedLM, optimizer: Any) -> None:
        load(path, model, None if forgets_moments else optimizer)

    trainer.make_adamw, trainer.checkpoint.load_state = kept, loaded  # type: ignore[assignment]
    yield
    trainer.make_adamw, trainer.checkpoint.load_state = make, load
    names = ("betas", "eps", "weight_decay")
    groups.extend({name: group[name] for name in names} for each in made for group in each.param_groups)


@contextmanager
def _ended_in_save(step: int | None, end: Callable[[], None]) -> Iterator[None]:
    """What becomes of the last rank when it is about to write its part of a checkpoint."""
    from torch.distributed.checkpoint import FileSystemWriter

    write = FileSystemWriter.write_data

    def ended(self: Any, plan: Any, planner: Any) -> Any:
        if step is not None and str(self.path).endswith(f"step-{step:08d}") and dist.get_rank():
            end()
        return write(self, plan, planner)

    FileSystemWriter.write_data = ended  # type: ignore[method-assign]
    yield
    FileSystemWriter.write_data = write  # type: ignore[method-assign]


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _fill() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


PROGRAMS: dict[str, Callable[[Request], Any]] = {"gradients": gradients, "train": train}


def main() -> None:
    """PROGRAM FOLDER"""
    name, folder = sys.argv[1], Path(sys.argv[2])
    dist.init_process_group("gloo")
    answer = PROGRAMS[name](json.loads((folder / "request.json").read_text()))
    if dist.get_rank() == 0:
        (folder / "answer.json").write_text(json.dumps(answer))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
