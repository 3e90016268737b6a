"""Random numbers in; words and numbers that stand in no other text, out."""

import numpy as np

_SYLLABLES = [consonant + vowel for consonant in "bdfhklmnprstvw" for vowel in "aeiou"]
NUM_WORDS = len(_SYLLABLES) ** 3


def made_words(rng: np.random.Generator, number: int) -> list[str]:
    """Distinct words of three syllables, six lower-case letters: any tokenizer with an alphabet spells them."""
    return [_word(int(place)) for place in rng.choice(NUM_WORDS, number, replace=False)]


def numbers(rng: np.random.Generator, number: int, *, digits: int) -> list[str]:
    """Distinct numbers of so many digits."""
    least = 10 ** (digits - 1)
    return [str(least + int(place)) for place in rng.choice(9 * least, number, replace=False)]


def _word(place: int) -> str:
    size = len(_SYLLABLES)
    return _SYLLABLES[place // size**2] + _SYLLABLES[place // size % size] + _SYLLABLES[place % size]
