"""The state of a run to disk and back, in the background and whole: another number of ranks may go on with it.

A checkpoint is a folder step-00000500; it counts once it has a `complete.json`, which is written last, as soon as all
ranks have written their part. A process that is killed in the middle of a save leaves one without, which the next run
deletes. There is no random state to keep: weights, rows and schedule are functions of seeds and of the step.
"""

import json
import logging
import os
import shutil
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict

from nextlong.errors import UserError
from training.model import PackedLM

log = logging.getLogger(__name__)
_COMPLETE = "complete.json"


class Checkpoints:
    """The checkpoints of a run folder, of which the newest `keep` are kept."""

    def __init__(self, folder: Path, *, keep: int) -> None:
        self._folder = folder
        self._keep = keep
        self._group = dist.new_group(backend="gloo")  # of its own: a shared one would deadlock with the training
        self._saving: tuple[Path, Future[None]] | None = None

    def save(self, step: int, model: PackedLM, optimizer: torch.optim.Optimizer, facts: dict[str, Any]) -> None:
        """Begin to write the state after `step` steps; an earlier save is waited for. facts: of the run (JSON)."""
        self.wait()
        states = get_state_dict(model, optimizer)
        state = {"model": states[0], "optimizer": states[1]}
        path = self.path(step)
        if dist.get_rank() == 0:
            shutil.rmtree(path, ignore_errors=True)
        dist.barrier(self._group)
        writing = dcp.async_save(state, checkpoint_id=str(path), process_group=self._group)
        done: Future[None] = Future()
        writing.add_done_callback(lambda written: self._finish(path, {"step": step, **facts}, written, done))
        self._saving = path, done

    def _finish(self, path: Path, facts: dict[str, Any], written: "Future[Any]", done: "Future[None]") -> None:
        """Runs where the save ran. On rank 0 it ended when all ranks had written."""
        try:
            written.result()
            if dist.get_rank() == 0:
                _write_whole(path / _COMPLETE, json.dumps(facts) + "\n")
                for old in self._complete()[: -self._keep]:
                    shutil.rmtree(old, ignore_errors=True)
            done.set_result(None)
        except BaseException as error:
            done.set_exception(error)

    def wait(self) -> None:
        """Wait, on all ranks, until what is being saved is whole. Raises RuntimeError where it could not be written."""
        self.settle()
        dist.barrier(self._group)

    def settle(self) -> None:
        """The same on this rank, whatever became of the others."""
        if self._saving is None:
            return
        (path, done), self._saving = self._saving, None
        try:
            done.result()
        except (CheckpointException, OSError) as error:
            raise RuntimeError(
                f"checkpoint {path} could not be written ({_reason(error)}): make room, or see to its file system"
            ) from error

    def has_failed(self) -> bool:
        """Whether what is being saved is known to be lost, on this rank."""
        return self._saving is not None and self._saving[1].done() and self._saving[1].exception() is not None

    def newest(self) -> dict[str, Any] | None:
        """The facts of the newest whole checkpoint; half ones are deleted, and told of. None: there is none."""
        facts: list[dict[str, Any] | None] = [None]
        if dist.get_rank() == 0:
            complete = self._complete()
            for path in sorted(set(self._folder.glob("step-*")) - set(complete)):
                log.warning(
                    "checkpoint %s was not finished and is deleted; %s",
                    path.name,
                    f"the last whole one is {complete[-1].name}" if complete else "there is no whole one",
                )
                shutil.rmtree(path)
            facts = [json.loads((complete[-1] / _COMPLETE).read_text()) if complete else None]
        dist.broadcast_object_list(facts, src=0, group=self._group)
        return facts[0]

    def path(self, step: int) -> Path:
        """Where the state after `step` steps is."""
        return self._folder / f"step-{step:08d}"

    def _complete(self) -> list[Path]:
        return sorted(path.parent for path in self._folder.glob(f"step-*/{_COMPLETE}"))


def newest_in(folder: Path) -> Path:
    """The newest whole checkpoint of a run folder. Raises UserError when it has none."""
    found = sorted((folder / "checkpoints").glob(f"step-*/{_COMPLETE}"))
    if not found:
        raise UserError(f"{folder} holds no whole checkpoint: it needs checkpoints/step-*/{_COMPLETE}.")
    return found[-1].parent


def load_state(path: Path, model: PackedLM, optimizer: torch.optim.Optimizer | None) -> None:
    """Load a checkpoint into a model and, unless None, its optimizer, whatever the number of ranks that wrote it.

    Of the optimizer its moments and steps are loaded; how it changes weights stays as it is. Raises UserError for a
    checkpoint of another model, or with files missing.
    """
    optimizers = [] if optimizer is None else [optimizer]
    settings = [_settings(group) for each in optimizers for group in each.param_groups]
    states = get_state_dict(model, optimizers)
    state = {"model": states[0]} | ({"optimizer": states[1]} if optimizer is not None else {})
    try:
        dcp.load(state, checkpoint_id=str(path))
    except CheckpointException as error:
        raise UserError(
            f"checkpoint {path} is damaged or of another model ({_reason(error)}). If it is damaged, delete it to go "
            f"on from the one before."
        ) from error
    set_state_dict(
        model,
        optimizers,
        model_state_dict=state["model"],
        optim_state_dict=state.get("optimizer", {}),
        options=StateDictOptions(strict=True),
    )
    for group, before in zip((group for each in optimizers for group in each.param_groups), settings, strict=True):
        group.update(before)


def _settings(group: dict[str, Any]) -> dict[str, Any]:
    """Of a group of parameters: betas, weight decay and so on."""
    return {name: value for name, value in group.items() if name not in ("params", "param_names")}


def _write_whole(path: Path, text: str) -> None:
    aside = path.with_name(f"{path.name}.tmp")
    with open(aside, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    aside.rename(path)


def _reason(error: BaseException) -> str:
    if isinstance(error, CheckpointException):
        error = next(iter(error.failures.values()))[0]
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
