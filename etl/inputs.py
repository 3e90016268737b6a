"""A user's corpus, at any fsspec address, in; a sorted list of its files and their identity out."""

import dataclasses
import hashlib
import logging
import posixpath
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from glob import has_magic
from typing import Any, BinaryIO, Literal, NamedTuple

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from nextlong.config import require
from nextlong.errors import UserError

logger = logging.getLogger(__name__)

OWN_COLUMNS = ("doc_id", "source_id", "text", "source")
IO_THREADS = 16  # requests in flight when many files are each asked for little

_ENDINGS = {
    "parquet": (".parquet",),
    "jsonl": (".jsonl", ".ndjson", ".json"),
    "text": (".txt", ".md", ".rst"),
}  # in the order in which format=auto looks for them in a folder
_COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
_IDENTITY_BYTES = 64 * 1024


@dataclasses.dataclass(frozen=True, kw_only=True)
class Input:
    """Where the corpus is and which of its columns are read."""

    path: str | list[str]
    """A file, glob, folder or fsspec URL (s3://bucket/folder, hf://datasets/owner/name), or a list of them."""
    format: Literal["auto", "parquet", "jsonl", "text"] = "auto"
    """auto: by the file's ending; in a folder parquet if there is any, else jsonl, else text."""
    text: str = "text"
    """Column of the document's text; text files have no columns."""
    id: str | None = None
    """Column of the document's id, kept as a string. None: the position in the input; of a text file, its name."""
    source: str | None = None
    """Column of the document's source. None, or null in a row: the file's name; of a text file, its folder's name."""
    keep: list[str] = dataclasses.field(default_factory=list)
    """Further columns of strings or numbers to carry along (licence, url); as strings, so that all parts are alike."""
    part_bytes: int | None = None
    """Bytes of text a part; None: a sixteenth of the input, at least 1 MiB and at most 64 MiB."""
    part_rows: int | None = None
    """Rows a part, instead of part_bytes; jsonl files are then read once more to find their lines."""

    def __post_init__(self) -> None:
        paths = [self.path] if isinstance(self.path, str) else self.path
        require(bool(paths) and all(paths), "input.path", self.path, "a file, glob, folder or URL, or a list of them")
        require(self.format in ("auto", *_ENDINGS), "input.format", self.format, f"one of auto, {', '.join(_ENDINGS)}")
        for name in ("text", "id", "source"):
            require(getattr(self, name) != "", f"input.{name}", "", "the name of a column")
        unique = len(set(self.keep)) == len(self.keep)
        require(unique and all(self.keep), "input.keep", self.keep, "names of columns, each once")
        clash = sorted(set(self.keep) & set(OWN_COLUMNS))
        require(not clash, "input.keep", self.keep, f"free of our own columns ({', '.join(OWN_COLUMNS)})")
        for name in ("part_bytes", "part_rows"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"input.{name}", value, "at least 1, or null")
        if self.part_bytes is not None and self.part_rows is not None:
            raise UserError("input.part_bytes and input.part_rows are both set. Set one of them to null.")


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

    @property
    def compression(self) -> str | None:
        """gzip or zstd, by the ending; None: stored as it is."""
        return _COMPRESSIONS.get(posixpath.splitext(self.path)[1].lower())


def list_files(settings: Input) -> list[InputFile]:
    """The files of the input, sorted by name; what a folder or glob holds in other formats is logged and left out.

    Folders are searched recursively; hidden files and folders are skipped; a file matched twice is listed once.
    Raises UserError for an address that is missing, matches nothing, or holds nothing in a known format.
    """
    addresses = [settings.path] if isinstance(settings.path, str) else settings.path
    found = [_find(address) for address in addresses]
    labels = _labels([each.root for each in found])
    files: dict[str, InputFile] = {}
    for each in found:
        for relative, file_format in _choose(each, settings.format).items():
            path, size = each.files[relative]
            files.setdefault(path, InputFile(path, posixpath.join(labels[each.root], relative), size, file_format))
    return sorted(files.values(), key=lambda file: file.name)


def identify(files: Sequence[InputFile]) -> list[dict[str, Any]]:
    """The input's identity for fingerprints, in the given order: name, bytes, sha256 of first and last 64 KiB."""
    with ThreadPoolExecutor(IO_THREADS) as pool:
        return list(pool.map(_identify, files))


def open_file(file: InputFile) -> BinaryIO:
    """The file's bytes as stored; raises UserError when it has gone or may not be read."""
    filesystem, path = _filesystem(file.path)
    try:
        stream: BinaryIO = filesystem.open(path, "rb")
    except (FileNotFoundError, PermissionError) as error:
        raise UserError(f"input file {file.path} cannot be opened: {error.strerror or 'it is missing'}.") from error
    return stream


class _Found(NamedTuple):
    address: str  # as the user wrote it
    kind: str  # file, folder or glob
    root: str  # what names are relative to
    files: dict[str, tuple[str, int]]  # name relative to the root -> path or URL, bytes


def _find(address: str) -> _Found:
    """All files of one address but the hidden ones, whatever their format."""
    filesystem, path = _filesystem(address)
    try:
        kind, root, infos = _match(filesystem, path, address)
    except UserError:
        raise
    except Exception as error:  # every library behind fsspec has its own
        raise UserError(
            f"input.path {address} cannot be listed: {type(error).__name__}: {error}. "
            "Check the address, your permission and, if it is remote, the network."
        ) from error
    files = {}
    for name, size in infos.items():
        relative = name.removeprefix(root).lstrip("/")
        if kind == "file" or not any(part.startswith(".") for part in relative.split("/")):
            full = name if isinstance(filesystem, LocalFileSystem) else filesystem.unstrip_protocol(name)
            files[relative] = (full, size)
    if not files:
        reason = "matches no file" if kind == "glob" else "is a folder without files"
        raise UserError(f"input.path {address} {reason} (hidden ones are skipped). Check the spelling.")
    return _Found(address, kind, filesystem.unstrip_protocol(root), files)


