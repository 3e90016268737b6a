"""A meta-chunk's mined candidates in, those that it may take in the order of trying out (Sec. 5.4)."""

import numpy as np

from nextlong.config import Synthesis
from nextlong.mining import Candidates
from nextlong.sampling import STAGE_SELECTION


def select(mined: Candidates, synthesis: Synthesis) -> Candidates:
    """The candidates less the first `skip_top`, as `synthesis.negatives` orders them; each keeps its rank.

    top, random: as mined. tail: the least similar first. random_candidates: in an order drawn by seed and meta-chunk.
    """
    if synthesis.negatives == "top" and not synthesis.skip_top:
        return mined
    order = np.arange(synthesis.skip_top, len(mined.ids))
    if synthesis.negatives == "tail":
        order = order[::-1]
    if synthesis.negatives == "random_candidates":
        rng = np.random.default_rng([synthesis.seed, STAGE_SELECTION, mined.chunk_id])
        order = order[rng.permutation(len(order))]
    return Candidates(mined.chunk_id, mined.ids[order], mined.scores[order], mined.ranks[order])


def repeats(chunk_id: int, num_repeats: int) -> Candidates:
    """The meta-chunk itself, so often: the false negatives of Sec. 5.4 (negatives=self_repeat)."""
    ids = np.full(num_repeats, chunk_id, np.int64)
    return Candidates(chunk_id, ids, np.full(num_repeats, np.nan, np.float32), np.arange(num_repeats))
