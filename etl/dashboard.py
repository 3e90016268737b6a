"""What Dask itself shows of a run: the address of its dashboard, and a performance report, written when it ends."""

import contextlib
import logging
import os
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from nextlong.errors import UserError

log = logging.getLogger(__name__)

_BOKEH = "bokeh"  # which draws both; without it Dask has no dashboard, and nothing is said of it


def tell_address(client: Any) -> None:
    """Log where the dashboard of a client's scheduler is, if it draws one."""
    if client.dashboard_link and _has_bokeh(client.run_on_scheduler):
        log.info("dashboard: %s", client.dashboard_link)


def check_report(path: Path, *, has_workers: bool) -> None:
    """Raise UserError where no performance report can be written to a file, before the work that it would be of."""
    if not has_workers:
        raise UserError("--report-dask needs workers, but --workers is 0: give at least 1, or leave it out.")
    if not _has_bokeh(_here):
        raise UserError("--report-dask needs the package bokeh. Run: pip install 'nextlong[report]'")
    if path.is_dir():
        raise UserError(f"--report-dask {path} is a folder. Name a file in it, such as {path / 'dask.html'}.")
    folder = path.absolute().parent
    if not folder.is_dir():
        raise UserError(f"--report-dask {path}: there is no folder {folder}. Make it, or name a file elsewhere.")
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise UserError(f"--report-dask {path} cannot be written. Name a file elsewhere, or mend its permissions.")


@contextlib.contextmanager
def reported(client: Any, path: Path) -> Iterator[None]:
    """What happens in the block is in the report; it is written however the block ends, unless the scheduler is gone.

    Raises UserError at once where the scheduler cannot draw it.
    """
    from distributed import performance_report

    if not _has_bokeh(client.run_on_scheduler):
        raise UserError("--report-dask needs the package bokeh where the scheduler runs. Run there: pip install bokeh")
    report = performance_report(filename=os.fspath(path.absolute()), mode="inline")
    report.__enter__()
    try:
        yield
    finally:
        _write(report, client, path)


def _write(report: Any, client: Any, path: Path) -> None:
    try:
        if client.status != "running":
            raise ConnectionError("the scheduler is gone")
        report.__exit__(None, None, None)
    except Exception as error:  # what became of the work matters more
        log.warning("Dask's performance report was not written: %s", error)
    else:
        log.info("Dask's performance report is in %s", path)


def _has_bokeh(call: Callable[..., Any]) -> bool:
    """Whether it is installed where a function is called; Python's own, as a scheduler may have none of ours."""
    try:
        call(version, _BOKEH)
    except PackageNotFoundError:
        return False
    return True


def _here(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments)
