"""What a step was, for people and files: loss, gradient norm, tokens a second, and the share of the hardware's peak."""

import dataclasses
import json
import logging
import time
from pathlib import Path
from typing import Any

import torch

from training.flops import PEAK_FLOPS

log = logging.getLogger(__name__)


def peak_flops() -> float | None:
    """Of this process' device; None: unknown, as for a CPU."""
    if not torch.cuda.is_available():
        return None
    name = torch.cuda.get_device_name()
    return next((peak for known, peak in PEAK_FLOPS.items() if known in name), None)


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
    data_wait_seconds: float
    tokens_per_second: float
    mfu: float | None
    """Of the peak of all ranks; None: the peak is unknown."""
    peak_memory_bytes: int | None


class Recorder:
    """Writes metrics to metrics.jsonl and, where it is installed, TensorBoard; only rank 0 makes one."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = open(folder / "metrics.jsonl", "a", encoding="utf-8")  # noqa: SIM115 - closed by close()
        self._board: Any = None
        try:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(folder / "tensorboard"))
        except ImportError:
            log.info("TensorBoard is not installed: metrics go to metrics.jsonl alone")

    def record(self, kind: str, values: dict[str, Any]) -> None:
        """Write one line; numbers go to TensorBoard under kind/name."""
        self._file.write(json.dumps({"kind": kind, "time": round(time.time(), 3), **values}) + "\n")
        self._file.flush()
        if self._board is not None:
            for name, value in values.items():
                if isinstance(value, int | float) and name != "step":
                    self._board.add_scalar(f"{kind}/{name}", value, values["step"])

    def close(self) -> None:
        """Finish both."""
        self._file.close()
        if self._board is not None:
            self._board.close()
