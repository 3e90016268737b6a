"""Trainers in the manner of ProLong compute with the boundaries that MDS holds: right with int64 in any NumPy."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.readers.conftest import Export
from tests.readers.programs import read, run
from tests.readers.scripts.rows_file import save

Collate = Callable[..., tuple[dict[str, Any], list[dict[str, Any]]]]


@pytest.fixture
def collated(exported: Export, tmp_path: Path) -> Collate:
    """collated(environment, of, **options): the result for rows as the reader of MDS gave them, and the true rows."""

    def collate(environment: str, of: str, **options: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        made = exported("mds", of=of)
        rows, types = read("streaming", "read_mds", made.folder, by="local")
        assert types["indices"] == ["ndarray:int64"]
        save(tmp_path / "rows.npz", rows)
        run(environment, "readers.scripts.collate", tmp_path / "rows.npz", tmp_path / "result.json", **options)
        return json.loads((tmp_path / "result.json").read_text()), made.rows

    return collate


def expected(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The same in Python's own numbers, without a bound."""
    pieces = [(row["input_ids"].tolist(), *piece) for row in rows for piece in row["indices"].tolist()]
    return {
        "costs": [sum((end - start) ** 2 for start, end in row["indices"].tolist()) for row in rows],
        "lengths": [end - start for _, start, end in pieces],
        "tokens": [token for ids, start, end in pieces for token in ids[start:end]],
        "targets": [target for ids, start, end in pieces for target in [-100, *ids[start + 1 : end]]],
    }


@pytest.mark.parametrize("environment", ["numpy1", "numpy2"])
@pytest.mark.parametrize("of", ["plain", "long"])
def test_boundaries_as_stored_are_right(collated: Collate, environment: str, of: str) -> None:
    result, rows = collated(environment, of)
    assert result == expected(rows)
    assert len(result["tokens"]) == sum(row["length"] for row in rows)


@pytest.mark.parametrize("environment", ["numpy1", "numpy2"])
def test_a_bound_on_tokens_cuts_the_piece_that_crosses_it(collated: Collate, environment: str) -> None:
    result, rows = collated(environment, "plain", max_tokens=20)
    assert result["tokens"] == expected(rows)["tokens"][:20]


def test_uint32_is_right_in_numpy_1(collated: Collate) -> None:
    """The one that those trainers pin."""
    result, rows = collated("numpy1", "long", indices="uint32")
    assert result == expected(rows)


def test_uint32_fails_in_numpy_2(collated: Collate) -> None:
    """Why boundaries are stored as int64: costs wrap around, silently, and a bound of 2^32 tokens raises."""
    result, rows = collated("numpy2", "long", indices="uint32")
    assert "out of bounds for uint32" in result["error"]
    assert result["costs"][:2] == [0, 0]
    assert all(expected(rows)["costs"])
