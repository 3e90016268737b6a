"""Rows against rows, files against files."""

import filecmp
from pathlib import Path
from typing import Any

import numpy as np

TYPES = {
    "input_ids": ["ndarray:uint32"],
    "indices": ["ndarray:int64"],
    "length": ["int"],
    "domain": ["str"],
    "mask": ["ndarray:uint8"],
}


def assert_same(found: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    """All columns of all rows, in order."""
    assert len(found) == len(expected) > 0, (len(found), len(expected))
    for number, (row, true) in enumerate(zip(found, expected, strict=True)):
        assert set(row) == set(true), (sorted(row), sorted(true))
        for name, value in true.items():
            np.testing.assert_array_equal(row[name], value, err_msg=f"row {number}, {name}")


def assert_same_files(folder: Path, reference: Path) -> None:
    """Every file of the reference is in the folder, byte for byte."""
    names = sorted(str(path.relative_to(reference)) for path in reference.rglob("*") if path.is_file())
    same, different, missing = filecmp.cmpfiles(folder, reference, names, shallow=False)
    assert (same, different, missing) == (names, [], []), (different, missing)
    assert names, reference
