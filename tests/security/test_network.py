"""Schedulers over TLS with certificates made here, and ports that listen on this machine alone, by their sockets."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

from etl.cluster import Cluster, started
from etl.connect import started_engine
from etl.recipe import resolved_yaml
from nextlong.errors import UserError
from tests.etl.test_pipeline import data_files, run
from tests.forked import NEXTLONG
from tests.marks import in_soak
from tests.security.test_folders import MakeRecipe

LOCAL = {"n_workers": 2, "threads_per_worker": 1, "memory_limit": 0}
ROOT = Path(__file__).parent.parent.parent
DASK = [sys.executable, "-m", "dask"]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Dask's own configuration, as environment variables; of a CA of ours, and (other_...) of one that it knows not."""
    folder = tmp_path_factory.mktemp("certificates")
    for prefix in ("", "other-"):
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(folder / f"{prefix}ca.pem"))
        for role in ("scheduler", "worker", "client"):
            issued = authority.issue_cert("127.0.0.1")
            issued.private_key_and_cert_chain_pem.write_to_path(str(folder / f"{prefix}{role}.pem"))
    return _configured(folder)


def _configured(folder: Path, ca: str = "ca.pem", client: str = "client.pem") -> dict[str, str]:
    tls = "DASK_DISTRIBUTED__COMM__TLS__"
    certificates = {"SCHEDULER": "scheduler.pem", "WORKER": "worker.pem", "CLIENT": client}
    return {f"{tls}CA_FILE": str(folder / ca)} | {
        f"{tls}{role}__CERT": str(folder / name) for role, name in certificates.items()
    }


def _free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


@contextmanager
def _ended(arguments: list[str], environment: dict[str, str]) -> Iterator[None]:
    """A process that ends with the block."""
    process = subprocess.Popen([*DASK, *arguments], env=os.environ | environment, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(60)


@contextmanager
def _cluster(protocol: str, environment: dict[str, str]) -> Iterator[str]:
    """A scheduler and a worker from the command line; the address."""
    address = f"{protocol}://127.0.0.1:{_free_port()}"
    host, port = f"{protocol}://127.0.0.1", address.rpartition(":")[2]
    worker = ["worker", address, "--nthreads", "1", "--memory-limit", "0", "--no-dashboard", "--death-timeout", "60"]
    with ExitStack() as running:
        running.enter_context(
            _ended(["scheduler", "--host", host, "--port", port, "--dashboard-address", "127.0.0.1:0"], environment)
        )
        _wait_for(int(port))
        running.enter_context(_ended(worker, environment))
        yield address


def _wait_for(port: int) -> None:
    while True:
        with socket.socket() as trying:
            if trying.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)


@pytest.fixture(scope="module")
def tls(certificates: dict[str, str]) -> Iterator[str]:
    with _cluster("tls", certificates) as address:
        yield address


@pytest.fixture(scope="module")
def tcp() -> Iterator[str]:
    with _cluster("tcp", {}) as address:
        yield address


def _nextlong(arguments: list[Any], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*NEXTLONG, *map(str, arguments)], env=os.environ | environment, capture_output=True, text=True, timeout=200
    )


@pytest.fixture
def recipe_file(make_recipe: MakeRecipe, tmp_path: Path) -> Path:
    (tmp_path / "recipe.yaml").write_text(resolved_yaml(make_recipe()))
    return tmp_path / "recipe.yaml"


def test_a_run_over_tls_gives_the_bytes_of_one_process(
    tls: str, certificates: dict[str, str], recipe_file: Path, make_recipe: MakeRecipe
) -> None:
    alone, _ = run(make_recipe("alone"))
    ran = _nextlong(["run", recipe_file, "--scheduler", tls], certificates)
    assert ran.returncode == 0, ran.stderr
    assert "preflight: 1 worker has" in ran.stderr
    from etl.work import Work

    assert data_files(Work.open(recipe_file.parent / "work")) == data_files(alone)


@pytest.mark.parametrize(
    "case", ["no certificate", "tcp", *in_soak("another CA", "unknown certificate", "no such file", "tcp refused")]
)
def test_a_client_that_is_not_trusted_is_told(
    tls: str, certificates: dict[str, str], recipe_file: Path, case: str
) -> None:
    folder = Path(certificates["DASK_DISTRIBUTED__COMM__TLS__CA_FILE"]).parent
    environment = {
        "no certificate": {},
        "another CA": _configured(folder, ca="other-ca.pem", client="other-client.pem"),
        "unknown certificate": _configured(folder, client="other-client.pem"),
        "no such file": _configured(folder, client="none.pem"),
        "tcp": certificates,
        "tcp refused": certificates | {"DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION": "True"},
    }[case]
    address = tls.replace("tls", "tcp") if case.startswith("tcp") else tls
    _is_told(_nextlong(["run", recipe_file, "--scheduler", address], environment), address)


