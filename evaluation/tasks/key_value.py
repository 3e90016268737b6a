"""A JSON object of random identifiers, one value asked for by its key: one object for all depths, a question each."""

import uuid
from collections.abc import Iterator

import numpy as np

from evaluation.example import Example
from evaluation.haystack import NOISE, make_hay
from evaluation.tasks.request import Asked, Request

PREFACE = "Below is a JSON object whose keys and values are identifiers, and a note at its end.\n\n"
NOTE = "note"
"""The object's last key: words that fill what is too little for another pair."""
_LEAST_PAIRS = 2
_SLACK_WORDS = 32  # of the note while pairs are counted: the asked keys may take more tokens than the first ones


def make(request: Request) -> Iterator[Example]:
    """The examples, all questions on an object after another."""
    for number in range(request.number):
        yield from _on_one_object(request, number)


def _on_one_object(request: Request, number: int) -> list[Example]:
    pairs = _pairs(request, number)
    hay = make_hay(
        request.tokens,
        NOISE,
        statements=lambda count: [],
        rng=lambda: request.rng(number, 0, 1),
        room_tokens=_SLACK_WORDS * 8 + 2 * int(_tokens_a_pair(request, pairs)),
    )

    def write(num_pairs: int, words: int) -> str:
        lines = [f'"{key}": "{value}",\n' for key, value in pairs[:num_pairs]]
        return f'{PREFACE}{{{"".join(lines)}"{NOTE}": "{hay.first(words)}"}}\n'

    estimate = np.arange(len(pairs) + 1) * _tokens_a_pair(request, pairs)
    first = [_ask(pairs[0], 0.0)]
    num_pairs = request.most(first, lambda units: write(units, _SLACK_WORDS), estimate, least=_LEAST_PAIRS)
    asked = [_ask(pairs[round(depth * (num_pairs - 1))], depth) for depth in request.depths]
    return request.fill(number, asked, lambda words: write(num_pairs, words), hay.tokens, least=0)


def _ask(pair: tuple[str, str], depth: float) -> Asked:
    key, value = pair
    question = f'Question: Which value has the key "{key}"?\nAnswer: The value of the key "{key}" is'
    return Asked(key, depth, question, (value,))


def _pairs(request: Request, number: int) -> list[tuple[str, str]]:
    """As many as could be needed: identifiers take at least sixteen tokens a pair."""
    found = request.rng(number).bytes(32 * (request.length_tokens // 16 + _LEAST_PAIRS))
    made = [str(uuid.UUID(bytes=found[place : place + 16], version=4)) for place in range(0, len(found), 16)]
    return list(zip(made[::2], made[1::2], strict=True))


def _tokens_a_pair(request: Request, pairs: list[tuple[str, str]]) -> float:
    return request.tokens.alone("".join(f'"{key}": "{value}",\n' for key, value in pairs[:100])) / len(pairs[:100])
