"""A model of a hub, by its id, in; its folder in the hub's cache out."""

import re
from pathlib import Path

from nextlong.hub import snapshot

_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")
_FILES = ["*.json", "*.safetensors", "*.jinja"]
"""No code, and no weights of other formats."""


def local_folder(path: str, *, config_only: bool = False) -> str:
    """What model.path means: itself, or of a hub's OWNER/NAME the folder of what is fetched, once, into its cache.

    config_only: fetch no weights. Raises UserError where the hub gives no such model.
    """
    if Path(path).expanduser().exists() or not _ID.fullmatch(path):
        return path
    return str(snapshot("model.path", path, ["config.json"] if config_only else _FILES))
