"""A finished run in, its packed sequences as shards out, in this process."""

from pathlib import Path
from typing import Any

from etl.engine import Engine
from etl.shards.export import export
from etl.shards.of_work import WorkSource
from nextlong.errors import UserError
from nextlong.shards.arrow import Arrow
from nextlong.shards.mds import Mds
from nextlong.shards.parquet import Parquet

_FORMATS: dict[str, Any] = {"arrow": Arrow, "parquet": Parquet, "mds": Mds}


def export_run(work: Path, out: Path, name: str) -> Path:
    """Write a work folder's sequences of one length into `out`, once. Raises UserError as `nextlong export` does."""
    if name not in _FORMATS:
        raise UserError(f"format is {name!r}, but it must be among {', '.join(_FORMATS)}; others: nextlong export.")
    target = out.expanduser().absolute()
    export(WorkSource.open(work), str(target), name, _FORMATS[name](), Engine())
    return target
