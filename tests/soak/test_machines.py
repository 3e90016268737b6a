"""Machines that are not as they should be: a full disk, a clock that jumps, other packages, a second run."""

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from etl.work import FOLDERS, STAGES
from tests.processes import ByHand, Run, frozen

Check = Callable[..., None]
_DISK = "1100m"  # a run is refused on a disk with less than 1 GiB left


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own, mounted where no other process looks, and seen through the one that mounted it."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = f'mount -t tmpfs -o size={_DISK} none "$1" && echo ready && exec sleep 1000'
    command = ["unshare", "--map-root-user", "--mount", "sh", "-c", mount, "sh", str(folder)]
    if shutil.which("unshare") is None:
        pytest.skip("a small disk is mounted with 'unshare' (Debian package util-linux), which is not here")
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stderr is not None
        try:
            if holder.stdout.readline() != "ready\n":
                pytest.skip(f"a small disk needs root or user namespaces: {holder.stderr.read().strip()}")
            yield Path(f"/proc/{holder.pid}/root{folder}")
        finally:
            holder.kill()


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("stage", STAGES)
def test_the_disk_fills_up_and_is_emptied(
    stage: str, workers: int, recipe_file: Path, small_disk: Path, check: Check
) -> None:
    work = small_disk / "work"
    recipe_file.write_text(yaml.safe_dump(yaml.safe_load(recipe_file.read_text()) | {"output": str(work)}))
    run = Run(recipe_file, "--workers", workers)
    run.until((work / FOLDERS[stage] / "stage.json").exists, stage)
    with frozen(run.process.pid, *[worker.pid for worker in run.workers()]):
        assert run.is_at(stage)
        _fill(small_disk)
    screen = run.wait(1)
    last = screen.splitlines()[-1]
    assert "the disk is full" in last
    assert "free some space" in last
    assert "run the same command again to go on" in last
    assert not (work / FOLDERS["pack"] / "manifest.json").exists()
    (small_disk / "filler").unlink()
    Run(recipe_file, "--workers", workers).wait()
    check(work)


def _fill(disk: Path) -> None:
    with open(disk / "filler", "wb") as file:
        while free := os.statvfs(disk).f_bavail:
            size = os.fstat(file.fileno()).st_size
            with contextlib.suppress(OSError):  # the run took some of it meanwhile
                os.posix_fallocate(file.fileno(), size, free * os.statvfs(disk).f_frsize)


def _faketime(moment: Path) -> dict[str, str]:
    """The environment of a process whose clock is off by what the file says."""
    libraries = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    if not libraries:
        pytest.skip("a clock that jumps needs libfaketime (Debian package faketime)")
    moment.write_text("+0")
    return {
        "LD_PRELOAD": str(libraries[0]),
        "FAKETIME_TIMESTAMP_FILE": str(moment),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }


def _jump(run: Run, moment: Path) -> None:
    """By a day forwards, by two backwards, which may end the run, and to the right time."""
    for stage, offset in (("chunk", "+86400"), ("mine", "-86400"), ("interleave", "+0")):
        run.reach(stage, may_end=offset == "+0")
        moment.write_text(offset)


def test_the_clock_of_the_machine_jumps_by_a_day(recipe_file: Path, tmp_path: Path, check: Check) -> None:
    env = _faketime(tmp_path / "moment")
    run = Run(recipe_file, "--workers", 2, env=env)
    _jump(run, tmp_path / "moment")
    screen = run.wait(None)
    if run.process.returncode:  # a message of Dask was about to leave at that moment
        assert "messages of Dask are lost, or wait for a clock that was set back" in screen
        Run(recipe_file, "--workers", 2).wait()
    days = {line[:10] for line in (run.work / "run.log").read_text().splitlines() if line[:2] == "20"}
    assert len(days) >= 3  # the clock did jump
    check()


def test_the_clocks_of_the_workers_jump_by_a_day(recipe_file: Path, tmp_path: Path, check: Check) -> None:
    env = _faketime(tmp_path / "moment")
    with ByHand(tmp_path) as cluster:
        for _ in range(2):
            cluster.add_worker(env=env)
        run = Run(recipe_file, "--scheduler", cluster.address)
        _jump(run, tmp_path / "moment")
        run.wait()
    check()


@pytest.mark.parametrize("package", ["tokenizers", "faiss-cpu", "nextlong"])
def test_a_worker_with_another_package_version_is_refused(package: str, recipe_file: Path, tmp_path: Path) -> None:
    older = tmp_path / "older"
    metadata = older / f"{package.replace('-', '_')}-0.0.1.dist-info" / "METADATA"
    metadata.parent.mkdir(parents=True)
    metadata.write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 0.0.1\n")
    path = os.pathsep.join([str(older), *filter(None, [os.environ.get("PYTHONPATH")])])
    with ByHand(tmp_path) as cluster:
        cluster.add_worker()
        # the folder it is started in, where a checkout says which version it is, must not come first
        cluster.add_worker(env={"PYTHONPATH": path, "PYTHONSAFEPATH": "1"})
        cluster.has_workers(2)
        screen = Run(recipe_file, "--scheduler", cluster.address).wait(2)
    assert f"cannot take part: it has {package} 0.0.1, and this process " in screen
    assert f"pip install {package}==" in screen
    assert not (tmp_path / "work" / FOLDERS["read"]).exists()


def test_of_two_runs_that_start_at_once_one_is_refused(recipe_file: Path, tmp_path: Path, check: Check) -> None:
    (tmp_path / "second").mkdir()
    second_file = Path(shutil.copy(recipe_file, tmp_path / "second"))
    with ByHand(tmp_path) as cluster:
        for _ in range(2):
            cluster.add_worker()
        cluster.has_workers(2)
        runs = [Run(file, "--scheduler", cluster.address) for file in (recipe_file, second_file)]
        screens = [run.wait(None) for run in runs]
    refused, done = sorted(range(2), key=lambda place: -runs[place].process.returncode)
    assert [runs[place].process.returncode for place in (refused, done)] == [2, 0]
    assert f"another run is at work in {tmp_path / 'work'}" in screens[refused]
    check()


def test_the_folder_of_a_killed_run_is_free(recipe_file: Path, check: Check) -> None:
    run = Run(recipe_file, "--workers", 2)
    run.reach("mine")
    refused = Run(recipe_file, "--workers", 2).wait(2)
    assert f"another run is at work in {run.work}: process {run.process.pid} of " in refused
    run.process.kill()
    run.process.wait()
    assert (run.work / "run.owner").exists()
    time.sleep(1)
    Run(recipe_file, "--workers", 2).wait()
    check()
