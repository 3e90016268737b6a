"""Documents gathered into parts of even size."""

import random

import pyarrow as pa
import pytest

from etl.inputs import Split
from etl.read import parts_of


@pytest.mark.parametrize("unit", ["part_bytes", "part_rows"])
def test_no_part_but_of_a_whole_split_is_less_than_half_its_size(unit: str) -> None:
    sizes = [int(10 ** random.Random(number).uniform(0, 3)) for number in range(500)]
    tables = [
        pa.table({"text": pa.array(["x" * size for size in sizes[start : start + 7]])}) for start in range(0, 500, 7)
    ]
    for limit in (1, 10, 300, 1000, 10**6):
        if unit == "part_bytes":
            parts = list(parts_of(tables, Split((), part_bytes=limit), tables[0].schema))
            filled = [sum(map(len, part["text"].to_pylist())) for part in parts]
        else:
            parts = list(parts_of(tables, Split((), part_rows=limit), tables[0].schema))
            filled = [part.num_rows for part in parts]
        assert [len(text) for part in parts for text in part["text"].to_pylist()] == sizes
        assert all(size >= limit for size in filled[:-1])
        assert len(parts) == 1 or filled[-1] >= limit / 2
        assert all(size < 1.5 * limit + (1000 if unit == "part_bytes" else 1) for size in filled)
