"""One run at a time in a work folder: a lock that dies with its process, and the name of who holds it."""

import contextlib
import fcntl
import getpass
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from nextlong.errors import UserError

LOCK_FILE = "run.lock"
OWNER_FILE = "run.owner"
_PATIENCE_SECONDS = 0.2  # a look at the lock, from `holder`, holds it for a moment


@contextlib.contextmanager
def locked(folder: Path, option: str = "--output") -> Iterator[None]:
    """Hold the lock of a folder. Raises UserError at once when another process, here or elsewhere, holds it.

    option: of the command line, that names the folder.

    The operating system gives the lock back when its process ends, however it ends, so nothing is stale. A file system
    that knows no such locks gets a file that names host and process, which is stale when that process is gone.
    """
    lock = FileLock(folder / LOCK_FILE, timeout=_PATIENCE_SECONDS, preserve_lock_file=True)
    try:
        lock.acquire()
    except Timeout as error:
        raise UserError(
            f"another run is at work in {folder}: {_owner(folder)}. Wait until it ends or stop it; for a second run "
            f"give another folder with {option}."
        ) from error
    try:
        (folder / OWNER_FILE).write_text(f"process {os.getpid()} of {_user()} on {socket.gethostname()}\n")
        yield
    finally:
        (folder / OWNER_FILE).unlink(missing_ok=True)
        lock.release()


def holder(folder: Path) -> str | None:
    """Who holds the lock of a folder; None: nobody. Nothing is written, so that any folder can be looked at."""
    try:
        with open(folder / LOCK_FILE, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _owner(folder)
    except OSError:  # it was never locked; or a file system that knows no such locks, where the other file tells
        return _owner(folder) if (folder / OWNER_FILE).is_file() else None
    return None


def _owner(folder: Path) -> str:
    try:
        return (folder / OWNER_FILE).read_text().strip()
    except OSError:
        return "it just started"


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return f"user {os.getuid()}"
