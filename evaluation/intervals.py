"""Numbers of any size in, one a document; their mean with Student's 95 % interval out."""

import math
from collections.abc import Sequence
from statistics import NormalDist, fmean, stdev

from evaluation.scoring import Interval

_P = 0.975


def mean_interval(values: Sequence[float]) -> Interval:
    """The mean, and in what range it lies if documents were drawn at random; NaN as ends for a single value.

    Raises ValueError for none.
    """
    if not values:
        raise ValueError("a mean needs at least one value")
    mean = fmean(values)
    if len(values) == 1:
        return Interval(mean, math.nan, math.nan)
    half = _student(len(values) - 1) * stdev(values) / math.sqrt(len(values))
    return Interval(mean, mean - half, mean + half)


def _student(degrees: int) -> float:
    """The 97.5 % quantile of Student's t; of three degrees and more by Cornish and Fisher's series, within 0.2 %."""
    if degrees == 1:
        return math.tan(math.pi * (_P - 0.5))
    if degrees == 2:
        return (2 * _P - 1) / math.sqrt(2 * _P * (1 - _P))
    z = NormalDist().inv_cdf(_P)
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return math.fsum(term / degrees**power for power, term in enumerate(terms))
