"""Write rows as Megatron .bin and .idx with megatron-core's builder: write_megatron ROWS.npz PREFIX uint16|int32."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from megatron.core.datasets.indexed_dataset import IndexedDatasetBuilder, get_bin_path, get_idx_path

from tests.readers.scripts.rows_file import load


def write(rows: Iterable[dict[str, Any]], prefix: Path, dtype: type[np.number[Any]], column: str = "input_ids") -> None:
    """Write each row as a document of one sequence."""
    builder = IndexedDatasetBuilder(get_bin_path(str(prefix)), dtype=dtype)
    for row in rows:
        builder.add_document(torch.from_numpy(row[column].astype(np.int64)), [len(row[column])])
    builder.finalize(get_idx_path(str(prefix)))


def main() -> None:
    rows, prefix, dtype = sys.argv[1:]
    write(load(Path(rows))[0], Path(prefix), np.dtype(dtype).type)


if __name__ == "__main__":
    main()
