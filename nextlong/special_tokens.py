"""A tokenizer's folder in; the ids of the tokens that begin, end and pad its sequences, out."""

import json
from pathlib import Path
from typing import Any

from nextlong.errors import UserError
from nextlong.tokenizing import Tokenizer

_FILES = ("tokenizer_config.json", "special_tokens_map.json")


def special_id(tokenizer: Tokenizer, kind: str, given: str | bool | None) -> int | None:
    """The id of a special token; None where `given` is None or False.

    kind: bos, eos or pad. given: the token as text, or True for the one that the files beside tokenizer.json name.
    Raises UserError when there is none, or it is not in the vocabulary.
    """
    if given is None or given is False:
        return None
    token = named_token(tokenizer.file.parent, kind) if given is True else given
    if token is None:
        raise UserError(f"no file beside {tokenizer.file} names its {kind} token. Say which it is: --{kind} TOKEN.")
    found = tokenizer.token_id(token)
    if found is None:
        raise UserError(f"{token!r} is no token of {tokenizer.file}: give another as --{kind}.")
    return found


def named_token(folder: Path, kind: str) -> str | None:
    """The special token of a kind that the files of a tokenizer's folder name."""
    for name in _FILES:
        try:
            told: Any = json.loads((folder / name).read_text(encoding="utf-8")).get(f"{kind}_token")
        except (OSError, ValueError, AttributeError):
            continue
        token = told.get("content") if isinstance(told, dict) else told
        if isinstance(token, str):
            return token
    return None


def pad_id(tokenizer: Tokenizer, given: str | None) -> int:
    """The id of padding: the token given, else the tokenizer's own pad or eos token, else 0; it is never a target."""
    if given is not None:
        return special_id(tokenizer, "pad", given) or 0
    for kind in ("pad", "eos"):
        token = named_token(tokenizer.file.parent, kind)
        found = None if token is None else tokenizer.token_id(token)
        if found is not None:
            return found
    return 0
