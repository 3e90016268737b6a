"""Write the golden Megatron files with megatron-core's own builder: make_megatron [FOLDER]."""

import sys
from pathlib import Path

import numpy as np

from tests.golden.rows import rows
from tests.readers.scripts.write_megatron import write


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "megatron"
    for dtype in (np.uint16, np.int32):
        (folder / dtype.__name__).mkdir(parents=True, exist_ok=True)
        write(rows(), folder / dtype.__name__ / "sequences", dtype)


if __name__ == "__main__":
    main()
