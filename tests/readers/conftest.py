"""Folders to read: of every format, with the rows that they must hold."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.golden import rows as golden
from tests.readers.programs import run
from tests.readers.scripts.rows_file import save

LONG_TOKENS = 131_072


@dataclasses.dataclass(frozen=True)
class Exported:
    """A folder and the rows that went into it: input_ids uint32 [L], indices int64 [n, 2], length, domain, mask."""

    folder: Path
    rows: list[dict[str, Any]]


Export = Callable[..., Exported]


def _long() -> list[dict[str, Any]]:
    """Rows of a length that is trained on: of one piece, of two, and of 300."""
    rng = np.random.default_rng(0)
    cuts = [[], [LONG_TOKENS // 2], sorted(2 * rng.choice(LONG_TOKENS // 2 - 1, 299, replace=False) + 2)]
    return [
        {
            "input_ids": rng.integers(golden.VOCAB_SIZE, size=LONG_TOKENS, dtype=np.uint32),
            "indices": np.stack([[0, *ends], [*ends, LONG_TOKENS]], axis=1).astype(np.int64),
            "length": LONG_TOKENS,
            "domain": "long",
        }
        for ends in cuts
    ]


ROWS: dict[str, Callable[[], list[dict[str, Any]]]] = {
    "plain": lambda: golden.without_mask(golden.rows()),
    "masked": golden.rows,
    "long": _long,
}


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Export:
    """exported(format, of="plain" | "masked" | "long", **settings), made once: the folder is not to be changed.

    Settings: columns, compression, hashes, shard_bytes (mds); vocab_size (megatron).
    """
    made: dict[str, Exported] = {}

    def export(format_: str, of: str = "plain", **settings: Any) -> Exported:
        key = repr((format_, of, sorted(settings.items())))
        if key not in made:
            work = tmp_path_factory.mktemp(format_)
            rows = ROWS[of]()
            save(work / "rows.npz", rows)
            _by_the_reference(format_, work / "rows.npz", work / "out", rows, settings)
            made[key] = Exported(work / "out", rows)
        return made[key]

    return export


def _by_the_reference(
    format_: str, file: Path, folder: Path, rows: list[dict[str, Any]], settings: dict[str, Any]
) -> None:
    if format_ == "mds":
        run("streaming", "readers.scripts.write_mds", file, folder, **settings)
    elif format_ == "megatron":
        folder.mkdir()
        dtype = "uint16" if settings["vocab_size"] < 65_500 else "int32"
        run("megatron", "readers.scripts.write_megatron", file, folder / "sequences", dtype)
        boundaries = [(number, *piece) for number, row in enumerate(rows) for piece in row["indices"]]
        np.save(folder / "sequences.boundaries.npy", np.array(boundaries, np.int64))
        if "mask" in rows[0]:
            labels = [{"input_ids": np.where(row["mask"], row["input_ids"].astype(np.int32), -100)} for row in rows]
            save(file, labels)
            run("megatron", "readers.scripts.write_megatron", file, folder / "sequences_label", "int32")
    else:
        run("datasets", "readers.scripts.write_huggingface", file, folder, format_)
