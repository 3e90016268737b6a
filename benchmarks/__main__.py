"""All benchmarks on one corpus: python -m benchmarks --corpus CORPUS.parquet (default: the demo's)."""

import subprocess
import sys

from benchmarks.measure import corpus_arguments


def main() -> None:
    """Run each in a process of its own."""
    parser = corpus_arguments(__doc__)
    parser.add_argument("--model", help="model folder (default: the offline model)")
    options = parser.parse_args()
    if options.model is None:
        from etl.offline_model import offline_model

        options.model = offline_model()
    for name, arguments in {
        "chunk": ["--corpus", options.corpus, "--tokenizer", options.tokenizer],
        "embed": ["--corpus", options.corpus, "--model", options.model],
        "interleave": [],
        "index": [],
        "words": ["--corpus", options.corpus],
        "scale": [],
    }.items():
        print(f"\n{name}", flush=True)
        subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *map(str, arguments)], check=True)


if __name__ == "__main__":
    main()
