"""The effect of the method at a small scale, whole: python -m experiments.effect --scale toy --out FOLDER.

docs/experiment.md states what is asked, and what the answers would mean. The plan is printed first. What is done is
kept: the same command goes on.
"""

import argparse
import dataclasses
import hashlib
import json
import logging
import time
from pathlib import Path

from etl.connect import local_engine
from etl.lock import locked
from etl.logs import Console, file_dask_log, log_to
from etl.parts import read_json, write_json, written_aside
from etl.verb import cores, show
from evaluation.results import finite
from experiments import estimate
from experiments.analysis import analyse, as_markdown, as_rows
from experiments.data import known_facts, make_data
from experiments.models import measured_rows, train_and_measure
from experiments.plan import OURS, SCALES, Plan
from experiments.train import on_gpu
from nextlong.errors import UserError

log = logging.getLogger(__name__)

_GPU_WORKERS = 4  # small models that take turns on one card


def main(arguments: list[str] | None = None) -> int:
    """The command; 2 for a mistake, 130 for Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", choices=SCALES, default="toy", help="(default: toy)")
    parser.add_argument("--out", type=Path, required=True, help="folder for all of it")
    parser.add_argument(
        "--corpus", type=Path, help="parquet with columns text and, if it has one, source (default: docstrings)"
    )
    parser.add_argument("--model", help="of embeddings: a folder or hub id (default: the offline model)")
    parser.add_argument("--workers", type=int, help="trainings at a time (default: one a core; on a GPU 4)")
    parser.add_argument("--dry-run", action="store_true", help="print the plan, and how long it takes here")
    parser.add_argument("--only-data", action="store_true", help="stop when the data is made")
    options = parser.parse_args(arguments)
    logging.getLogger("experiments").setLevel(logging.INFO)
    logging.getLogger("experiments").addHandler(Console())
    try:
        return _run(options)
    except UserError as error:
        log.error("effect: %s", error)
        return 2
    except KeyboardInterrupt:
        log.error("stopped; what is done is in %s, and the same command goes on", options.out)
        return 130


def _run(options: argparse.Namespace) -> int:
    plan = SCALES[options.scale]
    workers = options.workers or (min(_GPU_WORKERS, cores()) if on_gpu() else cores())
    show(f"{plan.told()}\n{estimate.told(plan, workers)}")
    if not options.dry_run:
        log_to(options.out)
        file_dask_log()
        experiment(
            plan, options.out, corpus=options.corpus, model=options.model, workers=workers, only_data=options.only_data
        )
    return 0


def experiment(
    plan: Plan, out: Path, *, corpus: Path | None, model: str | None, workers: int, only_data: bool = False
) -> None:
    """Everything that is missing in `out`: data, trainings, measures; then results.jsonl, analysis.jsonl, analysis.md.

    Raises UserError for a folder of another experiment, and for a corpus that does not serve.
    """
    out.mkdir(parents=True, exist_ok=True)
    with locked(out, "--out"):
        _claim(plan, out, corpus)
        if known_facts(out) is None:
            started = time.perf_counter()
            with local_engine(min(workers, cores())) as engine:
                make_data(plan, out, engine, corpus=corpus, model=model or _offline_model())
            log.info("data: made in %.0f s", time.perf_counter() - started)
        if not only_data:
            train_and_measure(plan, out, workers)
            _analyse(plan, out)


def _claim(plan: Plan, out: Path, corpus: Path | None) -> None:
    """Keep what decides the experiment. Raises UserError where the folder is another one's."""
    told = json.loads(json.dumps({"plan": dataclasses.asdict(plan), "corpus": _identity(corpus)}))
    known = read_json(out / "experiment.json")
    if known is not None and known != told:
        raise UserError(f"--out {out} holds another experiment, by its experiment.json. Give a new folder.")
    write_json(out / "experiment.json", told)


def _identity(corpus: Path | None) -> str:
    if corpus is None:
        return "docstrings of installed packages"
    try:
        with open(corpus, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"--corpus: {corpus} cannot be read ({error}).") from error


def _offline_model() -> str:
    from etl.offline_model import offline_model

    return str(offline_model())


def _analyse(plan: Plan, out: Path) -> None:
    rows = measured_rows(plan, out)
    deciding = [row for row in rows if row["measure"] == plan.headline[0]]
    outcomes = [*analyse(rows), *(analyse(deciding, baseline=OURS) if OURS in plan.methods else [])]
    for name, lines in (("results.jsonl", rows), ("analysis.jsonl", as_rows(outcomes))):
        with written_aside(out / name) as aside:
            aside.write_text("".join(json.dumps(finite(line), allow_nan=False) + "\n" for line in lines))
    with written_aside(out / "analysis.md") as aside:
        aside.write_text(as_markdown(outcomes))
    show(f"{out / 'analysis.md'}: every measure; {out / 'results.jsonl'}: every model's\n")
    show(as_markdown(each for name in plan.headline for each in outcomes if each.measure == name))


if __name__ == "__main__":
    raise SystemExit(main())
