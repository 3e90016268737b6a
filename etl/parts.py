"""Files that exist whole or not at all, and the markers that say so: write aside, fsync, rename, then the marker."""

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from etl.memory import peak_memory
from etl.running import told_as_running
from nextlong.accounting import Account
from nextlong.errors import UserError
from nextlong.folders import inside

MARKER = ".ok.json"
DISK_FULL = "the disk is full"
_TEMPORARY = ".tmp"


@dataclasses.dataclass(kw_only=True)
class PartResult:
    """What a task made of its part: the files it wrote in the stage's folder, and what to tell the driver."""

    files: list[str] = dataclasses.field(default_factory=list)
    facts: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    """Size and checksum of those of the files that are known already."""
    rows: int = 0
    account: Account = dataclasses.field(default_factory=Account)
    values: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Small facts that later parts or stages need (JSON)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    """One task of a stage: calls function(folder, name, **arguments), which writes the part's files there."""

    folder: Path
    name: str
    fingerprint: str
    """Of the stage; a finished part of another fingerprint is not reused."""
    function: Callable[..., PartResult]
    arguments: dict[str, Any]
    key: str = ""
    """Tells parts of one name apart when a part may change within a stage (which rows it holds)."""
    weight: int = 1
    """Units of progress it stands for."""


def with_arguments(part: Part, **arguments: Any) -> Part:
    """The part, with some of its function's arguments given anew."""
    return dataclasses.replace(part, arguments=part.arguments | arguments)


def perform(part: Part) -> dict[str, Any]:
    """Run a part, or find it finished and whole; returns its marker. Errors come back as {"part", "error", ...}.

    An exception would make Dask forget which part failed and cancel the others (a worker's death still does).
    """
    started = time.perf_counter()
    try:
        with told_as_running(part.folder, part.name), peak_memory() as peak:
            marker = finished(part)
            if marker is None or damaged(part.folder, marker["files"]):
                marker = _run(part)
    except UserError as error:
        return {"part": part.name, "error": str(error), "is_users": True}
    except Exception as error:
        return {"part": part.name, "error": describe(error), "is_users": False}
    return marker | {"seconds": time.perf_counter() - started, "peak_memory_bytes": peak.bytes}


def describe(error: BaseException) -> str:
    """An error that is nobody's mistake, for a person: what happened, and what to do where that is known."""
    if "No space left on device" in str(error):
        return f"{DISK_FULL} ({error}): free some space"
    return f"{type(error).__name__}: {error}"


def finished(part: Part) -> dict[str, Any] | None:
    """The marker of a part that is done: same fingerprint and key, and its files are there with their sizes.

    Raises UserError for a file name in it that leads out of the stage's folder.
    """
    marker = read_json(part.folder / (part.name + MARKER))
    identity = (part.name, part.fingerprint, part.key)
    if marker is None or tuple(map(marker.get, ("part", "fingerprint", "key"))) != identity:
        return None
    for name, facts in marker["files"].items():
        path = inside(part.folder, name)
        if not path.is_file() or path.stat().st_size != facts["bytes"]:
            return None
    return marker


def damaged(folder: Path, files: Mapping[str, dict[str, Any]]) -> list[str]:
    """The files whose size or checksum is not what was noted when they were written, and those that are gone."""
    paths = {name: inside(folder, name) for name in files}
    return [name for name, path in paths.items() if not path.is_file() or file_facts(path) != files[name]]


def _run(part: Part) -> dict[str, Any]:
    part.folder.mkdir(parents=True, exist_ok=True)
    result = part.function(part.folder, part.name, **part.arguments)
    result.account.check(f"{part.folder.name}/{part.name}")
    marker = {
        "part": part.name,
        "fingerprint": part.fingerprint,
        "key": part.key,
        "rows": result.rows,
        "files": {name: result.facts.get(name) or file_facts(part.folder / name) for name in result.files},
        "account": result.account.to_dict(),
        "values": result.values,
    }
    write_json(part.folder / (part.name + MARKER), marker)
    return marker


