"""A few packed rows, the same everywhere and always: what the golden files hold."""

from typing import Any

import numpy as np

LENGTH_TOKENS = 16
VOCAB_SIZE = 97
_ENDS = [[16], [5, 16], [2, 4, 16], [8, 16], [7, 12, 16]]
_DOMAINS = ["cells", "märkte", "", "forces", "表"]
_PADDED = 4
"""The row whose last piece is padding, for the mask."""


def rows() -> list[dict[str, Any]]:
    """Five rows: input_ids uint32 [16], indices int64 [n, 2], length, domain, and mask uint8 [16]."""
    made = [_row(number, LENGTH_TOKENS, ends, _DOMAINS[number]) for number, ends in enumerate(_ENDS)]
    start = _ENDS[_PADDED][-2]
    made[_PADDED]["mask"][start:] = 0
    made[_PADDED]["input_ids"][start:] = 0
    return made


def many_pieces() -> list[dict[str, Any]]:
    """One row of 256 pieces, the least that takes two bytes to count in MDS."""
    return [_row(0, 512, list(range(2, 513, 2)), "cells")]


def without_mask(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows less their masks."""
    return [{name: value for name, value in row.items() if name != "mask"} for row in rows]


def _row(number: int, length: int, ends: list[int], domain: str) -> dict[str, Any]:
    places = np.arange(length)
    return {
        "input_ids": ((31 * number + 7 * places + places**2) % VOCAB_SIZE).astype(np.uint32),
        "indices": np.stack([[0, *ends[:-1]], ends], axis=1).astype(np.int64),
        "length": length,
        "domain": domain,
        "mask": np.ones(length, np.uint8),
    }
