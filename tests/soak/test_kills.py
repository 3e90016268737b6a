"""Whatever is killed or stands still, in whatever stage: the bytes of an undisturbed run."""

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from etl.work import STAGES
from tests.processes import ByHand, Run, frozen, until

Check = Callable[[], None]


@pytest.mark.parametrize("stage", STAGES)
def test_a_worker_is_killed_in_the_middle_of_a_stage(stage: str, recipe_file: Path, check: Check) -> None:
    run = Run(recipe_file, "--workers", 2)
    run.reach(stage)
    victims = run.workers()[: 2 if stage == "pack" else 1]  # one of the two has the one part of pack
    with frozen(*[victim.pid for victim in victims]):  # what they have in hand cannot end before
        time.sleep(0.2)
        assert run.is_at(stage)
        for victim in victims:
            victim.kill()
    run.wait()
    check()


def test_workers_are_killed_twenty_times_at_random(recipe_file: Path, check: Check) -> None:
    rng = random.Random(0)
    run, num_killed = Run(recipe_file, "--workers", 2), 0
    while num_killed < 20:
        time.sleep(rng.uniform(0.1, 2))
        if run.process.poll() is not None:
            run.wait()
            check()
            (recipe_file.parent / "work").rename(recipe_file.parent / f"work-{num_killed}")
            run = Run(recipe_file, "--workers", 2)
        elif run.has_begun and (alive := run.workers()):  # a cluster that cannot even start ends the run
            rng.choice(alive).kill()
            num_killed += 1
    run.wait()
    check()


@pytest.mark.parametrize("stage", STAGES)
def test_the_command_is_killed_in_the_middle_of_a_stage(stage: str, recipe_file: Path, check: Check) -> None:
    run = Run(recipe_file, "--workers", 2)
    run.reach(stage)
    workers = run.workers()
    with frozen(run.process.pid):
        assert run.is_at(stage)
        run.process.kill()
    run.process.wait()
    _, alive = psutil.wait_procs(workers, timeout=30)
    assert not alive, "workers outlive the command"
    Run(recipe_file, "--workers", 2).wait()
    check()


def test_the_command_is_killed_and_its_workers_go_on(recipe_file: Path, check: Check) -> None:
    """Workers of a running scheduler may still write a part while the next run writes it, too."""
    with ByHand(recipe_file.parent) as cluster:
        for _ in range(2):
            cluster.add_worker()
        for stage in STAGES:
            run = Run(recipe_file, "--scheduler", cluster.address)
            run.reach(stage)
            run.process.kill()
            run.process.wait()
        Run(recipe_file, "--scheduler", cluster.address).wait()
    check()


@pytest.mark.parametrize("stage", STAGES)
def test_the_scheduler_is_killed(stage: str, recipe_file: Path, check: Check) -> None:
    with ByHand(recipe_file.parent) as cluster:
        for _ in range(2):
            cluster.add_worker()
        run = Run(recipe_file, "--scheduler", cluster.address)
        run.reach(stage)
        with frozen(*[worker.pid for worker in cluster.workers]):  # so that the stage does not end before
            assert run.is_at(stage)
            cluster.scheduler.kill()
        screen = run.wait(1)
        assert "nextlong: the connection to the Dask scheduler was lost. Finished parts are kept" in screen
        assert "run the same command again" in screen
    with ByHand(recipe_file.parent) as cluster:
        cluster.add_worker()
        Run(recipe_file, "--scheduler", cluster.address).wait()
    check()


def test_all_workers_are_killed_and_the_run_waits_for_another(recipe_file: Path, check: Check) -> None:
    with ByHand(recipe_file.parent) as cluster:
        workers = [cluster.add_worker() for _ in range(2)]
        run = Run(recipe_file, "--scheduler", cluster.address)
        run.reach("mine")
        for worker in workers:
            worker.kill()
            worker.wait()
        cluster.add_worker()
        run.wait()
    check()


def test_a_worker_stands_still_for_a_minute(recipe_file: Path, check: Check) -> None:
    """Shorter than Dask's worker-ttl, 5 minutes: its part waits for it."""
    run = Run(recipe_file, "--workers", 2)
    run.reach("mine")
    with frozen(run.workers()[0].pid):
        time.sleep(60)
        assert run.is_at("mine")
    run.wait()
    check()


def test_a_worker_stands_still_until_it_is_given_up_and_wakes(recipe_file: Path, check: Check) -> None:
    """Longer than worker-ttl, shortened here: another worker makes its part, and both may write it at once."""
    with ByHand(recipe_file.parent, env={"DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "10 s"}) as cluster:
        workers = [cluster.add_worker() for _ in range(2)]
        run = Run(recipe_file, "--scheduler", cluster.address)
        run.reach("mine")
        with frozen(workers[0].pid):
            until(lambda: "Worker failed to heartbeat" in cluster.log, "the scheduler to give the worker up")
            assert run.is_at("mine")
        run.wait()
    check()


def test_ctrl_c_after_a_worker_was_replaced_ends_in_one_sentence(recipe_file: Path, check: Check) -> None:
    run = Run(recipe_file, "--workers", 2)
    run.reach("embed")
    first = {worker.pid for worker in run.workers()}
    os.kill(min(first), signal.SIGKILL)
    run.until(lambda: len({worker.pid for worker in run.workers()} - first) > 0, "the new worker")
    run.reach("mine")
    time.sleep(1)
    os.killpg(run.process.pid, signal.SIGINT)  # as a terminal does
    assert run.wait(130).splitlines()[-1].startswith("nextlong: interrupted; finished parts are kept")
    Run(recipe_file, "--workers", 2).wait()
    check()
