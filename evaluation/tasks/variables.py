"""Chains of assignments, scattered over a long text; all names that hold one value are asked for."""

from collections.abc import Iterator
from functools import partial
from itertools import pairwise

from evaluation.example import Example
from evaluation.haystack import Needle
from evaluation.tasks.in_hay import fill_hay
from evaluation.tasks.made_words import made_words, numbers
from evaluation.tasks.request import Asked, Request

NUM_CHAINS, NUM_NAMES = 3, 4
"""Chains in a text, each of another value; names in a chain: the first is set to the value, each other to the last."""
DIGITS = 6
PREFACE = "Read the text below. It sets variables to numbers and to other variables, and a question follows.\n\n"


def make(request: Request) -> Iterator[Example]:
    """The examples; depths have no meaning. The assignments of a chain stand in their order."""
    for number in range(request.number):
        rng = request.rng(number)
        values = numbers(rng, NUM_CHAINS, digits=DIGITS)
        names = made_words(rng, NUM_CHAINS * NUM_NAMES)
        chains = [names[place::NUM_CHAINS] for place in range(NUM_CHAINS)]
        needles = []
        for value, chain in zip(values, chains, strict=True):
            depths = sorted(rng.random(NUM_NAMES).tolist())
            needles += [Needle(*each) for each in zip(_assignments(value, chain), depths, strict=True)]
        others = partial(_others, request, number, {*names, *values})
        yield from fill_hay(request, number, 0, PREFACE, needles, [_ask(values[0], chains[0])], statements=others)


def _assignments(value: str, chain: list[str]) -> list[str]:
    return [_set(name, told) for told, name in pairwise([value, *chain])]


def _set(name: str, told: str) -> str:
    return f"Set {name} to {told}."


def _ask(value: str, chain: list[str]) -> Asked:
    question = f"Question: Which variables hold {value}?\nAnswer: The {len(chain)} variables that hold {value} are"
    return Asked(value, None, question, tuple(chain))


def _others(request: Request, number: int, taken: set[str], count: int) -> list[str]:
    """So many assignments of numbers, of which none is taken, to names, likewise."""
    rng = request.rng(number, 0, 2)
    names = [name for name in made_words(rng, count + len(taken)) if name not in taken]
    values = [value for value in numbers(rng, count + len(taken), digits=DIGITS) if value not in taken]
    return [_set(*each) for each in zip(names[:count], values[:count], strict=True)]
