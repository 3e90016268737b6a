"""The programs in scripts/, each run by the Python of an environment: what the real readers give for a folder."""

import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from tests.readers.environments import ROOT, python_of
from tests.readers.scripts.rows_file import load


class FailedError(Exception):
    """A program ended with an error, whose text this is."""


def run(environment: str, module: str, *arguments: object, **options: Any) -> None:
    """Run a module of tests/ with nothing cached from earlier and no hub; shard_bytes=9 becomes --shard-bytes 9."""
    command = [python_of(environment), "-m", f"tests.{module}", *map(str, arguments)]
    for name, value in options.items():
        command += [f"--{name.replace('_', '-')}", *map(str, value if isinstance(value, tuple) else (value,))]
    with tempfile.TemporaryDirectory() as home:
        ran = subprocess.run(
            command,
            cwd=ROOT,
            env=os.environ | {"HF_HOME": home, "HF_HUB_OFFLINE": "1", "TMPDIR": home},
            capture_output=True,
            text=True,
        )
    if ran.returncode:
        raise FailedError(ran.stderr)


def read(environment: str, program: str, place: Path, **options: Any) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The rows that a program of scripts/ reads, and the types of their columns."""
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.npz"
        run(environment, f"readers.scripts.{program}", place, rows, **options)
        return load(rows)
