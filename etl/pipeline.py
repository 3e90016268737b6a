"""The order of the stages on one screen: what a run does, and what it tells when it is done."""

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from etl import chunk, embed, index, interleave, journal, mine, pack, quarantine, read, verify
from etl.engine import Engine
from etl.inputs import check_columns
from etl.job import Job, prepare
from etl.lock import locked
from etl.lookup import open_tokenizer
from etl.parts import read_json, write_json
from etl.preflight import check_workers
from etl.recipe import Recipe, resolved_yaml
from etl.work import STAGES
from nextlong.config import Mining
from nextlong.embedding import Embedder
from nextlong.errors import UserError
from nextlong.indexing import new_index
from nextlong.keywords import QueryModel

log = logging.getLogger(__name__)

RUNS: dict[str, Callable[[Job, Engine], dict[str, Any]]] = {
    "read": read.run,
    "chunk": chunk.run,
    "embed": embed.run,
    "index": index.run,
    "mine": mine.run,
    "interleave": interleave.run,
    "pack": pack.run,
}


def start(recipe: Recipe, *, reuse: Path | None = None, command: str = "nextlong run RECIPE.yaml") -> Job:
    """Find all that a recipe names and make its work folder ready, before any work.

    reuse: a work folder whose unchanged finished stages are taken over. command: how the user called, for the advice
    when the folder is another recipe's. Raises UserError for that, and for what is missing.
    """
    job = prepare(recipe)
    if job.work["read"].manifest() is None:
        check_columns(recipe.input, job.files)
    path = job.work.path
    remedy = f"To keep both and reuse the stages that still hold, run: {command} --output {path}-2 --reuse {path}"
    claim(job, reuse=[reuse] if reuse else [], remedy=remedy)
    return job


def claim(job: Job, *, reuse: Sequence[Path], remedy: str) -> None:
    """Make a job's work folder ready, and try the models that it needs; remedy: where the folder is another recipe's.

    reuse: work folders whose unchanged finished stages are taken over. Raises UserError as `start` does.
    """
    recipe = job.recipe
    job.work.claim(resolved_yaml(recipe), remedy)
    log.info("tokenizer: %s", open_tokenizer(str(job.tokenizer_file)).describe())
    for old in reuse:
        taken = job.work.reuse(old.absolute())
        if taken or len(reuse) == 1:
            log.info("reused from %s: %s", old, ", ".join(taken) or "nothing")
    if job.model_folder is not None and job.work["embed"].manifest() is None:
        _try_model(job.model_folder, recipe)
    if recipe.synthesis.strategy == "quest" and recipe.synthesis.query_model and job.work["mine"].manifest() is None:
        QueryModel.load(recipe.synthesis.query_model)
    if recipe.mining.retrieval == "bm25" and recipe.synthesis.retrieves == "chunks":
        _tell_of_bm25(recipe.mining)


def run(job: Job, engine: Engine, *, only: str | None = None) -> dict[str, Any]:
    """Run the stages that are not finished yet; returns the summary that summary.json holds.

    What an earlier run left and this one reads is compared with its checksums first; what is damaged is made again.
    only: run this stage alone; those before it must be finished. Raises UserError while another run is at work there.
    """
    with locked(job.work.path), journal.kept(job.work.path) as notes, engine.noting(notes):
        if engine.client is not None:
            cluster = job.recipe.cluster
            wait_seconds = 60 * cluster.wait_minutes if cluster else 60
            check_workers(engine.client, job.work.path, _read_by_workers(job), wait_seconds=wait_seconds)
        verify.reopen_damaged(job.work, [only] if only else STAGES, engine)
        return _run(job, engine, only)


def _run(job: Job, engine: Engine, only: str | None) -> dict[str, Any]:
    summary, num_quarantined = _previous(job), 0
    for stage in [only] if only else STAGES:
        before = STAGES[: STAGES.index(stage)]
        missing = [name for name in before if job.work[name].manifest() is None]
        if missing:
            raise UserError(f"--only {stage} needs the stage '{missing[0]}', which is not finished: run it first.")
        manifest = job.work[stage].manifest()
        spent = _spent(summary, stage)
        if manifest is None:
            started, engine.peak_memory_bytes = time.perf_counter(), 0
            manifest = RUNS[stage](job, engine)
            spent = {"seconds": time.perf_counter() - started, "peak_memory_bytes": engine.peak_memory_bytes or None}
            log.info("%s: %s rows in %.1f s", stage, f"{manifest['rows']:,}", spent["seconds"])
        else:
            log.info("%s: finished earlier", stage)
        for name in [*summary["stages"], stage]:  # interleave may have mined more
            of_name = spent if name == stage else _spent(summary, name)
            summary["stages"][name] = _summarize(job.work[name].manifest() or {}, of_name)
        write_json(job.work.path / "summary.json", summary)
        num_quarantined = quarantine.write_file(job.work)
    if num_quarantined:
        log.warning("%d documents are quarantined: %s says why", num_quarantined, job.work.path / quarantine.FILE)
    return summary


def _read_by_workers(job: Job) -> list[Path]:
    """The local files and folders that tasks read, the work folder apart; a few of the input stand for all."""
    inputs = [Path(file.path) for file in (*job.files[:1], *job.files[-1:], *job.evaluation_files) if file.is_local]
    return [*inputs, job.tokenizer_file, *([job.model_folder] if job.model_folder else [])]


def _try_model(folder: Path, recipe: Recipe) -> None:
    """Load the model, and name the index, once before hours of work that would end at them."""
    embedder = Embedder.load(folder, recipe.embedding)
    log.info("model: %s", embedder.describe())
    if recipe.index.factory != "auto":
        new_index(recipe.index.factory, embedder.dimensions)


def _tell_of_bm25(mining: Mining) -> None:
    if mining.near_duplicate_similarity is not None and mining.near_duplicate_overlap is None:
        log.warning(
            "near-duplicates become negatives: mining.near_duplicate_similarity does not apply to BM25 scores; set "
            "mining.near_duplicate_overlap"
        )


def _previous(job: Job) -> dict[str, Any]:
    """The summary of an earlier run of this folder, of those stages that still hold."""
    stages = (read_json(job.work.path / "summary.json") or {"stages": {}})["stages"]
    holds = {name: stage for name, stage in stages.items() if job.work[name].manifest() is not None}
    return {"recipe": job.recipe.output, "stages": holds}


def _spent(summary: dict[str, Any], stage: str) -> dict[str, Any]:
    """What a stage took by an earlier summary: nothing where it was taken from another folder."""
    known = summary["stages"].get(stage, {})
    return {"seconds": known.get("seconds", 0.0), "peak_memory_bytes": known.get("peak_memory_bytes")}


def _summarize(manifest: dict[str, Any], spent: dict[str, Any]) -> dict[str, Any]:
    return {
        "seconds": round(spent["seconds"], 3),
        "peak_memory_bytes": spent["peak_memory_bytes"],
        "parts": len(manifest["parts"]),
        "rows": manifest["rows"],
        "account": manifest["account"],
        "values": manifest["values"],
    }
