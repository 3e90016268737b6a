"""`nextlong status`, from another process: what is done, at work and failed, and never a word of what is not so."""

import dataclasses
import io
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from etl import embed, journal, pipeline
from etl.engine import Engine, StageFailed
from etl.lock import locked
from etl.parts import leftovers
from etl.recipe import Recipe, resolved_yaml
from etl.running import ENDING, RunningPart, running_parts, told_as_running
from etl.status import StageStatus, Status, status_of
from etl.status_page import status_page
from etl.training_status import training_line, training_status
from etl.work import FOLDERS, STAGES, clean
from nextlong.errors import UserError
from tests.etl.test_cli import nextlong
from tests.etl.test_pipeline import run
from tests.processes import Run, frozen, until

MakeRecipe = Callable[..., Recipe]
EMBED = FOLDERS["embed"]


def stage(status: Status, name: str) -> StageStatus:
    return status.stages[STAGES.index(name)]


def states(status: Status) -> list[str]:
    return [each.state for each in status.stages]


def suspended_at_work(workers: list[psutil.Process], folder: Path) -> bool:
    """Whether the workers now stand still with a part in hand; else they go on."""
    for worker in workers:
        worker.suspend()
    if running_parts(folder, believe_others=False):
        return True
    for worker in workers:
        worker.resume()
    return False


