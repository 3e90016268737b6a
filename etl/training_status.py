"""The run folder of a training in, the last step that it did out: from its files alone, without the trainer."""

import json
import os
import time
from pathlib import Path
from typing import Any

from etl.journal import is_time
from etl.lock import holder

_RUN_FILE = "run.json"
_METRICS_FILE = "metrics.jsonl"
_TAIL_BYTES = 65_536  # more than the lines of a step and its evaluation


def is_training_folder(path: Path) -> bool:
    """Whether a training made a folder."""
    return (path / _RUN_FILE).is_file()


def training_status(path: Path) -> dict[str, Any]:
    """Who trains in a folder (`holder`, None: nobody), and the numbers of the last step (`last`, None: no step yet)."""
    return {"folder": str(path), "holder": holder(path), "last": _last_step(path / _METRICS_FILE)}


def training_line(status: dict[str, Any]) -> str:
    """The same in one or two sentences."""
    who, last = status["holder"], status["last"]
    head = f"{status['folder']}: {f'a training is at work, {who}' if who else 'no training is at work'}"
    if last is None:
        return f"{head}. No step is done yet"
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(last["time"]))
    return f"{head}. The last step is {last['step']:,}, at {when}, with a loss of {last['loss']:.3f}"


def _last_step(path: Path) -> dict[str, Any] | None:
    """The last line of a step; half-written ones are passed over."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
    except FileNotFoundError:
        return None
    return next((told for line in reversed(lines) if (told := _step(line)) is not None), None)


def _step(line: str) -> dict[str, Any] | None:
    try:
        told = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(told, dict) or told.get("kind") != "train":
        return None
    is_whole = is_time(told.get("time")) and all(isinstance(told.get(name), int | float) for name in ("step", "loss"))
    return told if is_whole else None
