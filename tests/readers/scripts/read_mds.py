"""Read an MDS folder with mosaicml-streaming: read_mds FOLDER ROWS.npz [options]."""

import argparse
from pathlib import Path

from streaming import LocalDataset, StreamingDataset

from tests.readers.scripts.rows_file import save


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--by", choices=["streaming", "local"], default="streaming")
    parser.add_argument("--copy-to", type=Path, help="take FOLDER for a remote one and read it through a copy")
    parser.add_argument("--validate-hash")
    options = parser.parse_args()
    if options.by == "local":
        dataset = LocalDataset(str(options.folder))
    else:
        dataset = StreamingDataset(
            remote=str(options.folder) if options.copy_to else None,
            local=str(options.copy_to or options.folder),
            validate_hash=options.validate_hash,
            batch_size=1,
        )
    save(options.rows, (dataset[number] for number in range(len(dataset))))


if __name__ == "__main__":
    main()
