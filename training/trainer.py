"""The training loop: batches in, steps out, until the last one or a signal; everything else is in its own file."""

import dataclasses
import logging
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from tqdm.auto import tqdm

from nextlong.errors import UserError
from training import checkpoint, export, metrics, preflight
from training.boundaries import Batch
from training.config import Training, rows_per_step
from training.data import Batches, Rows
from training.evaluation import Evaluator
from training.flops import flops_of
from training.model import PackedLM, build, num_matrix_parameters, read_config
from training.optimizer import make_adamw
from training.parallel import Ranks, make_ranks
from training.stopping import stopping

log = logging.getLogger(__name__)
_MOST_NAMES = 8
"""Rows that a sentence names."""


class DivergedError(RuntimeError):
    """The loss is no number any more."""


def train(recipe: Training, *, progress: bool = False) -> Path:
    """Train, from where an earlier run of this recipe stopped; returns the folder of the trained model.

    A process group must be up. Raises UserError for what does not fit together, DivergedError for a loss that is NaN,
    and KeyboardInterrupt after a signal to end, when the checkpoint is written.
    """
    ranks = make_ranks(sp=recipe.parallel.sp, dp_replicate=recipe.parallel.dp_replicate)
    rows = Rows(recipe.data)
    preflight.check(recipe, read_config(recipe.model), rows)
    batches = Batches(
        rows,
        rows_per_step=rows_per_step(recipe.batch.global_tokens, rows.length_tokens),
        rows_per_micro_step=recipe.batch.micro_rows,
        rank=ranks.data_rank,
        size=ranks.data_size,
        multiple=ranks.sequence_size,
        threads=recipe.data.threads,
    )
    evaluator = Evaluator(recipe.evaluation, ranks, tokenizer_sha256=rows.tokenizer_sha256)
    model = build(recipe.model, ranks)
    optimizer = make_adamw(recipe.optimizer, model.parameters())
    output = Path(recipe.output)
    checkpoints = checkpoint.Checkpoints(output / "checkpoints", keep=recipe.saving.keep)
    order = {"rows_per_step": batches.rows_per_step, "order": rows.identity()}
    first = _restore(recipe, checkpoints, order, model, optimizer)
    run = _Run(recipe, ranks, model, optimizer, batches, output if dist.get_rank() == 0 else None)
    step = first
    try:
        with stopping() as stop:
            for own in _shown(batches.from_step(first, recipe.optimizer.steps), recipe, first, progress):
                run.step(step, own)
                step += 1
                stopped = stop.asked_anywhere()
                if not stopped and evaluator.is_due(step, is_last=step == recipe.optimizer.steps):
                    run.evaluate(evaluator, step)
                if stopped or step == recipe.optimizer.steps or step % recipe.saving.every_steps == 0:
                    checkpoints.save(step, model, optimizer, order)
                if stopped:
                    break
            checkpoints.wait()
    except (DivergedError, UserError):
        checkpoints.settle()  # what is being saved is the last that is good
        raise
    finally:
        run.close()
    if step < recipe.optimizer.steps:
        log.warning("stopped after step %d of %d; the same command goes on from there", step, recipe.optimizer.steps)
        raise KeyboardInterrupt
    return export.export(model, recipe, output / "model")


