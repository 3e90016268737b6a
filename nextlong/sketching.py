"""Texts in, sketches and their overlaps out: near-duplicates by shared runs of five words (datasketch's MinHash)."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from nextlong.decontamination import words

_SHINGLE_WORDS = 5
_SEED = 1
_NO_WORDS = np.uint32(2**32 - 1)  # at every position of the sketch of a text without words


def sketch(texts: Sequence[str], *, num_hashes: int = 64) -> NDArray[np.uint32]:
    """MinHash signatures [n, num_hashes] of n texts, for `overlaps`; a row depends on its text alone.

    Each is over the set of the text's runs of five words (`decontamination.words`). A text of fewer words has all of
    them as its one run; one without words gets 2^32 - 1 everywhere, which overlaps with nothing, not even itself. The
    seed is fixed and the hash is SHA-1, so that sketches of all processes and machines can be compared.
    """
    from datasketch import MinHash

    hashes = MinHash.generator(map(_shingles, texts), num_perm=num_hashes, seed=_SEED, scheme="affine32")
    sketches = np.empty((len(texts), num_hashes), np.uint32)
    for row, of_text in enumerate(hashes):
        sketches[row] = of_text.hashvalues
    return sketches


def overlaps(sketch: NDArray[np.uint32], sketches: NDArray[np.uint32]) -> NDArray[np.float32]:
    """Estimates [k] of the Jaccard overlap of one text's sketch [h] with others' [k, h], in [0, 1]; 0 without words.

    The share of equal positions: unbiased, its standard deviation sqrt(J (1 - J) / h), at most 0.0625 at 64 hashes.
    """
    equal = (sketches == sketch) & (sketch != _NO_WORDS)
    shares: NDArray[np.float32] = equal.sum(axis=1, dtype=np.uint16) / np.float32(len(sketch))
    return shares


def _shingles(text: str) -> set[bytes]:
    """The distinct runs of five words; all words where there are fewer, nothing where there are none."""
    of_text = words(text)
    last = max(len(of_text) - _SHINGLE_WORDS, 0)
    runs = {" ".join(of_text[start : start + _SHINGLE_WORDS]) for start in range(last + 1)} - {""}
    return {run.encode() for run in runs}
