"""Exports to an object store, by s3fs to a real server: the bytes of a local one, interrupted or not; every mistake."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import s3fs
from fsspec.implementations.local import LocalFileSystem
from fsspec.registry import register_implementation

from etl.connect import local_engine
from etl.engine import Engine, StageFailed
from etl.shards import object_store
from etl.shards.export import export
from etl.shards.of_work import WorkSource
from etl.shards.trace import trace
from etl.shards.verify import verify
from etl.work import Work
from nextlong.errors import UserError
from tests.etl.object_store import KEY, SECRET, Store
from tests.etl.shards.refusals import refused
from tests.etl.shards.test_export import FORMATS, _export, _hashes
from tests.etl.test_cli import nextlong
from tests.marks import in_soak

SMALL = "parquet-small"


@pytest.fixture
def bucket(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[s3fs.S3FileSystem]:
    """An empty bucket named `bucket`; the current folder is an empty one, too."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    s3fs.S3FileSystem.clear_instance_cache()
    files = s3fs.S3FileSystem(use_listings_cache=False)
    files.mkdir("bucket")
    yield files
    store.accept_known_keys_only(False)
    files.rm("bucket", recursive=True)


def _send(work: Work, address: str, name: str = SMALL, engine: Engine | None = None) -> dict[str, Any]:
    return export(WorkSource.open(work.path), address, *FORMATS[name], engine or Engine())


def _there(files: Any, root: str) -> dict[str, str]:
    return {
        path.removeprefix(f"{root}/"): hashlib.sha256(files.cat_file(path)).hexdigest() for path in files.find(root)
    }


@pytest.fixture
def local(work: Work, tmp_path: Path) -> dict[str, str]:
    """The same export in a folder."""
    _export(work, tmp_path / "local", SMALL)
    return _hashes(tmp_path / "local")


@pytest.mark.parametrize("name", ["mds-zstd", SMALL])
def test_a_bucket_gets_the_bytes_of_a_folder(work: Work, bucket: s3fs.S3FileSystem, tmp_path: Path, name: str) -> None:
    _send(work, "s3://bucket/a/b", name)
    _export(work, tmp_path / "local", name)
    assert _there(bucket, "bucket/a/b") == _hashes(tmp_path / "local")
    assert os.listdir() == []
    bucket.get("bucket/a/b", str(tmp_path / "fetched"), recursive=True)
    assert verify(tmp_path / "fetched", Engine()).faults == []


@pytest.mark.long
def test_workers_send_the_same(work: Work, store: Store, bucket: s3fs.S3FileSystem, local: dict[str, str]) -> None:
    with local_engine(2) as workers:
        _send(work, "s3://bucket/out/", engine=workers)
    assert _there(bucket, "bucket/out") == local
    assert os.listdir() == []


def test_the_same_export_again_does_nothing_and_another_is_refused(work: Work, bucket: s3fs.S3FileSystem) -> None:
    told = _send(work, "s3://bucket/out")
    before = {each["name"]: each["LastModified"] for each in bucket.find("bucket", detail=True).values()}
    assert _send(work, "s3://bucket/out") == json.loads(json.dumps(told))
    refused(
        lambda: _send(work, "s3://bucket/out", "mds"), "s3://bucket/out holds another export. Nothing is written over"
    )
    assert {each["name"]: each["LastModified"] for each in bucket.find("bucket", detail=True).values()} == before


def test_what_is_there_is_not_written_over(work: Work, bucket: s3fs.S3FileSystem) -> None:
    bucket.pipe("bucket/theirs/notes.txt", b"theirs")
    bucket.pipe("bucket/other/manifest.json", b'{"name": "an app"}')
    bucket.pipe("bucket/garbage/manifest.json", b"\xff")
    bucket.pipe("bucket/x/x/x", b"theirs")
    before = _there(bucket, "bucket")
    for name, match in (
        ("theirs", r"s3://bucket/theirs holds notes\.txt and is no export. Give another --out"),
        ("other", r"s3://bucket/other holds a manifest\.json of no export. Give another --out"),
        ("garbage", r"s3://bucket/garbage holds a manifest\.json of no export"),
        ("x", "s3://bucket/x holds x and is no export"),
    ):
        refused(lambda name=name: _send(work, f"s3://bucket/{name}"), match)
    assert _there(bucket, "bucket") == before
    assert os.listdir() == []


def test_a_bucket_that_is_not_there_is_told_before_anything_is_made(work: Work, bucket: s3fs.S3FileSystem) -> None:
    match = "--out s3://none/out cannot be used: FileNotFoundError: The specified bucket does not exist. Check the addr"
    refused(lambda: _send(work, "s3://none/out"), match)
    assert bucket.ls("") == ["bucket"]
    assert not list(Path().rglob("*.parquet"))


