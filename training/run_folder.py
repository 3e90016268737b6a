"""A recipe in, its run folder out: what it says of itself, and a refusal of one that holds another recipe's run."""

import dataclasses
import hashlib
import json
import platform
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from nextlong.errors import UserError
from nextlong.recipes import as_yaml, flat
from training.config import Training
from training.recipe import FILE

_IDENTITY_FILE = "run.json"
_PACKAGES = ("nextlong", "torch", "transformers", "numpy", "pyarrow", "safetensors", "tokenizers")
_FREE = (
    *("output", "parallel.", "evaluation.", "saving.every_steps", "saving.keep"),
    *("data.threads", "batch.micro_rows", "batch.sequence_tokens", "model.checkpointing"),
)
"""What may change while a run goes on: it decides where and how things are computed, and not what."""


def prepare(recipe: Training, lock: Callable[[Path], object]) -> None:
    """Make or take up the run folder of a recipe: recipe.resolved.yaml, run.json, the manifests of its folders.

    lock: keeps others out of it; called before anything in it is read or written. Raises UserError for a folder that
    holds the run of another recipe, and for data of another length than the recipe says.
    """
    output = recipe.folder
    manifests = [_manifest(name) for name in recipe.data.folders]
    _check_length(recipe, manifests)
    told = _identity(recipe, manifests)
    if output.exists() and not output.is_dir():
        raise UserError(f"output {output} is a file. Give a folder that does not exist yet.")
    if _is_foreign(output):
        raise UserError(f"output {output} is there, but no training made it. Give another folder with --output.")
    output.mkdir(parents=True, exist_ok=True)
    lock(output)
    file = output / _IDENTITY_FILE
    starts = []
    if file.is_file():
        before = json.loads(file.read_text())
        if _has_begun(output):
            _refuse_another(recipe, before["identity"], told)
        starts = before["starts"]
    (output / "manifests").mkdir(parents=True, exist_ok=True)
    for number, manifest in enumerate(manifests):
        (output / "manifests" / f"{number}.json").write_bytes(manifest)
    (output / FILE).write_text(as_yaml(dataclasses.asdict(recipe)))
    _write(file, {"identity": told, "starts": [*starts, _versions()]})


def _is_foreign(output: Path) -> bool:
    """Whether there are files that no training made: one begins with run.lock and run.log."""
    is_known = (output / _IDENTITY_FILE).is_file()
    return not is_known and any(not path.name.startswith("run.") for path in output.glob("*"))


def _has_begun(output: Path) -> bool:
    """Whether any step was done: a recipe that was refused may be mended in its folder."""
    metrics = output / "metrics.jsonl"
    return (metrics.is_file() and metrics.stat().st_size > 0) or any((output / "checkpoints").glob("step-*"))


def _check_length(recipe: Training, manifests: list[bytes]) -> None:
    wanted = recipe.batch.sequence_tokens
    for name, manifest in zip(recipe.data.folders, manifests, strict=True):
        found = json.loads(manifest)["sequence_length_tokens"]
        if wanted is not None and found != wanted:
            raise UserError(
                f"data.folders: {name} has sequences of {found:,} tokens, but batch.sequence_tokens is {wanted:,}. "
                f"Pack to that length, or say --batch.sequence_tokens {found}."
            )


def _identity(recipe: Training, manifests: list[bytes]) -> dict[str, Any]:
    """What decides a run, by dotted name: data and model by what they are, not where."""
    told = {name: value for name, value in flat(dataclasses.asdict(recipe)) if not name.startswith(_FREE)}
    told["data.folders"] = [hashlib.sha256(each).hexdigest() for each in manifests]
    config = recipe.model.folder / "config.json"
    if config.is_file():
        told["model.path"] = f"config.json {hashlib.sha256(config.read_bytes()).hexdigest()}"
    return told


def _refuse_another(recipe: Training, before: dict[str, Any], now: dict[str, Any]) -> None:
    changes = [
        f"{name} was {json.dumps(before.get(name))}, is {json.dumps(now.get(name))}"
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name)
    ]
    if changes:
        raise UserError(
            f"output {recipe.output} holds the run of another recipe: {'; '.join(changes)}. Give another folder with "
            f"--output; to start from that run's weights and optimizer state, add --saving.init_from {recipe.output}."
        )


def _manifest(folder: str) -> bytes:
    path = Path(folder).expanduser() / "manifest.json"
    try:
        found = path.read_bytes()
        int(json.loads(found)["sequence_length_tokens"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"data.folders: {folder} is no packed folder ({error}). Make one with nextlong export."
        ) from error
    return found


def _versions() -> dict[str, Any]:
    """Of this start: when, with what, on what."""
    import datetime
    import os

    import torch

    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "ranks": int(os.environ.get("WORLD_SIZE", "1")),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "versions": found,
    }


def _write(path: Path, data: dict[str, Any]) -> None:
    aside = path.with_name(f".{path.name}.tmp")
    aside.write_text(json.dumps(data, indent=1) + "\n")
    aside.replace(path)
