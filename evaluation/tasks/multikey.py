"""Several sentences of one form in a long text, one of them asked for: one text for all depths, a question each."""

from collections.abc import Iterator

from evaluation.example import Example
from evaluation.tasks.door_codes import ask_one, draw_doors, fill_doors
from evaluation.tasks.request import Request

LEAST_KEYS = 4
"""In a text; those beyond the depths asked for stand anywhere."""


def make(request: Request) -> Iterator[Example]:
    """The examples, all questions on a text after another."""
    for number in range(request.number):
        elsewhere = request.rng(number, 0, 3).random(max(0, LEAST_KEYS - len(request.depths)))
        doors = draw_doors(request, number, 0, [*request.depths, *elsewhere.tolist()])
        yield from fill_doors(request, number, 0, doors, [ask_one(door) for door in doors[: len(request.depths)]])
