"""Clusters named by a recipe, and the examination of workers: one sentence before work, never a failure hours later."""

import contextlib
import dataclasses
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from etl import engine as engine_module
from etl import preflight
from etl.cluster import Cluster, started
from etl.connect import local_engine, scheduler_engine, started_engine
from etl.engine import Engine, StageFailed
from etl.parts import MARKER, Part, PartResult
from etl.preflight import check_workers
from etl.recipe import Recipe, load_recipe, resolved_yaml
from nextlong.errors import UserError
from tests.etl.test_cli import nextlong
from tests.etl.test_pipeline import data_files, run
from tests.marks import in_soak
from tests.processes import ByHand, frozen, until

MakeRecipe = Callable[..., Recipe]
LOCAL = {"n_workers": 1, "threads_per_worker": 1, "memory_limit": 0, "dashboard_address": ":0"}


def test_a_recipes_cluster_gives_the_bytes_of_one_process(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    alone, _ = run(make_recipe("alone"))
    recipe = dataclasses.replace(make_recipe(), cluster=Cluster(kind="LocalCluster", options=LOCAL, workers=2))
    section = yaml.safe_dump({"cluster": dataclasses.asdict(recipe.cluster)})
    (tmp_path / "recipe.yaml").write_text(resolved_yaml(recipe) + section)
    assert load_recipe(str(tmp_path / "recipe.yaml")) == recipe
    ran = nextlong("run", tmp_path / "recipe.yaml")
    assert "workers have the packages, the files and the folder" in (tmp_path / "work" / "run.log").read_text()
    assert "META 1 of" in ran.stdout
    from etl.work import Work

    assert data_files(Work.open(tmp_path / "work")) == data_files(alone)


def test_a_scheduler_that_runs_already_gives_them_too(make_recipe: MakeRecipe) -> None:
    alone, _ = run(make_recipe("alone"))
    cluster = Cluster(kind="LocalCluster", options=LOCAL)
    with started(cluster) as running, scheduler_engine(running.scheduler_address) as engine:
        work, _ = run(make_recipe(), engine)
    assert data_files(work) == data_files(alone)


@pytest.mark.parametrize(
    ("greeting", "message"),
    [
        (b"SSH-2.0-OpenSSH\r\n", "another kind of server listens there"),
        pytest.param(b"", "what listens there does not understand Dask", marks=pytest.mark.long),
    ],
)
def test_another_server_at_the_schedulers_port_is_told(greeting: bytes, message: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):  # until it is closed
                while True:
                    held.append(server.accept()[0])
                    held[-1].sendall(greeting)

        held: list[socket.socket] = []
        threading.Thread(target=serve, daemon=True).start()
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(UserError, match=rf"no Dask scheduler answers at {address} \({message}\)"):  # noqa: SIM117
            with scheduler_engine(address):
                raise AssertionError("it answered")
        assert held
        server.shutdown(socket.SHUT_RDWR)
        for connection in held:
            connection.close()


def test_a_workers_address_is_no_schedulers() -> None:
    with started(Cluster(kind="LocalCluster", options=LOCAL)) as running:
        running.wait_for_workers(1)
        [worker] = running.scheduler_info["workers"]
        message = rf"at {worker} \(it is the address of a worker\)"
        with pytest.raises(UserError, match=message), scheduler_engine(worker):
            raise AssertionError("it answered")


@pytest.mark.parametrize(
    ("cluster", "message"),
    [
        (Cluster(kind="KubeCluster"), r"cluster\.kind is KubeCluster, but its package is not installed"),
        (Cluster(kind="LocalCUDACluster"), "pip install dask-cuda"),
        (Cluster(kind="LocalCluster", options={"n_wrkers": 2}), r"the cluster did not start: LocalCluster\(n_wrkers\)"),
    ],
    ids=str,
)
def test_a_cluster_that_cannot_start_is_told(cluster: Cluster, message: str) -> None:
    with pytest.raises(UserError, match=message), started(cluster):
        raise AssertionError("it started")


def test_only_kinds_that_are_listed_can_be_named() -> None:
    with pytest.raises(
        UserError, match=r"cluster\.kind is 'os\.system', but it must be one of LocalCluster, SSHCluster"
    ):
        Cluster(kind="os.system")  # type: ignore[arg-type]


def test_values_of_options_are_not_told() -> None:
    with pytest.raises(UserError) as error, started(Cluster(kind="LocalCluster", options={"password": "s3cret"})):
        raise AssertionError("it started")
    assert "password" in str(error.value)
    assert "s3cret" not in str(error.value)


@pytest.fixture(scope="module")
def limited() -> Iterator[Engine]:
    """A worker that Dask would pause, and then kill, for the pages that it maps."""
    options = LOCAL | {"memory_limit": "4 GiB"}
    from distributed import Client, LocalCluster

    with LocalCluster(**options) as cluster, Client(cluster) as client:
        yield Engine(client)


def test_a_worker_that_would_be_paused_for_mapped_pages_is_refused(limited: Engine, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"Dask would pause or kill it at 3\.2 GiB.*--memory-limit 0"):
        check_workers(limited.client, tmp_path, [], wait_seconds=60)


def test_workers_see_what_is_there_and_not_what_is_not(two_workers: Engine, tmp_path: Path) -> None:
    check_workers(two_workers.client, tmp_path, [tmp_path], wait_seconds=60)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match=r"worker tcp.* cannot take part: it does not see .*nowhere"):
        check_workers(two_workers.client, tmp_path, [tmp_path / "nowhere"], wait_seconds=60)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (ModuleNotFoundError("No module named 'etl'"), "cannot load this package.*pip install nextlong"),
        ({"python": "3.9"}, r"it runs Python 3\.9"),
        ({"packages": {"pyarrow": "1.0"}}, r"it has pyarrow 1\.0, and this process .*pip install pyarrow=="),
        ({"packages": {"tokenizers": None}}, r"it has tokenizers \(none\)"),
        ({"sees_folder": False}, "does not see the work folder"),
        ({"can_write": False}, "may not write to the work folder"),
        ({"free_bytes": 2**20}, "has 1 MiB left"),
        ({"stopped_at_bytes": 2**30}, "Dask would pause or kill it at 1.0 GiB"),
    ],
    ids=str,
)
def test_every_answer_has_its_sentence(answer: Any, message: str, tmp_path: Path) -> None:
    here = preflight.examine(None, [])
    assert preflight.problem_of(here, here, tmp_path) is None
    if isinstance(answer, dict):
        answer = here | answer | {"packages": here["packages"] | answer.get("packages", {})}
    assert re.search(message, preflight.problem_of(answer, here, tmp_path) or "")


