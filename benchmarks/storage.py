"""Bytes a chunk of each stage of a finished work folder, and what its columns would take, written otherwise.

python -m benchmarks.storage WORK
"""

import argparse
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.measure import medians
from etl.work import STAGES, Work

_PUBLISHED_BYTES = 4096
"""Of embeddings a chunk: 1,024 float32 numbers (LiteLong, App. E)."""
_COLUMNS = {
    "read": ["text"],
    "chunk": ["text"],
    "mine": ["ids", "scores"],
    "interleave": ["input_ids", "segments"],
}
_PLAIN: dict[str, Any] = {"compression": "zstd", "compression_level": 3, "use_dictionary": False}


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--rows", type=int, default=20_000, help="of a column that are tried, at most")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    work = Work.open(options.work)
    print("\n".join(_stages(work)))
    for stage, columns in _COLUMNS.items():
        for column in columns:
            table = _column(work, stage, column, options.rows)
            print(f"\n{stage}, {column}: {table.nbytes / 1e6:,.1f} MB, of which")
            print("\n".join(_tried(table, options.repeats)))


def _stages(work: Work) -> Iterator[str]:
    num_chunks = (work["chunk"].manifest() or {})["rows"]
    sizes = {stage: sum(path.stat().st_size for path in work[stage].path.rglob("*")) for stage in STAGES}
    for stage, size in (sizes | {"all": sum(sizes.values())}).items():
        note = f"   published: {_PUBLISHED_BYTES:,}" if stage == "embed" else ""
        yield f"  {stage:<12}{size:>16,} bytes{size / num_chunks:>10,.0f} a chunk{note}"


def _column(work: Work, stage: str, column: str, rows: int) -> pa.Table:
    tables = (pq.read_table(path, columns=[column]) for path, _ in work[stage].tables())
    return pa.concat_tables(tables).slice(0, rows).combine_chunks()


def _tried(table: pa.Table, repeats: int) -> Iterator[str]:
    """A line for each way to write a column to memory: its share, and how fast it is written and read."""
    for name, settings in _ways(table.schema.field(0)).items():
        written = _written(table, settings)
        seconds = medians(
            {"write": partial(_written, table, settings), "read": partial(pq.read_table, written, use_threads=False)},
            repeats,
        )
        rates = "".join(f"{doing:>8} {table.nbytes / 1e6 / each:>6,.0f} MB/s" for doing, each in seconds.items())
        yield f"  {name:<28}{written.size / table.nbytes:>7.1%}{rates}"


def _written(table: pa.Table, settings: dict[str, Any]) -> pa.Buffer:
    file = pa.BufferOutputStream()
    pq.write_table(table, file, **_PLAIN | settings)
    return file.getvalue()


def _ways(field: pa.Field) -> dict[str, dict[str, Any]]:
    numbers = list(_numbers(field.type, field.name))
    ways: dict[str, dict[str, Any]] = {"zstd 3, plain": {}}
    ways |= {f"zstd {level}, plain": {"compression_level": level} for level in (1, 6, 9, 15)}
    ways |= {"lz4": {"compression": "lz4", "compression_level": None}, "zstd 3, dictionary": {"use_dictionary": True}}
    ways["zstd 3, pages of 8 MiB"] = {"data_page_size": 2**23}
    if numbers:
        ways |= {f"zstd {level}, byte stream split": _split(numbers, level) for level in (1, 3)}
    return ways


def _split(numbers: list[str], level: int) -> dict[str, Any]:
    return {"use_byte_stream_split": numbers, "compression_level": level}


def _numbers(kind: pa.DataType, path: str) -> Iterator[str]:
    """The paths, in a Parquet file, of the numbers in a column."""
    if pa.types.is_struct(kind):
        for field in kind:
            yield from _numbers(field.type, f"{path}.{field.name}")
    elif pa.types.is_list(kind):
        yield from _numbers(kind.value_type, f"{path}.list.element")
    elif pa.types.is_integer(kind) or pa.types.is_floating(kind):
        yield path


if __name__ == "__main__":
    main()