def test_a_run_is_seen_from_outside_and_what_is_killed_is_not_at_work(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe_file, work = tmp_path / "recipe.yaml", tmp_path / "work"
    recipe_file.write_text(resolved_yaml(make_recipe(input={"part_rows": 4})))
    running = Run(recipe_file, "--workers", 1)
    running.until(lambda: (work / EMBED).exists() and stage(status_of(work), "embed").done > 0, "a part of embed")
    workers = running.workers()
    running.until(lambda: suspended_at_work(workers, work / EMBED), "a part at work")
    with frozen(running.process.pid):
        seen = json.loads(nextlong("status", work, "--json").stdout)
        page = nextlong("status", work).stdout
    embedding = seen["stages"][2]
    [part] = embedding["running"]
    assert seen["holder"].startswith(f"process {running.process.pid} of ")
    assert [each["state"] for each in seen["stages"]] == ["finished", "finished", "running", *["waiting"] * 4]
    assert part["process"] == workers[0].pid
    assert embedding["now"]["since"] <= part["since"] <= time.time()
    assert 1 <= embedding["done"] < embedding["parts"] == 34
    assert f"{part['part']} runs since" in page
    assert f"process {workers[0].pid} on" in page
    assert " a second, since " in page
    assert all(len(line) <= 80 for line in page.splitlines() if "of 34" in line)
    os.killpg(running.process.pid, signal.SIGKILL)
    running.process.wait()
    workers[0].kill()
    until(lambda: not workers[0].is_running(), "its end")
    assert list((work / EMBED).glob(f"*{ENDING}")), "it left no trace, so nothing is shown"
    after = status_of(work)
    assert states(after) == ["finished", "finished", "unfinished", *["waiting"] * 4]
    assert not any(each.running for each in after.stages)
    assert "no run is at work. The last one began" in status_page(after)
    assert "and was killed" in status_page(after)
    assert set((work / EMBED).glob(f"*{ENDING}")) <= set(clean(work))
    nextlong("run", recipe_file, "--workers", 0)
    assert not leftovers(work)
    assert states(status_of(work)) == ["finished"] * 7


@pytest.fixture
def failed(make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A work folder whose second embedding part has failed."""
    whole = embed._embed_part

    def break_second(folder: Path, name: str, **arguments: Any) -> Any:
        if name == "part-00001":
            raise OSError("the cable\x1b[2J was cut")
        return whole(folder, name, **arguments)

    with monkeypatch.context() as patch:
        patch.setattr(embed, "_embed_part", break_second)
        with pytest.raises(StageFailed):
            run(make_recipe())
    return Path(make_recipe().output)


def test_failed_parts_are_told_with_their_error_until_the_next_run(failed: Path, make_recipe: MakeRecipe) -> None:
    status = status_of(failed)
    embedding = stage(status, "embed")
    assert (embedding.state, embedding.parts, embedding.done) == ("failed", 3, 2)
    [failure] = embedding.failed
    assert failure.part == "part-00001"
    assert "OSError: the cable" in failure.error
    page = nextlong("status", failed).stdout
    assert "part-00001 at" in page
    assert r"the cable\x1b[2J was cut" in page
    assert "The last one ended" in page
    pipeline.run(pipeline.start(make_recipe()), Engine())
    assert states(status_of(failed)) == ["finished"] * 7
    assert "finished. Look: nextlong peek" in status_page(status_of(failed))


def test_an_interrupted_run_says_so(failed: Path) -> None:
    with pytest.raises(KeyboardInterrupt), journal.kept(failed):
        raise KeyboardInterrupt
    assert ": interrupted" in status_page(status_of(failed))


def test_looking_writes_nothing(failed: Path) -> None:
    (failed / "run.lock").unlink()
    before = {path: path.stat().st_mtime_ns for path in [failed, *failed.rglob("*")]}
    status_page(status_of(failed))
    assert {path: path.stat().st_mtime_ns for path in [failed, *failed.rglob("*")]} == before


def test_half_written_and_foreign_lines_are_passed_over(failed: Path) -> None:
    good = stage(status_of(failed), "embed")
    foreign = ["", "[]", '{"time": "x"}', '{"time": Infinity, "begins": 1}', '{"time": 1}', '{"time": 1, "doing": 3}']
    with open(failed / journal.FILE, "a") as file:
        file.write("\n".join([*foreign, '{"time": 1, "done": 1}', '{"time": 1, "do']))
    (failed / EMBED / f"part-00000.1{ENDING}").write_text('{"part": "part-00')
    (failed / EMBED / f"part-00000.2{ENDING}").write_text('{"part": "p", "since": "x", "host": 1, "process": []}')
    (failed / EMBED / f"part-00000.3{ENDING}").write_text('{"part": "p", "since": 1e99, "host": "", "process": 1}')
    assert stage(status_of(failed), "embed") == good


def test_a_folder_of_an_earlier_version_tells_what_it_can(failed: Path) -> None:
    (failed / journal.FILE).unlink()
    status = status_of(failed)
    assert (stage(status, "embed").state, stage(status, "embed").done) == ("unfinished", 2)
    assert "2 of ?" in status_page(status)
    (failed / "summary.json").unlink()
    assert stage(status_of(failed), "chunk").rows == stage(status, "chunk").rows


def test_another_hosts_trace_is_believed_while_a_run_is_at_work_alone(failed: Path) -> None:
    (failed / journal.FILE).unlink()
    trace = RunningPart(part="part-00001", since=time.time(), host="elsewhere", process=1)
    (failed / EMBED / f"part-00001.1{ENDING}").write_text(json.dumps(dataclasses.asdict(trace)))
    assert stage(status_of(failed), "embed").running == []
    with locked(failed):
        assert stage(status_of(failed), "embed").running == [trace]


def test_a_part_that_two_processes_make_is_shown_once_as_its_newest(tmp_path: Path) -> None:
    with told_as_running(tmp_path, "part-00001"):
        [first] = running_parts(tmp_path, believe_others=False)
        with told_as_running(tmp_path, "part-00001"), told_as_running(tmp_path, "part-00000"):
            both = running_parts(tmp_path, believe_others=False)
            assert [each.part for each in both] == ["part-00001", "part-00000"]
            assert both[0].since > first.since
        assert running_parts(tmp_path, believe_others=False) == [first]
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_takes_no_trace_and_no_journal_hinders_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with told_as_running(tmp_path / "file", "part-00001"), journal.kept(tmp_path / "nowhere") as notes:
        notes.note(doing="nothing")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_journal_leaves_a_file_of_another_folder_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("old")
    (tmp_path / journal.FILE).hardlink_to(tmp_path / "old")
    with journal.kept(tmp_path):
        pass
    assert (tmp_path / "old").read_text() == "old"
    assert [line.get("ends") for line in journal.read(tmp_path)] == [None, "finished"]


def test_a_look_opens_as_few_files_for_ten_thousand_parts_as_for_three(
    failed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []

    def counting(*arguments: Any, **options: Any) -> Any:
        opened.append(arguments)
        return whole(*arguments, **options)

    whole = io.open
    monkeypatch.setattr(io, "open", counting)
    status_of(failed)
    few = len(opened)
    assert few
    for number in range(3, 10_000):
        (failed / EMBED / f"part-{number:05}.ok.json").touch()
    opened.clear()
    (failed / journal.FILE).unlink()
    assert stage(status_of(failed), "embed").done == 9_999
    assert len(opened) <= few


def test_the_time_left_is_what_the_parts_took_and_nothing_before_one_is_done(tmp_path: Path, failed: Path) -> None:
    begun = {"doing": "embed", "unit": "chunk", "total": 100, "initial": 20, "parts": 5, "there": 1, "folder": EMBED}

    def at(now: float, *done: float) -> StageStatus:
        lines = [{"time": 0, "begins": True}, {"time": 10, **begun}]
        lines += [{"time": time, "done": f"part-{time}", "weight": 20} for time in done]
        (failed / journal.FILE).write_text("".join(json.dumps(line) + "\n" for line in lines))
        with locked(failed):
            return stage(status_of(failed, now=now), "embed")

    first, then = at(15).now, at(55, 30, 50)
    assert first is not None
    assert then.now is not None
    assert (first.units_per_second, first.seconds_left) == (None, None)
    assert (then.done, then.now.units_done, then.now.units_per_second) == (3, 60, 1.0)
    assert then.now.seconds_left == 35.0


def test_a_training_tells_its_last_step(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    assert "No step is done yet" in nextlong("status", tmp_path).stdout
    lines = [{"kind": "train", "time": 1, "step": step, "loss": 2.5, "tokens_per_second": 1000} for step in (1, 2)]
    text = "".join(json.dumps(line) + "\n" for line in [*lines, {"kind": "evaluation", "time": 2, "step": 2}])
    (tmp_path / "metrics.jsonl").write_text(text + '{"kind": "train", "ti')
    assert "The last step is 2, at 1970-01-01" in training_line(training_status(tmp_path))
    assert json.loads(nextlong("status", tmp_path, "--json").stdout)["last"]["step"] == 2


def test_a_folder_of_anything_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no work folder"):
        status_of(tmp_path)
    nextlong("status", tmp_path / "nowhere", status=2)
