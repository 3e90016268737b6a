"""Write the golden MDS folders with mosaicml-streaming's own writer: make_mds [FOLDER]."""

import sys
from pathlib import Path

from tests.golden.rows import many_pieces, rows, without_mask
from tests.readers.scripts.write_mds import write, write_for_llm_foundry

HASHES = ["sha1", "sha256"]
SHARD_BYTES = 553
"""Of five samples without a mask, two and two and one fill it; the second two to the byte."""
MASK_SHARD_BYTES = 640


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "mds"
    plain = without_mask(rows())
    write(plain, folder / "plain", exist_ok=True)
    write(plain, folder / "hashes", hashes=HASHES, exist_ok=True)
    write(plain, folder / "shards", hashes=HASHES, size_limit=SHARD_BYTES, exist_ok=True)
    write(rows(), folder / "mask", size_limit=MASK_SHARD_BYTES, exist_ok=True)
    write(without_mask(many_pieces()), folder / "many-pieces", exist_ok=True)
    write_for_llm_foundry(plain, folder / "llm-foundry", exist_ok=True)


if __name__ == "__main__":
    main()
