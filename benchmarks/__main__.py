"""All benchmarks on one corpus, then the guard: python -m benchmarks --corpus CORPUS.parquet (default: the demo's).

The ratios on record are of the demo's corpus: those of another are not compared. shards and tokenization need
environments with other projects' packages, which the first call sets up.
"""

import os
import subprocess
import sys
from pathlib import Path

from benchmarks.measure import DEMO_CORPUS, RATIOS_FILE, corpus_arguments

_RATIOS = Path("build/ratios.jsonl")


def main() -> int:
    """Run each in a process of its own; 1 where one fails or the guard finds a ratio that has fallen."""
    parser = corpus_arguments(__doc__)
    parser.add_argument("--model", help="model folder (default: the offline model)")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="such as: chunk index")
    parser.add_argument("--ratios", type=Path, default=_RATIOS, help=f"file that they are written to ({_RATIOS})")
    options = parser.parse_args()
    if options.model is None:
        from etl.offline_model import offline_model

        options.model = offline_model()
    texts = ["--corpus", options.corpus, "--tokenizer", options.tokenizer]
    benchmarks: dict[str, list[object]] = {
        "startup": [],
        "chunk": texts,
        "tokenization": texts,
        "embed": ["--corpus", options.corpus, "--model", options.model, "--num-chunks", 24],
        "index": ["--num-vectors", 100_000, "--lists", 1024],
        "mine": [],
        "interleave": texts,
        "shards": [],
        "run": texts,
        "words": ["--corpus", options.corpus],
        "scale": [],
    }
    ratios = options.ratios.absolute()
    ratios.parent.mkdir(parents=True, exist_ok=True)
    ratios.write_text("")
    failed = [name for name in options.only or benchmarks if not _run(name, benchmarks[name], ratios)]
    if failed:
        print(f"\nfailed: {', '.join(failed)}", flush=True)
    if options.corpus != DEMO_CORPUS:
        return int(bool(failed))
    is_held = _run("guard", [ratios], ratios)
    print(f"ratios: {options.ratios}; to put them on record: python -m benchmarks.guard {options.ratios} --accept")
    return int(bool(failed) or not is_held)


def _run(name: str, arguments: list[object], ratios: Path) -> bool:
    print(f"\n{name}", flush=True)
    command = [sys.executable, "-m", f"benchmarks.{name}", *map(str, arguments)]
    return subprocess.run(command, env=os.environ | {RATIOS_FILE: str(ratios)}).returncode == 0


if __name__ == "__main__":
    raise SystemExit(main())
