"""Runs, schedulers and workers as processes of their own: started, watched, killed, and what their screens say."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import yaml

from etl.parts import MARKER
from etl.work import FOLDERS

NEXTLONG = [sys.executable, "-m", "etl.cli"]
DASK = [sys.executable, "-m", "dask"]
_LIMIT_SECONDS = 240


class Run:
    """A `nextlong run` at work on a recipe, in a session of its own."""

    def __init__(self, recipe_file: Path, *arguments: object, env: Mapping[str, str] | None = None) -> None:
        self.work = Path(yaml.safe_load(recipe_file.read_text())["output"])
        command = [*NEXTLONG, "run", str(recipe_file), *map(str, arguments)]
        self._screen = recipe_file.parent / "screen.txt"
        with open(self._screen, "w") as screen:
            self.process = subprocess.Popen(
                command, stdout=screen, stderr=screen, env=os.environ | (env or {}), start_new_session=True
            )

    def wait(self, status: int | None = 0) -> str:
        """Wait for its end; returns what was on the screen. status: the exit code that it must have; None: any."""
        try:
            self.process.wait(_LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            raise AssertionError(f"it hangs:\n{self.screen}") from None
        assert status is None or self.process.returncode == status, self.screen
        assert "Traceback" not in self.screen, self.screen
        return self.screen

    @property
    def screen(self) -> str:
        return self._screen.read_text()

    def workers(self) -> list[psutil.Process]:
        """Its worker processes, those of a local cluster."""
        with contextlib.suppress(psutil.NoSuchProcess):
            return [child for child in psutil.Process(self.process.pid).children() if is_worker(child)]
        return []

    def reach(self, stage: str, *, may_end: bool = False) -> None:
        """Wait for the middle of a stage: its first finished part; its beginning where it has one part (pack).

        may_end: the run need not come so far.
        """
        sign = "stage.json" if stage == "pack" else f"*{MARKER}"
        self.until(lambda: any((self.work / FOLDERS[stage]).glob(sign)), stage, may_end=may_end)

    def until(self, is_so: Callable[[], bool], what: str, *, may_end: bool = False) -> None:
        until(lambda: is_so() or self.process.poll() is not None, what)
        assert may_end or self.process.poll() is None, f"it ended before {what}:\n{self.screen}"

    @property
    def has_begun(self) -> bool:
        """Whether its workers were there, and the first stage has begun."""
        return (self.work / FOLDERS["read"]).exists()

    def is_at(self, stage: str) -> bool:
        """Whether the stage has begun and is not finished."""
        folder = self.work / FOLDERS[stage]
        return folder.exists() and not (folder / "manifest.json").exists()


def is_worker(process: psutil.Process) -> bool:
    """Whether a child of a nanny is its worker (others are Python's resource tracker)."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return any("spawn_main" in word for word in process.cmdline())
    return False


@contextlib.contextmanager
def frozen(*processes: int) -> Iterator[None]:
    """Processes that stand still in the block."""
    for process in processes:
        os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGCONT)


def until(is_so: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + _LIMIT_SECONDS
    while not is_so():
        assert time.monotonic() < deadline, f"waited for {what}"
        time.sleep(0.002)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class ByHand:
    """A scheduler and workers as the command line of Dask starts them; all end with the block."""

    def __init__(self, folder: Path, env: Mapping[str, str] | None = None) -> None:
        self.port = free_port()
        self.address = f"tcp://127.0.0.1:{self.port}"
        self.workers: list[subprocess.Popen[bytes]] = []
        self._folder, self._env = folder, env or {}
        self.scheduler = self._start_scheduler()

    def __enter__(self) -> "ByHand":
        return self

    def __exit__(self, *_: object) -> None:
        for process in [*self.workers, self.scheduler]:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    @property
    def log(self) -> str:
        """What the scheduler has said."""
        return (self._folder / "scheduler.txt").read_text()

    def add_worker(self, *, threads: int = 1, env: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        self.workers.append(
            self._start(
                f"worker-{len(self.workers)}",
                *("worker", self.address, "--nthreads", str(threads), "--memory-limit", "0", "--no-nanny"),
                *("--host", "127.0.0.1", "--dashboard-address", "127.0.0.1:0"),
                *("--local-directory", str(self._folder / "dask")),
                env=env,
            )
        )
        return self.workers[-1]

    def has_workers(self, number: int) -> None:
        """Wait until so many workers have joined."""
        until(lambda: self.log.count("Register worker") >= number, f"{number} workers")

    def _start_scheduler(self) -> subprocess.Popen[bytes]:
        where = ("--host", "127.0.0.1", "--port", str(self.port), "--dashboard-address", "127.0.0.1:0")
        started = self._start("scheduler", "scheduler", *where)
        until(self._listens, "the scheduler")
        return started

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def _start(self, name: str, *arguments: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        with open(self._folder / f"{name}.txt", "a") as screen:
            return subprocess.Popen(
                [*DASK, *arguments],
                stdout=screen,
                stderr=screen,
                env=os.environ | {"DASK_LOGGING__DISTRIBUTED": "info"} | self._env | (env or {}),
                start_new_session=True,
            )
