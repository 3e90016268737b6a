"""A work folder in, where its run stands out: from files alone, whoever runs it and wherever.

Cheap: a listing of each unfinished stage and two small files, no data and no marker.
"""

import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from etl import journal
from etl.lock import holder
from etl.parts import MARKER, read_json
from etl.running import RunningPart, running_parts
from etl.work import FOLDERS, STAGES, Work

_NUMBERS = ("total", "initial", "parts", "there")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Failure:
    """A part that failed in the last run."""

    part: str
    since: float
    """Seconds since 1970."""
    error: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pass:
    """A pass over the parts of a stage, which has one to three."""

    doing: str
    parts: int
    done: int
    """Of the parts."""
    unit: str
    units: int
    units_done: int
    since: float
    """Seconds since 1970."""
    units_per_second: float | None
    """Of what this run has done; None: no part is done yet."""
    seconds_left: float | None
    """Of this pass; None: not known, or nobody is at work."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class StageStatus:
    """Where one stage stands."""

    stage: str
    state: str
    """finished, running, failed (parts of it did), unfinished, or waiting: nothing is done of it."""
    parts: int | None = None
    """In all, of the pass; None: not known, as in a folder of an earlier version."""
    done: int = 0
    """Of them."""
    rows: int | None = None
    """Of a finished stage."""
    seconds: float | None = None
    """That a finished stage took; None: not known, as of one that was reused."""
    now: Pass | None = None
    """The last run's last pass over a stage that is not finished."""
    running: list[RunningPart] = dataclasses.field(default_factory=list)
    """The oldest first."""
    failed: list[Failure] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Status:
    """Where the run of a work folder stands."""

    folder: str
    holder: str | None
    """Process, user and host of the run that is at work; None: nobody is."""
    since: float | None
    """When the last run began, in seconds since 1970; None: not known."""
    doing: str | None
    """What the run at work does now that is no stage's work, such as to compare checksums."""
    ended: float | None
    """When the last run ended; None: it is at work, was killed, or is not known."""
    end: str | None
    """finished, or the name and text of what ended it."""
    stages: list[StageStatus]


def status_of(path: Path, *, now: float | None = None) -> Status:
    """Look at a work folder, from anywhere. now: seconds since 1970. Raises UserError for a folder of anything else."""
    work = Work.open(path)
    lines, who = journal.read(path), holder(path)
    passes = _passes(lines)
    last = lines[-1] if lines and "ends" in lines[-1] and who is None else None
    aside = who is not None and bool(passes) and passes[-1].begun["folder"] is None
    return Status(
        folder=str(path),
        holder=who,
        since=next((line["time"] for line in lines if "begins" in line), None),
        doing=str(passes[-1].begun["doing"]) if aside else None,
        ended=last["time"] if last else None,
        end=": ".join(str(last[name]) for name in ("ends", "why") if last.get(name)) if last else None,
        stages=[*_stages(work.path, passes, time.time() if now is None else now, is_at_work=who is not None)],
    )


class _Noted(NamedTuple):
    """A pass as the journal has it."""

    begun: dict[str, Any]
    events: list[dict[str, Any]]
    """What was done, and what failed."""


def _passes(lines: list[dict[str, Any]]) -> list[_Noted]:
    passes: list[_Noted] = []
    for line in lines:
        if "doing" in line and all(isinstance(line.get(name), int) for name in _NUMBERS):
            passes.append(_Noted({"folder": None, "unit": ""} | line, []))
        elif passes and ("failed" in line or ("done" in line and isinstance(line.get("weight"), int))):
            passes[-1].events.append(line)
    return passes


def _stages(work: Path, passes: list[_Noted], now: float, *, is_at_work: bool) -> Iterator[StageStatus]:
    summary = (read_json(work / "summary.json") or {}).get("stages", {})
    is_next = is_at_work  # the first stage that is not finished is the run's
    for stage in STAGES:
        folder = work / FOLDERS[stage]
        if (folder / "manifest.json").is_file():
            yield _finished(stage, summary.get(stage) or _of_manifest(folder))
            continue
        own = [each for each in passes if each.begun["folder"] == folder.name]
        yield _unfinished(stage, folder, own, now if is_next and own[-1:] == passes[-1:] else None, is_next, is_at_work)
        is_next = False


def _finished(stage: str, facts: dict[str, Any]) -> StageStatus:
    parts, rows, seconds = facts.get("parts"), facts.get("rows"), facts.get("seconds")
    return StageStatus(stage=stage, state="finished", parts=parts, done=parts or 0, rows=rows, seconds=seconds)


def _of_manifest(folder: Path) -> dict[str, Any]:
    """Of a finished stage that the summary does not know, as it was reused."""
    manifest = read_json(folder / "manifest.json") or {}
    return {"parts": len(manifest.get("parts", [])), "rows": manifest.get("rows")}


def _unfinished(
    stage: str, folder: Path, own: list[_Noted], now: float | None, is_next: bool, is_at_work: bool
) -> StageStatus:
    """own: the last run's passes over the stage; now: None where none of them is at work."""
    running = running_parts(folder, believe_others=is_at_work)
    failed = [_failure(event) for each in own for event in each.events if "failed" in event]
    current = _pass(own[-1], now) if own else None
    if own:
        over = {event.get("done", event.get("failed")) for event in own[-1].events}
        running = [each for each in running if each.part not in over]
    done = current.done if current else sum(1 for _ in folder.glob(f"part-*{MARKER}"))
    state = "failed" if failed else "unfinished" if own or done else "waiting"
    return StageStatus(
        stage=stage,
        state="running" if running or is_next else state,
        parts=current.parts if current else None,
        done=done,
        now=current,
        running=running,
        failed=failed,
    )


def _pass(noted: _Noted, now: float | None) -> Pass:
    """now: seconds since 1970; None: the pass is not at work."""
    begun, done = noted.begun, [event for event in noted.events if "done" in event]
    weight = sum(event["weight"] for event in done)
    left = begun["total"] - begun["initial"] - weight
    seconds = done[-1]["time"] - begun["time"] if done else 0.0
    rate = weight / seconds if seconds > 0 and weight else None
    return Pass(
        doing=str(begun["doing"]),
        parts=begun["parts"],
        done=begun["there"] + len(done),
        unit=str(begun["unit"]),
        units=begun["total"],
        units_done=begun["initial"] + weight,
        since=begun["time"],
        units_per_second=rate,
        seconds_left=max(0.0, left / rate - (now - done[-1]["time"])) if rate and now is not None else None,
    )


def _failure(event: dict[str, Any]) -> Failure:
    return Failure(part=str(event["failed"]), since=event["time"], error=str(event.get("error")))
