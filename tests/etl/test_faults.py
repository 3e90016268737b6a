"""Whatever is killed, damaged or started twice: one clear report, and a rerun ends with the undisturbed bytes."""

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from etl import pipeline
from etl.engine import Engine
from etl.lock import locked
from etl.parts import MARKER, discard, written_aside
from etl.recipe import Recipe, resolved_yaml
from etl.verify import damaged_files
from etl.work import FOLDERS, RECIPE_FILE, STAGES, Work, clean
from nextlong.errors import UserError
from tests.etl.test_cli import nextlong
from tests.etl.test_pipeline import data_files, run
from tests.processes import Run, frozen

MakeRecipe = Callable[..., Recipe]


@pytest.fixture
def undisturbed(make_recipe: MakeRecipe) -> dict[str, str]:
    return data_files(run(make_recipe("undisturbed"))[0])


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


_DATA = {"read": "*.parquet", "chunk": "*.tokens", "embed": "*.npy", "index": "*.faiss", "mine": "*.parquet"}


@pytest.mark.parametrize("spoil", [_flip, _truncate, Path.unlink], ids=["flipped bit", "truncated", "gone"])
def test_a_damaged_file_is_found_before_use_and_made_again(
    make_recipe: MakeRecipe,
    undisturbed: dict[str, str],
    spoil: Callable[[Path], object],
    caplog: pytest.LogCaptureFixture,
) -> None:
    work, _ = run(make_recipe())
    for stage, pattern in _DATA.items():
        victim = sorted((work.path / FOLDERS[stage]).glob(pattern))[-1]
        spoil(victim)
        later = STAGES[STAGES.index(stage) + 1]
        readers = [later, "interleave"] if stage == "mine" else [later]
        for reader in readers:
            work[reader].reopen()
            for marker in work[reader].path.glob(f"*{MARKER}"):
                marker.unlink()
        caplog.clear()
        assert damaged_files(work[stage], Engine()) == [victim.name], stage
        pipeline.run(pipeline.start(make_recipe()), Engine())
        assert f"{victim.name} is not as written" in caplog.text
        assert not damaged_files(work[stage], Engine())
        assert data_files(work) == undisturbed, stage


def test_a_damaged_part_of_an_unfinished_stage_is_made_again(
    make_recipe: MakeRecipe, undisturbed: dict[str, str]
) -> None:
    work, _ = run(make_recipe())
    for stage in ("embed", "mine", "interleave"):
        _flip(sorted((work.path / FOLDERS[stage]).glob("part-*[0-9].[np]*"))[0])
        work[stage].reopen()
    pipeline.run(pipeline.start(make_recipe()), Engine())
    found = data_files(work)
    assert {name for name in undisturbed if found.get(name) != undisturbed[name]} == set()
    assert found == undisturbed


def test_a_finished_run_reads_nothing_again(make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch) -> None:
    work, _ = run(make_recipe())
    _flip(work.path / "2-chunks" / "part-00000.tokens")

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a finished run compared checksums")

    monkeypatch.setattr(Engine, "map", refuse)
    pipeline.run(pipeline.start(make_recipe()), Engine())


def test_a_second_run_in_one_folder_is_refused_and_a_dead_one_is_no_obstacle(
    make_recipe: MakeRecipe, tmp_path: Path, undisturbed: dict[str, str]
) -> None:
    recipe_file = tmp_path / "recipe.yaml"
    recipe_file.write_text(resolved_yaml(make_recipe()))
    first = Run(recipe_file, "--workers", 0)
    first.until(lambda: first.has_begun, "the first stage")
    with frozen(first.process.pid):
        for arguments in (["run", recipe_file, "--workers", 0], ["clean", tmp_path / "work"]):
            refused = nextlong(*arguments, status=2)
            assert f"another run is at work in {tmp_path / 'work'}: process {first.process.pid} of " in refused.stderr
        first.process.kill()
    first.process.wait()
    assert (tmp_path / "work" / "run.lock").exists()
    nextlong("run", recipe_file, "--workers", 0)
    assert data_files(Work.open(tmp_path / "work")) == undisturbed
    assert not (tmp_path / "work" / "run.owner").exists()


