"""Several sentences on one name, anywhere in a long text, all asked for."""

from collections.abc import Iterator

from evaluation.example import Example
from evaluation.tasks.door_codes import ask_all, draw_doors, fill_doors
from evaluation.tasks.request import Request

NUM_VALUES = 4


def make(request: Request) -> Iterator[Example]:
    """The examples; depths have no meaning."""
    for number in range(request.number):
        drawn = draw_doors(request, number, 0, request.rng(number, 0, 3).random(NUM_VALUES).tolist())
        doors = [door._replace(house=drawn[0].house) for door in drawn]
        yield from fill_doors(request, number, 0, doors, [ask_all(doors)])
