"""What a run does and when, noted as it goes: the lines of progress.jsonl, which `nextlong status` reads.

Nothing else reads it, no data depend on it, and a run goes on where it cannot be written. Each run begins it anew.
"""

import contextlib
import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

log = logging.getLogger(__name__)

FILE = "progress.jsonl"
_YEAR_9999_SECONDS = 253_370_764_800


class Journal:
    """Writes lines, each with its time in seconds since 1970; one that was given no file writes nothing."""

    def __init__(self, file: TextIO | None = None) -> None:
        self._file = file

    def note(self, **facts: Any) -> None:
        """Write a line. A folder that takes no more, as on a full disk, gets none from then on."""
        if self._file is None:
            return
        try:
            self._file.write(json.dumps({"time": round(time.time(), 3), **facts}) + "\n")
            self._file.flush()
        except OSError as error:
            log.debug("progress is not noted any more: %s", error)
            self._file = None


@contextlib.contextmanager
def kept(folder: Path) -> Iterator[Journal]:
    """The journal of a run in its work folder, with its beginning and its end."""
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(_anew(folder / FILE))
        except OSError as error:
            log.debug("progress is not noted: %s", error)
            file = None
        journal = Journal(file)
        journal.note(begins=True, host=socket.gethostname(), process=os.getpid())
        try:
            yield journal
        except BaseException as error:
            journal.note(ends=type(error).__name__, why=str(error))
            raise
        journal.note(ends="finished")


def read(folder: Path) -> list[dict[str, Any]]:
    """The lines of the last run; without those that are half-written or none of ours."""
    try:
        lines = (folder / FILE).read_text(errors="replace").splitlines()
    except OSError:
        return []
    return [told for line in lines if (told := _parse(line)) is not None]


def is_time(value: Any) -> bool:
    """Whether a value can be seconds since 1970, with a year of at most four digits."""
    return isinstance(value, int | float) and 0 <= value < _YEAR_9999_SECONDS


def _anew(path: Path) -> TextIO:
    """A new file: one of that name, linked to from elsewhere, keeps what it holds."""
    path.unlink(missing_ok=True)
    return open(path, "x", encoding="utf-8")


def _parse(line: str) -> dict[str, Any] | None:
    try:
        told = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return told if isinstance(told, dict) and is_time(told.get("time")) else None
