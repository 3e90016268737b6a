"""Questions on one context in, greedy answers out; keys and values of what they share are computed once."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

from torch import Tensor

from evaluation.blocks import forget, new_cache, read
from evaluation.example import Example
from evaluation.model import Model


def answers(
    model: Model, made: Iterable[Example], is_wanted: Callable[[Example], bool] = lambda _: True
) -> Iterator[tuple[Example, str]]:
    """The model's text after each prompt that is wanted, in order, without special tokens.

    Examples on one context that follow each other share it: their common tokens are read once. What is shared is
    decided by all of them, wanted or not, so an answer does not depend on which others are asked for. One prompt is
    read at a time: prompts of a batch change each other's last digits. An answer ends at an end-of-text token or after
    max_new_tokens. Raises UserError where the model has no such token.
    """
    eos_ids = model.eos_ids()
    for _, group in groupby(made, key=lambda example: example.context):
        examples = list(group)
        wanted = [is_wanted(example) for example in examples]
        if any(wanted):
            prompts = [model.prompt_ids(example.context + example.question) for example in examples]
            shared = num_shared(prompts)
            cache = new_cache()
            if shared:
                read(model, prompts[0][:shared], cache)
            for example, prompt, is_one in zip(examples, prompts, wanted, strict=True):
                if is_one:
                    forget(cache, shared)
                    ids = _greedy(model, prompt[shared:], cache, example.max_new_tokens, eos_ids)
                    yield example, model.tokenizer.decode(ids, skip_special_tokens=True)


def num_shared(prompts: Sequence[Tensor]) -> int:
    """Tokens that all prompts begin with, but for the last of the shortest: something has to be read for each."""
    length = min(map(len, prompts)) - 1
    for prompt in prompts[1:]:
        differs = (prompt[:length] != prompts[0][:length]).nonzero()
        length = int(differs[0]) if len(differs) else length
    return length if len(prompts) > 1 else 0


def _greedy(model: Model, ids: Tensor, cache: Any, max_new_tokens: int, eos_ids: frozenset[int]) -> list[int]:
    """The likeliest token, again and again."""
    made: list[int] = []
    while len(made) < max_new_tokens:
        ids = read(model, ids, cache).argmax().view(1)
        token = int(ids)
        if token in eos_ids:
            break
        made.append(token)
    return made
