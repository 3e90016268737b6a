"""Where an export goes: written aside, then there with one rename; or uploaded, the manifest last.

A rerun of the same export finds the finished shards aside and goes on; an interrupted one leaves nothing that opens.
Aside is a hidden folder: `files` becomes the export, and what stands beside it (claim, lock, scratch) never moves.
"""

import contextlib
import dataclasses
import hashlib
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from etl.inputs.files import check_address
from etl.lock import LOCK_FILE, OWNER_FILE, locked
from etl.parts import MARKER, discard, read_json, write_json
from etl.shards.manifest import MANIFEST, is_manifest
from etl.shards.object_store import ObjectStore
from nextlong.errors import UserError
from nextlong.folders import refuse_links_out

_CLAIM = "export.json"
_IS_LOCAL = re.compile("^(file|local)://")
_SYNCS = 8  # files that the disk is asked for at once


@dataclasses.dataclass(frozen=True)
class Destination:
    """A folder or a URL of fsspec, and the folder beside it where everything is written first."""

    address: str
    aside: Path
    fingerprint: str
    """Of the export that is to be there."""

    @classmethod
    def at(cls, address: str, fingerprint: str) -> "Destination":
        """The destination of an address; that of a URL is prepared in the current folder.

        Raises UserError for an address with a password in it, one that names no folder, and one inside an export.
        """
        check_address(address, "--out")
        if "://" in address and not _IS_LOCAL.match(address):
            store = ObjectStore.at(address)
            digest = hashlib.sha256(store.address.encode(errors="surrogateescape")).hexdigest()[:8]
            return cls(store.address, Path.cwd() / f".{store.name}-{digest}.partial", fingerprint)
        path = Path(_IS_LOCAL.sub("", address)).expanduser().absolute()
        with _telling(str(path)):
            str(path).encode()  # Arrow opens no other paths
            _refuse_inside(path)
        return cls(str(path), path.parent / f".{path.name}.partial", fingerprint)

    @property
    def is_remote(self) -> bool:
        """Whether it is a URL."""
        return "://" in self.address

    @property
    def staging(self) -> Path:
        """What becomes the export."""
        return self.aside / "files"

    @property
    def scratch(self) -> Path:
        """For what only the tasks read."""
        return self.aside / "scratch"

    def published(self) -> dict[str, Any] | None:
        """The manifest of what is there already. Raises UserError for a folder that holds anything else.

        What this export left aside when it was interrupted after it was there is deleted.
        """
        with _telling(self.address):
            found = self._store.published() if self.is_remote else self._in_folder()
            if found is not None and found["fingerprint"] == self.fingerprint and self._is_left_over():
                discard(self.aside)
        return found

    @contextlib.contextmanager
    def claimed(self) -> Iterator[None]:
        """Hold the folder aside for one export.

        What another export left in it is deleted, unless it finished a shard: then UserError. So for a folder of
        anything else, a link, and an export that was published meanwhile.
        """
        with _telling(str(self.aside)):
            if self.aside.is_symlink():
                raise UserError(f"{self.aside} is a link, and is not followed. Remove it, or give another --out.")
            self.aside.mkdir(parents=True, exist_ok=True)
            self._refuse_others()  # before anything is written there
        with locked(self.aside, "--out"):
            self._refuse_others()
            if self.published() is not None:
                raise UserError(f"{self.address} was made meanwhile by another command. Run this one again to see it.")
            if self._claim() != self.fingerprint:
                for path in self.aside.iterdir():
                    if path.name not in (LOCK_FILE, OWNER_FILE):
                        discard(path)
                write_json(self.aside / _CLAIM, {"fingerprint": self.fingerprint})
            for folder in (self.scratch, self.staging):
                folder.mkdir(exist_ok=True)
            if self.is_remote:
                self._store.begin()
            yield

    def publish(self, names: list[str]) -> None:
        """Make the export there, of the files named, whose last one is the manifest; nothing stays aside."""
        if self.is_remote:
            self._store.publish(names)
        else:
            self._publish_folder(names)
        discard(self.aside)

    def upload(self, path: Path, name: str) -> None:
        """Send one file of the staging folder; it is not at its own name before everything is published."""
        self._store.upload(path, name)

    def has_uploaded(self, files: dict[str, Any]) -> bool:
        """Whether files of these sizes were sent already."""
        return self._store.has_uploaded(files)

    @property
    def _store(self) -> ObjectStore:
        return ObjectStore(self.address, self.fingerprint)

    def _in_folder(self) -> dict[str, Any] | None:
        path = Path(self.address)
        manifest = read_json(path / MANIFEST) if (path / MANIFEST).is_file() else None
        if manifest is not None and is_manifest(manifest):
            return manifest
        if path.is_symlink():
            raise UserError(f"{path} is a link, and no export is there. Give the folder that it leads to as --out.")
        if not path.exists() or (path.is_dir() and not any(path.iterdir())):
            return None
        raise UserError(f"{path} exists and is no export. Nothing is written over it: give another --out.")

    def _claim(self) -> str | None:
        """The fingerprint of the export that the folder aside is of."""
        claim = None if self.aside.is_symlink() else self.aside / _CLAIM
        told = read_json(claim) if claim is not None and claim.is_file() else None
        return None if told is None else str(told.get("fingerprint"))

    def _is_left_over(self) -> bool:
        """Whether the folder aside is of this export, or as good as empty."""
        if self.aside.is_symlink() or not self.aside.is_dir():
            return False
        return self._claim() == self.fingerprint or (self._claim() is None and not self._foreign())

    def _foreign(self) -> list[str]:
        """What is aside beside the claim and the lock."""
        names = [path.name for path in self.aside.iterdir()]
        return [name for name in names if not name.startswith((LOCK_FILE, OWNER_FILE, _CLAIM))]

    def _refuse_others(self) -> None:
        """Raise UserError where the folder aside holds what must not be lost, or links."""
        refuse_links_out(self.aside)
        claim = self._claim()
        if claim is None and self._foreign():
            raise UserError(f"{self.aside} is in the way, and no export made it. Move it, or give another --out.")
        if claim not in (None, self.fingerprint) and any(self.staging.glob(f"*{MARKER}")):
            raise UserError(
                f"{self.aside} holds finished shards of an export of other settings or another input, which was "
                f"interrupted. Finish that one with its own command, or delete the folder, or give another --out."
            )

    def _publish_folder(self, names: list[str]) -> None:
        if self._in_folder() is not None:
            raise UserError(f"{self.address} was made meanwhile by another command. Run this one again to see it.")
        paths = {self.staging / name for name in names}
        kept = {self.staging, *paths, *[path.parent for path in paths]}
        for path in {*self.staging.rglob("*")} - kept:  # markers, and what an interrupted write left
            discard(path)
        with ThreadPoolExecutor(_SYNCS) as pool:
            list(pool.map(sync, kept))
        try:
            os.rename(self.staging, self.address)
        except OSError as error:
            raise UserError(
                f"{self.address} cannot be made of {self.staging}: {error.strerror}. Mend that, and run the same "
                f"command again."
            ) from error
        sync(Path(self.address).parent)


def sync(path: Path) -> None:
    """Have a file or folder written to the disk."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


@contextlib.contextmanager
def _telling(path: str) -> Iterator[None]:
    """UserError for a place where no folder can be."""
    try:
        yield
    except (OSError, UnicodeEncodeError) as error:
        raise UserError(f"{path} cannot be made or looked into ({error}). Give another --out.") from error


def _refuse_inside(path: Path) -> None:
    for parent in path.parents:
        manifest = read_json(parent / MANIFEST) if (parent / MANIFEST).is_file() else None
        if manifest is not None and "fingerprint" in manifest:
            raise UserError(f"{path} is inside {parent}, which is made already, and whole. Give another --out.")
