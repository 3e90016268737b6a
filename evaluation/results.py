"""What was measured, a row each, in; a file that an interrupted evaluation goes on with, out."""

import hashlib
import json
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from nextlong.errors import UserError

ROWS, IDENTITY = "results.jsonl", "evaluation.json"
_FORMAT_VERSION = 1  # of the rows, and of what the measures mean


class Results:
    """The rows of one model in a folder, by their keys; a row is on the disk when `add` returns."""

    def __init__(self, folder: Path, identity: str) -> None:
        """identity: of the model. Raises UserError for a folder with results of another one."""
        self._path = folder / ROWS
        folder.mkdir(parents=True, exist_ok=True)
        told = {"format": _FORMAT_VERSION, "model_sha256": identity}
        _claim(folder, told)
        self._rows, whole_bytes = _read(self._path)
        if self._path.exists():
            os.truncate(self._path, whole_bytes)  # a killed process may have left half a line

    def get(self, key: str) -> dict[str, Any] | None:
        """The row of a key; None: it has to be computed."""
        return self._rows.get(key)

    def add(self, key: str, row: dict[str, Any]) -> dict[str, Any]:
        """Keep a row; returns it as it is read again."""
        line = json.dumps({"key": key} | finite(row), allow_nan=False) + "\n"
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        self._rows[key] = json.loads(line)
        return self._rows[key]


def key_of(kind: str, parts: Iterable[object]) -> str:
    """What a row is of: the same for the same measure of the same texts."""
    return hashlib.sha256(json.dumps([kind, *parts]).encode()).hexdigest()[:24]


def finite(value: Any) -> Any:
    """A value as JSON has it: numbers that are none, such as the interval of a single value, are null."""
    if isinstance(value, dict):
        return {name: finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(path: Path, value: Any) -> None:
    """Write aside, then at its place."""
    aside = path.with_name(f".{path.name}.partial")
    aside.write_text(json.dumps(finite(value), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    os.replace(aside, path)


def _claim(folder: Path, told: dict[str, Any]) -> None:
    path = folder / IDENTITY
    if not path.exists():
        write_json(path, told)
        return
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        found = None
    if found != told:
        raise UserError(
            f"{folder} has results of another model, precision, device or version than those asked for. Give another "
            f"folder with --out, or delete that one."
        )


def _read(path: Path) -> tuple[dict[str, dict[str, Any]], int]:
    """The rows by key, and how many bytes of the file they take: up to the first that is not whole."""
    rows: dict[str, dict[str, Any]] = {}
    whole_bytes = 0
    if path.exists():
        with open(path, "rb") as lines:
            for line in lines:
                try:
                    row = json.loads(line)
                    key = row["key"]
                except (ValueError, KeyError, TypeError):
                    break
                if not line.endswith(b"\n"):
                    break
                rows[key] = row
                whole_bytes += len(line)
    return rows, whole_bytes
