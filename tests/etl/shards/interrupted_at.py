"""A program: a command of nextlong, again and again, interrupted each time at another of its operations on files.

python -m tests.etl.shards.interrupted_at MODE STEP FOLDER COMMAND...: runs the command whole, then with an interruption
at every STEP-th operation below FOLDER, each followed by a whole run. Prints a line of JSON for each: what was wrong
after the interruption, and after the run that followed it. It forks before any thread is started, so that a run costs
no imports.
"""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import yaml

import etl.shards.export
import etl.shards.of_documents
import etl.shards.of_folder
import etl.shards.of_mixture
import etl.shards.of_work
import etl.shards.verify
import nextlong.shards.arrow
import nextlong.shards.mds
import nextlong.shards.megatron
import nextlong.shards.parquet
from etl.cli import main

_IMPORTED = (np, pq, yaml, etl, nextlong)
_CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate", "os.scandir"}
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def interrupt(mode: str) -> None:
    """kill: SIGKILL; full: the disk is full; ctrl-c: as if it came at this moment."""
    if mode == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if mode == "full":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    raise KeyboardInterrupt


def run(command: list[str], folder: Path, mode: str, at: int) -> tuple[int, int, str]:
    """(exit status or minus the signal, operations, what was on the screen) of a run that is interrupted at one."""
    reading, writing = os.pipe()
    screen = folder.with_name("screen.txt")
    if not (process := os.fork()):
        os.dup2(os.open(screen, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
        os.dup2(1, 2)
        number = 0

        def look(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal number
            path = arguments[0] if arguments else None
            is_change = event in _CHANGES or (event == "open" and (arguments[2] or 0) & _WRITING)
            if is_change and isinstance(path, str | os.PathLike) and os.fspath(path).startswith(str(folder)):
                number += 1
                if number == at:
                    interrupt(mode)

        sys.addaudithook(look)
        status = 99
        with contextlib.suppress(BaseException):
            status = main(command)
        os.write(writing, str(number).encode())
        os._exit(status)
    os.close(writing)
    with open(reading) as numbers:
        told = numbers.read()
    _, status = os.waitpid(process, 0)
    return os.waitstatus_to_exitcode(status), int(told or 0), screen.read_text()


def campaign(mode: str, step: int, folder: Path, command: list[str]) -> Iterator[dict[str, Any]]:
    """What was found at each interruption; `wrong` must be empty."""
    whole = _run_whole(folder, command)
    status, number, screen = run(command, _anew(folder), "none", -1)
    assert (status, _tree(folder)) == (0, whole), screen
    for at in range(1, number + 1, step):
        status, _, screen = run(command, _anew(folder), mode, at)
        wrong = [] if status != 99 and "Traceback" not in screen else [f"it crashed: {screen}"]
        opens = [str(path) for path in folder.glob("[!.]*") if _tree(path) != _below(whole, path.name)]
        wrong += [f"{path} is there, and is not whole" for path in opens]
        again, _, after = run(command, folder, "none", -1)
        if (again, _tree(folder)) != (0, whole):
            wrong.append(f"a rerun ends with {again}, {sorted(_tree(folder).items() ^ whole.items())}: {after}")
        yield {"at": at, "of": number, "status": status, "wrong": wrong}


def _run_whole(folder: Path, command: list[str]) -> dict[str, str]:
    status, _, screen = run(command, _anew(folder), "none", -1)
    assert status == 0, screen
    return _tree(folder)


def _anew(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def _tree(folder: Path) -> dict[str, str]:
    """Every file and folder below, hidden ones too."""
    return {
        str(path.relative_to(folder)): "" if path.is_dir() else hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
    }


def _below(tree: dict[str, str], name: str) -> dict[str, str]:
    return {path.removeprefix(f"{name}/"): each for path, each in tree.items() if path.startswith(f"{name}/")}


if __name__ == "__main__":
    for found in campaign(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:]):
        sys.stdout.write(json.dumps(found) + "\n")
