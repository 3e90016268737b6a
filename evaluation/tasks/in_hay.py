"""Sentences to find in; examples on them and the hay around, of the length asked for, out."""

from collections.abc import Callable, Sequence

from evaluation.example import Example
from evaluation.haystack import Needle, make_hay
from evaluation.tasks.request import Asked, Request

_LEAST_WORDS = 16  # of hay, so that there is some


def fill_hay(
    request: Request,
    number: int,
    depth_index: int,
    preface: str,
    needles: Sequence[Needle],
    asked: Sequence[Asked],
    *,
    statements: Callable[[int], list[str]],
) -> list[Example]:
    """The examples on one text. statements: so many sentences that hay of needles is made of."""
    for needle in needles:
        request.tokens.require_spelled(request.task, preface + needle.text)
    ordered = sorted(needles, key=lambda needle: needle.depth)
    sized = [(needle, request.tokens.alone(" " + needle.text)) for needle in ordered]
    hay = make_hay(
        request.tokens,
        request.hay,
        statements=statements,
        rng=lambda: request.rng(number, depth_index, 1),
        room_tokens=request.length_tokens,
    )

    def write(words: int) -> str:
        return f"{preface}{hay.first(words, sized)}\n"

    return request.fill(number, asked, write, hay.tokens, least=_LEAST_WORDS, hay=hay.kind_of)
