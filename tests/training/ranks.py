"""Programs of tests.training.programs under real torchrun with gloo."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
_LIMIT_SECONDS = 280


def command(program: str, request: Any, folder: Path, *, ranks: int) -> list[str]:
    """The command of a program whose answer is written to folder/answer.json."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "request.json").write_text(json.dumps(request))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    return [*torchrun, "-m", "tests.training.programs", program, str(folder)]


def environment() -> dict[str, str]:
    """That of the tests, with one thread a rank."""
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "TOKENIZERS_PARALLELISM": "false"}


def launch(program: str, request: Any, folder: Path, *, ranks: int, dies: bool = False) -> Any:
    """What a program answers (JSON); dies: it is expected to, and nothing is."""
    ran = subprocess.run(
        command(program, request, folder, ranks=ranks),
        cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=_LIMIT_SECONDS,
    )  # fmt: skip
    if dies:
        assert ran.returncode, "it went well"
        return None
    assert ran.returncode == 0, ran.stderr[-8000:]
    return json.loads((folder / "answer.json").read_text())
