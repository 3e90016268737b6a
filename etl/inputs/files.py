"""Addresses of any fsspec file system in; the files behind them, in a fixed order, out."""

import hashlib
import logging
import posixpath
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from glob import has_magic
from typing import Any, BinaryIO, NamedTuple

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from nextlong.errors import UserError

logger = logging.getLogger(__name__)

ENDINGS = {
    "parquet": (".parquet",),
    "jsonl": (".jsonl", ".ndjson", ".json"),
    "text": (".txt", ".md", ".rst"),
}
"""Endings by format, in the order in which format=auto looks for them in a folder."""
IO_THREADS = 16
"""Requests in flight when many files are each asked for little."""

_COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
_IDENTITY_BYTES = 64 * 1024
_IDENTITY_AHEAD_BYTES = 1024
_VERSIONS = ("ETag", "etag", "blob_id", "mtime")  # what a file system tells of a file's content, the surest first
_LONGEST_REASON = 300
_USER = re.compile(
    r"https?://[^/?#]*@"  # a token may stand for the user's name
    r"|(?!git)\w[\w+.-]*://[^/?#@]*:(?!\d*/)[^@]*@"  # github://owner:repository@branch is no password
)
_SIGNATURE = re.compile(r"[?&][\w.-]*(sig|token|secret|passw|credential|key|auth)[\w.-]*=", re.IGNORECASE)


class InputFile(NamedTuple):
    """One file of the input."""

    path: str
    """Absolute path, or URL."""
    name: str
    """Path relative to the input: the same after the input has moved."""
    bytes: int
    """Size as stored, that is, compressed."""
    format: str
    """parquet, jsonl or text."""
    version: str = ""
    """What changes with its content, such as an ETag or the time it was written; empty where that is not told."""

    @property
    def compression(self) -> str | None:
        """gzip or zstd, by the ending; None: stored as it is."""
        return _COMPRESSIONS.get(posixpath.splitext(self.path)[1].lower())

    @property
    def is_local(self) -> bool:
        """Whether it is on a file system, not behind a URL."""
        return self.path.startswith("/")


def find_files(addresses: Sequence[str], wanted: str) -> list[InputFile]:
    """The files behind addresses, sorted by name; what a folder or glob holds in other formats is logged and left out.

    wanted: a format, or auto. Folders are searched recursively; hidden files and folders are skipped; a file matched
    twice is listed once. Raises UserError for an address that is missing, matches nothing, or holds no known format.
    """
    found = [_find(address) for address in addresses]
    labels = _labels([each.root for each in found])
    files: dict[str, InputFile] = {}
    for each in found:
        for relative, file_format in _choose(each, wanted).items():
            path, size, version = each.files[relative]
            name = posixpath.join(labels[each.root], relative)
            files.setdefault(path, InputFile(path, name, size, file_format, version))
    return sorted(files.values(), key=lambda file: file.name)


def identify(files: Sequence[InputFile]) -> list[dict[str, Any]]:
    """The files' identity for fingerprints, in the given order: name, bytes, sha256 of first and last 64 KiB."""
    with ThreadPoolExecutor(IO_THREADS) as pool:
        return list(pool.map(_identify, files))


def check_address(address: str, setting: str = "input.path") -> None:
    """Raises UserError, which does not repeat them, for an address with credentials: it would be written down."""
    shown = address.partition("://")[0]
    if not (_USER.match(address) or ("://" in address and _SIGNATURE.search(address))):
        return
    raise UserError(
        f"{setting} has an address, {shown}://..., with a password, key or token in it, which is not accepted: "
        "recipes and logs are kept and shared. Take it out, and put it into the environment of this command and of "
        f"every worker (FSSPEC_{shown.upper()}_..., for S3 also AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY) or into "
        "~/.config/fsspec/*.json."
    )


@contextmanager
def open_file(file: InputFile, *, ahead_bytes: int = 4 * 2**20) -> Iterator[BinaryIO]:
    """The file's bytes as stored; of a remote file, `ahead_bytes` more are fetched with each request.

    Raises UserError, also while it is read, when it is gone, was changed after it was listed, may not be read, or its
    server fails; a local disk's errors pass.
    """
    with _telling_trouble(file):
        filesystem, path = filesystem_of(file.path)
        with filesystem.open(path, "rb", block_size=ahead_bytes, cache_type="readahead") as stream:
            info = getattr(stream, "details", None) or filesystem.info(path)
            if (info.get("size"), _version(info)) != (file.bytes, file.version):
                raise UserError(
                    f"{file.name} was changed after it was listed: {file.path}. Start again, and do not change the "
                    "input during a run."
                )
            yield stream


