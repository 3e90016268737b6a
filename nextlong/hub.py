"""A model of a hub, by its id, in; its folder in the hub's cache out."""

import logging
from pathlib import Path

from nextlong.errors import UserError

log = logging.getLogger(__name__)


def snapshot(field: str, model: str, patterns: list[str]) -> Path:
    """Fetch the files of a model whose names match, once; field: the setting that names it.

    Raises UserError where the hub gives no such model.
    """
    from huggingface_hub import snapshot_download

    log.info("model: no folder here is %s, so the hub is asked for it", model)
    try:
        return Path(snapshot_download(model, allow_patterns=patterns))
    except Exception as error:  # offline, unknown id, no access: all end in the same advice
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"{field} is {model!r}, but there is no such folder, and the hub gave no such model ({reason}). Give a "
            f"model folder, or a hub id that can be reached."
        ) from error
