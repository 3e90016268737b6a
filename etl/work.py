"""A work folder: one folder a stage, each with a fingerprint of all that decided its content, parts and a manifest."""

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from etl.lock import LOCK_FILE, OWNER_FILE, locked
from etl.parts import MARKER, Part, discard, leftovers, read_json, share_file, write_json, written_aside
from nextlong.accounting import Account
from nextlong.errors import UserError
from nextlong.folders import inside, refuse_links_out

STAGES = ("read", "chunk", "embed", "index", "mine", "interleave", "pack")
"""The stages in order."""
FOLDERS = {
    "read": "1-documents",
    "chunk": "2-chunks",
    "embed": "3-embeddings",
    "index": "4-index",
    "mine": "5-negatives",
    "interleave": "6-long-documents",
    "pack": "7-packed",
}
FORMAT_VERSIONS = dict.fromkeys(STAGES, 1) | {
    "read": 3,
    "chunk": 3,
    "index": 3,
    "mine": 3,
    "interleave": 3,
    "pack": 2,
}
"""Raised when a stage's code gives other bytes for the same settings."""
SCRATCH = {
    "read": ("scan",),
    "chunk": ("cut",),
    "index": ("trained", "added"),
    "mine": ("found", "documents"),
    "interleave": ("plan",),
}
"""Parts that only a later pass of the same stage reads."""
READS = {
    "read": (),
    "chunk": ("read",),
    "embed": ("chunk",),
    "index": ("chunk", "embed"),
    "mine": ("chunk", "embed", "index"),
    "interleave": ("chunk", "mine"),
    "pack": ("interleave",),
}
"""Of each stage those whose files it reads."""
RECIPE_FILE = "recipe.resolved.yaml"


@dataclasses.dataclass(frozen=True)
class StageFolder:
    """One stage of a work folder."""

    stage: str
    path: Path
    fingerprint: str
    """Of its settings, its code's format version and the stage before it; of no path, worker count or scheduler."""
    settings: dict[str, Any]

    def part(
        self, number: int, function: Any, *, prefix: str = "part", key: str = "", weight: int = 1, **arguments: Any
    ) -> Part:
        """The task that makes part `number`."""
        return Part(
            folder=self.path,
            name=f"{prefix}-{number:05d}",
            fingerprint=self.fingerprint,
            function=function,
            arguments=arguments,
            key=key,
            weight=weight,
        )

    @property
    def manifest_file(self) -> Path:
        """Says that the stage is finished, and what it holds."""
        return self.path / "manifest.json"

    def manifest(self) -> dict[str, Any] | None:
        """What a finished stage holds; None while it is not finished.

        Raises UserError for a file name in it that leads out of the stage's folder.
        """
        manifest = read_json(self.manifest_file)
        if manifest is None or manifest.get("fingerprint") != self.fingerprint:
            return None
        for name in _names(manifest):
            inside(self.path, name)
        return manifest

    def tables(self, prefix: str | None = None) -> list[tuple[Path, int]]:
        """The Parquet files of the finished stage (of its parts with this prefix) and their rows, in order."""
        manifest = self.manifest()
        if manifest is None:
            raise RuntimeError(f"stage {self.stage} in {self.path} is not finished")
        tables = [
            table
            for part in manifest["parts"]
            if prefix is None or part["part"].startswith(f"{prefix}-")
            for table in part["values"].get("tables", [(f"{part['part']}.parquet", part["rows"])])
        ]
        return [(self.path / name, rows) for name, rows in tables]

    def arrays(self) -> list[Path]:
        """The arrays of the finished stage, in order."""
        return [path.with_suffix(".npy") for path, _ in self.tables()]

    def finish(
        self,
        markers: Sequence[dict[str, Any]],
        *,
        account: Account | None = None,
        files: dict[str, Any] | None = None,
        values: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Write the manifest: from now on the stage is whole. account: in place of the sum of the parts' accounts."""
        account = account or Account.total(Account.from_dict(marker["account"]) for marker in markers)
        account.check(self.path.name)
        manifest = {
            "stage": self.stage,
            "fingerprint": self.fingerprint,
            "settings": self.settings,
            "versions": {name: version(name) for name in ("nextlong", "pyarrow", "tokenizers", "faiss-cpu")},
            "rows": sum(marker["rows"] for marker in markers),
            "account": account.to_dict(),
            "values": values or {},
            "files": files or {},
            "parts": [{name: marker[name] for name in ("part", "rows", "files", "values")} for marker in markers],
        }
        write_json(self.manifest_file, manifest)
        for path in self.scratch():
            path.unlink(missing_ok=True)
        return manifest

    def files(self) -> dict[str, dict[str, Any]]:
        """The files of the finished stage by name, with size and sha256."""
        manifest = self.manifest() or {"files": {}, "parts": []}
        files: dict[str, dict[str, Any]] = dict(manifest["files"])
        for part in manifest["parts"]:
            files |= part["files"]
        return files

    def reopen(self) -> None:
        """Call the stage unfinished, so that the next run makes again what is damaged in it."""
        self.manifest_file.unlink(missing_ok=True)

    def scratch(self) -> list[Path]:
        """Files of an earlier pass that a finished stage does not read again."""
        prefixes = SCRATCH.get(self.stage, ()) if self.manifest() else ()
        return sorted(path for prefix in prefixes for path in self.path.glob(f"{prefix}-*"))


class Work:
    """A work folder: stage name to StageFolder."""

    def __init__(self, path: Path, stages: dict[str, StageFolder]) -> None:
        self.path = path
        self.stages = stages

    @classmethod
    def of_settings(cls, path: Path, settings: dict[str, dict[str, Any]]) -> "Work":
        """The folder of one recipe, finished or not; settings: for each stage, what decides its content."""
        stages: dict[str, StageFolder] = {}
        upstream = ""
        for stage in STAGES:
            identity = {
                "stage": stage,
                "format": FORMAT_VERSIONS[stage],
                "settings": settings[stage],
                "upstream": upstream,
            }
            upstream = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
            stages[stage] = StageFolder(stage, path / FOLDERS[stage], upstream, settings[stage])
        return cls(path, stages)

    @classmethod
    def open(cls, path: Path) -> "Work":
        """The folder of an earlier run, with the stages that it holds. Raises UserError for any other folder.

        Also for one with a link that leads out of it.
        """
        if not is_work_folder(path):
            raise UserError(f"{path} is no work folder of a run: {_why_not(path)}")
        refuse_links_out(path)
        stages = {}
        for stage in STAGES:
            known = read_json(path / FOLDERS[stage] / "stage.json")
            if known is not None:
                stages[stage] = StageFolder(stage, path / FOLDERS[stage], known["fingerprint"], known["settings"])
        return cls(path, stages)

    def __getitem__(self, stage: str) -> StageFolder:
        return self.stages[stage]

    def claim(self, recipe_yaml: str, remedy: str) -> None:
        """Make the folder this recipe's: refuse one of another recipe, of foreign files or links; clear leftovers.

        Raises UserError naming the first stage that differs, the settings, and the remedy.
        """
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f"output {self.path} is a file. Give a folder that does not exist yet.")
        if self.path.is_dir() and not is_work_folder(self.path) and _holds_other_files(self.path):
            raise UserError(
                f"output {self.path} holds other files, and is no work folder. Give a new or an empty folder."
            )
        refuse_links_out(self.path)
        for stage in self.stages.values():
            known = read_json(stage.path / "stage.json")
            has_parts = any(stage.path.glob(f"*{MARKER}"))
            if known is not None and has_parts and known["fingerprint"] != stage.fingerprint:
                raise UserError(self._differs(stage, known["settings"], remedy))
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            (self.path / LOCK_FILE).touch()
        except OSError as error:
            raise UserError(
                f"output {self.path} cannot be written to ({error.strerror}). Give another folder with --output."
            ) from error
        with locked(self.path):
            for path in leftovers(self.path):
                discard(path)
            with written_aside(self.path / RECIPE_FILE) as aside:
                aside.write_text(recipe_yaml)

    def start(self, stage: str) -> StageFolder:
        """Note in the stage's folder whose it is, before its first part is written."""
        folder = self.stages[stage]
        folder.path.mkdir(parents=True, exist_ok=True)
        write_json(folder.path / "stage.json", {"fingerprint": folder.fingerprint, "settings": folder.settings})
        return folder

    def reuse(self, old: Path) -> list[str]:
        """Take over, by hard links, the finished stages of another work folder that this recipe does not change."""
        Work.open(old)
        taken = []
        for stage in self.stages.values():
            source = dataclasses.replace(stage, path=old / stage.path.name)
            if source.manifest() is None:
                break
            if stage.manifest() is None:
                _link_folder(source.path, stage.path)
                taken.append(stage.stage)
        return taken

    def _differs(self, stage: StageFolder, old: dict[str, Any], remedy: str) -> str:
        changes = [
            f"{name} was {json.dumps(old.get(name))}, is {json.dumps(stage.settings.get(name))}"
            for name in sorted(old.keys() | stage.settings.keys())
            if old.get(name) != stage.settings.get(name)
        ]
        what = "; ".join(changes) or "it was made by another version of this program"
        return f"output {self.path} holds another recipe: from stage '{stage.stage}' on it differs ({what}). {remedy}"


