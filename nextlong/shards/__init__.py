"""Packed sequences in, shards that trainers read out, and back: a module a format."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from nextlong.errors import UserError

if TYPE_CHECKING:
    from nextlong.sequences import Sequences, Shapes

FORMATS = ("mds", "parquet", "arrow", "megatron")


class Format(Protocol):
    """How the shards of one format are written: each alone, in any order, then what binds them."""

    def shards(self, shapes: "Shapes") -> list[tuple[int, int]]:
        """The sequences [start, stop) of each shard."""

    def write(
        self,
        folder: Path,
        number: int,
        of: int,
        shapes: "Shapes",
        blocks: "Iterable[Sequences]",
        *,
        with_sha256: bool = False,
    ) -> dict[str, Any]:
        """Write shard `number` of `of`, from its sequences in blocks; returns {"files": names, ...}.

        with_sha256: return "sha256" too, of those of the files, by name, for which it comes with the writing.
        """

    def finish(self, folder: Path, shards: list[dict[str, Any]]) -> list[str]:
        """Write what binds the shards, from what `write` returned of each; returns the names of the files."""


class Reader(Protocol):
    """The sequences of a folder."""

    def __len__(self) -> int:
        """How many there are."""

    def read(self, start: int, stop: int) -> "Sequences":
        """The sequences start ... stop - 1."""


def open_shards(folder: Path, format_: str, names: Iterable[str]) -> Reader:
    """The shards of a folder; names: their files in order. Raises UserError for what cannot be read."""
    if format_ == "mds":
        from nextlong.shards.mds_folder import MdsFolder

        return MdsFolder(folder)
    if format_ == "parquet":
        from nextlong.shards.parquet import ParquetFolder

        return ParquetFolder(folder, (name for name in names if name.endswith(".parquet")))
    if format_ == "arrow":
        from nextlong.shards.arrow import ArrowFolder

        return ArrowFolder(folder, (name for name in names if name.endswith(".arrow")))
    if format_ == "megatron":
        from nextlong.shards.megatron_folder import MegatronFolder

        return MegatronFolder(folder, names)
    raise UserError(f"{folder} is of the format {format_!r}, but this version reads {', '.join(FORMATS)}.")
