"""What several modules start once each."""

from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture(scope="module")
def store() -> Iterator[Any]:
    """A server of object stores (tests.etl.object_store.Store)."""
    from tests.etl.object_store import running

    with running() as started:
        yield started
