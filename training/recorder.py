"""Metrics in; metrics.jsonl, TensorBoard, a progress bar and lines of the log out. On rank 0; others are silent."""

import dataclasses
import json
import logging
import time
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any

from tqdm.auto import tqdm

from training.metrics import StepMetrics

log = logging.getLogger(__name__)
_LINE_SECONDS = 30
"""Between the lines of the log that say how far the training is."""


class Recorder:
    """Tells of one run; a folder of None tells nothing."""

    def __init__(self, folder: Path | None, *, first: int, steps: int, progress: bool) -> None:
        """first: the step to begin with. steps: of the whole run. progress: show a bar."""
        self._first, self._steps, self._progress = first, steps, progress and folder is not None
        self._seconds, self._told = 0.0, -float(_LINE_SECONDS)
        self._bar = tqdm(desc="train", unit="step", total=steps, initial=first, disable=not self._progress)
        self._file = self._board = None
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = open(folder / "metrics.jsonl", "a", encoding="utf-8")  # noqa: SIM115 - closed on leaving
            self._board = _board(folder / "tensorboard", first)

    def step(self, told: StepMetrics) -> None:
        """A step was taken."""
        self._seconds += told.seconds
        self._record("train", dataclasses.asdict(told))
        self._bar.set_postfix(loss=f"{told.loss:.3f}", refresh=False)
        self._bar.update(1)
        done = told.step + 1
        now = time.monotonic()
        if self._file is not None and (now - self._told >= _LINE_SECONDS or done == self._steps):
            self._told = now
            left = timedelta(seconds=round((self._steps - done) * self._seconds / (done - self._first)))
            log.log(
                logging.DEBUG if self._progress else logging.INFO,
                f"step {done:,} of {self._steps:,}: loss {told.loss:.4f}, {told.tokens_per_second:,.0f} tokens/s, "
                f"{left} left",
            )

    def evaluation(self, step: int, told: dict[str, Any]) -> None:
        """The held-out loss was measured after so many steps."""
        if self._file is not None:
            log.info("after step %d: held-out loss %.4f", step, told["loss"])
        self._record("evaluation", {"step": step, **told})

    def saving(self, step: int, seconds: float) -> None:
        """A checkpoint was begun after so many steps, which held the training up for so long."""
        self._record("saving", {"step": step, "seconds": seconds})

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()
        for each in (self._file, self._board):
            if each is not None:
                each.close()

    def _record(self, kind: str, values: dict[str, Any]) -> None:
        """One line; numbers go to TensorBoard under kind/name."""
        if self._file is not None:
            self._file.write(json.dumps({"kind": kind, "time": round(time.time(), 3), **values}) + "\n")
            self._file.flush()
        if self._board is not None:
            for name, value in values.items():
                if isinstance(value, int | float) and name != "step":
                    self._board.add_scalar(f"{kind}/{name}", value, values["step"])


def _board(folder: Path, first: int) -> Any:
    """TensorBoard's writer; None where it is not installed. Steps that are made again replace those of before."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        log.info("TensorBoard is not installed (pip install tensorboard): metrics go to metrics.jsonl alone")
        return None
    return SummaryWriter(str(folder), purge_step=first)