class _Run:
    """Steps, and what they are told to the world."""

    def __init__(
        self,
        recipe: Training,
        ranks: Ranks,
        model: PackedLM,
        optimizer: torch.optim.Optimizer,
        batches: Batches,
        folder: Path | None,
    ) -> None:
        self._recipe, self._ranks, self._model, self._optimizer = recipe, ranks, model, optimizer
        self._batches = batches
        self._recorder = None if folder is None else metrics.Recorder(folder)
        self._num_matrix = num_matrix_parameters(model)
        self._peak = metrics.peak_flops()
        self._ended = time.perf_counter()

    def step(self, step: int, micro_steps: list[Batch]) -> None:
        """One optimizer step on the mean loss over all targets of all ranks, by their weights."""
        started = time.perf_counter()
        rate = self._recipe.optimizer.rate(step)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        num_tokens, num_targets, weight = self._count(micro_steps)
        if not weight:
            raise UserError(f"step {step} has no target at all ({self._names(step)}): is everything masked?")
        losses = []
        for batch in micro_steps:
            # Gradients are reduced at each micro-step: kept whole till the last one they would fill a GPU.
            loss, _ = self._model(batch.to(self._ranks.device))
            (loss * (dist.get_world_size() / weight)).backward()  # FSDP takes the mean over ranks
            losses.append(loss.detach().double())
        mean = float(_sum(torch.stack(losses).sum())) / weight
        norm = torch.nn.utils.clip_grad_norm_(self._model.parameters(), self._recipe.optimizer.clip)
        norm = float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)
        if not math.isfinite(mean) or not math.isfinite(norm):
            raise DivergedError(
                f"step {step}: the loss is {mean}, the gradient norm {norm}, on {self._culprits(step, losses)}. The "
                f"last checkpoint is kept; look at these rows, or lower optimizer.learning_rate "
                f"({self._recipe.optimizer.learning_rate:g}) and go on from there."
            )
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self._tell(step, mean, norm, rate, num_tokens, num_targets, micro_steps, started)

    def _count(self, micro_steps: list[Batch]) -> tuple[int, int, float]:
        """(tokens, targets, weight of all targets) of all ranks; those of a sequence hold the same."""
        local = [(len(batch.input_ids), batch.num_targets, batch.total_weight) for batch in micro_steps]
        counts = _sum(torch.tensor(local, dtype=torch.float64, device=self._ranks.device).sum(0))
        num_tokens, num_targets, weight = (counts / self._ranks.sequence_size).tolist()
        return int(num_tokens), int(num_targets), weight

    def _culprits(self, step: int, losses: list[torch.Tensor]) -> str:
        """The rows whose loss is no number; all of the step, where that holds for none."""
        own = [
            number
            for numbers, loss in zip(self._batches.numbers(step), losses, strict=True)
            for number in numbers
            if not math.isfinite(float(loss))
        ]
        found: list[list[int]] = [[]] * dist.get_world_size()
        dist.all_gather_object(found, own)
        return self._names(step, sorted(set().union(*found)))

    def _names(self, step: int, numbers: Sequence[int] = ()) -> str:
        numbers = numbers or self._batches.all_numbers(step)
        more = f" and {len(numbers) - _MOST_NAMES} more" if len(numbers) > _MOST_NAMES else ""
        return ", ".join(map(self._batches.rows.name, numbers[:_MOST_NAMES])) + more

    def _tell(
        self,
        step: int,
        loss: float,
        norm: float,
        rate: float,
        num_tokens: int,
        num_targets: int,
        micro_steps: list[Batch],
        started: float,
    ) -> None:
        squares = sum(float((torch.diff(batch.cu_seqlens).double() ** 2).sum()) for batch in micro_steps)
        local = torch.tensor(squares, dtype=torch.float64, device=self._ranks.device)
        squares = float(_sum(local)) / self._ranks.sequence_size
        ended = time.perf_counter()
        seconds = ended - self._ended
        flops = flops_of(
            num_matrix_parameters=self._num_matrix,
            num_tokens=num_tokens,
            squared_lengths=squares,
            config=self._model.lm.config,
        )
        told = metrics.StepMetrics(
            step=step,
            loss=loss,
            gradient_norm=norm,
            learning_rate=rate,
            tokens=num_tokens,
            targets=num_targets,
            seconds=seconds,
            data_wait_seconds=started - self._ended,
            tokens_per_second=num_tokens / seconds,
            mfu=None if self._peak is None else flops / seconds / (self._peak * dist.get_world_size()),
            peak_memory_bytes=torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None,
        )
        self._ended = ended
        if self._recorder is not None:
            self._recorder.record("train", dataclasses.asdict(told))

    def evaluate(self, evaluator: Evaluator, step: int) -> None:
        """The held-out loss after so many steps."""
        told = evaluator.measure(self._model)
        if self._recorder is not None:
            log.info("after step %d: held-out loss %.4f", step, told["loss"])
            self._recorder.record("evaluation", {"step": step, **told})
        self._ended = time.perf_counter()

    def close(self) -> None:
        """Finish the files."""
        if self._recorder is not None:
            self._recorder.close()


def _restore(
    recipe: Training,
    checkpoints: checkpoint.Checkpoints,
    order: dict[str, Any],
    model: PackedLM,
    optimizer: torch.optim.Optimizer,
) -> int:
    """Load what there is to go on from; returns the step to begin with. Raises UserError for other rows than before."""
    newest = checkpoints.newest()
    if newest is not None:
        _check_goes_on(recipe, newest, order)
        checkpoints.load(newest["step"], model, optimizer)
        log.info("going on after step %d", newest["step"])
        return int(newest["step"])
    if recipe.saving.init_from is not None:
        path = checkpoint.newest_in(Path(recipe.saving.init_from))
        checkpoint.load_state(path, model, optimizer)
        log.info("weights and optimizer state of %s", path)
    return 0


def _check_goes_on(recipe: Training, newest: dict[str, Any], order: dict[str, Any]) -> None:
    remedy = "Give another output, and this one as saving.init_from."
    if newest["step"] > recipe.optimizer.steps:
        raise UserError(
            f"{recipe.output} is trained for {newest['step']} steps already, but optimizer.steps is "
            f"{recipe.optimizer.steps}. {remedy}"
        )
    if newest["rows_per_step"] != order["rows_per_step"]:
        raise UserError(
            f"{recipe.output} was trained with {newest['rows_per_step']} rows a step, but batch.global_tokens makes "
            f"{order['rows_per_step']}: rows would be left out or come twice. {remedy}"
        )
    if newest["order"] != order["order"]:
        raise UserError(
            f"{recipe.output} was trained on other data.folders, data.proportions or another data.seed (order "
            f"{newest['order'][:12]}, now {order['order'][:12]}): rows would be left out or come twice. {remedy}"
        )


def _sum(tensor: torch.Tensor) -> torch.Tensor:
    """The sum over all ranks."""
    dist.all_reduce(tensor)
    return tensor


def _shown(steps: Iterator[Any], recipe: Training, first: int, progress: bool) -> Iterator[Any]:
    total = recipe.optimizer.steps
    hidden = not progress or dist.get_rank() != 0
    yield from tqdm(steps, desc="train", unit="step", total=total, initial=first, disable=hidden)
