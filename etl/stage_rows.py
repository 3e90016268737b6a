"""A stage of a work folder in, its rows out: as a lazy Dask dataframe, or one by its place, reading one row group."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

import etl.frames  # noqa: F401  it keeps Dask from turning lists into text
from etl.schemas import meta, to_frame
from etl.work import RECIPE_FILE, STAGES, StageFolder, Work
from nextlong.errors import UserError

Tables = Sequence[tuple[Path, int]]
"""Parquet files with their numbers of rows, in order."""


def finished(work: Work, name: str) -> StageFolder:
    """A stage that is finished. Raises UserError for one that is not there yet, naming those that are."""
    stage = work.stages.get(name)
    if stage is not None and stage.manifest() is not None:
        return stage
    done = finished_names(work)
    raise UserError(
        f"{work.path} has no finished stage '{name}' (finished: {', '.join(done) or 'none'}). "
        f"Finish it: nextlong run {work.path / RECIPE_FILE}"
    )


def finished_names(work: Work) -> list[str]:
    """The finished stages, in order."""
    return [name for name in STAGES if name in work.stages and work[name].manifest() is not None]


def lazy(tables: Tables, schema: pa.Schema) -> dd.DataFrame:
    """Parquet files as a lazy Dask dataframe with the columns of a schema, one partition a file; none is opened yet."""
    if not tables:
        return dd.from_pandas(meta(schema), npartitions=1)
    return dd.from_map(read_part, [path for path, _ in tables], columns=schema.names, meta=meta(schema))


def read_part(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Some columns of a part as a pandas partition."""
    return to_frame(pq.read_table(path, columns=list(columns)))


def num_rows(tables: Tables) -> int:
    """Of all files together."""
    return sum(rows for _, rows in tables)


def row_at(tables: Tables, place: int) -> dict[str, Any]:
    """The row at a place among all files' rows, laid end to end. Reads one row group of one file."""
    ends = np.cumsum([rows for _, rows in tables])
    number = int(np.searchsorted(ends, place, "right"))
    first = int(ends[number]) - tables[number][1]
    with pq.ParquetFile(tables[number][0]) as file:
        return _row_of(file, place - first)


def _row_of(file: pq.ParquetFile, place: int) -> dict[str, Any]:
    for group in range(file.num_row_groups):
        rows = file.metadata.row_group(group).num_rows
        if place < rows:
            [row] = file.read_row_group(group).slice(place, 1).to_pylist()
            found: dict[str, Any] = row
            return found
        place -= rows
    raise RuntimeError("a part has fewer rows than its manifest says: run 'nextlong run' again, which mends it")


def bounds(path: Path, column: str) -> tuple[int, int] | None:
    """The least and greatest number in a column, from the file's footer alone; None for a file without rows."""
    metadata = pq.read_metadata(path)
    place = metadata.schema.names.index(column)
    found = [metadata.row_group(group).column(place).statistics for group in range(metadata.num_row_groups)]
    sides = [(each.min, each.max) for each in found if each is not None and each.has_min_max]
    return (min(low for low, _ in sides), max(high for _, high in sides)) if sides else None


def part_with(paths: Sequence[Path], column: str, value: int) -> Path | None:
    """The file that may hold a number, of files whose column ascends from file to file; reads log2(files) footers."""
    first, last = 0, len(paths)
    while first < last:
        middle = (first + last) // 2
        sides = bounds(paths[middle], column)
        if sides is None:  # a file without rows says nothing of its neighbours
            paths, last = [*paths[:middle], *paths[middle + 1 :]], last - 1
        elif value < sides[0]:
            last = middle
        elif value > sides[1]:
            first = middle + 1
        else:
            return paths[middle]
    return None
