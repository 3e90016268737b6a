"""`torchrun ... -m training RECIPE.yaml`: the command line's verb `train`, on each rank."""

import sys

from etl.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
