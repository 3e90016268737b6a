"""The index.json of an MDS folder in; what it states of every shard, checked, out."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from nextlong.errors import UserError
from nextlong.shards.mds import INDEX, MOST_BYTES


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """What an index states of a shard."""

    samples: int
    encodings: dict[str, str]
    """By column."""
    sizes: dict[str, int | None]
    """Bytes of a value, by column; None: they differ."""
    raw_name: Any
    raw_bytes: int
    zipped_name: Any
    """None: it is not compressed."""
    compression: Any

    @classmethod
    def of(cls, told: dict[str, Any]) -> "Entry":
        """Raises ValueError, KeyError or TypeError for what describes no shard."""
        if told["format"] != "mds" or told["version"] != 2:
            raise ValueError(f"a shard is {told['format']}, version {told['version']}, and not mds, version 2")
        names, raw, zipped = told["column_names"], told["raw_data"], told.get("zip_data")
        found = cls(
            samples=told["samples"],
            encodings={str(name): str(each) for name, each in zip(names, told["column_encodings"], strict=True)},
            sizes={str(name): each for name, each in zip(names, told["column_sizes"], strict=True)},
            raw_name=raw["basename"],
            raw_bytes=raw["bytes"],
            zipped_name=None if zipped is None else zipped["basename"],
            compression=told.get("compression"),
        )
        numbers = [found.samples, found.raw_bytes, *(size for size in found.sizes.values() if size is not None)]
        if any(type(number) is not int or not 0 <= number <= MOST_BYTES for number in numbers):
            raise ValueError("a number of samples or bytes is none")
        if len(found.sizes) < len(names):
            raise ValueError("two columns have one name")
        return found


def read_index(folder: Path) -> list[Entry]:
    """The shards of a folder, in order. Raises UserError for what is no index of version 2."""
    try:
        told = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        return [Entry.of(each) for each in told["shards"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"{folder} is no MDS folder: its {INDEX} cannot be read ({reason}).") from error
