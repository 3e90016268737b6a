"""Evaluation texts in, hashes of their word n-grams; a document in, the first evaluation file that shares one out."""

import functools
import hashlib
import re
import unicodedata
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# Ideographs and kana, of which each is a word: no spaces part them.
_IDEOGRAPHS = (
    "\u3005-\u3007\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_ASCII = {code: chr(code).lower() if chr(code).isalnum() else " " for code in range(128)}
_PIECE = re.compile(r".{1,8000}\S*", re.DOTALL)  # ends where white space begins, and so cuts no word
_BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, so that no word's number is lost by multiplying


class EvaluationNgrams(NamedTuple):
    """The n-grams of evaluation texts, by hash."""

    ngram_words: int
    """n, consecutive words."""
    hashes: NDArray[np.uint64]
    """[num_ngrams], ascending, each once."""
    files: NDArray[np.int32]
    """[num_ngrams], the number of the first evaluation file that has the n-gram."""

    def first_file(self, text: str) -> int:
        """The number of the first evaluation file that shares an n-gram with a text; -1: none does."""
        if not len(self.hashes):
            return -1
        wanted = np.sort(ngram_hashes(text, self.ngram_words))  # sorted: neighbouring searches stay in the cache
        places = np.minimum(np.searchsorted(self.hashes, wanted), len(self.hashes) - 1)
        files = self.files[places[self.hashes[places] == wanted]]
        return int(files.min()) if len(files) else -1


def collect_ngrams(files: Iterable[Iterable[str]], ngram_words: int) -> tuple[EvaluationNgrams, list[int]]:
    """The n-grams of the texts of each evaluation file, and how many of a file's texts are too short to have one.

    In memory are the hashes of one file's words, 8 bytes each, and the distinct ones of all; sorted at the end.
    """
    hashes, num_short = [np.empty(0, np.uint64)], []
    for texts in files:
        found = [ngram_hashes(text, ngram_words) for text in texts]
        hashes.append(np.unique(np.concatenate([np.empty(0, np.uint64), *found])))
        num_short.append(sum(not len(each) for each in found))
    numbers = np.repeat(np.arange(len(num_short), dtype=np.int32), [len(each) for each in hashes[1:]])
    distinct, firsts = np.unique(np.concatenate(hashes), return_index=True)  # the first of equals: of the first file
    return EvaluationNgrams(ngram_words, distinct, numbers[firsts]), num_short


def ngram_hashes(text: str, ngram_words: int) -> NDArray[np.uint64]:
    """A 64-bit hash of every `ngram_words` consecutive words: uint64 [num_words - ngram_words + 1], or [0].

    The polynomial w_0 b^(n-1) + ... + w_(n-1) modulo 2^64 over the words' numbers, the same on every machine. Among
    10^7 evaluation n-grams one of 2 * 10^12 others is found by mistake.
    """
    pieces = [_word_numbers(piece.group()) for piece in _PIECE.finditer(text)]
    numbers = np.concatenate([np.empty(0, np.uint64), *pieces])
    hashes = np.zeros(max(0, len(numbers) - ngram_words + 1), np.uint64)
    for place in range(ngram_words if len(hashes) else 0):
        hashes *= _BASE
        hashes += numbers[place : place + len(hashes)]
    return hashes


def words(text: str) -> list[str]:
    """The words of a text under NFKC and in lower case: runs of letters and digits; ideographs and kana one by one.

    Punctuation and space separate; combining marks belong to their letter. Scripts without spaces other than these
    (Thai, Khmer) give long words, by which only long passages are found.
    """
    plain = unicodedata.normalize("NFKC", text).lower()
    return plain.translate(_ASCII).split() if plain.isascii() else _word_pattern().findall(plain)


@functools.cache
def _word_pattern() -> re.Pattern[str]:
    marks = "".join(letter for letter in map(chr, range(0x10000)) if unicodedata.category(letter).startswith("M"))
    letter = rf"[^\W_{_IDEOGRAPHS}]"
    # The first branch matches what the second would, at the speed of ASCII.
    return re.compile(rf"[a-z0-9]++(?![^\x00-\x7f])|{letter}+(?:[{marks}]+{letter}*)*|[{_IDEOGRAPHS}]")


def _word_numbers(text: str) -> NDArray[np.uint64]:
    found = words(text)
    return np.fromiter(map(_NUMBERS.__getitem__, found), np.uint64, len(found))


class _Numbers(dict[str, int]):
    """Word to its 64-bit number, remembered: a text has few distinct words, and a corpus the same ones."""

    greatest_size = 2**17
    greatest_word = 64

    def __missing__(self, word: str) -> int:
        digest = hashlib.blake2b(word.encode(errors="surrogatepass"), digest_size=8).digest()
        number = int.from_bytes(digest, "little")
        if len(word) <= self.greatest_word:
            if len(self) >= self.greatest_size:
                self.clear()
            self[word] = number
        return number


_NUMBERS = _Numbers()
