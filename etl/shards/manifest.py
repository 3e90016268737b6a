"""What a packed folder states of itself: sealed when it is written, and looked at before any of it is believed."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from etl.parts import read_json
from nextlong.errors import UserError
from nextlong.folders import inside

MANIFEST = "manifest.json"
PROVENANCE = "provenance"
DOCUMENTS_FILE = f"{PROVENANCE}/documents.parquet"
TOKENIZER = "tokenizer.json"
CARD = "README.md"
"""Of the export; people fill it in, so it has no checksum."""
_SEAL = "sha256"
_KINDS: dict[str, type] = {
    "format": str,
    "fingerprint": str,
    "tokenizer_sha256": str,
    "has_mask": bool,
    "options": dict,
    "made_by": dict,
    "account": dict,
    "files": dict,
    "shards": list,
    "provenance": list,
}
_MOST = {"rows": 1 << 50, "sequence_length_tokens": (1 << 31) - 1, "tokens": 1 << 62, "vocab_size": 1 << 32}


def sealed(manifest: dict[str, Any]) -> dict[str, Any]:
    """The manifest with the checksum of all that it states."""
    return manifest | {_SEAL: _seal(manifest)}


def is_sealed(manifest: dict[str, Any]) -> bool:
    """Whether a manifest states what it did when it was written."""
    return manifest.get(_SEAL) == _seal(manifest)


def is_manifest(told: dict[str, Any] | None) -> bool:
    """Whether what a manifest.json holds is of an export; other programs have files of that name, too."""
    return told is not None and {"format", "fingerprint", "files", "shards", "rows"} <= told.keys()


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest in a folder; None where there is none of an export.

    Raises UserError for one that states what cannot be, or names files outside the folder.
    """
    told = read_json(folder / MANIFEST) if (folder / MANIFEST).is_file() else None
    if told is None or not is_manifest(told):
        return None
    for wrong in _wrong(told):
        raise UserError(f"{folder / MANIFEST} is damaged: {wrong}. Take the folder from where it was made again.")
    for name in _names(told):
        inside(folder, name)
    if unsummed := sorted(set(_names(told)) - told["files"].keys()):
        raise UserError(
            f"{folder / MANIFEST} is damaged: it has no checksum of {unsummed[0]}. Take the folder from where it was "
            f"made again."
        )
    return told


def _seal(manifest: dict[str, Any]) -> str:
    stated = {name: each for name, each in manifest.items() if name != _SEAL}
    return hashlib.sha256(json.dumps(stated, sort_keys=True).encode()).hexdigest()


def _names(told: dict[str, Any]) -> Iterator[Any]:
    yield from told["files"]
    yield from (name for shard in told["shards"] for name in shard["files"])
    yield from told["provenance"]
    yield from (DOCUMENTS_FILE, TOKENIZER)


def _wrong(told: dict[str, Any]) -> Iterator[str]:
    """What cannot be, as part of a sentence; later ones may rely on earlier ones."""
    for name, kind in _KINDS.items():
        if not isinstance(told.get(name), kind):
            yield f"{name} is {_shown(told.get(name))}"
    for name, most in _MOST.items():
        if not _is_count(told.get(name), most):
            yield f"{name} is {_shown(told.get(name))}"
    for place, shard in enumerate(told["shards"]):
        is_shard = isinstance(shard, dict) and _is_count(shard.get("rows"), _MOST["rows"])
        if not is_shard or not isinstance(shard.get("files"), list) or not shard["files"]:
            yield f"its shard {place} is {_shown(shard)}"
    for name, facts in told["files"].items():
        if not isinstance(facts, dict) or not _is_count(facts.get("bytes"), 1 << 62):
            yield f"of {name} it states {_shown(facts)}"
    if len(told["provenance"]) != len(told["shards"]):
        yield f"it has {len(told['shards'])} shards, but the provenance of {len(told['provenance'])}"
    for unit, count in told["account"].items():
        if not _is_account(unit, count):
            yield f"its account of {unit} is {_shown(count)}"


def _is_account(unit: str, count: Any) -> bool:
    if not isinstance(count, dict):
        return False
    if unit == "notes":
        return all(_is_count(number, 1 << 62) for number in count.values())
    dropped = count.get("dropped")
    numbers = [count.get("read"), count.get("kept"), *(dropped.values() if isinstance(dropped, dict) else [None])]
    return count.keys() == {"read", "kept", "dropped"} and all(_is_count(each, 1 << 62) for each in numbers)


def _is_count(value: Any, most: int) -> bool:
    return type(value) is int and 0 <= value <= most


def _shown(value: Any) -> str:
    return repr(value)[:100]
