"""Where a run stands, as text: who runs it, a line a stage in 80 columns, the parts at work and those that failed."""

import time
from collections.abc import Iterator

from etl.status import Pass, StageStatus, Status

_SHOWN_RUNNING = 8
_SHOWN_FAILED = 5


def status_page(status: Status, *, now: float | None = None) -> str:
    """The page. now: seconds since 1970, from which durations are counted."""
    return "\n".join(_lines(status, time.time() if now is None else now))


def _lines(status: Status, now: float) -> Iterator[str]:
    yield from _head(status, now)
    yield ""
    yield f"{'stage':<12}{'state':<12}{'parts':>15}{'running':>9}{'failed':>8}{'rows':>13}  time"
    yield from (_stage(stage, now) for stage in status.stages)
    for stage in status.stages:
        yield from _running(stage, now)
    for stage in status.stages:
        yield from _failed(stage)


def _head(status: Status, now: float) -> Iterator[str]:
    since = f", since {_moment(status.since, now)}" if status.since is not None else ""
    if status.holder is not None:
        yield f"{status.folder}: a run is at work, {status.holder}{since}"
        if status.doing is not None:
            yield f"now: {status.doing}"
        return
    if all(stage.state == "finished" for stage in status.stages):
        yield f"{status.folder}: finished. Look: nextlong peek {status.folder}"
        return
    if status.ended is not None:
        yield f"{status.folder}: no run is at work. The last one ended {_moment(status.ended, now)}: {_end(status)}"
    elif status.since is not None:
        yield f"{status.folder}: no run is at work. The last one began {_moment(status.since, now)} and was killed"
    else:
        yield f"{status.folder}: no run is at work"
    yield "What is done is kept: nextlong run with the same recipe goes on."


def _end(status: Status) -> str:
    end = status.end or ""
    return "interrupted" if end.startswith("KeyboardInterrupt") else _short(end, 300)


def _stage(stage: StageStatus, now: float) -> str:
    parts = (
        "-" if stage.state == "waiting" else f"{stage.done:,} of {'?' if stage.parts is None else f'{stage.parts:,}'}"
    )
    numbers = [len(stage.running) or "-", len(stage.failed) or "-", "-" if stage.rows is None else f"{stage.rows:,}"]
    head = f"{stage.stage:<12}{stage.state:<12}{parts:>15}{numbers[0]:>9}{numbers[1]:>8}{numbers[2]:>13}"
    return f"{head}  {_time(stage, now)}".rstrip()


def _time(stage: StageStatus, now: float) -> str:
    if stage.seconds is not None:
        return f"took {_duration(stage.seconds)}"
    if stage.now is None or stage.state != "running":
        return ""
    if stage.now.seconds_left is None:
        return f"for {_duration(now - stage.now.since)}"
    return f"{_duration(stage.now.seconds_left)} left"


def _running(stage: StageStatus, now: float) -> Iterator[str]:
    if stage.state == "running" and stage.now is not None:
        yield ""
        yield _now(stage.stage, stage.now, now)
    for part in stage.running[:_SHOWN_RUNNING]:
        yield f"  {part.part} runs since {_moment(part.since, now)}, process {part.process} on {part.host}"
    if len(stage.running) > _SHOWN_RUNNING:
        yield f"  and {len(stage.running) - _SHOWN_RUNNING:,} more"


def _now(stage: str, current: Pass, now: float) -> str:
    name = stage if current.doing == stage else f"{stage}, {current.doing}"
    rate = f", {_number(current.units_per_second)} a second" if current.units_per_second else ""
    amount = f"{current.units_done:,} of {current.units:,} {current.unit}s"
    return f"{name}: {amount}{rate}, since {_moment(current.since, now)}"


def _failed(stage: StageStatus) -> Iterator[str]:
    if stage.failed:
        yield ""
        yield f"{stage.stage}: {len(stage.failed):,} parts failed; run.log has more"
    for part in stage.failed[:_SHOWN_FAILED]:
        yield f"  {part.part} at {_clock(part.since)}: {_short(part.error, 300)}"
    if len(stage.failed) > _SHOWN_FAILED:
        yield f"  and {len(stage.failed) - _SHOWN_FAILED:,} more"


def _moment(then: float, now: float) -> str:
    return f"{_clock(then)} ({_duration(now - then)} ago)"


def _clock(then: float) -> str:
    """By the clock of who looks; the date where it is not today's."""
    local, today = time.localtime(then), time.localtime()
    return time.strftime("%H:%M:%S" if local[:3] == today[:3] else "%Y-%m-%d %H:%M", local)


def _duration(seconds: float) -> str:
    """Such as 8 s, 3 min, 2 h 05 min, 4 d 3 h."""
    whole = max(0, round(seconds))
    if whole < 100:
        return f"{whole} s"
    minutes = round(whole / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours = minutes // 60
    return f"{hours} h {minutes % 60:02} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _short(text: str, length: int) -> str:
    words = " ".join(text.split())
    return words if len(words) <= length else words[: length - 3] + "..."
