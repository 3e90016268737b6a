"""Names and links that a folder's own files hold, in; a refusal of those that lead out of the folder, out."""

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from nextlong.errors import UserError


def inside(folder: Path, name: Any) -> Path:
    """folder / name, for a name that a file of the folder holds. Raises UserError where it leads out of the folder."""
    pure = PurePosixPath(name) if isinstance(name, str) and "\0" not in name else PurePosixPath()
    if not pure.parts or pure.is_absolute() or ".." in pure.parts:
        raise UserError(
            f"{folder} names {str(name)[:200]!r} as one of its files, which is none inside it, so nothing of the "
            f"folder is used. Take it from where it was made again, or make it anew."
        )
    return folder / pure


def refuse_links_out(folder: Path) -> None:
    """Raise UserError where a symbolic link in a folder leads out of it. The folder may be a link itself."""
    root = os.path.realpath(folder)
    for link in _links(root):
        target = os.path.realpath(link)
        if os.path.commonpath([root, target]) != root:
            raise UserError(
                f"{folder / os.path.relpath(link, root)} is a link to {target}, out of the folder, and is not "
                f"followed. Put what it leads to in its place, or remove it; {folder} itself may be a link."
            )


def _links(folder: str) -> Iterator[str]:
    for path, folders, files in os.walk(folder):
        yield from (each for name in (*folders, *files) if os.path.islink(each := os.path.join(path, name)))
