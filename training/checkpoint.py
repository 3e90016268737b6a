"""The state of a run to disk and back, in the background and whole: another number of ranks may go on with it.

A checkpoint is a folder step-00000500; it counts once it has a `complete.json`, which is written last. A process that
is killed in the middle of a save leaves one without, which the next run deletes.
"""

import json
import logging
import shutil
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
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
        self._saving: tuple[int, Future[Any], dict[str, Any]] | None = None

    def save(self, step: int, model: PackedLM, optimizer: torch.optim.Optimizer, facts: dict[str, Any]) -> None:
        """Begin to write the state after `step` steps; an earlier save is waited for. facts: of the run (JSON)."""
        self.wait()
        states = get_state_dict(model, optimizer)
        state = {"model": states[0], "optimizer": states[1]}
        path = self._path(step)
        if dist.get_rank() == 0:
            shutil.rmtree(path, ignore_errors=True)
        dist.barrier(self._group)
        future = dcp.async_save(state, checkpoint_id=str(path), process_group=self._group)
        self._saving = step, future, {"step": step, **facts}

    def wait(self) -> None:
        """Wait until what is being saved is whole, then say so on disk and delete what is too old."""
        if self._saving is None:
            return
        step, future, facts = self._saving
        future.result()
        dist.barrier(self._group)
        if dist.get_rank() == 0:
            aside = self._path(step) / f"{_COMPLETE}.tmp"
            aside.write_text(json.dumps(facts) + "\n")
            aside.rename(self._path(step) / _COMPLETE)
            for old in self._complete()[: -self._keep]:
                shutil.rmtree(self._path(old), ignore_errors=True)
        dist.barrier(self._group)
        self._saving = None

    def newest(self) -> dict[str, Any] | None:
        """The facts of the newest whole checkpoint; half ones are deleted, and told of. None: there is none."""
        if dist.get_rank() == 0:
            complete = self._complete()
            for path in sorted(self._folder.glob("step-*")):
                if not (path / _COMPLETE).is_file():
                    log.warning("%s was not finished, and is deleted", path)
                    shutil.rmtree(path)
            facts = [json.loads((self._path(complete[-1]) / _COMPLETE).read_text()) if complete else None]
        else:
            facts = [None]
        dist.broadcast_object_list(facts, src=0, group=self._group)
        return facts[0]

    def load(self, step: int, model: PackedLM, optimizer: torch.optim.Optimizer | None) -> None:
        """Give model and optimizer the state after `step` steps."""
        load_state(self._path(step), model, optimizer)

    def _path(self, step: int) -> Path:
        return self._folder / f"step-{step:08d}"

    def _complete(self) -> list[int]:
        found = sorted(self._folder.glob(f"step-*/{_COMPLETE}"))
        return [int(path.parent.name.removeprefix("step-")) for path in found]


def newest_in(folder: Path) -> Path:
    """The newest whole checkpoint of a run folder. Raises UserError when it has none."""
    found = sorted((folder / "checkpoints").glob(f"step-*/{_COMPLETE}"))
    if not found:
        raise UserError(f"{folder} holds no whole checkpoint: it needs checkpoints/step-*/{_COMPLETE}.")
    return found[-1].parent


def load_state(path: Path, model: PackedLM, optimizer: torch.optim.Optimizer | None) -> None:
    """Load a checkpoint into a model and, unless None, its optimizer, whatever the number of ranks that wrote it.

    Raises UserError for one of another model.
    """
    from torch.distributed.checkpoint.api import CheckpointException

    optimizers = [] if optimizer is None else [optimizer]
    states = get_state_dict(model, optimizers)
    state = {"model": states[0]} | ({"optimizer": states[1]} if optimizer is not None else {})
    try:
        dcp.load(state, checkpoint_id=str(path))
    except CheckpointException as error:
        reason = " ".join(str(next(iter(error.failures.values()))[0]).split())[:300]
        raise UserError(f"checkpoint {path} cannot be loaded into this model ({reason}).") from error
    set_state_dict(
        model,
        optimizers,
        model_state_dict=state["model"],
        optim_state_dict=state.get("optimizer", {}),
        options=StateDictOptions(strict=True),
    )
