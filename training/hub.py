"""A model of a hub, by its id, in; its folder in the hub's cache out."""

import logging
import re
from pathlib import Path

from nextlong.errors import UserError

log = logging.getLogger(__name__)
_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")
_FILES = ["*.json", "*.safetensors", "*.jinja"]
"""No code, and no weights of other formats."""


def local_folder(path: str, *, config_only: bool = False) -> str:
    """What model.path means: itself, or of a hub's OWNER/NAME the folder of what is fetched, once, into its cache.

    config_only: fetch no weights. Raises UserError where the hub gives no such model.
    """
    if Path(path).expanduser().exists() or not _ID.fullmatch(path):
        return path
    from huggingface_hub import snapshot_download

    log.info("model: no folder here is %s, so the hub is asked for it", path)
    try:
        return snapshot_download(path, allow_patterns=["config.json"] if config_only else _FILES)
    except Exception as error:  # offline, unknown id, no access: all end in the same advice
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"model.path is {path}, but there is no such folder, and the hub gave no such model ({reason}). Give a "
            f"folder of transformers, or a hub id that can be reached."
        ) from error
