"""Proportions in, which folder each sequence of a mixture comes from, out: exact at every prefix."""

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

    Tijdeman's rule for the chairman assignment problem (Discrete Math. 32, 1980): among the folders that may already
    give a row the one that must do so soonest, ties to the first. Integers alone decide.
    """
    whole = int(np.lcm.reduce([share.denominator for share in shares])) if len(shares) > 1 else 1
    period = min(whole, num_rows)  # after `whole` rows every folder is even, and all begins anew
    numerators = [int(share * whole) for share in shares]
    slack = max(1, 2 * len(shares) - 2)
    chosen = np.zeros(period, np.int32)
    owed = [0] * len(shares)  # share * n - rows given, times `whole`
    for row in range(period if len(shares) > 1 else 0):
        best, best_room = -1, Fraction(0)
        for folder, numerator in enumerate(numerators):
            owed[folder] += numerator
            if slack * owed[folder] >= whole:
                room = Fraction((slack - 1) * whole - slack * owed[folder], numerator)  # rows that it can still wait
                if best < 0 or room < best_room:
                    best, best_room = folder, room
        chosen[row] = best
        owed[best] -= whole
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
