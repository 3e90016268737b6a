"""Where an export goes: written aside, then there with one rename; or uploaded, the manifest last.

A rerun of the same export finds the finished shards aside and goes on; an interrupted one leaves nothing that opens.
"""

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from etl.inputs.files import filesystem_of
from etl.lock import LOCK_FILE, OWNER_FILE, locked
from etl.parts import MARKER, discard, read_json, write_json
from nextlong.errors import UserError

MANIFEST = "manifest.json"
_CLAIM = "export.json"
_SCRATCH = "scratch"
_ASIDE = ".partial"
_SYNCS = 8  # files that the disk is asked for at once


@dataclasses.dataclass(frozen=True)
class Destination:
    """A folder or a URL of fsspec, and the folder beside it where everything is written first."""

    address: str
    staging: Path

    @classmethod
    def at(cls, address: str) -> "Destination":
        """The destination of an address; that of a URL is prepared in the current folder."""
        if "://" in address:
            return cls(address.rstrip("/"), Path.cwd() / f".{address.rstrip('/').rpartition('/')[2]}.partial")
        path = Path(address).expanduser().absolute()
        return cls(str(path), path.parent / f".{path.name}.partial")

    @property
    def is_remote(self) -> bool:
        """Whether it is a URL."""
        return "://" in self.address

    @property
    def scratch(self) -> Path:
        """For what only the tasks read."""
        return self.staging / _SCRATCH

    def published(self) -> dict[str, Any] | None:
        """The manifest of what is there already. Raises UserError for a folder that holds anything else."""
        if self.is_remote:
            return self._remote_manifest()
        path = Path(self.address)
        if not path.exists() or (path.is_dir() and not any(path.iterdir())):
            return None
        manifest = read_json(path / MANIFEST) if path.is_dir() else None
        if manifest is None:
            raise UserError(f"{path} exists and is no export. Nothing is written over it: give another --out.")
        return manifest

    @contextlib.contextmanager
    def claimed(self, fingerprint: str) -> Iterator[None]:
        """Hold the folder aside for one export; what another left in it is deleted."""
        self.staging.parent.mkdir(parents=True, exist_ok=True)
        claim = read_json(self.staging / _CLAIM)
        if self.staging.exists() and claim is None and any(self.staging.iterdir()):
            raise UserError(f"{self.staging} is in the way, and no export made it. Move it, or give another --out.")
        self.staging.mkdir(exist_ok=True)
        with locked(self.staging):
            if claim != {"fingerprint": fingerprint}:
                for path in self.staging.iterdir():
                    if path.name not in (LOCK_FILE, OWNER_FILE):
                        discard(path)
            write_json(self.staging / _CLAIM, {"fingerprint": fingerprint})
            self.scratch.mkdir(exist_ok=True)
            yield

    def publish(self, names: list[str]) -> None:
        """Make the export there, of the files named, whose last one is the manifest; nothing stays aside."""
        if self.is_remote:
            self._publish_remote(names)
            discard(self.staging)
            return
        for path in [self.staging / _CLAIM, self.scratch, *self.staging.glob(f"*{MARKER}")]:
            discard(path)
        folders = {self.staging, *[(self.staging / name).parent for name in names]}
        with ThreadPoolExecutor(_SYNCS) as pool:
            list(pool.map(sync, [*[self.staging / name for name in names], *folders]))
        for name in (LOCK_FILE, OWNER_FILE):
            (self.staging / name).unlink(missing_ok=True)
        try:
            os.rename(self.staging, self.address)
        except OSError as error:
            raise UserError(f"{self.address} cannot be made of {self.staging}: {error.strerror}.") from error
        sync(Path(self.address).parent)

    def upload(self, path: Path, name: str) -> None:
        """Send one file of the staging folder; it is not at its own name before everything is published."""
        filesystem, root = self._filesystem()
        filesystem.put_file(str(path), f"{root}/{_ASIDE}/{name}")

    def has_uploaded(self, files: dict[str, Any]) -> bool:
        """Whether files of these sizes were sent already."""
        filesystem, root = self._filesystem()
        try:
            return all(filesystem.size(f"{root}/{_ASIDE}/{name}") == facts["bytes"] for name, facts in files.items())
        except FileNotFoundError:
            return False

    def _publish_remote(self, names: list[str]) -> None:
        filesystem, root = self._filesystem()
        for name in names:
            filesystem.cp_file(f"{root}/{_ASIDE}/{name}", f"{root}/{name}")
        filesystem.rm(f"{root}/{_ASIDE}", recursive=True)

    def _remote_manifest(self) -> dict[str, Any] | None:
        filesystem, root = self._filesystem()
        try:
            there = [each.rpartition("/")[2] for each in filesystem.ls(root, detail=False)]
            if MANIFEST in there:
                manifest: dict[str, Any] = json.loads(filesystem.cat_file(f"{root}/{MANIFEST}"))
                return manifest
        except FileNotFoundError:
            return None
        if others := [name for name in there if name not in (_ASIDE, "")]:
            raise UserError(f"{self.address} holds {others[0]} and is no export. Give another --out.")
        return None

    def _filesystem(self) -> tuple[Any, str]:
        return filesystem_of(self.address, "--out")


def sync(path: Path) -> None:
    """Have a file or folder written to the disk."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
