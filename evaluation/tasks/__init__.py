"""The tasks by name, and the examples of each: the same for the same tokenizer, length, number, seed and hay."""

from collections.abc import Callable, Iterator, Mapping, Sequence

from tokenizers import Tokenizer as FastTokenizer

from evaluation.example import Example
from evaluation.haystack import NEEDLES, NOISE, plain
from evaluation.tasks import frequent_words, key_value, multikey, multivalue, needle, variables
from evaluation.tasks.request import Request
from evaluation.token_counts import TokenCounts
from nextlong.errors import UserError
from nextlong.spelling import did_you_mean

TASKS: Mapping[str, Callable[[Request], Iterator[Example]]] = {
    "needle": needle.make,
    "multikey": multikey.make,
    "multivalue": multivalue.make,
    "variables": variables.make,
    "frequent_words": frequent_words.make,
    "key_value": key_value.make,
}
"""Their places are their numbers in random seeds: new ones come last."""


def examples(
    task: str,
    tokenizer: FastTokenizer,
    length_tokens: int,
    *,
    number: int,
    seed: int,
    depths: Sequence[float],
    hay: str | None,
) -> list[Example]:
    """The examples of one task and length; those on one context follow one another.

    number: a depth for needle, multikey and key_value, altogether for the others. depths: 0 ... 1 by tokens. hay:
    "noise" (or None), "needles" (other sentences of the same form), or a text, which is cut at sentences, begins at a
    random one and is repeated only if it is shorter than needed (Example.hay says so); frequent_words and key_value
    have none. context + question, encoded with the tokenizer's special tokens, and max_new_tokens are never more
    than length_tokens, and fill it but for about a word or 1 in 500 tokens. Needles stand at their depth within a
    sentence. Raises UserError for an unknown task, a length that is too small for it, depths outside 0 ... 1, an empty
    hay, and a tokenizer that does not give words, numbers or identifiers back.
    """
    if task not in TASKS:
        raise UserError(f"there is no task {task!r}, only {', '.join(TASKS)}.{did_you_mean(task, TASKS)}")
    if not depths or not all(0 <= depth <= 1 for depth in depths):
        told = ", ".join(map(str, depths)) or "none"
        raise UserError(f"depths are numbers from 0 (beginning) to 1 (end), not {told}.")
    if number < 1 or seed < 0 or length_tokens < 1:
        raise UserError(
            f"a number of examples and a length are at least 1, a seed at least 0: given are {number:,}, "
            f"{length_tokens:,} and {seed}."
        )
    own = hay if hay in (None, NOISE, NEEDLES) else plain(hay)
    place = list(TASKS).index(task)
    request = Request(task, place, TokenCounts(tokenizer), length_tokens, number, seed, list(depths), own)
    return list(TASKS[task](request))