def test_a_key_that_is_not_accepted_and_a_server_that_is_gone(
    work: Work, store: Store, bucket: s3fs.S3FileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.accept_known_keys_only(True)
    match = "--out s3://bucket/out cannot be used: PermissionError: .*credentials are taken from the environment"
    refused(lambda: _send(work, "s3://bucket/out"), match)
    store.accept_known_keys_only(False)
    with monkeypatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        s3fs.S3FileSystem.clear_instance_cache()
        match = r"--out s3://bucket/out cannot be used: EndpointConnectionError: .*run the same command again"
        refused(lambda: _send(work, "s3://bucket/out"), match)
    s3fs.S3FileSystem.clear_instance_cache()
    _send(work, "s3://bucket/out")


def test_no_secret_is_written_or_shown(work: Work, bucket: s3fs.S3FileSystem, tmp_path: Path) -> None:
    arguments = ["export", work.path, "--format", "mds", "--workers", 0, "--out"]
    told = [nextlong(*arguments, "s3://bucket/out"), nextlong(*arguments, f"s3://{KEY}:{SECRET}@bucket/out", status=2)]
    assert "with a password, key or token in it" in told[1].stderr
    assert SECRET not in "".join(ran.stdout + ran.stderr for ran in told)
    for path in bucket.find("bucket"):
        assert SECRET.encode() not in bucket.cat_file(path)


class Stopped(Exception):
    """In place of whatever ends a process."""


def _stop(monkeypatch: pytest.MonkeyPatch, at: int, of: Callable[[str], bool]) -> None:
    """Stop at one of the files that are sent aside, or copied to their names."""
    put, number = object_store._put, 0

    def stopping(files: Any, root: str, target: str, write: Callable[[], Any]) -> None:
        nonlocal number
        number += of(target)
        if of(target) and number == at:
            raise Stopped
        put(files, root, target, write)

    monkeypatch.setattr(object_store, "_put", stopping)


def _is_copy(target: str) -> bool:
    return ".partial" not in target


@pytest.mark.parametrize("at", [4, *in_soak(1, 9)])
def test_an_upload_that_is_stopped_opens_nowhere_and_is_taken_up(
    work: Work, bucket: s3fs.S3FileSystem, local: dict[str, str], monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    with monkeypatch.context() as patch:
        _stop(patch, at, lambda target: not _is_copy(target))
        with pytest.raises((UserError, StageFailed), match="Stopped"):
            _send(work, "s3://bucket/out")
    assert all(path.startswith("bucket/out/.partial/") for path in bucket.find("bucket/out"))
    sent = _there(bucket, "bucket/out")
    _send(work, "s3://bucket/out")
    assert _there(bucket, "bucket/out") == local
    assert os.listdir() == []
    assert len(sent) >= at - 1


@pytest.mark.parametrize("at", [3, *in_soak(1, 10)])
def test_copies_that_are_stopped_are_finished(
    work: Work, bucket: s3fs.S3FileSystem, local: dict[str, str], monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    with monkeypatch.context() as patch:
        _stop(patch, at, _is_copy)
        with pytest.raises((UserError, StageFailed), match="Stopped"):
            _send(work, "s3://bucket/out")
    copied = [path for path in bucket.find("bucket/out") if _is_copy(path)]
    assert len(copied) == at - 1
    assert "bucket/out/manifest.json" not in copied
    if copied:
        refused(lambda: _send(work, "s3://bucket/out", "mds"), "s3://bucket/out holds .* and is no export")
    _send(work, "s3://bucket/out")
    assert _there(bucket, "bucket/out") == local
    assert os.listdir() == []


def test_what_is_left_of_a_finished_export_is_deleted(
    work: Work, bucket: s3fs.S3FileSystem, local: dict[str, str]
) -> None:
    told = _send(work, "s3://bucket/out")
    bucket.pipe(f"bucket/out/.partial/{told['fingerprint'][:16]}/manifest.json", b"{}")
    _send(work, "s3://bucket/out")
    assert _there(bucket, "bucket/out") == local


def test_a_shard_that_was_lost_aside_is_sent_again(
    work: Work, bucket: s3fs.S3FileSystem, local: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        _stop(patch, 1, _is_copy)
        with pytest.raises((UserError, StageFailed), match="Stopped"):
            _send(work, "s3://bucket/out")
    [lost, *_] = bucket.glob("bucket/out/.partial/*/data/*.parquet")
    bucket.rm(lost)
    _send(work, "s3://bucket/out")
    assert _there(bucket, "bucket/out") == local


def test_exports_to_several_places_at_once_do_not_mix(
    work: Work, bucket: s3fs.S3FileSystem, local: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one last name, from one current folder; and of other settings to one place, from two folders."""
    with monkeypatch.context() as patch:
        _stop(patch, 4, lambda target: not _is_copy(target))
        with pytest.raises((UserError, StageFailed), match="Stopped"):
            _send(work, "s3://bucket/a/out")
    _send(work, "s3://bucket/b/out", "mds-small")
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    with monkeypatch.context() as patch:
        _stop(patch, 4, lambda target: not _is_copy(target))
        with pytest.raises((UserError, StageFailed), match="Stopped"):
            _send(work, "s3://bucket/a/out", "mds-small")
    monkeypatch.chdir("..")
    _send(work, "s3://bucket/a/out")
    assert _there(bucket, "bucket/a/out") == local


def test_other_file_systems_have_folders_that_are_made(work: Work, local: dict[str, str], tmp_path: Path) -> None:
    class Disk(LocalFileSystem):
        """A file system that makes no folder by itself."""

        protocol = "disk"

        @classmethod
        def _strip_protocol(cls, path: str) -> str:
            return super()._strip_protocol(path.removeprefix("disk://"))

    register_implementation("disk", Disk, clobber=True)
    (tmp_path / "mounted").mkdir()
    before = os.getcwd()
    os.chdir(tmp_path / "mounted")
    try:
        _send(work, f"disk://{tmp_path}/mounted/out")
        refused(lambda: _send(work, f"disk://{tmp_path}/mounted/none/out"), "cannot be used: FileNotFoundError")
    finally:
        os.chdir(before)
    assert _hashes(tmp_path / "mounted" / "out") == local


def test_only_a_folder_here_can_be_verified_and_traced() -> None:
    for read in (lambda: verify(Path("s3://bucket/out"), Engine()), lambda: trace(Path("s3://bucket/out"), 0)):
        refused(read, "s3:/bucket/out is a URL: fetch the folder, and give the one here")
