"""Rows in one .npz, between Pythons whose packages differ: ROW/COLUMN -> values, and the types that a reader gave."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

_TYPES = "types"


def save(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write rows; bytes become uint8."""
    arrays: dict[str, Any] = {}
    types: dict[str, set[str]] = {}
    for number, row in enumerate(rows):
        for name, value in row.items():
            arrays[f"{number}/{name}"] = np.frombuffer(value, np.uint8) if isinstance(value, bytes) else value
            types.setdefault(name, set()).add(_type(value))
    with path.open("wb") as file:
        np.savez(file, **arrays, **{_TYPES: json.dumps({name: sorted(seen) for name, seen in types.items()})})


def load(path: Path) -> tuple[list[dict[str, Any]], dict[str, list[str]]]:
    """The rows as arrays, and of each column the types seen: "ndarray:uint32", "list", "int", "str", "bytes"."""
    rows: dict[int, dict[str, Any]] = {}
    with np.load(path, allow_pickle=False) as arrays:
        for key in arrays.files:
            if key != _TYPES:
                number, name = key.split("/")
                rows.setdefault(int(number), {})[name] = arrays[key][()]
        return [rows[number] for number in range(len(rows))], json.loads(str(arrays[_TYPES]))


def _type(value: Any) -> str:
    return f"ndarray:{value.dtype}" if isinstance(value, np.ndarray) else type(value).__name__
