"""A chat and its Jinja template in; the text written, the assistant's turns in it and what contents quote out."""

import datetime
import json
import re
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate, islice
from typing import Any, NamedTuple

from nextlong.errors import UserError

Message = dict[str, Any]
Spans = list[tuple[int, int]]

_TODAY = datetime.date(2026, 1, 1)  # for templates that write the day's date: the same chat, the same ids, every day
_DIRECTIVES = "aAbBdmyYjHIMSpUwW"
_GENERATION = re.compile(r"\{%[-+]?\s*generation\s*[-+]?%\}")
_MOST_UNMARKED = 8  # contents in which a mark changes the text: each takes a rendering to find
_LONGEST_REASON = 300


class Rendered(NamedTuple):
    """What a template writes of a chat; all spans are characters of the text: start, stop, ascending, disjoint."""

    text: str
    turns: Spans
    """The assistant's."""
    quotes: Spans
    """Strings of special tokens that a message holds."""


class CannotRender(Exception):
    """Why a chat is refused, or the turns in it cannot be found: part of a sentence."""


class Renderer:
    """A chat template, rendered in transformers' sandbox; the day's date, where it writes one, is 1 January 2026.

    Where the assistant's turns are is told by its {% generation %} markers or, without them, found. The chat is
    rendered once more, with a private character in the contents, which must give the same text but for that character.
    What the template writes between two contents is then compared with what it writes when the chat ends there, with
    its generation prompt (there a turn begins) and without (there it ends, the end-of-turn token included), as far as
    they agree: "ans<|im_end|>\\n" is a turn also where a template has dropped the reasoning before "ans" once another
    question follows. This takes a few renderings, as many as there are different texts between contents, whatever the
    length of the chat. A few contents in which the character changes the text go without; where it changes more, each
    turn must begin and end where the rendering of the messages up to it does, which takes two renderings a turn.
    """

    def __init__(self, source: str, variables: Mapping[str, str], special_tokens: Sequence[str]) -> None:
        try:
            from jinja2.exceptions import TemplateError
            from transformers.utils.chat_template_utils import render_jinja_template
        except ImportError as error:
            raise UserError(
                f"chat templates are rendered by transformers and jinja2, which are not installed ({error}). "
                f"Run pip install 'nextlong[train]'."
            ) from error
        self.source = _with_fixed_date(source)
        self.has_markers = bool(_GENERATION.search(source))
        self._variables = dict(variables)
        self._special = _any_of(special_tokens)
        self._library = render_jinja_template
        try:
            self._library([], chat_template=self.source)
        except TemplateError as error:
            raise CannotRender(_reason(error)) from error

    def render(self, messages: Sequence[Message]) -> Rendered:
        """The chat as the template writes it. Raises CannotRender when it refuses, or the turns cannot be found."""
        text, turns = self._write(messages)
        marks = _Marks(messages, self.source)
        quoted: list[Message] = marks.quote(list(messages), self._special)
        if self.has_markers:
            whole = self._read(quoted, marks) if quoted != messages else None
            return Rendered(text, turns, whole.quotes if whole and whole.text == text else [])
        reason = CannotRender("it writes another text each time")
        for candidate, around in (self._place_marks(text, quoted, marks), (quoted, {}), (messages, {})):
            whole = self._read(candidate, marks)
            if whole and whole.text == text and len(whole.places) == len(around):
                try:
                    return Rendered(text, _Turns(self, candidate, marks, whole, around).find(), whole.quotes)
                except CannotRender as error:
                    reason = error
        raise reason

    def _place_marks(self, text: str, messages: Sequence[Message], marks: "_Marks") -> tuple[list[Message], "_Around"]:
        """Messages with marks in all contents but a few in which they change the text; or the last attempt."""
        numbers = list(range(len(messages)))
        for _ in range(_MOST_UNMARKED):
            marked, around = marks.place(messages, numbers)
            whole = self._read(marked, marks)
            if not whole or not around or (whole.text == text and len(whole.places) == len(around)):
                break
            num_before = bisect_right(whole.places, _agreement(text, whole.text))  # marks before the first difference
            numbers.remove(sorted(around)[min(max(num_before, 1), len(around)) - 1])
        return marked, around

    def _read(self, messages: Sequence[Message], marks: "_Marks") -> "_Marked | None":
        """What is written of messages with marks; None: they are refused for their sake."""
        try:
            return marks.read(self._write(messages)[0])
        except CannotRender:
            return None

    def write(self, messages: Sequence[Message], *, prompt: bool) -> str:
        """The text alone; prompt: with what the template has the model answer to."""
        return self._write(messages, prompt)[0]

    def _write(self, messages: Sequence[Message], prompt: bool = False) -> tuple[str, Spans]:
        try:
            [text], turns = self._library(
                [list(messages)],
                chat_template=self.source,
                add_generation_prompt=prompt,
                return_assistant_tokens_mask=self.has_markers,
                **self._variables,
            )
        except Exception as error:  # a template is a program, and may fail in any way
            raise CannotRender(_reason(error)) from error
        return text, turns[0] if turns else []


