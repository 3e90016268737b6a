"""A number of ranks in; that many processes of this machine, as torchrun starts them, and one exit status out.

torchrun does the same and more (several machines, restarts), but ends all ranks 30 seconds after a signal, which may be
in the middle of a save, and answers every failure with 1.
"""

import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

log = logging.getLogger(__name__)

_HERE = str(Path(__file__).parent.parent)  # this package, not another of its name
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_STOPPED = 130
_GRACE_SECONDS = 3  # for ranks of which another has failed, less than they wait before they say the same
_STOP_SECONDS = 60  # for ranks of which another has stopped as it was asked: what they save together is saved then


def is_rank() -> bool:
    """Whether this process is one of several already, by torchrun's environment."""
    return {"RANK", "WORLD_SIZE", "MASTER_ADDR"} <= os.environ.keys()


def start_ranks(number: int, arguments: Sequence[str]) -> int:
    """Run `python -m training` with these arguments on each rank; returns 0, or the status of the first that fails.

    A signal to this process is passed on to all of them, and then waited for.
    """
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, len(os.sched_getaffinity(0)) // number))
    shared = os.environ | {
        "WORLD_SIZE": str(number),
        "LOCAL_WORLD_SIZE": str(number),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
        "OMP_NUM_THREADS": threads,
        "PYTHONPATH": os.pathsep.join([_HERE, *filter(None, [os.environ.get("PYTHONPATH")])]),
    }
    command = [sys.executable, "-m", "training", *arguments]
    ranks: list[subprocess.Popen[bytes]] = []

    def pass_on(*_: object) -> None:
        for each in ranks:
            each.terminate()

    before = {each: signal.signal(each, pass_on) for each in _SIGNALS}
    try:
        for rank in range(number):
            own = shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            ranks.append(subprocess.Popen(command, env=own, start_new_session=True))  # a Ctrl-C comes from here alone
        return _wait(ranks)
    finally:
        for each in ranks:
            if each.poll() is None:
                each.kill()
            each.wait()
        for number_, handler in before.items():
            signal.signal(number_, handler)


def _wait(ranks: Sequence["subprocess.Popen[bytes]"]) -> int:
    while True:
        statuses = [each.poll() for each in ranks]
        failed = [(rank, status) for rank, status in enumerate(statuses) if status]
        if failed:
            rank, status = failed[0]
            _end(ranks, _STOP_SECONDS if status == _STOPPED else _GRACE_SECONDS)
            if status < 0:
                name = signal.Signals(-status).name
                log.error("nextlong: rank %d was ended by %s (out of memory?). Checkpoints are kept.", rank, name)
            return status if status > 0 else 1
        if all(status == 0 for status in statuses):
            return 0
        time.sleep(0.05)


def _end(ranks: Sequence["subprocess.Popen[bytes]"], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and any(each.poll() is None for each in ranks):
        time.sleep(0.05)
    for each in ranks:
        if each.poll() is None:
            each.kill()


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
