"""Folders to read: of every format, with the rows that they must hold."""

import dataclasses
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer, models

from tests.golden import rows as golden

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
            _by_the_command(work / "rows.parquet", work / "out", format_, rows, dict(settings))
            made[key] = Exported(work / "out", rows)
        return made[key]

    return export


def _by_the_command(
    file: Path, folder: Path, format_: str, rows: list[dict[str, Any]], settings: dict[str, Any]
) -> None:
    """Convert the rows, as parquet with token ids, one a sequence."""
    table = pa.table({name: pa.array([_plain(row[name]) for row in rows]) for name in rows[0] if name != "length"})
    pq.write_table(table, file)
    vocab_size = settings.pop("vocab_size", golden.VOCAB_SIZE)
    tokens = {str(number): number for number in range(vocab_size)}
    Tokenizer(models.WordLevel(tokens, unk_token="0")).save(str(file.with_name("tokenizer.json")))
    options = ["--tokenizer", file.parent, "--length", rows[0]["length"], "--ids", "--source", "domain", "--workers", 0]
    for name, value in settings.items():
        options += [f"--{name.replace('_', '-')}", *(value if isinstance(value, tuple) else (value,))]
    command = [sys.executable, "-m", "etl.cli", "convert", file, "--format", format_, "--out", folder, *options]
    subprocess.run(list(map(str, command)), check=True)


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value
