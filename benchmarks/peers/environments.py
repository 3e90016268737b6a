"""Programs of this package, run by the Pythons that tests/readers/environments.py sets up."""

import json
import os
import subprocess
from typing import Any

from tests.readers.environments import ROOT, python_of


def call(environment: str, program: str, *arguments: object) -> dict[str, Any]:
    """What a program printed last, as JSON; a tokenizer has one thread. Raises RuntimeError when the program fails."""
    command = [str(python_of(environment)), "-m", f"benchmarks.peers.{program}", *map(str, arguments)]
    alone = os.environ | {"TOKENIZERS_PARALLELISM": "false"}
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=alone)
    if ran.returncode:
        raise RuntimeError(ran.stderr)
    told: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1]) if ran.stdout.strip() else {}
    return told
