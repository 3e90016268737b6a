"""What a model answered in; a score between 0 and 1, and the interval of the mean of several, out."""

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

from evaluation.example import Example
from nextlong.decontamination import words

_Z = NormalDist().inv_cdf(0.975)


class Interval(NamedTuple):
    """A mean of scores and its 95 % interval."""

    mean: float
    low: float
    high: float


def score(example: Example, output: str) -> float:
    """The share of an example's distinct answers that an output contains, 0 ... 1.

    Contained is an answer whose words stand in the output, whole and in a row; words are runs of letters and digits in
    lower case, so case, punctuation and the spaces that some tokenizers put round it do not count. One rule for all
    tasks: needle, multikey and key_value have one answer (0 or 1), multivalue has four numbers, variables the names
    that hold the value, frequent_words three words. Further words are no mistake: max_new_tokens bounds the guesses.
    """
    found = _spaced(output)
    answers = set(example.answers)
    return sum(_spaced(answer) in found for answer in answers) / len(answers)


def interval(scores: Sequence[float]) -> Interval:
    """The mean of scores between 0 and 1, and Wilson's 95 % interval around it.

    For scores of 0 and 1 it is Wilson's interval of a proportion, sound for few scores and for means of 0 and 1, where
    t intervals and the bootstrap shrink to nothing. For scores between, a variable within 0 ... 1 of mean m has at most
    the variance m (1 - m), so the same formula is at worst too wide. Scores are taken to be independent; questions on
    one context are not quite. Raises ValueError without scores, or for one outside 0 ... 1.
    """
    if not scores or not all(0 <= each <= 1 for each in scores):
        raise ValueError("an interval needs scores, each between 0 and 1")
    number, mean = len(scores), math.fsum(scores) / len(scores)
    centre = mean + _Z**2 / (2 * number)
    half = _Z * math.sqrt(mean * (1 - mean) / number + (_Z / (2 * number)) ** 2)
    shrunk = 1 + _Z**2 / number
    low, high = max(0.0, (centre - half) / shrunk), min(1.0, (centre + half) / shrunk)
    return Interval(mean, min(mean, low), max(mean, high))  # at 0 and 1 the last digits could differ


def _spaced(text: str) -> str:
    return f" {' '.join(words(text))} "
