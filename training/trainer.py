"""The training loop: batches in, steps out, until the last one or a signal; everything else is in its own file."""

import dataclasses
import hashlib
import logging
import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from tqdm.auto import tqdm

from nextlong.errors import UserError
from training import checkpoint, export, metrics
from training.boundaries import Batch
from training.config import Training
from training.data import Batches, Rows, rows_per_step
from training.model import PackedLM, build, num_parameters, valid_targets
from training.optimizer import make_adamw
from training.parallel import Ranks, make_ranks

log = logging.getLogger(__name__)


class DivergedError(RuntimeError):
    """The loss is no number any more."""


def train(recipe: Training, *, progress: bool = False) -> Path:
    """Train, from where an earlier run of this recipe stopped; returns the folder of the trained model.

    A process group must be up. Raises UserError for what does not fit together, DivergedError for a loss that is NaN.
    """
    ranks = make_ranks(sp=recipe.parallel.sp, dp_replicate=recipe.parallel.dp_replicate)
    rows = Rows(recipe.data)
    _check_shards(recipe, rows)
    batches = Batches(
        rows,
        rows_per_step=rows_per_step(recipe.batch.global_tokens, rows.length_tokens),
        rows_per_micro_step=recipe.batch.micro_rows,
        rank=ranks.data_rank,
        size=ranks.data_size,
        multiple=ranks.sequence_size,
    )
    model = build(recipe.model, ranks)
    optimizer = make_adamw(recipe.optimizer, model.parameters())
    output = Path(recipe.output)
    checkpoints = checkpoint.Checkpoints(output / "checkpoints", keep=recipe.saving.keep)
    first = _restore(recipe, checkpoints, model, optimizer)
    run = _Run(recipe, ranks, model, optimizer, batches, output if dist.get_rank() == 0 else None)
    with _stopping() as stop:
        step = first
        for own in _shown(batches.from_step(first, recipe.optimizer.steps), recipe, first, progress):
            run.step(step, own)
            step += 1
            is_last = step == recipe.optimizer.steps
            stopped = stop.asked_anywhere()
            if is_last or stopped or step % recipe.saving.every_steps == 0:
                checkpoints.save(step, model, optimizer, {"data_rows": step * batches.rows_per_step})
            if stopped:
                break
    checkpoints.wait()
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
        self._recorder = None if folder is None else metrics.Recorder(folder)
        self._num_matrix = num_parameters(model)
        self._peak = metrics.peak_flops()
        self._ended = time.perf_counter()
        self.loss = math.nan

    def step(self, step: int, micro_steps: list[Batch]) -> None:
        """One optimizer step: the mean loss over all targets of all ranks, whatever each rank holds of them."""
        started = time.perf_counter()
        rate = self._recipe.optimizer.rate(step)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        device = self._ranks.device
        local = [sum(map(valid_targets, micro_steps)), sum(len(batch.input_ids) for batch in micro_steps)]
        counts = _sum(torch.tensor(local, dtype=torch.float64, device=device)) / self._ranks.sequence_size
        num_targets, num_tokens = counts.tolist()
        if not num_targets:
            raise UserError(f"step {step} has no target at all: is everything masked?")
        total = torch.zeros((), dtype=torch.float64, device=device)
        for place, batch in enumerate(micro_steps):
            self._model.set_requires_gradient_sync(place + 1 == len(micro_steps))
            loss, _ = self._model(batch.to(device))
            (loss * (dist.get_world_size() / num_targets)).backward()  # FSDP takes the mean over ranks
            total += loss.detach()
        mean = float(_sum(total)) / num_targets
        norm = torch.nn.utils.clip_grad_norm_(self._model.parameters(), self._recipe.optimizer.clip)
        norm = float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)
        if not math.isfinite(mean) or not math.isfinite(norm):
            raise DivergedError(
                f"step {step}: the loss is {mean}, the gradient norm {norm}. The last checkpoint is kept; lower "
                f"optimizer.learning_rate, or look at the rows of this step."
            )
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self.loss = mean
        self._tell(step, mean, norm, rate, int(num_tokens), int(num_targets), micro_steps, started)

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
        flops = metrics.flops_of(
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

    def close(self) -> None:
        """Finish the files."""
        if self._recorder is not None:
            self._recorder.close()


def _restore(
    recipe: Training, checkpoints: checkpoint.Checkpoints, model: PackedLM, optimizer: torch.optim.Optimizer
) -> int:
    """Load what there is to go on from; returns the step to begin with."""
    newest = checkpoints.newest()
    if newest is not None:
        checkpoints.load(newest["step"], model, optimizer)
        log.info("going on after step %d", newest["step"])
        return int(newest["step"])
    if recipe.saving.init_from is not None:
        path = checkpoint.newest_in(Path(recipe.saving.init_from))
        checkpoint.load_state(path, model, optimizer)
        log.info("weights and optimizer state of %s", path)
    return 0


def _check_shards(recipe: Training, rows: Rows) -> None:
    """Raise UserError for shards of another tokenizer than the model's, or longer than its positions."""
    from training.model import read_config

    config = read_config(recipe.model)
    file = Path(recipe.model.path) / "tokenizer.json"
    if file.is_file():
        found = hashlib.sha256(file.read_bytes()).hexdigest()
        if found != rows.tokenizer_sha256:
            raise UserError(
                f"data.folders were made with another tokenizer than that of model.path {recipe.model.path}: sha256 "
                f"{rows.tokenizer_sha256[:12]} and {found[:12]}. Make them with the model's."
            )
    if rows.vocab_size > config.vocab_size:
        raise UserError(f"data.folders have ids up to {rows.vocab_size:,}, but the model knows {config.vocab_size:,}.")


def _sum(tensor: torch.Tensor) -> torch.Tensor:
    """The sum over all ranks."""
    dist.all_reduce(tensor)
    return tensor


def _shown(steps: Iterator[Any], recipe: Training, first: int, progress: bool) -> Iterator[Any]:
    total = recipe.optimizer.steps
    hidden = not progress or dist.get_rank() != 0
    yield from tqdm(steps, desc="train", unit="step", total=total, initial=first, disable=hidden)


class _Stop:
    """Whether the process was asked to end; all ranks learn it at the same step."""

    def __init__(self) -> None:
        self.asked = False

    def asked_anywhere(self) -> bool:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        asked = torch.tensor(int(self.asked), device=device)
        dist.all_reduce(asked, op=dist.ReduceOp.MAX)
        return bool(asked)


@contextmanager
def _stopping() -> Iterator[_Stop]:
    """SIGTERM and SIGINT end the run after the step, with a checkpoint."""
    stop = _Stop()

    def ask(*_: object) -> None:
        stop.asked = True

    before = {each: signal.signal(each, ask) for each in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
