"""One sentence somewhere in a long text, asked for after it: one text a depth."""

from collections.abc import Iterator

from evaluation.example import Example
from evaluation.tasks.door_codes import ask_one, draw_doors, fill_doors
from evaluation.tasks.request import Request


def make(request: Request) -> Iterator[Example]:
    """The examples, all depths of one number after another."""
    for number in range(request.number):
        for place, depth in enumerate(request.depths):
            doors = draw_doors(request, number, place, [depth])
            yield from fill_doors(request, number, place, doors, [ask_one(doors[0])])
