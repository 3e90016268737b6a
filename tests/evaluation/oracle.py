"""Programs that answer an example from its text alone: one finds the answer, one guesses among what could be it."""

import json
import re
from collections import Counter

import numpy as np

from evaluation.example import Example


def answer(example: Example) -> str:
    """The right answer, read from context and question."""
    if example.task == "frequent_words":
        return " ".join(word for word, _ in Counter(_text(example).split()).most_common(3))
    if example.task == "key_value":
        return str(json.loads(_text(example))[_named(example, r'key "([-\w]+)"')])
    if example.task == "variables":
        value, held = _named(example, r"hold (\d+)"), dict(_assignments(example))
        return ", ".join(name for name in held if _resolved(name, held) == value)
    name = _named(example, r"called (\w+)")
    return ", ".join(re.findall(rf"called {name} is (\d+)\.", example.context))


def choices(example: Example) -> list[str]:
    """What a guesser chooses from, who knows the form of an answer."""
    if example.task == "frequent_words":
        return sorted(set(_text(example).split()))
    if example.task == "key_value":
        return [value for key, value in json.loads(_text(example)).items() if key != "note"]
    if example.task == "variables":
        return [name for name, _ in _assignments(example)]
    return re.findall(r"is (\d+)\.", example.context)


def guess(example: Example, rng: np.random.Generator) -> str:
    """As many choices as there are answers."""
    return " and ".join(rng.choice(choices(example), len(example.answers), replace=False))


def _text(example: Example) -> str:
    return example.context.split("\n\n", 1)[1]


def _named(example: Example, pattern: str) -> str:
    found = re.search(pattern, example.question)
    assert found is not None
    return found.group(1)


def _assignments(example: Example) -> list[tuple[str, str]]:
    return re.findall(r"Set (\w+) to (\w+)\.", example.context)


def _resolved(name: str, held: dict[str, str]) -> str:
    while name in held:
        name = held[name]
    return name
