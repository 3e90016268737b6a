"""Made words, each as often as Zipf's law says, in random order; the most frequent ones are asked for."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from evaluation.example import Example
from evaluation.tasks.made_words import made_words
from evaluation.tasks.request import Asked, Request

NUM_ASKED = 3
PREFACE = "Below are made-up words in random order. Some appear far more often than others.\n\n"
QUESTION = (
    "Question: Which three words appear most often above?\nAnswer: The three words that appear most often above are"
)
_EXPONENT = 2.0  # the n-th word is n^2 times rarer than the first, as in RULER's task
_LEAST_WORDS = 40  # from here on the third is more frequent than the fourth
_MOST_WORDS = 50_000  # distinct ones; n words have about 2 sqrt(n)


def make(request: Request) -> Iterator[Example]:
    """The examples; depths have no meaning."""
    for number in range(request.number):
        num_distinct = min(_MOST_WORDS, request.length_tokens + _LEAST_WORDS)
        made = np.array(made_words(request.rng(number), num_distinct))

        def write(num_words: int, number: int = number, made: NDArray[np.str_] = made) -> str:
            places = np.repeat(np.arange(len(counts := zipf_counts(num_words))), counts)
            return f"{PREFACE}{' '.join(made[request.rng(number, 0, 1).permutation(places)])}\n"

        each_tokens = request.tokens.alone(" ".join(made[:1000])) / len(made[:1000])
        estimate = np.arange(request.length_tokens + 1) * each_tokens
        asked = [Asked("", None, QUESTION, tuple(made[:NUM_ASKED].tolist()))]
        yield from request.fill(number, asked, write, estimate, least=_LEAST_WORDS)


def zipf_counts(num_words: int) -> NDArray[np.int64]:
    """How often each distinct word stands in so many words: int64 [distinct], descending, all at least 1.

    Shares of n^-2, rounded down; what is left over are words that stand once.
    """
    ranks = np.arange(1, int(np.sqrt(num_words)) + 2)
    shares = ranks**-_EXPONENT / (np.pi**2 / 6)
    counts = np.floor(num_words * shares).astype(np.int64)
    counts = counts[counts > 0]
    return np.append(counts, np.ones(num_words - counts.sum(), np.int64))
