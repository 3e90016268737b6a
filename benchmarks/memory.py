"""Peak memory of the workers of a run: what is theirs alone, mapped files and shared pages not counted.

python -m benchmarks.memory RECIPE.yaml --workers 2
"""

import argparse
import threading
import time

import psutil

from benchmarks.measure import own_bytes
from etl import pipeline
from etl.connect import local_engine
from etl.recipe import load_recipe


def main() -> None:
    """Run the recipe and print the peak of any worker, by stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    peaks: dict[str, int] = {}
    stage = ["start"]
    stop = threading.Event()

    def watch() -> None:
        while not stop.is_set():
            for process in psutil.Process().children(recursive=True):
                peaks[stage[0]] = max(peaks.get(stage[0], 0), own_bytes(process))
            time.sleep(0.1)

    with local_engine(options.workers) as engine:
        threading.Thread(target=watch, daemon=True).start()
        job = pipeline.start(load_recipe(options.recipe))
        for name in pipeline.RUNS:
            stage[0] = name
            pipeline.run(job, engine, only=name)
        stop.set()
    for name, peak in peaks.items():
        print(f"{name:<12}{peak / 2**20:>8,.0f} MiB")


if __name__ == "__main__":
    main()
