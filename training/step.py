"""The micro-steps of a batch in, one optimizer step out: on the mean loss over all targets of all ranks."""

import math
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from nextlong.errors import UserError
from training.boundaries import Batch
from training.config import Optimizer
from training.data import Batches
from training.model import PackedLM
from training.parallel import Ranks


class DivergedError(RuntimeError):
    """The loss is no number any more."""


class Counts(NamedTuple):
    """Of a step, over all ranks."""

    tokens: int
    """Padding included."""
    targets: int
    weight: float
    """Of all targets in the loss."""
    squared_lengths: float
    """The sum of documents' squared lengths, which attention costs."""


class Taken(NamedTuple):
    """What a step was."""

    loss: float
    gradient_norm: float
    learning_rate: float
    counts: Counts


class Stepper:
    """Takes steps; all ranks take them together."""

    def __init__(
        self, model: PackedLM, optimizer: torch.optim.Optimizer, settings: Optimizer, batches: Batches, ranks: Ranks
    ) -> None:
        self._model, self._optimizer, self._settings = model, optimizer, settings
        self._batches, self._ranks = batches, ranks

    def take(self, step: int, micro_steps: list[Batch]) -> Taken:
        """Step 0, 1, ... Raises UserError for one without any target, DivergedError for a loss that is no number."""
        counts = self._count(micro_steps)
        if not counts.weight:
            rows = self._batches.rows.names(self._batches.all_numbers(step))
            raise UserError(f"step {step} has no target at all ({rows}): is everything masked?")
        losses = [self._differentiate(batch, counts, batch is micro_steps[-1]) for batch in micro_steps]
        loss = float(_sum(torch.stack(losses).sum())) / counts.weight
        norm = torch.nn.utils.clip_grad_norm_(self._model.parameters(), self._settings.clip)
        norm = float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)
        if not math.isfinite(loss) or not math.isfinite(norm):
            raise DivergedError(
                f"step {step}: the loss is {loss}, the gradient norm {norm}, on {self._culprits(step, losses)}. The "
                f"last checkpoint is kept; look at these rows, or lower optimizer.learning_rate "
                f"({self._settings.learning_rate:g}) and go on from there."
            )
        rate = self._settings.rate(step)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return Taken(loss, norm, rate, counts)

    def _differentiate(self, batch: Batch, counts: Counts, is_last: bool) -> Tensor:
        """Add a micro-step's gradients; its loss, a sum.

        They are reduced to shards at once, as kept whole they would fill a GPU; replicas of shards add up at the end.
        """
        self._model.set_requires_all_reduce(is_last)
        loss, _ = self._model(batch.to(self._ranks.device))
        (loss * (dist.get_world_size() / counts.weight)).backward()  # FSDP takes the mean over ranks
        return loss.detach().double()

    def _count(self, micro_steps: list[Batch]) -> Counts:
        """Ranks that share a sequence hold the same, and count it together."""
        local = [
            (len(each.input_ids), each.num_targets, each.total_weight, each.squared_lengths) for each in micro_steps
        ]
        sums = _sum(torch.tensor(local, dtype=torch.float64, device=self._ranks.device).sum(0))
        tokens, targets, weight, squares = (sums / self._ranks.sequence_size).tolist()
        return Counts(int(tokens), int(targets), weight, squares)

    def _culprits(self, step: int, losses: list[Tensor]) -> str:
        """The rows whose loss is no number; all of the step, where that holds for none."""
        own = [
            number
            for numbers, loss in zip(self._batches.numbers(step), losses, strict=True)
            for number in numbers
            if not math.isfinite(float(loss))
        ]
        found: list[list[int]] = [[]] * dist.get_world_size()
        dist.all_gather_object(found, own)
        return self._batches.rows.names(sorted(set().union(*found)) or self._batches.all_numbers(step))


def _sum(tensor: Tensor) -> Tensor:
    """The sum over all ranks."""
    dist.all_reduce(tensor)
    return tensor
