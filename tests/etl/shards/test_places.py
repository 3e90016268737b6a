"""Where an export may go: nothing is written over, nothing is followed, and nothing done is lost."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from etl.engine import Engine
from etl.shards.destination import Destination
from etl.shards.export import export
from etl.shards.of_work import WorkSource
from etl.shards.trace import trace
from etl.shards.verify import verify
from etl.work import Work
from nextlong.errors import UserError
from tests.etl.shards.conftest import Pack
from tests.etl.shards.refusals import refused
from tests.etl.shards.test_export import FORMATS, _export, _hashes


def _occupied(path: Path) -> None:
    path.mkdir()
    (path / ".hidden").write_text("theirs")


def _stage(path: Path) -> None:
    path.mkdir()
    (path / "manifest.json").write_text('{"fingerprint": "0", "stage": "pack"}')


def _garbage(path: Path) -> None:
    path.mkdir()
    (path / "manifest.json").write_bytes(b"\xff\xfe")


def _list(path: Path) -> None:
    path.mkdir()
    (path / "manifest.json").write_text("[]")


def _folder_as_manifest(path: Path) -> None:
    (path / "manifest.json").mkdir(parents=True)


def _linked(path: Path) -> None:
    path.with_name("elsewhere").mkdir()
    path.symlink_to("elsewhere")


def _beside(occupy: Callable[[Path], object]) -> Callable[[Path], object]:
    return lambda path: occupy(path.with_name(f".{path.name}.partial"))


def _file(path: Path) -> None:
    path.write_text("theirs")


PLACES: dict[str, tuple[Callable[[Path], object], str]] = {
    "file": (_file, "out exists and is no export. Nothing is written over it: give another"),
    "hidden": (_occupied, "out exists and is no export"),
    "stage": (_stage, "out exists and is no export"),
    "garbage": (_garbage, "out exists and is no export"),
    "list": (_list, "out exists and is no export"),
    "folder": (_folder_as_manifest, "out exists and is no export"),
    "link": (_linked, "out is a link, and no export is there. Give the folder that it leads to"),
    "dangling": (lambda path: path.symlink_to("nothing"), "out is a link, and no export is there"),
    "file aside": (_beside(_file), r"\.out\.partial cannot be made .*File exists"),
    "folder aside": (_beside(_occupied), r"\.out\.partial is in the way, and no export made it"),
    "link aside": (_beside(_linked), r"\.out\.partial is a link, and is not followed"),
}


@pytest.mark.parametrize(("occupy", "match"), PLACES.values(), ids=PLACES)
def test_what_is_there_is_neither_written_over_nor_followed(
    work: Work, tmp_path: Path, occupy: Callable[[Path], object], match: str
) -> None:
    occupy(tmp_path / "out")
    before = _snapshot(tmp_path)
    refused(lambda: _export(work, tmp_path / "out"), match)
    assert _snapshot(tmp_path) == before


def _snapshot(folder: Path) -> dict[str, str | bytes]:
    return {
        str(path.relative_to(folder)): os.readlink(path) if path.is_symlink() else path.read_bytes()
        for path in folder.rglob("*")
        if path.is_symlink() or path.is_file()
    }


@pytest.mark.parametrize("name", ["\xff" * 130, "n" * 250, "n" * 256, "file/out"], ids=["ÿ", "long", "longer", "file"])
def test_a_place_where_no_folder_can_be(work: Work, tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("theirs")
    refused(lambda: _export(work, tmp_path / name), "cannot be made or looked into .*Give another --out")
    assert _snapshot(tmp_path) == {"file": b"theirs"}


def test_a_parent_that_may_not_be_written(work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    refused(
        lambda: _export(work, tmp_path / "out"), r"\.out\.partial cannot be made or looked into .*Permission denied"
    )


@pytest.mark.parametrize(
    "name", ["two words", "new\nline", "caf\u00e9 \U0001f600", "a/../b", "no/such/parent", "-dash", "'"]
)
def test_odd_names_are_folders_like_others(work: Work, tmp_path: Path, name: str) -> None:
    (tmp_path / "a").mkdir()
    out = tmp_path / name
    _export(work, out, "mds-small")
    assert verify(out, Engine()).faults == []
    assert "row 3" in trace(out, 3)
    assert not list(tmp_path.rglob("*.partial"))


def test_an_empty_folder_is_taken(work: Work, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert len(_export(work, tmp_path / "out")) == 12


def test_a_file_url_is_a_folder(work: Work, tmp_path: Path) -> None:
    export(WorkSource.open(work.path), f"file://{tmp_path}/out", *FORMATS["parquet"], Engine())
    _export(work, tmp_path / "other")
    assert _hashes(tmp_path / "out") == _hashes(tmp_path / "other")
    assert sorted(os.listdir(tmp_path)) == ["other", "out"]


@pytest.mark.parametrize(
    ("address", "match"),
    [
        ("s3://key:S3CRET@bucket/x", r"--out has an address, s3://\.\.\., with a password, key or token in it"),
        ("https://host/x?token=S3CRET", r"--out has an address, https://\.\.\., with a password"),
        ("https://host/x", "--out https://host/x cannot be written to"),
        ("simplecache::s3://bucket/x", "--out simplecache::s3://bucket/x is a chain of addresses"),
        ("none://bucket/x", "--out none://bucket/x cannot be opened: ValueError: Protocol not known"),
        ("s3://", "--out s3:// names no folder"),
        ("s3:///", "--out s3:/// names no folder"),
        ("://x", "--out ://x names no folder"),
    ],
)
def test_a_url_that_cannot_be(address: str, match: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=match) as caught:
        Destination.at(address, "fingerprint")
    assert "S3CRET" not in str(caught.value)
    assert os.listdir(tmp_path) == []


def test_nothing_is_made_inside_what_is_whole(work: Work, pack: Pack, tmp_path: Path) -> None:
    _export(work, tmp_path / "out", "mds")
    before = _hashes(tmp_path / "out")
    for name in ("out/inner", "out/provenance/inner/most", "out/../out/inner"):
        refused(lambda name=name: pack(name), "is inside .*out, which is made already, and whole. Give another --out")
    refused(lambda: _export(work, work.path / "7-packed" / "out"), "is inside .*7-packed, which is made already")
    assert _hashes(tmp_path / "out") == before


def test_relative_paths_are_of_the_current_folder(work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source = WorkSource.open(Path(os.path.relpath(work.path)))
    export(source, "out", *FORMATS["mds"], Engine())
    monkeypatch.chdir("/")
    _export(work, tmp_path / "other", "mds")
    assert _hashes(tmp_path / "out") == _hashes(tmp_path / "other")
    assert "row 0" in trace(Path(os.path.relpath(tmp_path / "out")), 0)


def test_one_of_two_at_once_isrefused(work: Work, tmp_path: Path) -> None:
    there = Destination.at(str(tmp_path / "out"), "fingerprint")
    with there.claimed():
        match = rf"another run is at work in .*\.out\.partial: process {os.getpid()} .* another folder with --out\."
        refused(lambda: _export(work, tmp_path / "out"), match)
    shutil.rmtree(there.aside)
    _export(work, tmp_path / "out")
    refused(lambda: there.claimed().__enter__(), "out was made meanwhile by another command")


def test_finished_shards_of_other_settings_are_not_lost(
    work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Destination, "publish", interrupt)
        with pytest.raises(KeyboardInterrupt):
            _export(work, tmp_path / "out", "mds-small")
    refused(lambda: _export(work, tmp_path / "out", "mds"), r"\.out\.partial holds finished shards of an export of oth")
    _export(work, tmp_path / "out", "mds-small")
    assert os.listdir(tmp_path) == ["out"]
