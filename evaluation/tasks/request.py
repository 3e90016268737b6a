"""What examples are asked for, in; the examples of one context out, whatever the task that writes it."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from evaluation.example import Example
from evaluation.fitting import most_that_fit
from evaluation.token_counts import TokenCounts
from nextlong.errors import UserError


class TooShortError(UserError):
    """The length has no room for a task's least."""

    def __init__(self, task: str, least_tokens: int, length_tokens: int) -> None:
        self.task, self.least_tokens = task, least_tokens
        super().__init__(
            f"task {task} takes at least {least_tokens:,} tokens by this tokenizer, so {length_tokens:,} are too few. "
            f"Ask for a greater length, or leave this task out."
        )


class Asked(NamedTuple):
    """One question on a context."""

    query: str
    depth: float | None
    question: str
    """Its last line is the answer's prefix."""
    answers: tuple[str, ...]


class Request(NamedTuple):
    """The examples of one task and length."""

    task: str
    task_number: int
    """Keeps the random numbers of tasks apart."""
    tokens: TokenCounts
    length_tokens: int
    number: int
    """Examples a depth, or altogether where the task has no depths."""
    seed: int
    depths: Sequence[float]
    hay: str | None
    """As make_hay takes it."""

    def rng(self, number: int, depth_index: int = 0, *more: int) -> np.random.Generator:
        """The random numbers of one example: they do not depend on how many others are made."""
        return np.random.default_rng([self.seed, self.task_number, self.length_tokens, depth_index, number, *more])

    def fill(
        self,
        number: int,
        asked: Sequence[Asked],
        write: Callable[[int], str],
        tokens_before: NDArray[np.number[Any]],
        *,
        least: int,
        hay: Callable[[int], str] = lambda units: "",
    ) -> list[Example]:
        """The examples on one context, of as many units as the length has room for.

        write: the context of n units. hay: of what kind it is. Raises TooShortError where not even `least` units fit,
        UserError for a tokenizer that does not give questions and answers back.
        """
        for each in asked:
            self.tokens.require_spelled(self.task, f"{each.question} {' '.join(each.answers)}")
        room = self.room_for(asked)
        units = self.most(asked, write, tokens_before, least=least)
        context = write(units)
        return [
            Example(
                self.task, self.length_tokens, number, each.depth, context, each.question, each.answers, room,
                each.query, hay(units),
            )
            for each in asked
        ]  # fmt: skip

    def room_for(self, asked: Sequence[Asked]) -> int:
        """Tokens that a model may make as an answer to any of these questions."""
        return max(self.tokens.room_for(each.answers) for each in asked)

    def most(
        self,
        asked: Sequence[Asked],
        write: Callable[[int], str],
        tokens_before: NDArray[np.number[Any]],
        *,
        least: int,
    ) -> int:
        """How many units there is room for. Raises TooShortError where not even `least` fit."""
        longest = max((each.question for each in asked), key=self.tokens.alone)

        def whole(units: int) -> int:
            return self.tokens.whole(write(units) + longest)

        room = self.length_tokens - self.room_for(asked)
        found = most_that_fit(whole, tokens_before, least=least, room_tokens=room)
        if found is None:
            raise TooShortError(self.task, whole(least) + self.length_tokens - room, self.length_tokens)
        return found
