"""Hay of a kind in, its tokens known word by word; the hay with sentences put in at given depths out."""

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from evaluation.token_counts import TokenCounts
from nextlong.errors import UserError

NOISE, NEEDLES = "noise", "needles"
"""Kinds of hay; any other one given is the text itself."""

_WIDE = "\u2e80-\U0010ffff"  # scripts without spaces, whose letters take several tokens each
_ENDS = "。！？"
_WORD = re.compile(rf"\s*(?:[^\s{_WIDE}]{{1,24}}|[^\s\x00-\u2e7f{_ENDS}]{{1,6}}[{_ENDS}]?|[{_ENDS}])")
_CLOSED = r"[\"'”’)\]]*"
_SENTENCE_END = re.compile(rf"[.!?]{_CLOSED}\s+|[{_ENDS}]|\n")
_LAST_WORD = re.compile(rf"[.!?{_ENDS}]{_CLOSED}$")
_SAMPLE_CHARS = 4_000
_MOST_CHARS_A_TOKEN = 50  # a word of unknown letters is a single token, whatever its length
_LONGEST_SENTENCE = 64  # words; a text without full stops has places for needles, too

_NOISE = (
    "The road along the canal was empty that morning.",
    "A boy carried two baskets of bread up the stairs.",
    "Nobody had opened the shutters of the small shop.",
    "Later in the day a light rain fell over the fields.",
    "The ferry left on time and came back before noon.",
    "Somebody was tuning a piano on the second floor.",
    "Two dogs slept in the shade behind the old mill.",
    "The baker swept the yard and then locked the gate.",
    "There was a smell of cut wood and of wet stone.",
    "A letter lay on the table, but it was not for us.",
    "The last train stood in the station with its doors open.",
    "In the evening the wind turned and the lamps were lit.",
)


class Needle(NamedTuple):
    """A sentence to put into the hay."""

    text: str
    depth: float
    """0 before all hay ... 1 after it, by tokens."""


class Hay(NamedTuple):
    """A text of n words."""

    kind: str
    """As Example.hay says it."""
    text: str
    ends: NDArray[np.int64]
    """[n + 1]: the character where the first so many words end."""
    tokens: NDArray[np.int64]
    """[n + 1]: how many tokens they take."""
    starts: NDArray[np.int64]
    """Ascending: how many words stand before each sentence."""
    unique_words: int
    """After so many the text begins again."""

    def first(self, words: int, needles: Sequence[tuple[Needle, int]] = ()) -> str:
        """The first so many words, with needles (each with its tokens) between sentences; equal depths in their order.

        A needle stands as near to its share of the other tokens as a sentence allows.
        """
        places = self._places(words, needles)
        bounds = [0, *self.ends[places].tolist(), int(self.ends[words])]
        parts = [self.text[bounds[0] : bounds[1]]]
        for (needle, _), start, end in zip(needles, bounds[1:-1], bounds[2:], strict=True):
            parts += [needle.text, self.text[start:end]]
        return " ".join(part for part in map(str.strip, parts) if part)

    def kind_of(self, words: int) -> str:
        """The kind of the first so many words: it says whether a text is repeated in them."""
        return f"{self.kind}, repeated" if words > self.unique_words else self.kind

    def _places(self, words: int, needles: Sequence[tuple[Needle, int]]) -> NDArray[np.int64]:
        """Of each needle, ascending in depth, how many words stand before it."""
        allowed = np.append(self.starts[self.starts < words], words)
        total = int(self.tokens[words]) + sum(tokens for _, tokens in needles)
        places, before = list[int](), 0
        for needle, tokens in needles:
            wanted = needle.depth * (total - tokens) - before
            places.append(int(allowed[np.abs(self.tokens[allowed] - wanted).argmin()]))
            before += tokens
        return np.maximum.accumulate(places, dtype=np.int64)  # needles that would overlap stand one after another


def make_hay(
    tokens: TokenCounts,
    hay: str | None,
    *,
    statements: Callable[[int], list[str]],
    rng: Callable[[], np.random.Generator],
    room_tokens: int,
) -> Hay:
    """Hay of at least so many tokens. hay: "noise" (or None), "needles", or a text from `plain`.

    statements: so many sentences of the needles' form, of other names. rng: the same random numbers at each call. A
    text begins at a random sentence, goes on from its beginning where it ends, and is repeated only if it is shorter
    than needed. Raises UserError for a text of which the tokenizer knows no letters.
    """
    source = _source(hay, statements, rng)
    sample = source(_SAMPLE_CHARS)
    chars_a_token = len(sample) / max(1, tokens.alone(sample))
    if chars_a_token > _MOST_CHARS_A_TOKEN:
        raise UserError(
            f"the tokenizer makes a token of {chars_a_token:,.0f} characters of the hay, so it knows none of its "
            f"letters. Give a text that it knows, noise or needles."
        )
    chars = _SAMPLE_CHARS + int(1.05 * room_tokens * chars_a_token)
    while True:
        text = source(chars)
        ends, starts = _words(text)
        before = tokens.before(text, ends)
        if before[-1] >= room_tokens:
            break
        chars += chars // 4
    kind = NOISE if hay is None else hay if hay in (NOISE, NEEDLES) else "text"
    last = len(text) if hay is None or kind != "text" else len(hay)
    return Hay(kind, text, ends, before, starts, int(np.searchsorted(ends, last, side="right")) - 1)


def plain(text: str) -> str:
    """A text with each run of white space as one space or line's end. Raises UserError where nothing else is in it."""
    found = "\n".join(filter(None, (" ".join(line.split()) for line in text.splitlines())))
    if not found:
        raise UserError("the hay is empty. Give a text, noise or needles.")
    return found


def _source(
    hay: str | None, statements: Callable[[int], list[str]], rng: Callable[[], np.random.Generator]
) -> Callable[[int], str]:
    """A function of the least number of characters that gives a text of them."""
    if hay is None or hay == NOISE:
        shortest = min(map(len, _NOISE))
        return lambda chars: " ".join(_NOISE[each] for each in rng().integers(len(_NOISE), size=chars // shortest + 1))
    if hay == NEEDLES:
        shortest = len(statements(1)[0])
        return lambda chars: " ".join(statements(chars // shortest + 1))
    return lambda chars: _own_text(hay, int(rng().integers(len(hay))), chars)


def _own_text(hay: str, place: int, chars: int) -> str:
    """From the first sentence after a place on; where the text ends, from its beginning."""
    found = _SENTENCE_END.search(hay, place)
    text = hay[found.end() if found else 0 :][:chars]
    while len(text) < chars:
        text += "\n" + hay[:chars]
    return text[:chars]


def _words(text: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The characters [n + 1] where 0 ... n words end, and how many words stand before each sentence."""
    ends, starts, is_first = [0], [0], False
    for found in _WORD.finditer(text):
        word, before = found.group(), len(ends) - 1
        if (is_first or word[0] == "\n" or before - starts[-1] >= _LONGEST_SENTENCE) and before > starts[-1]:
            starts.append(before)
        ends.append(found.end())
        is_first = _LAST_WORD.search(word) is not None
    return np.array(ends, np.int64), np.array(starts, np.int64)
