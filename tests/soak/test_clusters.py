"""Clusters that a recipe starts: over SSH to this machine, and what SLURM would be asked for."""

import getpass
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from distributed import Client

from etl.preflight import check_workers
from tests.processes import Run, free_port, until

Check = Callable[..., None]
DOCS = Path(__file__).parents[2] / "docs" / "cluster.md"


def documented(kind: str) -> dict[str, Any]:
    """The cluster section that docs/cluster.md gives for a kind."""
    blocks = [block.partition("```")[0] for block in DOCS.read_text().split("```yaml\n")[1:]]
    [section] = [yaml.safe_load(block)["cluster"] for block in blocks if f"kind: {kind}" in block]
    return dict(section)


@pytest.fixture
def ssh(tmp_path: Path) -> Iterator[dict[str, Any]]:
    """The connect_options to an SSH server of this user on a port of its own, with keys of its own."""
    pytest.importorskip("asyncssh", reason="SSHCluster needs the package asyncssh: pip install 'nextlong[cluster]'")
    sshd = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
    if sshd is None:
        pytest.skip("SSHCluster needs an SSH server (Debian package openssh-server)")
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / name)], check=True)
    port = free_port()
    (tmp_path / "authorized").write_bytes((tmp_path / "user.pub").read_bytes())
    (tmp_path / "known").write_text(f"[localhost]:{port} {(tmp_path / 'host.pub').read_text()}")
    settings = {
        "ListenAddress": f"127.0.0.1:{port}",
        "HostKey": tmp_path / "host",
        "AuthorizedKeysFile": tmp_path / "authorized",
        "PidFile": tmp_path / "sshd.pid",
        "StrictModes": "no",
        "UsePAM": "no",
        "SetEnv": f"PYTHONPATH={os.environ.get('PYTHONPATH', '')}",
    }
    (tmp_path / "sshd_config").write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
    command = [sshd, "-D", "-e", "-f", str(tmp_path / "sshd_config")]
    if os.getuid() == 0 and not Path("/run/sshd").exists():  # for root it insists on that folder
        seen_by_sshd_alone = 'mount -t tmpfs none /run; mkdir /run/sshd; exec "$@"'
        command = ["unshare", "--mount", "sh", "-c", seen_by_sshd_alone, "", *command]
    with open(tmp_path / "sshd.txt", "w") as screen, subprocess.Popen(command, stderr=screen) as server:
        try:
            said = (tmp_path / "sshd.txt").read_text
            until(lambda: "Server listening" in said() or server.poll() is not None, "sshd")
            if server.poll() is not None:
                pytest.skip(f"the SSH server does not start: {said().strip()}")
            yield {
                "port": port,
                "username": getpass.getuser(),
                "client_keys": [str(tmp_path / "user")],
                "known_hosts": str(tmp_path / "known"),
            }
        finally:
            for process in [*psutil.Process(server.pid).children(recursive=True), server]:
                process.kill()


def test_a_recipes_ssh_cluster_gives_the_bytes_of_one_process(
    recipe_file: Path, ssh: dict[str, Any], check: Check
) -> None:
    """The documented recipe, to this machine."""
    section = documented("SSHCluster")
    here = {"hosts": ["localhost"] * 3, "connect_options": ssh}
    options = section["options"] | here
    options["worker_options"] = options["worker_options"] | {"n_workers": 1}
    del options["remote_python"]
    recipe = yaml.safe_load(recipe_file.read_text())
    recipe_file.write_text(yaml.safe_dump(recipe | {"cluster": section | {"options": options}}))
    run = Run(recipe_file)
    run.wait()
    assert "preflight: 2 workers have the packages, the files and the folder" in run.screen
    check()


def test_an_ssh_host_that_does_not_answer_is_told(recipe_file: Path, ssh: dict[str, Any]) -> None:
    options = {"hosts": ["localhost"] * 2, "connect_options": ssh | {"port": free_port()}}
    recipe = yaml.safe_load(recipe_file.read_text())
    recipe_file.write_text(yaml.safe_dump(recipe | {"cluster": {"kind": "SSHCluster", "options": options}}))
    assert "the cluster did not start: SSHCluster(connect_options, hosts) says " in Run(recipe_file).wait(2)


def test_the_documented_slurm_recipe_asks_for_what_it_says_and_its_workers_are_accepted(tmp_path: Path) -> None:
    """The job script is run as it is, by a shell in place of a queue."""
    jobqueue = pytest.importorskip("dask_jobqueue", reason="SLURMCluster needs dask-jobqueue: 'nextlong[cluster]'")
    options = documented("SLURMCluster")["options"]
    here = {"interface": "lo", "log_directory": str(tmp_path), "local_directory": str(tmp_path)}
    script = tmp_path / "job.sh"
    with jobqueue.SLURMCluster(**options | here) as cluster, Client(cluster) as client:
        script.write_text(cluster.job_script())
        for line in ("-p cpu", "-A my-project", "--cpus-per-task=8", "--mem=60G", "-t 12:00:00"):
            assert f"#SBATCH {line}" in script.read_text()
        with subprocess.Popen(["sh", script], stderr=subprocess.DEVNULL, start_new_session=True) as job:
            try:
                client.wait_for_workers(8, timeout=100)
                check_workers(client, tmp_path, [tmp_path], wait_seconds=60)
                assert set(client.nthreads().values()) == {1}
            finally:
                os.killpg(job.pid, signal.SIGKILL)