@contextlib.contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """A temporary path to write to; on leaving without an error it is synced to disk and becomes `path`.

    An empty file is made there first: whoever opens it for writing follows no link that had its name. Each call has a
    path of its own: of two that write one file at once, the last to end wins, whole.
    """
    aside = path.with_name(f"{path.name}.{uuid.uuid4().hex}{_TEMPORARY}")  # two hosts or threads may write one part
    try:
        os.close(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        yield aside
        with open(aside, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


@contextlib.contextmanager
def folder_aside(path: Path) -> Iterator[Path]:
    """A temporary folder to write to; on leaving without an error each of its files is synced and moves to `path`."""
    aside = path.with_name(f"{path.name}.{uuid.uuid4().hex}{_TEMPORARY}")
    aside.mkdir()
    try:
        yield aside
        for written in sorted(aside.iterdir()):
            with open(written, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(written, path / written.name)
    finally:
        with contextlib.suppress(UserError):  # what the block raised says more, and the next run deletes it again
            discard(aside)


def discard(path: Path) -> None:
    """Delete a file, a link or a folder with all in it, if it is there, whoever else deletes it at the same time.

    Raises UserError for what cannot be deleted.
    """
    try:
        while os.path.lexists(path):
            with contextlib.suppress(FileNotFoundError):  # what was just there: again, what is left
                _delete(path)
    except OSError as error:
        raise UserError(f"{path} cannot be deleted ({describe(error)}). Mend that, or delete it by hand.") from error


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def write_table(path: Path, table: pa.Table, *, rows_per_group: int = 65_536) -> None:
    """Write a table as Parquet (zstd, no dictionaries): the same table gives the same bytes.

    Numbers have their bytes split (BYTE_STREAM_SPLIT), since the higher ones are much alike: negatives take a quarter
    less. Token ids of English are then written three times as fast at zstd-1 as plainly at zstd-3, and take 1.5 % more.
    """
    numbers = [leaf for field in table.schema for leaf in _numbers(field.type, field.name)]
    has_token_ids = any(field.type == pa.list_(pa.uint32()) for field in table.schema)
    with written_aside(path) as aside:
        pq.write_table(
            table,
            aside,
            compression="zstd",
            compression_level=1 if has_token_ids else 3,
            use_dictionary=False,
            use_byte_stream_split=numbers or False,
            row_group_size=rows_per_group,
        )


def _numbers(kind: pa.DataType, path: str) -> Iterator[str]:
    """The paths, in a Parquet file, of the numbers in a column."""
    if pa.types.is_struct(kind):
        for field in kind:
            yield from _numbers(field.type, f"{path}.{field.name}")
    elif pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        yield from _numbers(kind.value_type, f"{path}.list.element")
    elif pa.types.is_integer(kind) or pa.types.is_floating(kind):
        yield path


def write_array(path: Path, array: NDArray[Any]) -> None:
    """Write an array in numpy's own format."""
    with written_aside(path) as aside, open(aside, "wb") as file:
        np.save(file, array, allow_pickle=False)


def read_array(path: Path) -> NDArray[Any]:
    """The array that `write_array` wrote, memory-mapped: a plain ndarray, as indexing a memmap is several times slower.

    Raises UserError for a file that holds anything else; Python objects in it are not made.
    """
    try:
        return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except (ValueError, EOFError) as error:
        raise UserError(
            f"{path} is no array of numbers, as a run writes it ({error}). Delete it and run again."
        ) from error


def write_raw(path: Path, array: NDArray[Any]) -> None:
    """Write an array's numbers and nothing else, little endian."""
    with written_aside(path) as aside:
        array.astype(array.dtype.newbyteorder("<"), copy=False).tofile(aside)


def share_file(source: Path, target: Path) -> None:
    """Give a finished file a second name (a hard link); a copy where the file system has none."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        with written_aside(target) as aside:
            shutil.copyfile(source, aside)


def write_json(path: Path, data: dict[str, Any]) -> None:
    """Write a dict as indented JSON."""
    with written_aside(path) as aside:
        aside.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n")


def read_json(path: Path) -> dict[str, Any] | None:
    """The dict in a JSON file; None where there is no such file or it holds no JSON, or another kind of it."""
    try:
        data = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError, ValueError, RecursionError):
        return None
    return data if isinstance(data, dict) else None


def file_facts(path: Path) -> dict[str, Any]:
    """Size and sha256 of a file."""
    with open(path, "rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def leftovers(folder: Path) -> list[Path]:
    """Temporary files and folders that an interrupted run left anywhere below a folder."""
    return sorted(folder.rglob(f"*{_TEMPORARY}"))
