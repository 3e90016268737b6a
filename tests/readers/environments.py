"""Environments with the real readers and writers, each built once in .venv/readers/NAME from its pinned list."""

import hashlib
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
FOLDER = ROOT / ".venv" / "readers"
LISTS = Path(__file__).parent / "requirements"
STUB = Path(__file__).parent / "torchvision_stub.py"
STUBBED = {"streaming", "datatools"}
"""They ask for torchvision, which they do not need to read tokens."""


def python_of(name: str) -> Path:
    """The Python of an environment, which is built unless it was, from the same list."""
    python, stamp = FOLDER / name / "bin" / "python", FOLDER / name / "made-from"
    packages = LISTS / f"{name}.txt"
    made_from = hashlib.sha256(packages.read_bytes() + STUB.read_bytes()).hexdigest()
    if not stamp.exists() or stamp.read_text() != made_from:
        subprocess.run([sys.executable, "-m", "venv", "--clear", FOLDER / name], check=True)
        if name in STUBBED:
            subprocess.run([python, STUB], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--requirement", packages], check=True)
        stamp.write_text(made_from)
    return python


def main() -> None:
    """Build those named on the command line, or all."""
    for name in sys.argv[1:] or sorted(path.stem for path in LISTS.glob("*.txt")):
        python_of(name)


if __name__ == "__main__":
    main()