@pytest.mark.parametrize("left", [["run.lock"], ["run.lock", "run.owner", f"{RECIPE_FILE}.0.tmp"]])
def test_a_run_is_taken_up_that_was_killed_before_it_wrote_its_recipe(
    make_recipe: MakeRecipe, tmp_path: Path, left: list[str]
) -> None:
    (tmp_path / "work").mkdir()
    for name in left:
        (tmp_path / "work" / name).touch()
    work = pipeline.start(make_recipe()).work
    assert sorted(path.name for path in work.path.iterdir()) == [RECIPE_FILE, "run.lock"]


def test_a_second_run_is_refused_while_the_first_has_not_written_its_recipe(
    make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    (tmp_path / "work").mkdir()
    with locked(tmp_path / "work"), pytest.raises(UserError, match=f"another run is at work .*: process {os.getpid()}"):
        pipeline.start(make_recipe())


def test_a_killed_worker_and_then_a_killed_command_leave_the_same_bytes(
    make_recipe: MakeRecipe, tmp_path: Path, undisturbed: dict[str, str]
) -> None:
    """In one stage each; tests/soak does it in all of them."""
    recipe_file = tmp_path / "recipe.yaml"
    recipe_file.write_text(resolved_yaml(make_recipe()))
    run_ = Run(recipe_file, "--workers", 2)
    run_.reach("chunk")
    victim = run_.workers()[0]
    with frozen(victim.pid):
        assert run_.is_at("chunk")
        victim.kill()
    run_.reach("mine")
    workers = run_.workers()
    with frozen(run_.process.pid):
        assert run_.is_at("mine")
        run_.process.kill()
    run_.process.wait()
    assert not psutil.wait_procs(workers, timeout=30)[1], "workers outlive the command"
    Run(recipe_file, "--workers", 2).wait()
    assert data_files(Work.open(tmp_path / "work")) == undisturbed


def test_two_that_write_one_file_at_once_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "part-00000.npy"
    with written_aside(path) as first, written_aside(path) as second:
        first.write_bytes(b"first")
        second.write_bytes(b"second")
    assert path.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [path]


def test_half_written_files_and_folders_are_cleared(make_recipe: MakeRecipe) -> None:
    work, _ = run(make_recipe(mining={"retrieval": "bm25", "near_duplicate_similarity": None}))
    half = work.path / "4-index" / "bm25.0123.tmp"
    half.mkdir()
    (half / "words.npy").write_bytes(b"half")
    (work.path / "3-embeddings" / "part-00000.npy.0123.tmp").write_bytes(b"half")
    pipeline.start(make_recipe(mining={"retrieval": "bm25", "near_duplicate_similarity": None}))
    assert not list(work.path.rglob("*.tmp"))
    assert list((work.path / "4-index" / "bm25").iterdir())


def test_many_may_delete_one_folder_at_once(tmp_path: Path) -> None:
    for folder in (tmp_path / "leftover", tmp_path / "leftover" / "inner"):
        folder.mkdir()
        for number in range(500):
            (folder / f"{number}.npy").touch()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(discard, [tmp_path / "leftover"] * 4))
    assert list(tmp_path.iterdir()) == []


def test_clean_says_what_it_cannot_delete() -> None:
    with tempfile.TemporaryDirectory() as folder:  # tmp_path is for its owner alone
        work, leftover = Path(folder), Path(folder) / "bm25.0123.tmp"
        (work / RECIPE_FILE).touch()
        leftover.mkdir()
        (leftover / "half").touch()
        work.chmod(0o777)
        leftover.chmod(0o555)
        message = r"bm25\.0123\.tmp cannot be deleted \(PermissionError: .*half.*\)\. Mend that, or delete it by hand"
        with _unprivileged(), pytest.raises(UserError, match=message):
            clean(work)
        assert (leftover / "half").exists()
        leftover.chmod(0o755)
        assert clean(work) == [leftover]
        assert not leftover.exists()


@contextlib.contextmanager
def _unprivileged() -> Iterator[None]:
    """Root, who may delete everything, is somebody else in the block."""
    before = os.geteuid()
    os.seteuid(before or 65_534)
    try:
        yield
    finally:
        os.seteuid(before)


def test_a_lock_is_free_after_its_block_and_after_an_error(tmp_path: Path) -> None:
    def fail() -> None:
        with locked(tmp_path):
            with pytest.raises(UserError, match="another run is at work"), locked(tmp_path):
                raise AssertionError("two held one lock")
            raise ZeroDivisionError

    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            fail()