def test_a_client_with_certificates_is_told_of_a_scheduler_without(
    tcp: str, certificates: dict[str, str], recipe_file: Path
) -> None:
    address = tcp.replace("tcp", "tls")
    _is_told(_nextlong(["run", recipe_file, "--scheduler", address], certificates), address)


def _is_told(refused: subprocess.CompletedProcess[str], address: str) -> None:
    assert refused.returncode == 2, refused.stderr
    [sentence] = [line for line in refused.stderr.splitlines() if line.startswith("nextlong: ")]
    assert f"no Dask scheduler answers at {address} (" in sentence
    assert f"{address} ()" not in sentence
    is_tls = address.startswith("tls")
    assert ("distributed.comm.tls.ca-file" if is_tls else "started with certificates is at tls://") in sentence
    assert refused.stderr.strip().splitlines()[-1] == sentence
    assert "Traceback" not in refused.stderr


_LISTENING = """
import json, sys
import psutil
from etl.cluster import Cluster
from etl.connect import local_engine, started_engine

if __name__ == "__main__":
    options = json.loads(sys.argv[1])
    engine = local_engine(2) if options is None else started_engine(Cluster(kind="LocalCluster", options=options))
    with engine as running:
        running.client.wait_for_workers(2)
        processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
        sockets = [each for process in processes for each in process.net_connections("inet") if not each.raddr]
        dashboard = running.client.scheduler_info()["services"]["dashboard"]
        print(json.dumps([(each.laddr.ip, each.laddr.port == dashboard) for each in sockets]))
"""


def _listening(options: dict[str, Any] | None, folder: Path) -> list[tuple[str, bool]]:
    """All addresses that a process and its workers listen on; whether each is the dashboard's."""
    (folder / "listening.py").write_text(_LISTENING)
    command = [sys.executable, str(folder / "listening.py"), json.dumps(options)]
    ran = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=100
    )
    assert ran.returncode == 0, ran.stderr
    return [(ip, is_dashboard) for ip, is_dashboard in json.loads(ran.stdout)]


@pytest.mark.parametrize("options", [None, LOCAL], ids=["--workers 2", "LocalCluster"])
def test_local_workers_and_their_dashboard_listen_on_this_machine_alone(
    options: dict[str, Any] | None, tmp_path: Path
) -> None:
    listening = _listening(options, tmp_path)
    assert len(listening) >= 8, "of a scheduler, two nannies, two workers and the dashboard"
    assert ("127.0.0.1", True) in listening
    assert {ip for ip, _ in listening} == {"127.0.0.1"}


def test_a_dashboard_is_open_to_others_where_a_recipe_asks_for_it(tmp_path: Path) -> None:
    listening = _listening(LOCAL | {"dashboard_address": "0.0.0.0:0"}, tmp_path)
    assert [ip for ip, is_dashboard in listening if is_dashboard] == ["0.0.0.0"]
    assert {ip for ip, is_dashboard in listening if not is_dashboard} == {"127.0.0.1"}


def _set(environment: dict[str, str]) -> Any:
    """These environment variables as Dask's configuration of this process."""
    import dask

    prefix = "DASK_DISTRIBUTED__COMM__TLS__"
    names = {name: name.removeprefix(prefix).lower().replace("__", ".").replace("_", "-") for name in environment}
    return dask.config.set({f"distributed.comm.tls.{names[name]}": value for name, value in environment.items()})


@pytest.mark.parametrize(
    "options", [{"protocol": "tls://"}, pytest.param({"security": True}, marks=pytest.mark.long)], ids=str
)
def test_a_recipes_local_cluster_over_tls(
    certificates: dict[str, str], options: dict[str, Any], make_recipe: MakeRecipe
) -> None:
    alone, _ = run(make_recipe("alone"))
    configured = certificates if "protocol" in options else {}
    with _set(configured), started_engine(Cluster(kind="LocalCluster", options=LOCAL | options)) as engine:
        assert engine.client is not None
        workers = list(engine.client.scheduler_info()["workers"])
        assert [address[:6] for address in workers] == ["tls://"] * 2
        work, _ = run(make_recipe(), engine)
    assert data_files(work) == data_files(alone)


def test_a_local_cluster_over_tls_without_certificates_says_what_is_missing() -> None:
    with pytest.raises(UserError, match=r"LocalCluster\(.*protocol.*\) says TypeError: TLS expects a `ssl_context`"):  # noqa: SIM117
        with started(Cluster(kind="LocalCluster", options=LOCAL | {"protocol": "tls://"})):
            raise AssertionError("it started")
