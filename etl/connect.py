"""Where tasks run: an engine on processes of this machine, on a running scheduler, or on the cluster of a recipe."""

import asyncio
import contextlib
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import dask

from etl.cluster import DASHBOARD, LOCAL_KINDS, Cluster, started
from etl.dashboard import tell_address
from etl.engine import Engine
from nextlong.errors import UserError

_ANSWER_SECONDS = 10
# A worker that dies is started again. One that needs longer than this to come back (15 s otherwise) is given up,
# however busy the machine was, and a run that has lost all of them would wait for ever.
_PATIENCE = {"distributed.deploy.lost-worker-timeout": "1 hour"}
_WORKER_SETTINGS = _PATIENCE | {
    # Dask counts memory-mapped pages (the index, the embeddings) as a worker's own and would kill it for them.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.memory.terminate": False,
    # One thread a library: processes are the parallelism.
    "distributed.nanny.pre-spawn-environ.TOKENIZERS_PARALLELISM": "false",
    # Dask has freed memory given back at 64 KiB; arrays that come and go then cost more than twice their computation.
    "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": str(256 * 2**20),
    "distributed.nanny.pre-spawn-environ.MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
}

_LOCAL_SETTINGS = _WORKER_SETTINGS | {
    # A worker that misses a heartbeat while all end would print a traceback on our screen.
    "distributed.nanny.pre-spawn-environ.DASK_LOGGING__DISTRIBUTED": "critical",
    "distributed.worker.preload": [__name__],  # for dask_setup
}


@contextlib.contextmanager
def local_engine(workers: int, *, progress: bool | None = None) -> Iterator[Engine]:
    """An engine on `workers` local processes of one thread each; 0 runs everything in this process."""
    if workers == 0:
        yield Engine(progress=progress)
        return
    from distributed import Client, LocalCluster

    with dask.config.set(_LOCAL_SETTINGS), _interrupts_ignored():
        cluster = LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            memory_limit=0,
            dashboard_address=DASHBOARD,
        )
    with dask.config.set(_PATIENCE), cluster, Client(cluster) as client:
        tell_address(client)
        yield Engine(client, progress=progress, has_own_workers=True)


def dask_setup(_worker: Any) -> None:
    """A local worker process ignores Ctrl-C, which a terminal sends to all of them: the driver ends it."""
    if threading.current_thread() is threading.main_thread():  # else it is a thread of the driver
        signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextlib.contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Processes started meanwhile ignore Ctrl-C from their first moment on; those that replace them, a little later."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def scheduler_engine(address: str, *, progress: bool | None = None) -> Iterator[Engine]:
    """An engine on a running Dask scheduler, whose workers see the same files under the same paths.

    TLS (tls://) is configured as in Dask itself: distributed.comm.tls in its configuration. Raises UserError when none
    answers.
    """
    from distributed import Client

    try:
        _check_scheduler(address)
        client = Client(address, timeout=_ANSWER_SECONDS)
    except Exception as error:  # whatever another server's answer leads to
        raise _no_answer(address, error) from error
    with client:
        tell_address(client)
        yield Engine(client, progress=progress)


def _no_answer(address: str, error: Exception) -> UserError:
    what = f"no Dask scheduler answers at {address} ({_reason(error)})."
    if address.startswith("tls://"):
        return UserError(
            f"{what} Name a CA and a certificate that it trusts in Dask's configuration (distributed.comm.tls.ca-file, "
            f"client.cert, client.key); one that was started without certificates is at tcp://."
        )
    return UserError(
        f"{what} Start one with 'dask scheduler' and workers with 'dask worker {address} --nthreads 1 --memory-limit "
        f"0', or leave --scheduler out to use local workers; one that was started with certificates is at tls://."
    )


def _reason(error: Exception) -> str:
    if isinstance(error, MemoryError):  # the first bytes of another protocol, read as a length
        return "another kind of server listens there"
    if isinstance(error, TimeoutError):
        return "what listens there does not understand Dask"
    return " ".join(str(error).split()) or type(error).__name__


def _check_scheduler(address: str) -> None:
    """Raises for an address where another server listens, for which Dask's client might wait without end."""
    with ThreadPoolExecutor(1) as pool:  # a notebook's own thread has an event loop already
        kind = pool.submit(asyncio.run, _kind_of_server(address)).result()
    if kind != "Scheduler":
        raise ValueError(f"it is the address of a {kind.lower()}")


async def _kind_of_server(address: str) -> str:
    from distributed import Security
    from distributed.comm import connect

    async with asyncio.timeout(_ANSWER_SECONDS):
        comm = await connect(address, timeout=_ANSWER_SECONDS / 2, **Security().get_connection_args("client"))
        try:
            await comm.write({"op": "identity", "reply": True})
            return str((await comm.read())["type"])
        finally:
            comm.abort()


@contextlib.contextmanager
def started_engine(cluster: Cluster, *, progress: bool | None = None) -> Iterator[Engine]:
    """An engine on a cluster that is started for it and ended after it. Raises UserError when it does not start."""
    from distributed import Client

    settings = _LOCAL_SETTINGS if cluster.kind == "LocalCluster" else _WORKER_SETTINGS
    with dask.config.set(settings), contextlib.ExitStack() as running:  # workers may come later, too
        with _interrupts_ignored():
            made = running.enter_context(started(cluster))
        client = running.enter_context(Client(made))
        tell_address(client)
        yield Engine(client, progress=progress, has_own_workers=cluster.kind in LOCAL_KINDS)