@contextmanager
def _telling_trouble(file: InputFile) -> Iterator[None]:
    try:
        yield
    except (UserError, MemoryError):
        raise
    except FileNotFoundError as error:
        raise UserError(f"{file.name} was in the input when it was listed, but {file.path} is gone.") from error
    except PermissionError as error:
        remedy = "Change its permissions." if file.is_local else _CREDENTIALS
        raise UserError(f"{file.name}: you may not read {file.path}. {remedy}") from error
    except Exception as error:  # every library behind fsspec has its own
        if file.is_local:
            raise
        raise UserError(
            f"{file.name}: {file.path} cannot be read: {_reason(error)}. Check the network and the server, then run "
            "the same command again: finished parts are kept."
        ) from error


_CREDENTIALS = "Credentials are taken from the environment, of this command and of every worker (docs/inputs.md)."


def _reason(error: Exception) -> str:
    """A library's error in part of a sentence."""
    message = " ".join(str(error).split()).rstrip(".")
    shown = message if len(message) <= _LONGEST_REASON else message[:_LONGEST_REASON] + "..."
    return f"{type(error).__name__}: {shown}"


class _Found(NamedTuple):
    address: str  # as the user wrote it
    kind: str  # file, folder or glob
    root: str  # what names are relative to
    files: dict[str, tuple[str, int, str]]  # name relative to the root -> path or URL, bytes, version


def _find(address: str) -> _Found:
    """All files of one address but the hidden ones, whatever their format."""
    filesystem, path = filesystem_of(address)
    try:
        kind, root, infos = _match(filesystem, path, address)
    except UserError:
        raise
    except Exception as error:  # every library behind fsspec has its own
        remedy = _CREDENTIALS if isinstance(error, PermissionError) and "://" in address else _ACCESS
        raise UserError(f"input.path {address} cannot be listed: {_reason(error)}. {remedy}") from error
    files = {}
    for info in infos:
        name = info["name"].rstrip("/")
        relative = name.removeprefix(root).lstrip("/")
        if kind == "file" or not any(part.startswith(".") for part in relative.split("/")):
            full = name if isinstance(filesystem, LocalFileSystem) else filesystem.unstrip_protocol(name)
            size = _size(filesystem, info)
            told = filesystem.info(name) if info.get("islink") else info  # a listing tells the link's own time
            files[relative] = (full, size, _version(told))
    if not files:
        reason = "matches no file" if kind == "glob" else "is a folder without files"
        raise UserError(f"input.path {address} {reason} (hidden ones are skipped). Check the spelling.")
    return _Found(address, kind, filesystem.unstrip_protocol(root), files)


_ACCESS = "Check the address, your permission and, if it is remote, the network."


def _match(filesystem: Any, path: str, address: str) -> tuple[str, str, list[Mapping[str, Any]]]:
    """Kind and root of an address, and what is told of its files; a path that exists is not taken for a glob."""
    try:
        info = filesystem.info(path)
    except FileNotFoundError:
        if not has_magic(path):
            raise UserError(
                f"input.path {address} does not exist. Give a file, a glob, a folder or a URL; relative paths start "
                "at the current directory."
            ) from None
        infos = filesystem.glob(path, detail=True).values()
        plain = path[: next(place for place, letter in enumerate(path) if letter in "*?[")]
        return "glob", plain.rpartition("/")[0], [each for each in infos if each["type"] != "directory"]
    if info["type"] == "directory":
        return "folder", path, list(_walk(filesystem, path))
    return "file", path.rpartition("/")[0], [info]


def _walk(filesystem: Any, folder: str) -> Iterator[Mapping[str, Any]]:
    """What is told of the files below a folder; fsspec's own search would silently leave out what cannot be read."""
    for info in filesystem.ls(folder, detail=True):
        name = info["name"].rstrip("/")
        if name == folder.rstrip("/") or posixpath.basename(name).startswith("."):
            continue
        if info["type"] == "directory":
            yield from _walk(filesystem, name)
        else:
            yield info


