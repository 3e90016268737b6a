"""A chat in, its token ids and a loss mask out: as the tokenizer's chat template writes it, 1 on the assistant's turns.

The mask covers what a model is to write: each turn from where the template's generation prompt ends to where the turn
does, the end-of-turn token included. It holds for templates with {% generation %} markers, which say so themselves,
and for those without (see `chat_rendering`).
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nextlong.chat_rendering import CannotRender, Message, Renderer, Spans
from nextlong.errors import UserError
from nextlong.tokenizing import Tokenizer, resolve_tokenizer

_CONFIG, _TEMPLATE = "tokenizer_config.json", "chat_template.jinja"
_VARIABLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_CHAT = 'A chat is a list of messages: [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}].'


class ChatTemplate:
    """A tokenizer with the chat template in its folder; no code of the folder is run, the template in a sandbox."""

    def __init__(self, file: Path, source: str, variables: dict[str, str], name: str) -> None:
        """variables: what the template knows as bos_token, eos_token and so on; name: for messages."""
        self._reading = Tokenizer(file, reads_special_tokens=True)
        self._plain = Tokenizer(file)
        self._name = name
        try:
            self._renderer = Renderer(source, variables, list(self._plain.special_tokens))
        except CannotRender as error:
            raise UserError(f"tokenizer {name}: its chat template is no valid template ({error}). Mend it.") from error
        parts = [self._plain.fingerprint, self._renderer.source, variables]
        self.fingerprint = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
        """sha256 over the tokenizer.json, the template and the special tokens it is given."""

    @classmethod
    def load(cls, name: str) -> "ChatTemplate":
        """Open a folder, a tokenizer.json in one, or a hub id: chat_template.jinja, else tokenizer_config.json's.

        Raises UserError when there is no fast tokenizer, or no chat template or a broken one.
        """
        file = resolve_tokenizer(name)
        config = _read_config(name, _beside(file, _CONFIG, name))
        legacy = _read_config(name, path) if (path := file.with_name("special_tokens_map.json")).is_file() else {}
        template = _beside(file, _TEMPLATE, name)
        source = template.read_text(encoding="utf-8") if template else _default(config.get("chat_template"))
        if source is None:
            raise UserError(
                f"tokenizer {name} has no chat template: neither a {_TEMPLATE} nor a chat_template in its {_CONFIG}. "
                f"Give the tokenizer of a chat model, or put a template of your own beside its tokenizer.json."
            )
        values = {key: _content(config.get(key) or legacy.get(key)) for key in _VARIABLES}
        return cls(file, source, {key: value for key, value in values.items() if value is not None}, name)

    def encode(self, messages: object, where: str) -> tuple[NDArray[np.uint32], NDArray[np.uint8]]:
        """Token ids [n] of a chat and 1 [n] for each that is part of a turn of the assistant's, were it one character.

        The ids are those of the whole text, without special tokens but those that the template writes: one that a
        message quotes ("<|im_end|>" in a user's question) is text, unless the template reads its contents such that it
        writes something else when the quote is marked; then the text's special tokens are read, whoever wrote them.
        Added tokens that are not special (<think>, <tool_call>) are read everywhere. Where a tokenizer writes a space
        before a text, it may write one at the begin of a message that quotes. Null fields count as absent, and parts
        of text ([{"type": "text", "text": ...}]) as one content.

        where: file and row, for messages. Raises UserError for what is no list of messages with role and content, for
        a chat without turn of the assistant's, one that the template refuses, and one whose turns cannot be found.
        """
        chat = _check(messages, where)
        try:
            text, turns, quotes = self._renderer.render(chat)
        except (CannotRender, RecursionError) as error:  # a chat may be nested too deeply
            raise UserError(
                f"{where}: the chat template of {self._name} does not take this chat: {error}. "
                f"Change the chat or leave it out, or use a template that takes it (one that has {{% generation %}} "
                f"markers says where the turns of the assistant are)."
            ) from error
        tokens = self._encode(text, quotes, where)
        return tokens[:, 0].astype(np.uint32), _overlaps(tokens, turns).astype(np.uint8)

    def _encode(self, text: str, quotes: Spans, where: str) -> NDArray[np.int64]:
        """Tokens with their places; between special tokens of the template, what holds a quote is plain text."""
        tokens = self._reading.encode_with_places(text)
        if not quotes:
            return tokens
        is_special = np.isin(tokens[:, 0], list(self._plain.special_tokens.values()))
        own = np.flatnonzero(is_special & ~_overlaps(tokens, quotes)).tolist()
        parts, first, start = [tokens[:0]], 0, 0
        for place in [*own, len(tokens)]:
            stop = int(tokens[place, 1]) if place < len(tokens) else len(text)
            quoted = {text[begin:end] for begin, end in quotes if start <= begin < stop}
            parts.append(self._encode_plain(text[start:stop], start, quoted, where) if quoted else tokens[first:place])
            parts.append(tokens[place : place + 1])
            first, start = place + 1, int(tokens[place, 2]) if place < len(tokens) else stop
        return np.concatenate(parts)

    def _encode_plain(self, text: str, start: int, quoted: set[str], where: str) -> NDArray[np.int64]:
        tokens = self._plain.encode_with_places(text)
        for token in sorted(quoted):
            if self._plain.special_tokens[token] in tokens[:, 0]:
                raise UserError(
                    f"{where}: a message holds {token!r}, which the tokenizer {self._name} cannot write as text but "
                    f"only as its special token. Take it out of the message."
                )
        moved: NDArray[np.int64] = tokens + np.array([0, start, start])
        return moved


def _overlaps(tokens: NDArray[np.int64], spans: Spans) -> NDArray[np.bool_]:
    """Which tokens [n, 3] have characters in a span; one may reach into it, as " Hello" after "[/INST]" does."""
    starts, stops = np.array(spans, np.int64).reshape(-1, 2).T
    place = np.searchsorted(stops, tokens[:, 1], side="right")
    reaches: NDArray[np.bool_] = tokens[:, 2] > np.append(starts, np.iinfo(np.int64).max)[place]
    return reaches


def _check(messages: object, where: str) -> list[Message]:
    """The messages without null fields, and with strings for parts of text."""
    if not isinstance(messages, list):
        raise UserError(f"{where}: the chat is not a list. {_CHAT}")
    if not messages:
        raise UserError(f"{where}: the chat has no messages. Leave it out.")
    chat = [_check_message(message, f"{where}: message {number}") for number, message in enumerate(messages, 1)]
    if not any(message["role"] == "assistant" for message in chat):
        roles = ", ".join(dict.fromkeys(message["role"] for message in chat))
        raise UserError(f"{where}: the chat has no message of the role assistant, only {roles}. Leave it out.")
    return chat


def _check_message(message: object, where: str) -> Message:
    if not isinstance(message, dict):
        raise UserError(f"{where} is not an object. {_CHAT}")
    message = {key: value for key, value in message.items() if value is not None}
    fields = ", ".join(map(str, message)) or "none"
    if not isinstance(message.get("role"), str) or not message["role"]:
        raise UserError(f"{where} has no role, or one that is no string; its fields: {fields}. {_CHAT}")
    if "content" not in message and not message.get("tool_calls"):
        raise UserError(f"{where} has no content; its fields: {fields}. {_CHAT}")
    return message | {"content": _join(message["content"], where)} if "content" in message else message


def _join(content: object, where: str) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise UserError(f"{where} has a content that is neither a string nor a list of parts. {_CHAT}")
    for part in content:
        if not isinstance(part, dict) or part.get("type", "text") != "text" or not isinstance(part.get("text"), str):
            kind = part.get("type") if isinstance(part, dict) else None
            raise UserError(f"{where} has a part of type {kind!r}, but only text is read. Leave out the chat.")
    return "".join(part["text"] for part in content)


def _beside(file: Path, companion: str, name: str) -> Path | None:
    """A file beside the tokenizer.json, of a hub id fetched as that was; None: there is none."""
    path = file.with_name(companion)
    if path.is_file() or Path(name).expanduser().exists():
        return path if path.is_file() else None
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(name, companion))
    except Exception as error:  # offline, no access, or really none
        is_unknown = isinstance(error, LocalEntryNotFoundError) or not isinstance(error, EntryNotFoundError)
        if is_unknown and companion == _CONFIG:
            reason = str(error).split("\n")[0]
            raise UserError(
                f"tokenizer {name}: the hub did not tell whether it has a {companion} ({reason}). Try again, or give "
                f"a folder."
            ) from error
        return None


def _read_config(name: str, path: Path | None) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8")) if path else {}
    except ValueError as error:
        raise UserError(f"tokenizer {name}: its {path and path.name} is not JSON ({error}). Fetch it again.") from error
    return config if isinstance(config, dict) else {}


def _default(template: object) -> str | None:
    """A configuration's template: of several, each with a name, the one named default."""
    if isinstance(template, list):
        named = {each.get("name"): each.get("template") for each in template if isinstance(each, dict)}
        template = named.get("default")
    return template if isinstance(template, str) else None


def _content(token: object) -> str | None:
    """A special token, which is written as a string or as an object with one."""
    token = token.get("content") if isinstance(token, dict) else token
    return token if isinstance(token, str) else None
