"""Long documents in, packed sequences of one fixed length out, with the boundaries of the documents as data."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nextlong.errors import UserError


class PackedSequence(NamedTuple):
    """Which long documents fill one sequence, and where each begins and ends in it."""

    members: list[int]
    """Positions in the list of long documents."""
    indices: NDArray[np.uint32]
    """uint32 [n, 2]: start and end of each document; they tile the sequence."""


def documents_per_sequence(sequence_length_tokens: int | None, target_length_tokens: int) -> int:
    """How many long documents of the target length fill a sequence; None means a sequence is one document.

    Raises UserError when the sequence is no multiple of the target.
    """
    length = sequence_length_tokens or target_length_tokens
    if length % target_length_tokens:
        raise UserError(
            f"packing.sequence_length_tokens is {length:,}, which is no multiple of synthesis.target_length_tokens, "
            f"{target_length_tokens:,}. Use e.g. {max(1, length // target_length_tokens) * target_length_tokens:,}."
        )
    return length // target_length_tokens


def pack(num_documents: int, per_sequence: int, length_tokens: int) -> tuple[list[PackedSequence], int]:
    """Consecutive documents of one length into full sequences, and how many are left over at the end.

    Documents stand in their drawn order, which is random by seed already. 64K documents, eight to a 512K sequence, are
    the published mixture (Sec. 6); a trainer masks attention between them.
    """
    num_sequences = num_documents // per_sequence
    starts = np.arange(per_sequence, dtype=np.uint32) * np.uint32(length_tokens)
    indices = np.stack([starts, starts + np.uint32(length_tokens)], axis=1)
    sequences = [
        PackedSequence(list(range(first, first + per_sequence)), indices)
        for first in range(0, num_sequences * per_sequence, per_sequence)
    ]
    return sequences, num_documents - num_sequences * per_sequence


def domain_of(sources: Sequence[str]) -> str:
    """The label of a sequence: its meta-documents' source when they share one, else "mixed"."""
    return sources[0] if len(set(sources)) == 1 else "mixed"