def _match(filesystem: Any, path: str, address: str) -> tuple[str, str, dict[str, int]]:
    """What an address is, what its names are relative to, and its files with their sizes; an existing path is no glob."""
    try:
        info = filesystem.info(path)
    except FileNotFoundError:
        if not has_magic(path):
            raise UserError(
                f"input.path {address} does not exist. Give a file, a glob in quotes, a folder or a URL; relative "
                "paths start at the current directory."
            ) from None
        infos = filesystem.glob(path, detail=True).values()
        plain = path[: next(i for i, letter in enumerate(path) if letter in "*?[")]
        files = {each["name"]: _size(filesystem, each) for each in infos if each["type"] != "directory"}
        return "glob", plain.rpartition("/")[0], files
    if info["type"] == "directory":
        return "folder", path, dict(_walk(filesystem, path))
    return "file", path.rpartition("/")[0], {path: _size(filesystem, info)}


def _walk(filesystem: Any, folder: str) -> Iterator[tuple[str, int]]:
    """Files below a folder; unlike fsspec's own search it enters no hidden folder and raises on one it cannot read."""
    for info in filesystem.ls(folder, detail=True):
        name = info["name"].rstrip("/")
        if name == folder.rstrip("/") or posixpath.basename(name).startswith("."):
            continue
        if info["type"] == "directory":
            yield from _walk(filesystem, name)
        else:
            yield name, _size(filesystem, info)


def _size(filesystem: Any, info: Mapping[str, Any]) -> int:
    """Bytes of a file; a link to a folder could lead in a circle, and one to nothing would be an empty file."""
    if info.get("islink") and not filesystem.isfile(info["name"]):
        raise UserError(
            f"{info['name']} is a link to a folder or to nothing, which is not followed. Remove it, or name the "
            "folder in input.path."
        )
    if info.get("size") is None:
        raise UserError(f"{info['name']}: the server does not tell its size. Download it and give the local path.")
    return int(info["size"])


def _choose(found: _Found, wanted: str) -> dict[str, str]:
    """Format of every file to read: of a file or glob all in a given format, of a folder those with its endings."""
    if wanted != "auto" and found.kind != "folder":
        return dict.fromkeys(found.files, wanted)
    formats = {name: _format(name) for name in found.files}
    chosen = wanted if wanted != "auto" else next((each for each in _ENDINGS if each in formats.values()), None)
    counts = Counter(_ending(name) for name in found.files if formats[name] != chosen)
    ignored = ", ".join(f"{number} {ending or 'without ending'}" for ending, number in sorted(counts.items()))
    if chosen not in formats.values():
        looked_for = _ENDINGS if wanted == "auto" else {wanted: _ENDINGS[wanted]}
        endings = "; ".join(f"{name}: {', '.join(each)}" for name, each in looked_for.items())
        raise UserError(
            f"input.path {found.address} holds no file with a known ending, only {ignored}. Looked for {endings} "
            "(jsonl and text also with .gz or .zst). For another ending, name the files by a glob and set input.format."
        )
    if ignored:
        logger.info("input.path %s: reading %s, ignored %s", found.address, chosen, ignored)
    return {name: each for name, each in formats.items() if each is not None and each == chosen}


def _format(name: str) -> str | None:
    return next((each for each, endings in _ENDINGS.items() if _is_one_of(_ending(name), endings, each)), None)


def _is_one_of(ending: str, endings: Sequence[str], file_format: str) -> bool:
    plain, last = posixpath.splitext(ending)
    return ending in endings or (file_format != "parquet" and last in _COMPRESSIONS and plain in endings)


def _ending(name: str) -> str:
    """The ending in lower case, with the one before a compression: .jsonl.gz."""
    stem, last = posixpath.splitext(posixpath.basename(name).lower())
    return posixpath.splitext(stem)[1] + last if last in _COMPRESSIONS else last


def _labels(roots: Sequence[str]) -> dict[str, str]:
    """What names start with: nothing for one root; for several the shortest ends of their paths that tell them apart.

    x/wiki/data and x/books/data give wiki/data and books/data.
    """
    parts = {root: root.strip("/").split("/") for root in roots}
    labels = dict.fromkeys(roots, "")
    depth = 0
    while len(set(labels.values())) < len(labels):
        depth += 1
        labels = {root: "/".join(each[-depth:]) for root, each in parts.items()}
    return labels


def _identify(file: InputFile) -> dict[str, Any]:
    with open_file(file) as stream:
        digest = hashlib.sha256(stream.read(_IDENTITY_BYTES))
        stream.seek(max(0, file.bytes - _IDENTITY_BYTES))
        digest.update(stream.read(_IDENTITY_BYTES))
    return {"name": file.name, "bytes": file.bytes, "sha256": digest.hexdigest()}


def _filesystem(address: str) -> tuple[Any, str]:
    """The fsspec file system of an address, and the path in it."""
    if "::" in address:
        raise UserError(
            f"input.path {address} is a chain of addresses, which is not supported. Unpack it, or fetch it."
        )
    try:
        filesystem, path = url_to_fs(address)
    except ImportError as error:
        raise UserError(f"input.path {address} needs a package that is not installed: {error}.") from error
    except ValueError as error:
        raise UserError(f"input.path {address} cannot be opened: {error}.") from error
    return filesystem, path