def _size(filesystem: Any, info: Mapping[str, Any]) -> int:
    """Bytes of a file; a link to a folder could lead in a circle, and one to nothing would be an empty file."""
    if info.get("islink") and not filesystem.isfile(info["name"]):
        raise UserError(
            f"{info['name']} is a link to a folder or to nothing, which is not followed. Remove the link, or name "
            "what it points to in input.path."
        )
    if info.get("size") is None:
        raise UserError(f"{info['name']}: the server does not tell its size. Download it and give the local path.")
    return int(info["size"])


def _version(info: Mapping[str, Any]) -> str:
    """What a file system tells of a file that changes with its content; listing and asking differ in quotes only."""
    found = next((info[name] for name in _VERSIONS if info.get(name)), "")
    return str(found.timestamp() if hasattr(found, "timestamp") else found).strip('"')


def _choose(found: _Found, wanted: str) -> dict[str, str]:
    """The names to read, with their formats; what a file or glob names has a given format whatever its ending."""
    if wanted != "auto" and found.kind != "folder":
        return dict.fromkeys(found.files, wanted)
    formats = {name: _format_of(name) for name in found.files}
    present = [each for each in ENDINGS if each in formats.values() and wanted in ("auto", each)]
    ignored = _count_endings([name for name in found.files if formats[name] not in present[:1]])
    if not present:
        looked_for = [f"{each}: {', '.join(ENDINGS[each])}" for each in ENDINGS if wanted in ("auto", each)]
        raise UserError(
            f"input.path {found.address} holds no file with a known ending, only {ignored}. Looked for "
            f"{'; '.join(looked_for)} (jsonl and text also with .gz or .zst). For files with another ending, name "
            "them by a glob and set input.format."
        )
    if ignored:
        logger.info("input.path %s: reading %s, ignored %s", found.address, present[0], ignored)
    return {name: present[0] for name in found.files if formats[name] == present[0]}


def _format_of(name: str) -> str | None:
    """The format that a name's ending stands for; parquet has its own compression inside."""
    ending = _ending(name)
    plain, last = posixpath.splitext(ending)
    for each, endings in ENDINGS.items():
        if ending in endings or (each != "parquet" and last in _COMPRESSIONS and plain in endings):
            return each
    return None


def _ending(name: str) -> str:
    """The ending in lower case, with the one before a compression: .jsonl.gz."""
    stem, last = posixpath.splitext(posixpath.basename(name).lower())
    return posixpath.splitext(stem)[1] + last if last in _COMPRESSIONS else last


def _count_endings(names: Sequence[str]) -> str:
    counts = Counter(_ending(name) or "without ending" for name in names)
    return ", ".join(f"{number} {ending}" for ending, number in sorted(counts.items()))


def _labels(roots: Sequence[str]) -> dict[str, str]:
    """What names start with: nothing for one root; for several the shortest ends of their paths that tell them apart.

    x/wiki/data and x/books/data give wiki/data and books/data.
    """
    parts = {root: root.split("/") for root in roots}
    labels = dict.fromkeys(roots, "")
    depth = 0
    while len(set(labels.values())) < len(labels):
        depth += 1
        labels = {root: "/".join(each[-depth:]) for root, each in parts.items()}
    return labels


def _identify(file: InputFile) -> dict[str, Any]:
    with open_file(file, ahead_bytes=_IDENTITY_AHEAD_BYTES) as stream:
        digest = hashlib.sha256(stream.read(_IDENTITY_BYTES))
        stream.seek(max(0, file.bytes - _IDENTITY_BYTES))
        digest.update(stream.read(_IDENTITY_BYTES))
    return {"name": file.name, "bytes": file.bytes, "sha256": digest.hexdigest()}


def filesystem_of(address: str, setting: str = "input.path") -> tuple[Any, str]:
    """The fsspec file system of an address, and the path in it; nothing that was listed earlier is believed.

    setting: what errors call the address.
    """
    if "::" in address:
        raise UserError(f"{setting} {address} is a chain of addresses, which is not supported. Unpack or fetch it.")
    try:
        filesystem, path = url_to_fs(address, use_listings_cache=False)
    except ImportError as error:
        raise UserError(f"{setting} {address} needs a package that is not installed: {error}.") from error
    except Exception as error:  # every library behind fsspec has its own
        raise UserError(f"{setting} {address} cannot be opened: {_reason(error)}.") from error
    return filesystem, path
