"""Proportions in, which folder each sequence of a mixture comes from, out: exact at every prefix."""

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from nextlong.errors import UserError


def shares_of(proportions: Sequence[str | float | Fraction]) -> list[Fraction]:
    """Proportions as exact shares that add up to 1; 33.33 and 66.67 are 3333/10000 and 6667/10000.

    Raises UserError for what is no number above 0.
    """
    try:
        numbers = [Fraction(each if isinstance(each, Fraction) else str(each)) for each in proportions]
    except (ValueError, ZeroDivisionError) as error:
        raise UserError(f"proportions are {', '.join(map(str, proportions))}, but they must be numbers.") from error
    if not numbers or min(numbers) <= 0:
        raise UserError(f"proportions are {', '.join(map(str, proportions))}, but each must be above 0.")
    return [number / sum(numbers) for number in numbers]


def mix(shares: Sequence[Fraction], num_rows: int) -> NDArray[np.int32]:
    """int32 [num_rows]: the folder of each row. After any n rows, folder i gave floor or ceil of share_i * n of them.

    Shares add up to 1. Tijdeman's rule for the chairman assignment problem (Discrete Math. 32, 1980): among the folders
    that may already give a row the one that must do so soonest, ties to the first. Integers alone decide.
    """
    if len(shares) == 1:
        return np.zeros(num_rows, np.int32)
    whole = math.lcm(*(share.denominator for share in shares))
    numerators = [int(share * whole) for share in shares]
    slack = 2 * len(shares) - 2
    # Folder i may give its row k from the first n on for which share_i * n >= k + 1 / slack, and must before
    # share_i * n exceeds k + 1 - 1 / slack; these two bounds, times slack:
    earliest, latest = [1] * len(shares), [slack - 1] * len(shares)
    opens = [-(-whole // (slack * numerator)) for numerator in numerators]  # that first n
    chosen = np.empty(min(whole, num_rows), np.int32)  # after `whole` rows every folder is even, and all begins anew
    for row in range(len(chosen)):
        best = -1
        for folder, numerator in enumerate(numerators):
            if opens[folder] <= row + 1 and (best < 0 or latest[folder] * numerators[best] < latest[best] * numerator):
                best = folder
        chosen[row] = best
        earliest[best] += slack
        latest[best] += slack
        opens[best] = -(-earliest[best] * whole // (slack * numerators[best]))
    return np.resize(chosen, num_rows) if num_rows else chosen


def rows_within(shares: Sequence[Fraction], available: Sequence[int]) -> int:
    """How many rows a mixture can have when no folder gives more rows than are available."""
    bound = min(int((number + 1) / share) + 1 for number, share in zip(available, shares, strict=True))
    folders = mix(shares, bound)
    ends = [bound]
    for folder, number in enumerate(available):
        places = np.flatnonzero(folders == folder)
        if len(places) > number:
            ends.append(int(places[number]))
    return min(ends)
