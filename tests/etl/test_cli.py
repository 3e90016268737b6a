"""The command line as a user meets it: real processes, exit codes, and what is on the screen."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from etl.recipe import Recipe, resolved_yaml
from etl.work import Work
from tests import forked
from tests.etl.test_pipeline import data_files, table
from tests.forked import NEXTLONG


@pytest.fixture
def recipe_file(make_recipe: Callable[..., Recipe], tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(resolved_yaml(make_recipe()))
    return path


def nextlong(*arguments: object, status: int = 0) -> subprocess.CompletedProcess[str]:
    ran = forked.run([*map(str, arguments)])
    assert ran.returncode == status, ran.stderr
    assert "Traceback" not in ran.stdout + ran.stderr
    return ran


def refused(*arguments: object) -> str:
    """What a command says that is a mistake, found before any work."""
    ran = forked.here([*map(str, arguments)])
    assert ran.returncode == 2, ran.stderr
    assert ran.stdout == ""
    return ran.stderr


def test_a_run_shows_its_stages_and_a_long_document(recipe_file: Path, tmp_path: Path) -> None:
    ran = nextlong("run", recipe_file, "--workers", 2)
    for stage in ("read", "chunk", "embed", "index", "mine", "interleave", "pack"):
        assert f"\n{stage}" in "\n" + ran.stdout
    assert "1 exact_copy" in ran.stdout
    assert "META 1 of" in ran.stdout
    assert "byte-level BPE" in ran.stderr
    assert (tmp_path / "work" / "summary.json").is_file()
    assert "read: 116 rows" in (tmp_path / "work" / "run.log").read_text()
    again = nextlong("run", recipe_file, "--workers", 0)
    assert again.stdout == ran.stdout
    peeked = nextlong("peek", tmp_path / "work")
    assert peeked.stdout == ran.stdout
    last = table(Work.open(tmp_path / "work"), "interleave")["sample_id"].to_pylist()[-1]
    assert f"Long document {last}:" in nextlong("peek", tmp_path / "work", "--sample", last).stdout
    nextlong("peek", tmp_path / "work", "--sample", 10**6, status=2)


@pytest.mark.long
def test_a_dry_run_writes_nothing(recipe_file: Path, tmp_path: Path) -> None:
    ran = nextlong("run", recipe_file, "--dry-run", "--workers", 2)
    for word in ("input", "chunks", "disk", "time", "Nothing was written"):
        assert word in ran.stdout
    assert not (tmp_path / "work").exists()


def test_one_stage_at_a_time(recipe_file: Path, tmp_path: Path) -> None:
    assert "needs the stage 'read'" in nextlong("run", recipe_file, "--only", "chunk", "--workers", 0, status=2).stderr
    nextlong("run", recipe_file, "--only", "read", "--workers", 0)
    assert (tmp_path / "work" / "1-documents" / "manifest.json").is_file()
    assert not (tmp_path / "work" / "2-chunks").exists()


def test_another_recipe_is_refused_with_the_command_that_works(recipe_file: Path, tmp_path: Path) -> None:
    nextlong("run", recipe_file, "--workers", 0)
    said = nextlong("run", recipe_file, "--workers", 0, "--synthesis.position", "tail", status=2).stderr
    command = said.split("run: nextlong ")[1].strip().split()
    assert 'position was "head", is "tail"' in said
    made = nextlong(*command, "--workers", 0)
    assert "reused from" in made.stderr
    assert (tmp_path / "work-2" / "7-packed" / "manifest.json").is_file()


def test_clean_deletes_what_it_says(recipe_file: Path, tmp_path: Path) -> None:
    nextlong("run", recipe_file, "--workers", 0)
    leftover = tmp_path / "work" / "3-embeddings" / "part-00000.npy.123.tmp"
    leftover.write_text("half")
    assert str(leftover) in nextlong("clean", tmp_path / "work").stdout
    assert not leftover.exists()
    nextlong("clean", tmp_path / "work", "--from", "mine")
    assert sorted(path.name for path in (tmp_path / "work").iterdir() if path.is_dir()) == [
        "1-documents", "2-chunks", "3-embeddings", "4-index",
    ]  # fmt: skip
    assert "is no work folder" in nextlong("clean", tmp_path, status=2).stderr


def test_mistakes_end_in_one_sentence(recipe_file: Path) -> None:
    for arguments, sentence in [
        (["run", "none.yaml"], "there is no such file"),
        (["run", recipe_file, "--synthesis.sed", "1"], "synthesis.sed"),
        (["run", recipe_file, "--workers", "-1"], "--workers is -1"),
        (["run", recipe_file, "--scheduler", "tcp://127.0.0.1:9"], "no Dask scheduler answers at tcp://127.0.0.1:9"),
        (["run"], "needs a RECIPE.yaml"),
        (["run", recipe_file, "--synthesis.strategy", "nxtlong"], "one of nextlong, standard, knn, iclm, quest."),
        (["run", recipe_file, "--synthesis.negatives", "best"], "one of top, random, random_candidates, tail, se"),
        (["run", recipe_file, "--mining.retrieval", "faiss"], "mining.retrieval is faiss, but it must be one of embed"),
        (["run", recipe_file, "--synthesis.target_length_tokens", "64K"], "a whole number or a list of whole numbers."),
        (["run", recipe_file, "--embedding.model", "null"], "embedding.model is not set, but synthesis.strategy=nextl"),
        (["compare", recipe_file, "--strategies", "nextlong", "best"], "among nextlong, nextlong-paper, nextlong-ran"),
        (["compare", recipe_file, "--strategies", "knn", "knn"], "names 'knn' twice"),
        (["compare", recipe_file, "--reuse", "x"], "--reuse"),
        (["peek", "nowhere"], "is no work folder"),
    ]:
        said = refused(*arguments)
        assert sentence in said
        assert said.strip().splitlines()[-1].startswith("nextlong: ")


def test_help_has_an_example_for_every_verb() -> None:
    assert "nextlong demo" in nextlong("--help").stdout
    for verb in ("demo", "run", "plan", "compare", "peek", "clean"):
        text = nextlong(verb, "--help").stdout
        assert f"Example: nextlong {verb}" in text
        assert len(text.splitlines()) < 40
    assert "--synthesis.target_length_tokens" in nextlong("run", "--fields").stdout


def test_help_imports_nothing_heavy() -> None:
    code = """import sys
