"""A cluster's workers in, the first thing that would fail hours later out: packages, paths, disk, memory limits."""

import logging
import os
import shutil
import sys
import uuid
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from nextlong.errors import UserError

log = logging.getLogger(__name__)

PACKAGES = ("nextlong", "numpy", "pyarrow", "tokenizers", "faiss-cpu", "bm25s", "datasketch", "python-rake")
"""Those that decide bytes: a worker must have them in the driver's version."""
_MODELS = ("onnxruntime", "onnxruntime-gpu")
_MIN_FREE_BYTES = 2**30
_MIN_STOPPED_AT_BYTES = 8 * 2**30  # a model, a part and some mapped pages; more is told, not refused


def check_workers(client: Any, folder: Path, reads: Iterable[Path], *, wait_seconds: float) -> None:
    """Ask every worker for what a run needs. Raises UserError naming worker, reason and remedy, before any work.

    folder: the work folder, which must be one and the same for all. reads: local files and folders that tasks read.
    """
    _wait_for_one(client, wait_seconds)
    token = folder / f".preflight-{uuid.uuid4().hex}"
    token.write_text(token.name)
    try:
        answers = client.run(examine, str(token), [str(path) for path in reads], on_error="return")
    finally:
        token.unlink(missing_ok=True)
    here = examine(None, [])
    for worker, answer in sorted(answers.items()):
        problem = problem_of(answer, here, folder)
        if problem:
            raise UserError(f"worker {worker} cannot take part: {problem}")
        if answer["stopped_at_bytes"] is not None:
            log.info(
                "worker %s is paused or killed by Dask at %.1f GiB, mapped pages of the index included: if that "
                "happens, start it with --memory-limit 0",
                worker,
                answer["stopped_at_bytes"] / 2**30,
            )
    workers = "1 worker has" if len(answers) == 1 else f"{len(answers)} workers have"
    log.info("preflight: %s the packages, the files and the folder", workers)


def examine(token: str | None, reads: list[str], dask_worker: Any = None) -> dict[str, Any]:
    """What this process has and sees (JSON); runs on a worker, which Dask gives as `dask_worker`."""
    folder = Path(token).parent if token else None
    return {
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
        "packages": {name: _version(name) for name in PACKAGES} | {"onnxruntime": _onnxruntime()},
        "sees_folder": token is None or _reads(Path(token)) == Path(token).name,
        "can_write": folder is None or os.access(folder, os.W_OK),
        "missing": [path for path in reads if not os.path.exists(path)],
        "free_bytes": shutil.disk_usage(folder).free if folder and folder.is_dir() else None,
        "stopped_at_bytes": _stopped_at(dask_worker),
    }


def problem_of(answer: Any, here: dict[str, Any], folder: Path) -> str | None:
    """Why a worker that answers so (of `examine`, or its exception) cannot take part; here: the driver's own answer."""
    if isinstance(answer, BaseException):
        return (
            f"it cannot load this package ({type(answer).__name__}: {answer}). Install nextlong there in the same "
            f"environment: pip install nextlong=={here['packages']['nextlong']}"
        )
    if answer["python"] != here["python"]:
        return f"it runs Python {answer['python']}, and this process {here['python']}. Use one version everywhere."
    for name, known in here["packages"].items():
        if answer["packages"][name] != known:
            return (
                f"it has {name} {answer['packages'][name] or '(none)'}, and this process {known}, so that bytes might "
                f"differ. Install the same version there: pip install {name}=={known}"
            )
    if not answer["sees_folder"]:
        return f"it does not see the work folder {folder}. Put output on a file system that all machines share."
    if not answer["can_write"]:
        return f"it may not write to the work folder {folder}. Give its user that right."
    if answer["missing"]:
        return f"it does not see {answer['missing'][0]}. Put it on a file system that all machines share."
    if answer["free_bytes"] is not None and answer["free_bytes"] < _MIN_FREE_BYTES:
        return f"the disk of {folder} has {answer['free_bytes'] / 2**20:,.0f} MiB left. Free some space."
    if answer["stopped_at_bytes"] is not None and answer["stopped_at_bytes"] < _MIN_STOPPED_AT_BYTES:
        return (
            f"Dask would pause or kill it at {answer['stopped_at_bytes'] / 2**30:.1f} GiB, and counts memory-mapped "
            f"pages of the index and the embeddings as its own. Start it with --memory-limit 0."
        )
    return None


def _wait_for_one(client: Any, seconds: float) -> None:
    if not client.nthreads():
        log.info("waiting for the first worker, %.0f minutes at most", seconds / 60)
    try:
        client.wait_for_workers(1, timeout=seconds)
    except TimeoutError as error:
        raise UserError(
            f"the scheduler {client.scheduler.address} has no worker after {seconds:.0f} seconds. Start some with "
            f"'dask worker {client.scheduler.address} --nthreads 1 --memory-limit 0', or wait for your queue."
        ) from error


def _stopped_at(worker: Any) -> int | None:
    """The memory at which a worker pauses, or its nanny kills it; None: never, or this is no worker."""
    import dask

    limit = worker.memory_manager.memory_limit if worker is not None else None
    names = ["pause", "terminate"] if worker is not None and worker.nanny is not None else ["pause"]
    shares = [dask.config.get(f"distributed.worker.memory.{name}", None) for name in names]
    return min((int(limit * share) for share in shares if limit and share), default=None)


def _reads(path: Path) -> str | None:
    try:
        return path.read_text()
    except OSError:
        return None


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _onnxruntime() -> str | None:
    """Its version, whatever the package is called: workers with and without a GPU may stand beside each other."""
    return next((found for name in _MODELS if (found := _version(name))), None)
