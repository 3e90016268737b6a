"""Where an export goes that is for an object store: files sent to names aside, then copied, the manifest last.

There is no rename, so a command that is killed during the copies leaves some files; run again, it finishes them.
"""

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from etl.inputs.files import filesystem_of
from etl.shards.manifest import CARD, MANIFEST, is_manifest
from nextlong.errors import UserError

_ASIDE = ".partial"
_CLAIM = "export.json"
_LONGEST_REASON = 300
_READ_ONLY = ("http", "https")


@dataclasses.dataclass(frozen=True)
class ObjectStore:
    """A URL of fsspec that is to hold one export; several that are sent there at once do not mix."""

    address: str
    fingerprint: str = ""

    @classmethod
    def at(cls, address: str) -> "ObjectStore":
        """The store of a URL. Raises UserError for one that names no folder, or where nothing can be written."""
        scheme, _, path = address.partition("://")
        if not scheme or not path.strip("/"):
            raise UserError(f"--out {address} names no folder. Give one, such as s3://bucket/folder.")
        if scheme.lower() in _READ_ONLY:
            raise UserError(f"--out {address} cannot be written to: give a folder, or a URL of an object store.")
        found = cls(address.rstrip("/"))
        filesystem_of(found.address, "--out")
        return found

    @property
    def name(self) -> str:
        """The last part of the address."""
        return self.address.rpartition("/")[2]

    def published(self) -> dict[str, Any] | None:
        """The manifest that is there already. Raises UserError for a place that holds anything else."""
        with self._reaching() as (files, root):
            try:
                paths = {each.rstrip("/") for each in files.ls(root, detail=False)} - {root}
            except FileNotFoundError:
                return None
            there = {path.rpartition("/")[2] for path in paths}
            if MANIFEST in there:
                manifest = _parsed(files.cat_file(f"{root}/{MANIFEST}"))
                if manifest is None:
                    raise UserError(f"{self.address} holds a {MANIFEST} of no export. Give another --out.")
                if manifest["fingerprint"] == self.fingerprint and _ASIDE in there:
                    files.rm(f"{root}/{_ASIDE}", recursive=True)
                return manifest
            others = sorted(there - {_ASIDE} - self._begun(files, root, there))
        if others:
            raise UserError(f"{self.address} holds {others[0]} and is no export. Give another --out.")
        return None

    def begin(self) -> None:
        """Send a first small file: what hinders that is told before anything is made."""
        with self._reaching() as (files, root):
            target = f"{root}/{self._aside}/{_CLAIM}"
            claim = json.dumps({"fingerprint": self.fingerprint}).encode()
            _put(files, root, target, lambda: files.pipe_file(target, claim))

    def upload(self, path: Path, name: str) -> None:
        """Send one file to its name aside."""
        with self._reaching() as (files, root):
            target = f"{root}/{self._aside}/{name}"
            _put(files, root, target, lambda: files.put_file(str(path), target))

    def has_uploaded(self, uploaded: dict[str, Any]) -> bool:
        """Whether files of these sizes were sent already."""
        with self._reaching() as (files, root):
            try:
                sizes = {name: files.size(f"{root}/{self._aside}/{name}") for name in uploaded}
            except FileNotFoundError:
                return False
            return all(sizes[name] == facts["bytes"] for name, facts in uploaded.items())

    def publish(self, names: list[str]) -> None:
        """Copy the files to their own names, in this order, and delete what is aside."""
        with self._reaching() as (files, root):
            for name in names:
                copy = partial(files.cp_file, f"{root}/{self._aside}/{name}", f"{root}/{name}")
                _put(files, root, f"{root}/{name}", copy)
            files.rm(f"{root}/{_ASIDE}", recursive=True)

    @property
    def _aside(self) -> str:
        return f"{_ASIDE}/{self.fingerprint[:16]}"

    def _begun(self, files: Any, root: str, there: set[str]) -> set[str]:
        """What this export has begun to publish: it was all sent, the manifest last, before the first copy."""
        if _ASIDE not in there:
            return set()
        try:
            manifest = _parsed(files.cat_file(f"{root}/{self._aside}/{MANIFEST}"))
        except FileNotFoundError:
            return set()
        return set() if manifest is None else {name.partition("/")[0] for name in (CARD, *manifest["files"])}

    @contextlib.contextmanager
    def _reaching(self) -> Iterator[tuple[Any, str]]:
        """The file system and the path in it. UserError for whatever keeps it from answering."""
        filesystem, root = filesystem_of(self.address, "--out")
        try:
            yield filesystem, root.rstrip("/")
        except (UserError, MemoryError):
            raise
        except Exception as error:  # every library behind fsspec has its own
            message = " ".join(str(error).split())[:_LONGEST_REASON]
            raise UserError(
                f"--out {self.address} cannot be used: {type(error).__name__}: {message}. Check the address, your "
                f"permission and the network (credentials are taken from the environment, of this command and of every "
                f"worker), and run the same command again: what was sent is kept."
            ) from error


def _put(files: Any, root: str, target: str, put: Callable[[], Any]) -> None:
    """Write a file; its folders are made where they must be, unless what they are in is not there (a bucket)."""
    try:
        put()
    except FileNotFoundError:
        parent = root.rpartition("/")[0]
        if not parent or not files.exists(parent):
            raise
        files.makedirs(target.rpartition("/")[0], exist_ok=True)
        put()


def _parsed(data: bytes) -> dict[str, Any] | None:
    try:
        told = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return told if isinstance(told, dict) and is_manifest(told) and isinstance(told["files"], dict) else None
