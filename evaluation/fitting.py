"""A text of n units, for any n, in; the most units whose tokens fit, found with few whole encodings, out."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray


def most_that_fit(
    tokens_of: Callable[[int], int], tokens_before: NDArray[np.number], *, least: int, room_tokens: int
) -> int | None:
    """The greatest n >= least with tokens_of(n) <= room_tokens, or one within 1/500 of the room; None: least is over.

    tokens_of: encodes the text of n units, which is slow. tokens_before [greatest n + 1]: ascending, about how many
    tokens the first n units take, by which the next n is chosen; one or two encodings are usual after that of `least`.
    """
    found = tokens_of(least)
    if found > room_tokens:
        return None
    fits, too_many, spare = least, len(tokens_before), room_tokens - found
    last, wanted = least, spare - room_tokens // 1000  # a first guess somewhat below the room is seldom over
    while spare > room_tokens // 500 and too_many - fits > 1:
        aimed = int(np.searchsorted(tokens_before, tokens_before[last] + wanted, side="right")) - 1
        if not fits < aimed < too_many:  # less than a unit is left, or the estimate is far off
            aimed = fits + 1 if aimed <= fits == last else (fits + too_many) // 2
        last = aimed
        wanted = room_tokens - tokens_of(last)
        if wanted < 0:
            too_many = last
        else:
            fits, spare = last, wanted
    return fits