def _names(manifest: dict[str, Any]) -> Iterator[str]:
    """The files that a manifest names."""
    yield from manifest["files"]
    yield from manifest["values"].get("shards", [])
    for part in manifest["parts"]:
        yield part["part"]
        yield from part["files"]
        yield from (name for name, _ in part["values"].get("tables", []))


def is_work_folder(path: Path) -> bool:
    """Whether a folder was made by a run."""
    return (path / RECIPE_FILE).is_file()


def _holds_other_files(path: Path) -> bool:
    """Whether there is more in a folder than what a run leaves there that has just begun, or was killed then."""
    names = {found.name for found in path.iterdir()} - {LOCK_FILE, OWNER_FILE}
    return any(not name.startswith(f"{RECIPE_FILE}.") for name in names)


def _why_not(path: Path) -> str:
    """Why a folder is not a run's, and which one may have been meant."""
    if not path.is_dir():
        return "there is no such folder."
    inside = sorted(found.parent for found in path.glob(f"*/{RECIPE_FILE}"))
    more = f" Did you mean {inside[0]}?" if inside else " Give the output of a recipe that was run."
    return f"it has no {RECIPE_FILE}.{more}"


def _link_folder(source: Path, target: Path) -> None:
    """A copy of a folder that shares its files. The manifest comes last: until then the copy is not finished."""
    names = sorted(str(path.relative_to(source)) for path in source.rglob("*") if path.is_file())
    for name in sorted(names, key=lambda name: name == "manifest.json"):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        share_file(source / name, target / name)


def clean(path: Path, first_stage: str | None = None) -> list[Path]:
    """Delete temporary files and finished passes of a work folder, and its stages from `first_stage` on."""
    work = Work.open(path)
    with locked(path):
        removed = leftovers(path)
        for stage, folder in work.stages.items():
            if first_stage is not None and STAGES.index(stage) >= STAGES.index(first_stage):
                removed.append(folder.path)
            else:
                removed += folder.scratch()
        for found in removed:
            discard(found)
    return removed