_Around = dict[int, tuple[str, str]]  # by message: its content before and after the mark


class _Marked(NamedTuple):
    """A rendered text without its marks."""

    text: str
    places: list[int]
    quotes: Spans


class _Marks:
    """Three characters that neither the chat nor the template holds: one for a place, two around a quote."""

    def __init__(self, messages: Sequence[Message], source: str) -> None:
        used = source + json.dumps(messages, ensure_ascii=False, default=str)
        private = (chr(code) for code in range(0xF0000, 0x110000))
        self.place_mark, self.opening, self.closing = islice((mark for mark in private if mark not in used), 3)

    def quote(self, value: Any, special: re.Pattern[str]) -> Any:
        """A value of JSON with every special token's string in it between marks."""
        if isinstance(value, str):
            return special.sub(f"{self.opening}\\g<0>{self.closing}", value)
        if isinstance(value, dict):
            return {key: self.quote(each, special) for key, each in value.items()}
        return [self.quote(each, special) for each in value] if isinstance(value, list) else value

    def place(self, messages: Sequence[Message], numbers: Iterable[int]) -> tuple[list[Message], _Around]:
        """Messages with a mark in those that are the assistant's or just before one; and what is around the marks."""
        marked, around = list(messages), {}
        for number in numbers:
            message = messages[number]
            is_assistant = message["role"] == "assistant"
            is_before = number + 1 < len(messages) and messages[number + 1]["role"] == "assistant"
            if (is_assistant or is_before) and (found := _with_mark(message, self.place_mark, at_end=is_assistant)):
                marked[number], (before, after) = found
                around[number] = (self.read(before).text, self.read(after).text)
        return marked, around

    def read(self, text: str) -> _Marked:
        """The text without marks, and where they were."""
        places: dict[str, list[int]] = {self.place_mark: [], self.opening: [], self.closing: []}
        plain, position = [], 0
        for piece in re.split(f"([{''.join(places)}])", text):
            if piece in places:
                places[piece].append(position)
            else:
                plain.append(piece)
                position += len(piece)
        quotes = zip(places[self.opening], places[self.closing], strict=False)
        return _Marked("".join(plain), places[self.place_mark], list(quotes))


