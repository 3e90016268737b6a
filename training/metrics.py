"""A step that was taken and its seconds in; what it was for people out: tokens a second, share of the peak, memory."""

import dataclasses

import torch
import torch.distributed as dist

from training.flops import PEAK_FLOPS, flops_of
from training.model import PackedLM, num_matrix_parameters
from training.step import Taken


@dataclasses.dataclass(frozen=True)
class StepMetrics:
    """One optimizer step."""

    step: int
    loss: float
    gradient_norm: float
    learning_rate: float
    tokens: int
    targets: int
    seconds: float
    """Waiting for data included; saving and evaluating not."""
    data_wait_seconds: float
    tokens_per_second: float
    flops: float
    """Of the model, forward and backward, attention inside documents; what is computed again does not count."""
    mfu: float | None
    """Of the peak of all ranks; None: the peak is unknown."""
    peak_memory_bytes: int | None
    """Of this rank's GPU since the start."""


class Meter:
    """Measures the steps of a model."""

    def __init__(self, model: PackedLM) -> None:
        self._config = model.lm.config
        self._num_matrix = num_matrix_parameters(model)
        self._peak = peak_flops()

    def measure(self, step: int, taken: Taken, *, seconds: float, waited_seconds: float) -> StepMetrics:
        """seconds: of the whole step; waited_seconds: of these, until its batches were there."""
        counts = taken.counts
        flops = flops_of(
            num_matrix_parameters=self._num_matrix,
            num_tokens=counts.tokens,
            squared_lengths=counts.squared_lengths,
            config=self._config,
        )
        return StepMetrics(
            step=step,
            loss=taken.loss,
            gradient_norm=taken.gradient_norm,
            learning_rate=taken.learning_rate,
            tokens=counts.tokens,
            targets=counts.targets,
            seconds=seconds,
            data_wait_seconds=waited_seconds,
            tokens_per_second=counts.tokens / seconds,
            flops=flops,
            mfu=None if self._peak is None else flops / seconds / (self._peak * dist.get_world_size()),
            peak_memory_bytes=torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None,
        )


def peak_flops() -> float | None:
    """Of this process' device; None: unknown, as for a CPU."""
    if not torch.cuda.is_available():
        return None
    name = torch.cuda.get_device_name()
    return next((peak for known, peak in PEAK_FLOPS.items() if known in name), None)
