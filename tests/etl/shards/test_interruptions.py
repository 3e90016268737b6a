"""However a command is interrupted: nothing that opens is left, and run again it ends with the undisturbed bytes."""

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from etl.engine import Engine
from etl.parts import MARKER
from etl.shards.destination import Destination
from etl.shards.of_folder import PackedFolder
from etl.shards.verify import verify
from etl.work import Work
from nextlong.shards.mds import Mds
from nextlong.shards.parquet import Parquet
from tests.conftest import TARGET
from tests.etl.shards.conftest import Pack
from tests.etl.shards.test_export import _export, _hashes
from tests.forked import NEXTLONG
from tests.marks import in_soak
from tests.processes import frozen, is_worker, until

LIMIT_SECONDS = 200


def _interrupted(mode: str, step: int, folder: Path, *command: object) -> list[dict[str, Any]]:
    """A campaign of interruptions; see the program."""
    program = [sys.executable, "-m", "tests.etl.shards.interrupted_at", mode, str(step), str(folder)]
    ran = subprocess.run(
        [*program, *map(str, command), "--workers", "0"],
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        env=os.environ | {"TOKENIZERS_PARALLELISM": "false"},
    )
    assert ran.returncode == 0, ran.stderr
    found = [json.loads(line) for line in ran.stdout.splitlines()]
    assert len(found) >= 3
    return found


@pytest.mark.parametrize(
    ("mode", "step"), [("kill", 37), ("full", 41), ("ctrl-c", 43), *in_soak(("kill", 5), ("full", 7), ("ctrl-c", 7))]
)
def test_an_export_interrupted_at_any_operation(work: Work, tmp_path: Path, mode: str, step: int) -> None:
    out = tmp_path / "there" / "out"
    command = ["export", work.path, "--format", "parquet", "--shard-tokens", 5 * TARGET, "--out", out]
    found = _interrupted(mode, step, out.parent, *command)
    assert [each for each in found if each["wrong"]] == []
    statuses = {each["status"] for each in found}
    assert statuses <= {"kill": {-signal.SIGKILL}, "ctrl-c": {130}}.get(mode, {0, 1, 2})
    assert len(statuses - {0}) >= 1


