"""`nextlong --help` against `import torch`: seconds of new processes, in turn, and what heavy the former imports.

python -m benchmarks.startup
"""

import argparse
import json
import subprocess
import sys
from functools import partial

from benchmarks.measure import medians, report

_HEAVY = ("dask", "distributed", "faiss", "numpy", "onnxruntime", "pandas", "pyarrow", "tokenizers", "torch")
_IMPORTED = """
import contextlib, io, json, sys
from etl.cli import main
with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
    main(["--help"])
print(json.dumps(sorted(sys.modules)))
"""


def main() -> None:
    """Print the ratio and the list."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    seconds = medians(
        {
            "ours": partial(_python, "-m", "etl.cli", "--help"),
            "import torch": partial(_python, "-c", "import torch"),
            "our Python alone": partial(_python, "-c", ""),
        },
        options.repeats,
    )
    print(report(seconds, 1, "starts"))
    modules = json.loads(_python("-c", _IMPORTED))
    heavy = [name for name in _HEAVY if name in modules]
    print(f"  nextlong --help imports {len(modules)} modules; heavy ones: {', '.join(heavy) or 'none'}")


def _python(*arguments: str) -> str:
    return subprocess.run([sys.executable, *arguments], check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    main()
