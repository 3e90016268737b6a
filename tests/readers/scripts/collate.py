"""What a trainer in the manner of ProLong computes from rows: collate ROWS.npz RESULT.json [options].

Rows come as an MDS reader gave them. The arithmetic is done on the scalars of the stored type, as those trainers do it;
which type is right depends on the version of NumPy.
"""

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from tests.readers.scripts.rows_file import load

NO_TARGET = -100


def cost(indices: Iterable[Any]) -> Any:
    """What attention costs: the squares of the pieces' lengths; the most expensive rows of a step go first."""
    return sum((end - start) ** 2 for start, end in indices)


def collate(rows: list[dict[str, Any]], max_tokens: int) -> dict[str, list[int]]:
    """The pieces of a device's rows, one after the other, until max_tokens: lengths, tokens and targets.

    Pieces of one token are skipped; the first token of a piece is no target.
    """
    left: Any = max_tokens
    lengths, tokens, targets = [], [], []
    for row in rows:
        for start, end in row["indices"]:
            length = min(end - start, left)
            if length > 1:
                piece = row["input_ids"][start : start + length].tolist()
                lengths.append(int(length))
                tokens += piece
                targets += [NO_TARGET, *piece[1:]]
                left = left - length
    return {"lengths": lengths, "tokens": tokens, "targets": targets}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", type=Path)
    parser.add_argument("result", type=Path)
    parser.add_argument("--indices", choices=["stored", "int64", "uint32"], default="stored")
    parser.add_argument("--max-tokens", type=int, default=1 << 32)
    options = parser.parse_args()
    rows = load(options.rows)[0]
    if options.indices != "stored":
        rows = [row | {"indices": row["indices"].astype(options.indices)} for row in rows]
    with np.errstate(over="ignore"):
        costs = [int(cost(row["indices"])) for row in rows]
    try:
        result = {"costs": costs, **collate(rows, options.max_tokens)}
    except OverflowError as error:
        result = {"costs": costs, "error": str(error)}
    options.result.write_text(json.dumps(result))


if __name__ == "__main__":
    main()
