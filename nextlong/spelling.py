"""A word that is none of the known ones in, the one that was meant out."""

from collections.abc import Iterable
from difflib import get_close_matches

_CUTOFF = 0.65  # of difflib's ratio: a few letters more, fewer, other or swapped


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that is nearest to a word, or None: none is near. A whole last part of a dotted one will do."""
    words = list(known)
    whole = get_close_matches(word, words, n=1, cutoff=_CUTOFF)
    ends = [each for each in words if "." not in word and each.rpartition(".")[2] == word]
    return next(iter([*ends, *whole]), None)


def did_you_mean(word: str, known: Iterable[str], mark: str = "") -> str:
    """A sentence with the nearest known word, after a space; nothing where none is near. mark: such as --."""
    found = nearest(word, known)
    return "" if found is None else f" Did you mean {mark}{found}?"
