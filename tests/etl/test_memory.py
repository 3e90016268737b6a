"""The peak of a block is its own, not that of what ran before it."""

import sys

import numpy as np
import pytest

from etl.memory import peak_memory

MIB = 2**20
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")


def _peak(num_bytes: int) -> int:
    with peak_memory() as peak:
        np.ones(num_bytes, np.uint8)
    assert peak.bytes is not None
    return peak.bytes


def test_a_peak_holds_what_the_block_took_and_is_forgotten_after_it() -> None:
    before, large, after = _peak(1), _peak(400 * MIB), _peak(1)
    assert large - before > 300 * MIB
    assert large - after > 300 * MIB


def test_a_block_around_another_keeps_its_own_peak() -> None:
    with peak_memory() as outer:
        inner = _peak(400 * MIB)
        small = _peak(1)
    assert outer.bytes is not None
    assert outer.bytes >= inner == small