class _Turns:
    """Where the assistant's turns are in the text of one chat."""

    def __init__(
        self, renderer: Renderer, messages: Sequence[Message], marks: _Marks, whole: _Marked, around: _Around
    ) -> None:
        self._renderer, self._messages, self._marks = renderer, messages, marks
        self._whole, self._around = whole, around
        self._marked = sorted(around)
        self._num_marked = list(accumulate((number in around for number in range(len(messages))), initial=0))
        self._lengths: dict[tuple[Any, ...], int] = {}

    def find(self) -> Spans:
        turns: Spans = []
        for number, message in enumerate(self._messages):
            if message["role"] == "assistant":
                start = self._boundary(number, prompt=True) if number else self._first_start()
                stop = self._boundary(number + 1, prompt=False)
                if stop > start:
                    turns.append((start, stop))
        return turns

    def _first_start(self) -> int:
        """Of a chat that the assistant opens, since many templates refuse one without messages."""
        opening = {**self._messages[0], "content": self._marks.place_mark}
        header = self._marks.read(self._renderer.write([opening], prompt=False))
        if not header.places:
            raise CannotRender("the first message's place is not to be found")
        return _agreement(self._whole.text, header.text[: header.places[0]])

    def _boundary(self, number: int, *, prompt: bool) -> int:
        """Where what is written of the first `number` messages ends, as far as the whole text agrees with it."""
        text, place = self._whole.text, self._num_marked[number]
        if number == len(self._messages):
            return len(text)
        start, stop, last = 0, len(text), -1
        if place:
            last = self._marked[place - 1]
            start = _after(text, self._whole.places[place - 1], self._around[last][1])
        if place < len(self._marked):  # up to the next content
            before = self._around[self._marked[place]][0]
            stop = self._whole.places[place]
            stop -= len(before) if text.endswith(before, start, stop) else 0
        between = text[start:stop]
        key = (self._messages[last]["role"] if place else None, number - last, prompt, between)
        if key not in self._lengths:
            self._lengths[key] = self._length(number, prompt, between, last)
        return start + self._lengths[key]

    def _length(self, number: int, prompt: bool, between: str, last: int) -> int:
        """How much of the text between two contents is written when the chat ends there."""
        part = self._marks.read(self._renderer.write(self._messages[:number], prompt=prompt))
        if len(part.places) != self._num_marked[number]:
            raise CannotRender(f"of the first {number} messages alone it does not write the contents once each")
        start = _after(part.text, part.places[-1], self._around[last][1]) if part.places else 0
        length = _agreement(between, part.text[start:])
        if not part.places and length < len(part.text):
            raise CannotRender(f"what it writes of the first {number} messages alone is not how the whole chat begins")
        return length


def _with_mark(message: Message, mark: str, *, at_end: bool) -> tuple[Message, tuple[str, str]] | None:
    """A message with a mark in its content, whitespace around not counted, or in its last tool call's name.

    at_end: else in the middle, since templates may look at how a content begins and ends.
    """
    content = message.get("content") or ""
    if core := content.strip():
        cut = len(core) if at_end else len(core) // 2
        before, core, after = content.partition(core)
        return {**message, "content": before + core[:cut] + mark + core[cut:] + after}, (core[:cut], core[cut:])
    calls = message.get("tool_calls")
    call = calls[-1] if isinstance(calls, list) and calls else None
    if not isinstance(calls, list) or not isinstance(call, dict):
        return None
    function = call.get("function", call)
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str) or not name:
        return None
    named = {**function, "name": name + mark}
    named = {**call, "function": named} if "function" in call else named
    return {**message, "tool_calls": [*calls[:-1], named]}, (name, "")


def _agreement(one: str, other: str) -> int:
    """Characters with which both texts begin."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if one[low:middle] == other[low:middle] else (low, middle - 1)
    return low


def _after(text: str, place: int, rest: str) -> int:
    return place + len(rest) if text.startswith(rest, place) else place


def _any_of(strings: Sequence[str]) -> re.Pattern[str]:
    """The longest first; what is only whitespace is in every text."""
    longest_first = sorted(filter(str.strip, strings), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or "(?!)")


def _with_fixed_date(source: str) -> str:
    """The template, with a function of its own instead of the one that tells the day's date."""
    if "strftime_now" not in source:
        return source
    replace = "".join(f"|replace('%{each}','{_TODAY.strftime('%' + each)}')" for each in _DIRECTIVES)
    return f"{{% macro strftime_now(format) %}}{{{{ format|replace('%-','%'){replace} }}}}{{% endmacro %}}\n{source}"


def _reason(error: Exception) -> str:
    message = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return message if len(message) <= _LONGEST_REASON else message[:_LONGEST_REASON] + "..."