from etl.cli import main
try: main(['--help'])
except SystemExit: print(sorted(sys.modules))"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = ran.stdout.splitlines()[-1]
    for heavy in ("'numpy'", "'pandas'", "'dask'", "'torch'", "'pyarrow'", "'faiss'"):
        assert heavy not in loaded


def test_ctrl_c_keeps_what_is_done_and_a_rerun_gives_the_same_bytes(
    recipe_file: Path, make_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    whole = tmp_path / "whole.yaml"
    whole.write_text(resolved_yaml(make_recipe("whole")))
    nextlong("run", whole, "--workers", 0)
    process = subprocess.Popen(
        [*NEXTLONG, "run", str(recipe_file), "--workers", "2"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not (tmp_path / "work" / "2-chunks" / "stage.json").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: every process of the job gets it
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert "run the same command again" in errors
    assert (tmp_path / "work" / "1-documents" / "manifest.json").is_file()
    assert not (tmp_path / "work" / "7-packed" / "manifest.json").exists()
    nextlong("run", recipe_file, "--workers", 0)
    assert data_files(Work.open(tmp_path / "work")) == data_files(Work.open(tmp_path / "whole"))


def test_a_full_disk_ends_with_what_to_do_and_a_rerun_finishes(
    recipe_file: Path, make_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    if subprocess.run(["unshare", "--mount", "--map-root-user", "true"], capture_output=True).returncode:
        pytest.skip("this system lets nobody mount a small disk in a name space of their own")
    whole = tmp_path / "whole.yaml"
    whole.write_text(resolved_yaml(make_recipe("whole")))
    nextlong("run", whole, "--workers", 0)
    run = " ".join([*NEXTLONG, "run", str(recipe_file), "--workers", "0"])
    disk = tmp_path / "work"
    disk.mkdir()
    script = f"""
        mount -t tmpfs -o size=300k tmpfs {disk} || exit 77
        {run}; echo "status $?"
        mount -o remount,size=50m {disk}
        {run} > /dev/null; echo "status $?"
        cp -r {disk} {tmp_path}/saved
    """
    ran = subprocess.run(
        ["unshare", "--mount", "--map-root-user", "sh", "-c", script], capture_output=True, text=True, timeout=200
    )
    if ran.returncode == 77:
        pytest.skip("this system lets nobody mount a small disk in a name space of their own")
    assert "status 1" in ran.stdout
    assert "status 0" in ran.stdout
    assert "the disk is full" in ran.stderr
    assert "run the same command again" in ran.stderr
    assert "Traceback" not in ran.stderr
    assert data_files(Work.open(tmp_path / "saved")) == data_files(Work.open(tmp_path / "whole"))


def test_what_is_no_field_is_named_and_a_fields_value_is_no_recipe(recipe_file: Path, tmp_path: Path) -> None:
    for words in (["run", "--foo", 3], ["run", recipe_file, "--foo=3"], ["plan", "--foo", 3], ["compare", "--foo", 3]):
        assert "--foo is no option and no field of a recipe" in refused(*words)
    nextlong("run", "--output", tmp_path / "other", recipe_file, "--only", "read", "--workers", 0)
    assert (tmp_path / "other" / "1-documents" / "manifest.json").is_file()
    options = "--cluster.options={password: S3CRET}"
    command = ["run", recipe_file, "--output", tmp_path / "other", "--input.part_rows=7", "--cluster.kind=LocalCluster"]
    said = nextlong(*command, options, status=2).stderr
    assert "--cluster.options=... --output" in said
    assert "S3CRET" not in said


def test_too_little_memory_for_the_index_is_told_before_it_is_built(recipe_file: Path, tmp_path: Path) -> None:
    limited = ["sh", "-c", 'ulimit -m 20 && exec "$0" "$@"', *NEXTLONG]
    command = [*limited, "run", str(recipe_file), "--workers", "0"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert ran.returncode == 2
    assert (
        "nextlong: index.factory Flat needs 0.00 GB of memory a worker to build shards" in ran.stderr.splitlines()[-1]
    )
    assert not list((tmp_path / "work" / "4-index").glob("*.faiss"))