def test_a_scheduler_without_workers_is_told(tmp_path: Path) -> None:
    from distributed import Client, LocalCluster

    message = r"has no worker after 1 seconds\. Start some with 'dask worker"
    with LocalCluster(n_workers=0, dashboard_address=":0") as cluster, Client(cluster) as client:  # noqa: SIM117
        with pytest.raises(UserError, match=message):
            check_workers(client, tmp_path, [], wait_seconds=1)


def _pid(_: int) -> int:
    return os.getpid()


def _slow_to_start(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file; while it is there, a Python process that is started waits for 20 s before anything else."""
    (folder / "sitecustomize.py").write_text(
        f"import os, time\ntime.sleep(20 if os.path.exists({str(folder / 'slow')!r}) else 0)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
    return folder / "slow"


@pytest.mark.long
def test_a_local_worker_that_dies_is_replaced_however_long_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = _slow_to_start(tmp_path, monkeypatch)
    with local_engine(1) as engine:
        before = engine.map(_pid, [0], doing="look", unit="task")
        slow.touch()
        os.kill(before[0], signal.SIGKILL)
        time.sleep(18)  # Dask's own patience is 15 s
        assert engine.map(_pid, [0], doing="look", unit="task") != before


def test_local_workers_that_nothing_replaces_are_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(engine_module, "_PATIENCE_SECONDS", 0.2)
    with local_engine(1) as engine:
        client = engine.client
        assert client is not None
        client.retire_workers([*client.nthreads()])
        until(lambda: not client.nthreads(), "no worker")
        parts = [Part(folder=tmp_path, name="part-0", fingerprint="f", function=_where, arguments={})]
        with pytest.raises(StageFailed, match=r"worker processes of this command have ended.*run the same command"):
            engine.run(parts, doing="embed", unit="part")
    assert caplog.text.count("there is no worker: waiting for one") == 9


def _where(folder: Path, name: str) -> PartResult:
    from distributed import get_worker

    (folder / f"begun-{name}").touch()
    until(lambda: len([*folder.glob("begun-*")]) > 1, "another part at the same time")
    return PartResult(values={"worker": str(get_worker().name)})


def test_parts_that_ask_for_a_gpu_run_where_there_is_one_as_many_as_it_says(tmp_path: Path) -> None:
    from distributed import Client, Nanny, Scheduler, SpecCluster

    workers = {
        "cpu": {"cls": Nanny, "options": {"nthreads": 1, "memory_limit": 0}},
        "gpu": {"cls": Nanny, "options": {"nthreads": 2, "memory_limit": 0, "resources": {"GPU": 2}}},
    }
    scheduler = {"cls": Scheduler, "options": {"dashboard_address": ":0"}}
    with SpecCluster(workers=workers, scheduler=scheduler) as cluster, Client(cluster) as client:
        client.wait_for_workers(2)
        parts = [
            Part(folder=tmp_path, name=f"part-{n}", fingerprint="f", function=_where, arguments={}) for n in range(6)
        ]
        markers = Engine(client).run(parts, doing="embed", unit="part", resource="GPU")
        assert {marker["values"]["worker"] for marker in markers} == {"gpu"}


def _wait_for_others(folder: Path, name: str) -> PartResult:
    """Three end at once, the next four when `joined` is there, the others when six of these have begun."""
    (folder / f"begun-{name}").touch()
    num_begun, deadline = 0, time.monotonic() + 20
    while name > "part-02" and num_begun < 6 and time.monotonic() < deadline:
        time.sleep(0.01)
        num_begun = sum(path.name > "begun-part-06" for path in folder.glob("begun-*"))
        if name < "part-07" and (folder / "joined").exists():
            break
    return PartResult(values={"num_begun": num_begun})


def test_workers_that_come_later_get_work_at_once(tmp_path: Path) -> None:
    """Four parts are with the scheduler while there is one thread."""
    with ByHand(tmp_path) as cluster, ThreadPoolExecutor(1) as pool:
        cluster.add_worker()
        cluster.has_workers(1)
        with scheduler_engine(cluster.address) as engine:
            given: dict[str, Any] = {"fingerprint": "f", "function": _wait_for_others, "arguments": {}}
            parts = [Part(folder=tmp_path, name=f"part-{number:02d}", **given) for number in range(20)]
            ran = pool.submit(engine.run, parts, doing="wait", unit="part")
            until((tmp_path / f"part-02{MARKER}").exists, "the first parts")
            cluster.add_worker(threads=8)
            cluster.has_workers(2)
            (tmp_path / "joined").touch()
            markers = ran.result(200)
    assert all(marker["values"]["num_begun"] >= 6 for marker in markers[7:])


def _say_nothing_more(folder: Path, name: str) -> PartResult:
    """Dask sends messages by the clock: what is left to send when it is set back by a day waits for a day."""
    from distributed import get_worker

    get_worker().batched_stream.next_deadline = time.time() + 86_400
    return PartResult(rows=7)


def test_a_part_is_found_though_its_worker_does_not_tell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(engine_module, "_PATIENCE_SECONDS", 1)
    with ByHand(tmp_path) as cluster:
        cluster.add_worker()
        cluster.has_workers(1)
        with scheduler_engine(cluster.address) as engine:
            given: dict[str, Any] = {"fingerprint": "f", "function": _say_nothing_more, "arguments": {}}
            parts = [Part(folder=tmp_path, name=f"part-{number:02d}", **given) for number in range(3)]
            markers = engine.run(parts, doing="wait", unit="part")
    assert [(marker["part"], marker["rows"]) for marker in markers] == [(part.name, 7) for part in parts]
    assert "tasks are done, but their workers did not say so" in caplog.text


def _silence(*streams: Any) -> None:
    """They send once more, and then for a day what is left to send waits."""
    for stream in streams:
        stream.interval = 86_400


def _silence_worker(dask_worker: Any) -> None:
    _silence(dask_worker.batched_stream)


def _silence_to_workers(dask_scheduler: Any) -> None:
    _silence(*dask_scheduler.stream_comms.values())


def _silence_to_clients(dask_scheduler: Any) -> None:
    _silence(*dask_scheduler.client_comms.values())


_SILENCED: dict[str, Callable[[Any], object]] = {
    "worker to scheduler": lambda client: client.run(_silence_worker),
    "scheduler to worker": lambda client: client.run_on_scheduler(_silence_to_workers),
    "client to scheduler": lambda client: _silence(client.scheduler_comm),
    "scheduler to client": lambda client: client.run_on_scheduler(_silence_to_clients),
}


first, *others = _SILENCED


@pytest.mark.parametrize("silenced", [first, *in_soak(*others)])
def test_a_run_whose_workers_work_on_nothing_ends_in_a_sentence(
    silenced: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "_PATIENCE_SECONDS", 1)
    with ByHand(tmp_path) as cluster:
        cluster.add_worker()
        cluster.has_workers(1)
        with scheduler_engine(cluster.address) as engine:
            _SILENCED[silenced](engine.client)
            with pytest.raises(StageFailed, match=r"no worker works on the \d tasks that were given to the scheduler"):
                engine.map(str, range(20), doing="count", unit="number")


def _wait(folder: str) -> str:
    """Tell that it has begun, and wait for the word that it may end."""
    (Path(folder) / "begun").touch()
    until((Path(folder) / "may-end").exists, "the end")
    return "done"


@pytest.mark.parametrize(
    "doing", ["its task", *in_soak("nothing, as it stands still", "a task of a command that was killed")]
)
def test_a_worker_that_is_busy_is_waited_for(
    doing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("_PATIENCE_SECONDS", "_ANSWER_SECONDS"):
        monkeypatch.setattr(engine_module, name, 0.5)
    with ByHand(tmp_path) as cluster, ThreadPoolExecutor(1) as pool:
        worker = cluster.add_worker()
        cluster.has_workers(1)
        if doing.startswith("a task"):
            with scheduler_engine(cluster.address) as killed:
                assert killed.client is not None
                killed.client.submit(_wait, str(tmp_path))
                until((tmp_path / "begun").exists, "the task")
        with scheduler_engine(cluster.address) as engine, frozen(*[worker.pid] * doing.startswith("nothing")):
            ran = pool.submit(engine.map, _wait, [str(tmp_path)], doing="wait", unit="part")
            if not doing.startswith("nothing"):
                until((tmp_path / "begun").exists, "the task")  # a fresh worker imports packages first
            with pytest.raises(TimeoutError):  # four looks, or two that get no answer
                ran.result(2.5)
            assert (tmp_path / "begun").exists() != doing.startswith("nothing")
            (tmp_path / "may-end").touch()
            os.kill(worker.pid, signal.SIGCONT)
            assert ran.result(60) == ["done"]


def test_a_started_cluster_ends_with_its_block() -> None:
    with started_engine(Cluster(kind="LocalCluster", options=LOCAL)) as engine:
        assert engine.client is not None
        assert len(engine.client.scheduler_info()["workers"]) == 1
    assert engine.client.status == "closed"
