"""Ratios of a run against those on record: fails where one has fallen by more than they vary.

python -m benchmarks.guard RATIOS.jsonl [--accept]

A ratio is compared with its lowest on record, benchmarks/ratios.json, less the range of those there, or less a tenth of
it where they are closer or fewer than three. What it cannot see: what slows both sides (a library, a compiler, the
machine), a change that is smaller than that, what no benchmark has a ratio of, and ratios of another kind of machine,
whose sides differ in another way; they are to be put on record there first. Instructions, which do not vary, cannot be
counted in most containers.
"""

import argparse
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

RECORD = Path(__file__).parent / "ratios.json"
"""By name, the ratios of the last runs that were accepted."""
LEAST_TOLERANCE = 0.1
"""Of the lowest ratio on record."""
_KEPT = 7  # runs on record
_ENOUGH = 3

Record = dict[str, list[float]]


def main() -> int:
    """1 where a ratio has fallen, with a line for each; --accept puts the run on record instead."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ratios", type=Path, help="what the benchmarks wrote, see measure.RATIOS_FILE")
    parser.add_argument("--accept", action="store_true", help="put these ratios on record")
    options = parser.parse_args()
    known: Record = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    ratios = read(options.ratios)
    if options.accept:
        RECORD.write_text(json.dumps(accepted(known, ratios), indent=1) + "\n")
        print(f"{len(ratios)} ratios put on record in {RECORD}")
        return 0
    fallen = [*compare(known, ratios)]
    num_new, num_missing = len(ratios.keys() - known.keys()), len(known.keys() - ratios.keys())
    print(f"{len(ratios)} ratios: {num_new} not on record, {num_missing} on record not measured, {len(fallen)} fallen")
    print("\n".join(fallen), end="\n" if fallen else "")
    return bool(fallen)


def read(path: Path) -> dict[str, float]:
    """The ratios of a run; of several with one name the later are numbered, in the order in which they came."""
    seen: Counter[str] = Counter()
    ratios = {}
    for line in path.read_text().splitlines():
        name, ratio = json.loads(line).values()
        seen[name] += 1
        ratios[name if seen[name] == 1 else f"{name} ({seen[name]})"] = ratio
    return ratios


def compare(known: Record, ratios: dict[str, float]) -> Iterator[str]:
    """A line for each ratio below what its record allows."""
    for name, ratio in ratios.items():
        if name in known and ratio < (least := floor(known[name])):
            before = ", ".join(f"{each:.2f}" for each in known[name])
            yield f"  {name}: {ratio:.2f}, below {least:.2f}; on record: {before}"


def floor(before: list[float]) -> float:
    """The least ratio that may come after those on record."""
    lowest, spread = min(before), max(before) - min(before)
    return lowest - max(LEAST_TOLERANCE * lowest, spread if len(before) >= _ENOUGH else 0.0)


def accepted(known: Record, ratios: dict[str, float]) -> Record:
    """The record with the ratios of a run added, the oldest left out."""
    return known | {name: [*known.get(name, []), ratio][-_KEPT:] for name, ratio in ratios.items()}


if __name__ == "__main__":
    raise SystemExit(main())
