"""A work folder in, one HTML page about it out, that needs no network: `nextlong report`."""

from pathlib import Path

from etl.parts import written_aside
from etl.work import Work
from nextlong.errors import UserError


def write_report(folder: Path, out: Path | None = None) -> Path:
    """Write the page of a work folder, finished or not, to `out` (None: report.html in it); returns where it is.

    It reads summaries, and of the data a number of rows that does not grow with it. Raises UserError for another
    folder, for an `out` that cannot be written, and without plotly.
    """
    try:
        from etl.report import charts, facts, page
    except ImportError as error:
        raise UserError(
            f"report draws with plotly, which is not here ({error}): pip install 'nextlong[report]'"
        ) from error
    work = Work.open(folder)
    target = (out or folder / "report.html").expanduser().absolute()
    if target.is_dir() or not target.parent.is_dir():
        raise UserError(f"--out {target} is a folder, or in a folder that does not exist. Give the name of a file.")
    known = facts.read_facts(work)
    html = page.page(known, charts.charts(known))
    try:
        with written_aside(target) as aside:
            aside.write_text(html, encoding="utf-8")
    except PermissionError as error:
        raise UserError(f"--out {target} cannot be written ({error}). Give another file.") from error
    return target
