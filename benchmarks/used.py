"""What runs of several sizes took: seconds, processor time and memory by stage."""

import contextlib
import dataclasses
from collections import Counter, defaultdict
from functools import partial
from typing import Any, NamedTuple

import psutil

from benchmarks.measure import own_bytes


@dataclasses.dataclass
class Use:
    """What some processes used, by stage."""

    most_bytes: Counter[str] = dataclasses.field(default_factory=Counter)
    """Held by any of them for itself."""
    cpu_seconds: defaultdict[str, float] = dataclasses.field(default_factory=partial(defaultdict, float))
    """Of all of them."""
    _last: dict[int, float] = dataclasses.field(default_factory=dict)

    def note(self, stage: str, process: psutil.Process) -> None:
        """Count what a process has used since it was last noted."""
        with contextlib.suppress(psutil.Error):  # it has ended
            times, memory = process.cpu_times(), own_bytes(process)
            spent = times.user + times.system
            self.cpu_seconds[stage] += spent - self._last.get(process.pid, 0.0)
            self._last[process.pid] = spent
            self.most_bytes[stage] = max(self.most_bytes[stage], memory)


@dataclasses.dataclass
class Run:
    """What a run took."""

    seconds: dict[str, float]
    """By stage."""
    amounts: dict[str, int]
    """What each stage does: of mine the meta-chunks, of interleave and pack the chunks in long documents."""
    num_tokens: int
    """Of the long documents."""
    workers: Use
    driver: Use
    """Of this process, which is driver and scheduler."""
    num_tasks: int
    """The most that the scheduler held at once."""
    disk_bytes: int
    load: float
    """What else ran: the machine's load before."""
    index: dict[str, Any]


class Case(NamedTuple):
    """What a run was of."""

    num_chunks: int
    workers: int
    target: int
    """Tokens of a long document."""


Runs = dict[Case, list[Run]]
