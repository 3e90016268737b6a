"""A part that a task has begun leaves a trace beside it until it ends; traces in, the parts at work now out.

A trace is locked by its process, so that those of killed ones are told apart, and temporary: the next run deletes it.
"""

import contextlib
import dataclasses
import fcntl
import json
import os
import socket
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from etl.journal import is_time

ENDING = ".running.tmp"


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunningPart:
    """A part that a process is making."""

    part: str
    since: float
    """Seconds since 1970, by the clock of its host."""
    host: str
    process: int


@contextlib.contextmanager
def told_as_running(folder: Path, part: str) -> Iterator[None]:
    """The folder says in the block that this process makes the part; where it cannot be written, it does not."""
    trace, descriptor = folder / f"{part}.{uuid.uuid4().hex}{ENDING}", None
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = _leave(trace, part)
    try:
        yield
    finally:
        if descriptor is not None:
            with contextlib.suppress(OSError):
                trace.unlink()
            os.close(descriptor)


def running_parts(folder: Path, *, believe_others: bool) -> list[RunningPart]:
    """The parts of a stage's folder that are at work, the oldest first, each once; not those of dead processes.

    believe_others: take the word of another host's trace that looks dead, as some file systems lock for one host alone.
    """
    newest: dict[str, RunningPart] = {}
    for trace in sorted(folder.glob(f"*{ENDING}")):
        found = _read(trace)
        if found and (_is_held(trace) or (believe_others and found.host != socket.gethostname())):
            newest[found.part] = max(found, newest.get(found.part, found), key=lambda each: each.since)
    return sorted(newest.values(), key=lambda each: (each.since, each.part))


def _leave(trace: Path, part: str) -> int:
    """A descriptor that holds the lock of a new trace; it has its name when it is whole and locked."""
    told = RunningPart(part=part, since=time.time(), host=socket.gethostname(), process=os.getpid())
    aside = trace.with_name(f".{trace.name}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.write(descriptor, json.dumps(dataclasses.asdict(told)).encode())
        os.rename(aside, trace)
    except OSError:
        os.close(descriptor)
        aside.unlink(missing_ok=True)
        raise
    return descriptor


def _read(trace: Path) -> RunningPart | None:
    """What a trace says; None for one that is gone by now, or no trace."""
    try:
        told = json.loads(trace.read_text())
        found = RunningPart(
            part=str(told["part"]), since=float(told["since"]), host=str(told["host"]), process=int(told["process"])
        )
    except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None
    return found if is_time(found.since) else None


def _is_held(trace: Path) -> bool:
    """Whether a process holds the lock of a trace, or nobody can tell."""
    try:
        with open(trace, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False
