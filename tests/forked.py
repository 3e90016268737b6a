"""Commands of nextlong as processes of their own that cost no imports: a server that has made them forks for each.

`python -m tests.forked` is the server: a request a line, an exit status a line. What surrounds a command is that of the
server's start, so another folder or environment gets a plain process.
"""

import atexit
import contextlib
import functools
import importlib
import importlib.util
import io
import json
import os
import resource
import select
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

_ROOT = str(Path(__file__).parents[1])
NEXTLONG = [sys.executable, "-m", "etl.cli"]
_LIMITS = (resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE)
_IMPORTED = (
    *("dask", "distributed", "pandas", "pyarrow.parquet", "pyarrow.compute", "jsonargparse", "tqdm.auto"),
    "transformers.utils.chat_template_utils",
)
_MODULES = ("cli", "compare", "connect", "pipeline", "recipe", "report", "show", "shards.verbs", "shards.export")


def run(arguments: list[str], *, timeout: float = 200) -> "subprocess.CompletedProcess[str]":
    """A command in a process of its own, as subprocess.run with captured text."""
    if _surroundings() != _started()[1]:
        return subprocess.run([*NEXTLONG, *arguments], capture_output=True, text=True, timeout=timeout)
    server, _ = _started()
    assert server.stdin is not None
    assert server.stdout is not None
    with tempfile.TemporaryDirectory() as folder:
        screens = [str(Path(folder) / name) for name in ("stdout", "stderr")]
        limits = [(each, resource.getrlimit(each)) for each in _LIMITS]
        print(json.dumps({"arguments": arguments, "screens": screens, "limits": limits}), file=server.stdin, flush=True)
        if not select.select([server.stdout], [], [], timeout)[0]:
            os.killpg(server.pid, signal.SIGKILL)
            _started.cache_clear()
            raise subprocess.TimeoutExpired(arguments, timeout)
        status = int(server.stdout.readline())
        out, err = (Path(each).read_text() for each in screens)
    return subprocess.CompletedProcess(arguments, status, out, err)


def here(arguments: list[str]) -> "subprocess.CompletedProcess[str]":
    """A command in this process, for one that ends before it does anything: a hundredth of a process' time."""
    from etl.cli import main as nextlong

    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            status = nextlong(arguments)
        except SystemExit as ended:
            status = int(str(ended.code))
    return subprocess.CompletedProcess(arguments, status, out.getvalue(), err.getvalue())


def _surroundings() -> dict[str, str]:
    """What decides what imports find, and what libraries read when they are imported."""
    return {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"} | {"": os.getcwd()}


@functools.cache
def _started() -> "tuple[subprocess.Popen[str], dict[str, str]]":
    command = [sys.executable, "-m", "tests.forked"]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    server = subprocess.Popen(command, **pipes, cwd=_ROOT, start_new_session=True)
    atexit.register(_end, server)
    return server, _surroundings() | {"": _ROOT}


def _end(server: "subprocess.Popen[str]") -> None:
    server.kill()
    server.communicate()


def main() -> None:
    """Serve until standard input ends."""
    for name in (*_IMPORTED, *(f"etl.{each}" for each in _MODULES)):
        importlib.import_module(name)
    for line in sys.stdin:
        process = os.fork()
        if not process:
            _become(json.loads(line))
        sys.stdout.write(f"{os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])}\n")
        sys.stdout.flush()


def _become(request: dict[str, Any]) -> None:
    """End as the command does."""
    from etl.cli import main as nextlong

    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for place, screen in enumerate(request["screens"], 1):
        os.dup2(os.open(screen, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), place)
    for each, limit in request["limits"]:
        resource.setrlimit(each, limit)
    sys.modules["__main__"].__spec__ = importlib.util.find_spec("etl.cli")  # what worker processes import
    sys.argv = ["nextlong", *request["arguments"]]
    sys.exit(nextlong(request["arguments"]))


if __name__ == "__main__":
    main()
