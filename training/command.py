"""What surrounds a training: the process group, the run folder, the model's files, and the signals before it begins."""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from nextlong.errors import UserError
from training import run_folder, trainer
from training.config import Training


@contextlib.contextmanager
def process_group() -> Iterator[int]:
    """The ranks, as torchrun's environment names them, or this process alone; the rank of this one.

    Until the training takes over, SIGTERM is as Ctrl-C.
    """

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    on_gpu = torch.cuda.is_available()
    options: dict[str, Any] = {"backend": "cpu:gloo,cuda:nccl" if on_gpu else "gloo"}
    if "RANK" not in os.environ:
        options |= {"store": dist.HashStore(), "rank": 0, "world_size": 1}
    if on_gpu:
        local, there = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
        if local >= there:
            raise UserError(f"this machine has {there} GPUs, but rank {local} of it wants one. Start {there} ranks.")
        torch.cuda.set_device(local)
    dist.init_process_group(**options)
    try:
        yield dist.get_rank()
    finally:
        signal.signal(signal.SIGTERM, before)
    dist.destroy_process_group()  # not after a failure: others may still wait for this rank


def prepare(recipe: Training, lock: Callable[[Path], object] = lambda folder: None) -> None:
    """Make or take up the run folder, once, locked by `lock`; where rank 0 finds a mistake, all ranks raise it."""
    _on_rank_0(lambda: run_folder.prepare(recipe, lock))


def train(recipe: Training, *, progress: bool) -> Path:
    """Train; returns the folder of the model. RuntimeError, with what to do, where a GPU's memory is too small."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        return trainer.train(recipe, progress=progress)
    except torch.OutOfMemoryError as error:
        raise RuntimeError(
            f"a GPU's memory is too small ({str(error).partition('. ')[0]}); take more ranks, a larger parallel.sp, or "
            f"fewer batch.micro_rows: nextlong train --dry-run says what fits"
        ) from error


def _on_rank_0(call: Callable[[], None]) -> None:
    told: list[str | None] = [None]
    if dist.get_rank() == 0:
        try:
            call()
        except UserError as error:
            told = [str(error)]
    dist.broadcast_object_list(told, src=0)
    if told[0] is not None:
        raise UserError(told[0])
