"""The training loop: batches in, steps out, until the last one or a signal; everything else is in its own file."""

import dataclasses
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from nextlong.errors import UserError
from training import checkpoint, export, going_on, preflight
from training.config import Training, rows_per_step
from training.data import Batches, Rows
from training.evaluation import Evaluator
from training.metrics import Meter
from training.model import PackedLM, build, read_config
from training.optimizer import make_adamw
from training.parallel import Ranks, make_ranks
from training.recorder import Recorder
from training.step import DivergedError, Stepper
from training.stopping import Stop, stopping

log = logging.getLogger(__name__)
T = TypeVar("T")


def train(recipe: Training, *, progress: bool = False) -> Path:
    """Train, from where an earlier run of this recipe stopped; returns the folder of the trained model.

    A process group must be up. Raises UserError for what does not fit together, DivergedError for a loss that is NaN,
    and KeyboardInterrupt after a signal to end, when the checkpoint is written.
    """
    run = _Run.set_up(recipe)
    folder = recipe.folder if dist.get_rank() == 0 else None
    steps = recipe.optimizer.steps
    with Recorder(folder, first=run.done, steps=steps, progress=progress) as recorder, stopping() as stop:
        try:
            run.take_steps(recorder, stop)
            run.checkpoints.wait()
        except (DivergedError, UserError):
            run.checkpoints.settle()  # what is being saved is the last that is good
            raise
    if run.done < steps:
        log.warning("stopped after step %d of %d; the same command goes on from there", run.done, steps)
        raise KeyboardInterrupt
    return export.export(run.model, recipe, recipe.folder / "model")


@dataclasses.dataclass
class _Run:
    """What a training works with, and how far it is."""

    recipe: Training
    ranks: Ranks
    batches: Batches
    order: dict[str, Any]
    """What decides which rows a step has; kept in checkpoints."""
    evaluator: Evaluator
    checkpoints: checkpoint.Checkpoints
    model: PackedLM
    optimizer: torch.optim.Optimizer
    done: int
    """Steps."""

    @classmethod
    def set_up(cls, recipe: Training) -> "_Run":
        """Everything is checked before the model is built."""
        ranks = make_ranks(sp=recipe.parallel.sp, dp_replicate=recipe.parallel.dp_replicate)
        rows, config = Rows(recipe.data), read_config(recipe.model)
        preflight.check(recipe, config, rows)
        most_tokens = preflight.most_positions(recipe, config, rows)
        evaluator = Evaluator(recipe.evaluation, ranks, rows, most_tokens=most_tokens)
        batches = Batches(
            rows,
            rows_per_step=rows_per_step(recipe.batch.global_tokens, rows.length_tokens),
            rows_per_micro_step=recipe.batch.micro_rows,
            rank=ranks.data_rank,
            size=ranks.data_size,
            multiple=ranks.sequence_size,
            threads=recipe.data.threads,
        )
        order = {"rows_per_step": batches.rows_per_step, "order": rows.identity()}
        checkpoints = checkpoint.Checkpoints(recipe.folder / "checkpoints", keep=recipe.saving.keep)
        done, origin = going_on.find(recipe, checkpoints, order)
        model = build(recipe.model, ranks, is_filled=origin is None)
        optimizer = make_adamw(recipe.optimizer, model.parameters())
        if origin is not None:
            checkpoint.load_state(origin, model, optimizer)
        return cls(recipe, ranks, batches, order, evaluator, checkpoints, model, optimizer, done)

    def take_steps(self, recorder: Recorder, stop: Stop) -> None:
        """Until the last one, or until any rank is asked to stop; then its state is being saved."""
        steps, saving, meter = self.recipe.optimizer.steps, self.recipe.saving, Meter(self.model)
        stepper = Stepper(self.model, self.optimizer, self.recipe.optimizer, self.batches, self.ranks)
        for waited, micro_steps in _timed(self.batches.from_step(self.done, steps)):
            started = time.perf_counter()
            taken = stepper.take(self.done, micro_steps)
            seconds = time.perf_counter() - started + waited
            recorder.step(meter.measure(self.done, taken, seconds=seconds, waited_seconds=waited))
            self.done += 1
            is_asked, has_failed = stop.anywhere(self.checkpoints.has_failed())
            if has_failed:
                self.checkpoints.wait()  # raises what it was
            is_last = self.done == steps
            is_saved = is_asked or is_last or self.done % saving.every_steps == 0
            if is_saved:
                self._save(recorder)
            if not is_asked and self.evaluator.is_due(self.done, is_last=is_last):
                is_asked = not self._evaluate(recorder, stop)
                if is_asked and not is_saved:
                    self._save(recorder)
            if is_asked:
                return

    def _save(self, recorder: Recorder) -> None:
        started = time.perf_counter()
        self.checkpoints.save(self.done, self.model, self.optimizer, self.order)
        recorder.saving(self.done, time.perf_counter() - started)

    def _evaluate(self, recorder: Recorder, stop: Stop) -> bool:
        """Whether it came to an end before any rank was asked to stop."""
        told = self.evaluator.measure(self.model, stop)
        if told is not None:
            recorder.evaluation(self.done, told)
        return told is not None


def _timed(found: Iterator[T]) -> Iterator[tuple[float, T]]:
    """Each, with the seconds that it was waited for."""
    while True:
        started = time.perf_counter()
        try:
            each = next(found)
        except StopIteration:
            return
        yield time.perf_counter() - started, each