@pytest.mark.long
def test_packing_interrupted_at_any_operation(corpus_file: Path, tokenizer_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "there" / "out"
    packing = ["--tokenizer", tokenizer_file, "--length", 512, "--format", "megatron", "--shard-tokens", 30_000]
    found = _interrupted("kill", 31, out.parent, "pack", corpus_file, *packing, "--out", out)
    assert [each for each in found if each["wrong"]] == []


@pytest.mark.long
def test_mixing_interrupted_at_any_operation(pack: Pack, tmp_path: Path) -> None:
    one, two = pack("one"), pack("two", seed=1)
    out = tmp_path / "there" / "out"
    mixing = ["--proportions", 1, 2, "--format", "mds", "--shard-bytes", 60_000, "--compression", "zstd"]
    found = _interrupted("kill", 41, out.parent, "mix", one.path, two.path, *mixing, "--out", out)
    assert [each for each in found if each["wrong"]] == []
    assert verify(one.path, Engine()).faults == verify(two.path, Engine()).faults == []


@pytest.mark.parametrize("name", ["mds", "parquet", "arrow-small", "megatron"])
def test_files_that_are_cut_short_by_the_disk_leave_nothing(work: Work, tmp_path: Path, name: str) -> None:
    """As a full disk does, in the middle of a write by any library: no file may exceed 8 KiB."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
    try:
        with pytest.raises(Exception, match="File too large"):
            _export(work, tmp_path / "out", name)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert os.listdir(tmp_path) == [".out.partial"]
    _export(work, tmp_path / "out", name)
    _export(work, tmp_path / "undisturbed", name)
    assert _hashes(tmp_path / "out") == _hashes(tmp_path / "undisturbed")
    assert sorted(os.listdir(tmp_path)) == ["out", "undisturbed"]


@pytest.mark.parametrize("format_", [Mds(shard_bytes=20_000), Parquet(shard_tokens=5 * TARGET)], ids=["mds", "parquet"])
def test_a_writer_that_fails_in_one_shard_keeps_the_others(
    work: Work, tmp_path: Path, format_: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "mds-small" if isinstance(format_, Mds) else "parquet-small"
    write, calls = type(format_).write, []

    def failing(self: Any, folder: Path, number: int, *arguments: Any, **options: Any) -> Any:
        calls.append(number)
        if number == 1:
            raise ZeroDivisionError
        return write(self, folder, number, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(type(format_), "write", failing)
        with pytest.raises(RuntimeError, match=r"shard-00001: ZeroDivisionError.*The [0-9]+ finished parts are kept"):
            _export(work, tmp_path / "out", name)
    assert os.listdir(tmp_path) == [".out.partial"]
    assert len(calls) > 2
    calls.clear()

    def counted(self: Any, folder: Path, number: int, *arguments: Any, **options: Any) -> Any:
        calls.append(number)
        return write(self, folder, number, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(type(format_), "write", counted)
        _export(work, tmp_path / "out", name)
    assert calls == [1]
    _export(work, tmp_path / "undisturbed", name)
    assert _hashes(tmp_path / "out") == _hashes(tmp_path / "undisturbed")


def test_a_shard_aside_that_was_damaged_is_made_again(
    work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Destination, "publish", stop)
        with pytest.raises(KeyboardInterrupt):
            _export(work, tmp_path / "out", "mds-small")
    aside = tmp_path / ".out.partial" / "files"
    shards = sorted(aside.glob("*.mds"))
    content = bytearray(shards[0].read_bytes())
    content[-70] ^= 1
    shards[0].write_bytes(content)
    shards[1].unlink()
    os.truncate(aside / "provenance" / "rows-00002.parquet", 10)
    (aside / "provenance" / "rows-00000.parquet.0123.tmp").write_bytes(b"half")
    (aside / "shard.00099.mds").write_bytes(b"of nobody")
    _export(work, tmp_path / "out", "mds-small")
    _export(work, tmp_path / "undisturbed", "mds-small")
    assert _hashes(tmp_path / "out") == _hashes(tmp_path / "undisturbed")


class Packing:
    """A `nextlong pack` of many shards on two workers, in a session of its own."""

    def __init__(self, corpus: Path, tokenizer: Path, out: Path) -> None:
        self.out = out
        options = ["--tokenizer", tokenizer, "--length", 64, "--shard-tokens", 1024, "--out", out, "--workers", 2]
        self._screen = out.with_name(f"{out.name}.txt")
        with open(self._screen, "w") as screen:
            self.process = subprocess.Popen(
                [*NEXTLONG, *map(str, ["pack", corpus, *options])],
                stdout=screen,
                stderr=screen,
                start_new_session=True,
            )

    def reach(self, number: int) -> None:
        """Wait until so many shards are finished."""
        aside = self.out.with_name(f".{self.out.name}.partial") / "files"

        def is_there() -> bool:
            return len(list(aside.glob(f"shard-*{MARKER}"))) >= number or self.process.poll() is not None

        until(is_there, f"{number} shards")
        assert self.process.poll() is None, self.screen

    def workers(self) -> list[psutil.Process]:
        return [child for child in psutil.Process(self.process.pid).children() if is_worker(child)]

    def end(self, status: int) -> None:
        assert self.process.wait(LIMIT_SECONDS) == status, self.screen
        assert "Traceback" not in self.screen

    @property
    def screen(self) -> str:
        return self._screen.read_text()


@pytest.fixture
def undisturbed(pack: Pack) -> dict[str, str]:
    folder = pack(
        "undisturbed", columns={"text": "text"}, length_tokens=64, format_=("parquet", Parquet(shard_tokens=1024))
    )
    return {name: each for name, each in _hashes(folder.path).items() if name not in ("README.md", "manifest.json")}


def _whole(out: Path) -> dict[str, str]:
    assert verify(out, Engine()).faults == []
    assert not out.with_name(f".{out.name}.partial").exists()
    return {name: each for name, each in _hashes(out).items() if name not in ("README.md", "manifest.json")}


def _kill(packing: Packing) -> int:
    """A worker first, in whose place another one is started; then the command."""
    with frozen(packing.workers()[0].pid):
        packing.workers()[0].kill()
    packing.reach(8)
    packing.process.kill()
    return -signal.SIGKILL


def _ctrl_c(packing: Packing) -> int:
    os.killpg(packing.process.pid, signal.SIGINT)
    return 130


@pytest.mark.parametrize("stop", [_kill, *in_soak(_ctrl_c)], ids=["kill", "ctrl-c"])
def test_a_killed_worker_costs_nothing_and_a_stopped_command_goes_on_where_it_was(
    corpus_file: Path,
    tokenizer_file: Path,
    tmp_path: Path,
    undisturbed: dict[str, str],
    stop: Callable[[Packing], int],
) -> None:
    packing = Packing(corpus_file, tokenizer_file, tmp_path / "out")
    packing.reach(3)
    workers = packing.workers()
    packing.end(stop(packing))
    assert not psutil.wait_procs(workers, timeout=30)[1], "workers outlive the command"
    assert not (tmp_path / "out").exists()
    again = Packing(corpus_file, tokenizer_file, tmp_path / "out")
    again.end(0)
    assert "parts are there already" in again.screen
    assert _whole(tmp_path / "out") == undisturbed


def test_two_commands_at_once_make_one_export(
    corpus_file: Path, tokenizer_file: Path, tmp_path: Path, undisturbed: dict[str, str]
) -> None:
    first = Packing(corpus_file, tokenizer_file, tmp_path / "out")
    first.reach(1)
    second = Packing(corpus_file, tokenizer_file, tmp_path / "out")
    assert second.process.wait(LIMIT_SECONDS) in (0, 2)  # refused; or it came when all was there
    assert first.process.wait(LIMIT_SECONDS) == 0
    assert _whole(tmp_path / "out") == undisturbed
    assert len(PackedFolder.open(tmp_path / "out")) == 614
