"""Refusals: what every mistake of a user ends in."""

from collections.abc import Callable

import pytest

from nextlong.errors import UserError


def refused(make: Callable[[], object], match: str) -> None:
    """A call that must end in a UserError of one line."""
    with pytest.raises(UserError, match=match) as caught:
        make()
    assert "\n" not in str(caught.value)
