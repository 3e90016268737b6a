"""Which documents become meta-documents, and in which order: without replacement, by seed alone."""

import numpy as np
from numpy.typing import NDArray

STAGE_DRAW = 1
STAGE_POSITION = 2
"""Numbers that keep the random draws of different steps apart: every generator is seeded [seed, step, ...]."""


def draw_order(num_chunks: NDArray[np.integer], *, min_meta_chunks: int, seed: int) -> NDArray[np.int64]:
    """The drawn order of the eligible documents: row numbers of `num_chunks` [n], each at most once.

    Eligible are documents of at least `min_meta_chunks` chunks. The order depends on the documents and the seed only.
    """
    eligible = np.flatnonzero(num_chunks >= min_meta_chunks)
    return np.random.default_rng([seed, STAGE_DRAW]).permutation(eligible)
