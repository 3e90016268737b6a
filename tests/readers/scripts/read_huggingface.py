"""Read a folder of parquet or arrow files with Hugging Face's datasets: read_huggingface FOLDER ROWS.npz [options]."""

import argparse
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset, concatenate_datasets, load_dataset, load_from_disk

from tests.readers.scripts.rows_file import save


def from_files(folder: str) -> Dataset:
    """The .arrow files of a folder, each opened alone."""
    return concatenate_datasets([Dataset.from_file(str(path)) for path in sorted(Path(folder).glob("*.arrow"))])


def as_stored(dataset: Any) -> Iterator[dict[str, Any]]:
    """Rows whose lists are arrays of the stored type."""
    for table in dataset.with_format("arrow").iter(1):
        yield {name: _array(table[name][0]) for name in table.column_names}


def _array(scalar: pa.Scalar) -> Any:
    if not isinstance(scalar, pa.ListScalar):
        return scalar.as_py()
    values = scalar.values
    if not pa.types.is_fixed_size_list(values.type):
        return values.to_numpy()
    return values.flatten().to_numpy().reshape(-1, values.type.list_size)


BY: dict[str, Callable[[str], Any]] = {
    "load_dataset": lambda folder: load_dataset(folder, split="train"),
    "streaming": lambda folder: load_dataset(folder, split="train", streaming=True),
    "load_from_disk": load_from_disk,
    "from_file": from_files,
}
FORMATS: dict[str, Callable[[Any], Iterable[dict[str, Any]]]] = {
    "arrow": as_stored,
    "python": lambda dataset: dataset,
    "numpy": lambda dataset: dataset.with_format("numpy"),
    "numpy-uint32": lambda dataset: dataset.with_format("numpy", dtype=np.uint32),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("rows", type=Path)
    parser.add_argument("--by", choices=BY, required=True)
    parser.add_argument("--format", choices=FORMATS, default="python")
    options = parser.parse_args()
    save(options.rows, FORMATS[options.format](BY[options.by](options.folder)))


if __name__ == "__main__":
    main()
