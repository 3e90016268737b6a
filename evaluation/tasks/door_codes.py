"""Names and codes in; the sentences, questions and texts of needle, multikey and multivalue, out."""

from collections.abc import Sequence
from typing import NamedTuple

from evaluation.example import Example
from evaluation.haystack import Needle
from evaluation.tasks.in_hay import fill_hay
from evaluation.tasks.made_words import made_words, numbers
from evaluation.tasks.request import Asked, Request

ONE, SEVERAL = "door code", "door codes"
PREFACE = "Read the text below. It tells door codes of houses, and a question about them follows.\n\n"


class Door(NamedTuple):
    """A needle: one code of one house."""

    house: str
    code: str
    depth: float

    @property
    def query(self) -> str:
        """The house as a text names it."""
        return f"the house called {self.house}"

    def statement(self) -> str:
        """Thirteen words: as many as decontamination looks for in a row."""
        return f"Write it down: a {ONE} of {self.query} is {self.code}."


def draw_doors(request: Request, number: int, depth_index: int, depths: Sequence[float]) -> list[Door]:
    """One door a depth, each of another house."""
    rng = request.rng(number, depth_index)
    names, codes = made_words(rng, len(depths)), numbers(rng, len(depths), digits=7)
    return [Door(*each) for each in zip(names, codes, depths, strict=True)]


def ask_one(door: Door) -> Asked:
    """The question for a house's only code."""
    question = f"Question: What is the {ONE} of {door.query}?\nAnswer: The {ONE} of {door.query} is"
    return Asked(door.query, door.depth, question, (door.code,))


def ask_all(doors: Sequence[Door]) -> Asked:
    """The question for all codes of one house."""
    query = doors[0].query
    question = f"Question: What are all the {SEVERAL} of {query}?\nAnswer: The {len(doors)} {SEVERAL} of {query} are"
    return Asked(query, None, question, tuple(door.code for door in doors))


def fill_doors(
    request: Request, number: int, depth_index: int, doors: Sequence[Door], asked: Sequence[Asked]
) -> list[Example]:
    """The examples on one text with these doors in it."""
    needles = [Needle(door.statement(), door.depth) for door in doors]

    def others(count: int) -> list[str]:
        rng = request.rng(number, depth_index, 2)
        taken = {door.house for door in doors}
        names = [name for name in made_words(rng, count + len(taken)) if name not in taken][:count]
        return [Door(*each, 0.0).statement() for each in zip(names, numbers(rng, count, digits=7), strict=True)]

    return fill_hay(request, number, depth_index, PREFACE, needles, asked, statements=others)
