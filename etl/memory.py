"""How much memory a process took at its highest, while a block of code ran in it."""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

_LOCK = threading.Lock()
_measuring = 0


class Peak:
    """The highest mark of a block that has ended."""

    bytes: int | None = None
    """None: the system does not tell, as all but Linux."""


@contextlib.contextmanager
def peak_memory() -> Iterator[Peak]:
    """Measure a block: resident memory of the whole process, mapped files included.

    Of blocks that run at the same time in threads, each is told the highest mark since the first began.
    """
    global _measuring
    peak = Peak()
    with _LOCK:
        if not _measuring:
            _forget_peak()
        _measuring += 1
    try:
        yield peak
    finally:
        with _LOCK:
            _measuring -= 1
        peak.bytes = _peak_bytes()


def _forget_peak() -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # proc(5): the highest mark becomes what is resident now


def _peak_bytes() -> int | None:
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    return None
