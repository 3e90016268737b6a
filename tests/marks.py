"""Cases of a parametrized test that `make soak` runs, and `make test` leaves out for want of time."""

from typing import Any

import pytest


def in_soak(*cases: Any) -> list[Any]:
    """Single values; of several a tuple."""
    return [pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.long) for case in cases]
