"""What a run shows while it goes on: a bar with rate and time left in a terminal, Dask's dashboard and its report."""

import contextlib
import fcntl
import pty
import re
import struct
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from etl import dashboard
from etl.engine import Engine
from etl.recipe import Recipe, resolved_yaml
from nextlong.errors import UserError
from tests.etl.test_cli import nextlong

MakeRecipe = Callable[..., Recipe]


@contextlib.contextmanager
def terminal() -> Iterator[Callable[[], str]]:
    """Standard error is a terminal of 80 columns in the block; the function returns what it shows."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    with open(ours, "rb", buffering=0) as screen, open(theirs, "w") as stream, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stderr", stream)
        yield lambda: screen.read(2**20).decode()


def _slow(number: int) -> int:
    time.sleep(0.3)
    return number


def test_a_terminal_shows_stage_rate_and_time_left_under_a_client(two_workers: Engine) -> None:
    with terminal() as shown:
        assert Engine(two_workers.client).map(_slow, range(8), doing="embed", unit="chunk") == [*range(8)]
        lines = [line for line in re.split(r"[\r\n]+", shown()) if line.strip()]
    assert lines[0].startswith("embed:   0%")
    assert any(re.search(r"\| [1-7]/8 \[00:\d\d<00:\d\d, +[\d.]+ chunk/s\]$", line) for line in lines), lines
    assert max(map(len, lines)) <= 80


def test_the_bar_moves_on_while_one_part_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("etl.progress._REFRESH_SECONDS", 0.05)
    with terminal() as shown:
        Engine().map(time.sleep, [1], doing="train index", unit="part")
        lines = shown().split("\r")
    assert sum(line.startswith("train index:   0%") for line in lines) > 2, lines


def test_what_is_no_terminal_gets_no_bar(capfd: pytest.CaptureFixture[str]) -> None:
    Engine().map(str, range(3), doing="embed", unit="chunk")
    assert capfd.readouterr().err == ""


def test_the_dashboard_and_the_report_of_a_run_are_there(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    pytest.importorskip("bokeh")
    recipe_file, report = tmp_path / "recipe.yaml", tmp_path / "dask.html"
    recipe_file.write_text(resolved_yaml(make_recipe()))
    told = nextlong("run", recipe_file, "--workers", 1, "--only", "read", "--report-dask", report).stderr
    assert re.search(r"dashboard: http://127\.0\.0\.1:\d+/status", told)
    assert f"Dask's performance report is in {report}" in told
    page = report.read_text()
    assert "part-00000" in page
    assert "cdn.bokeh.org" not in page


def test_a_report_that_cannot_be_is_refused_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    for path, has_workers, sentence in [
        (tmp_path / "x.html", False, "needs workers, but --workers is 0"),
        (tmp_path, True, "is a folder. Name a file in it"),
        (tmp_path / "nowhere" / "x.html", True, "there is no folder .*nowhere"),
        (tmp_path / "file" / "x.html", True, "there is no folder .*file"),
    ]:
        with pytest.raises(UserError, match=sentence):
            dashboard.check_report(path, has_workers=has_workers)
    monkeypatch.setattr(dashboard, "_BOKEH", "no_such_package")
    with pytest.raises(UserError, match=r"needs the package bokeh. Run: pip install 'nextlong\[report\]'"):
        dashboard.check_report(tmp_path / "x.html", has_workers=True)


def test_a_report_is_written_after_an_interruption_and_never_in_place_of_an_error(
    two_workers: Engine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("bokeh")
    with pytest.raises(KeyboardInterrupt), dashboard.reported(two_workers.client, tmp_path / "a.html"):
        raise KeyboardInterrupt
    assert "<html" in (tmp_path / "a.html").read_text()[:200]
    (tmp_path / "file").write_text("")
    with pytest.raises(KeyError), dashboard.reported(two_workers.client, tmp_path / "file" / "b.html"):
        raise KeyError
    assert "performance report was not written" in caplog.text
