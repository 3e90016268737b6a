"""Which documents become meta-documents, in which order and of which length: by seed alone, none twice."""

import numpy as np
from numpy.typing import NDArray

from nextlong.config import Synthesis

STAGE_DRAW = 1
STAGE_POSITION = 2
STAGE_SELECTION = 3
STAGE_LENGTH = 4
STAGE_KEYWORD = 5
"""Numbers that keep the random draws of different steps apart: every generator is seeded [seed, step, ...]."""


def draw_order(num_chunks: NDArray[np.integer], *, min_meta_chunks: int, seed: int) -> NDArray[np.int64]:
    """The drawn order of the eligible documents: row numbers of `num_chunks` [n], each at most once.

    Eligible are documents of at least `min_meta_chunks` chunks. The order depends on the documents and the seed only.
    """
    eligible = np.flatnonzero(num_chunks >= min_meta_chunks)
    return np.random.default_rng([seed, STAGE_DRAW]).permutation(eligible)


def draw_lengths(synthesis: Synthesis, num_draws: int) -> NDArray[np.int64]:
    """For each of the first draws [num_draws] the place of its length in `synthesis.targets`.

    With several lengths each is drawn as often as long documents of it are wanted, equally often where one has no
    number. More draws leave the first ones as they are, so no document serves two lengths.
    """
    wanted = synthesis.wanted
    numbers = [1 if None in wanted else number or 0 for number in wanted]
    shares = [number / sum(numbers) for number in numbers]
    if len(shares) == 1:
        return np.zeros(num_draws, np.int64)
    return np.random.default_rng([synthesis.seed, STAGE_LENGTH]).choice(len(shares), size=num_draws, p=shares)
