"""Boundaries of packed sequences in (`indices`), what a batch carries out: cu_seqlens, positions and targets."""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

IGNORED = -100
"""A target that is none."""


class Batch(NamedTuple):
    """Rows of a micro-step laid end to end, whole, on every rank that shares them; nothing is shifted later."""

    input_ids: Tensor
    """int64 [T]"""
    position_ids: Tensor
    """int64 [T]: from 0 in every document."""
    targets: Tensor
    """int64 [T]: the next token of the same document, or -100."""
    weights: Tensor | None
    """float32 [T]: of each target in the loss; None: all 1."""
    cu_seqlens: Tensor
    """int32 [documents + 1]: where documents begin, and T."""
    max_seqlen: int
    """Tokens of the longest document, a Python int: reading it from a tensor would stop the GPU."""

    @property
    def num_targets(self) -> int:
        """Tokens that are predicted."""
        return int((self.targets != IGNORED).sum())

    @property
    def total_weight(self) -> float:
        """Of all targets in the loss: their number, where all weigh 1."""
        if self.weights is None:
            return self.num_targets
        return float(self.weights[self.targets != IGNORED].double().sum())

    @property
    def squared_lengths(self) -> float:
        """The sum of the documents' squared lengths, which attention costs."""
        return float((torch.diff(self.cu_seqlens).double() ** 2).sum())

    def to(self, device: torch.device) -> "Batch":
        """The batch on a device."""
        moved = {name: each.to(device, non_blocking=True) for name, each in self._asdict().items() if _is_tensor(each)}
        return self._replace(**moved)


def _is_tensor(each: object) -> bool:
    return isinstance(each, Tensor)


def collate(
    rows: NDArray[np.uint32],
    pieces: list[NDArray[np.int64]],
    mask: NDArray[np.uint8] | None = None,
    weights: NDArray[np.float32] | None = None,
    *,
    multiple: int = 1,
) -> Batch:
    """The batch of rows [n, L] with their pieces (int64 [k, 2] each), mask and weights [n, L].

    The first token of each piece is nobody's target, nor is a token with mask 0. Where n * L is no multiple of
    `multiple` (the ranks of sequence parallelism), a last document of padding is added, without targets.
    """
    length = rows.shape[1]
    ids = rows.reshape(-1).astype(np.int64)
    starts = np.concatenate([row * length + each[:, 0] for row, each in enumerate(pieces)])
    targets = np.full(len(ids), IGNORED, np.int64)
    targets[:-1] = ids[1:]
    targets[starts[1:] - 1] = IGNORED
    if mask is not None:
        targets[:-1][mask.reshape(-1)[1:] == 0] = IGNORED
    aligned = None
    if weights is not None:
        aligned = np.ones(len(ids), np.float32)
        aligned[:-1] = weights.reshape(-1)[1:]
    if padding := -len(ids) % multiple:
        starts = np.append(starts, len(ids))
        ids = np.append(ids, np.zeros(padding, np.int64))
        targets = np.append(targets, np.full(padding, IGNORED))
        aligned = None if aligned is None else np.append(aligned, np.ones(padding, np.float32))
    ends = np.append(starts[1:], len(ids))
    lengths = ends - starts
    positions = np.arange(len(ids)) - np.repeat(starts, lengths)
    return Batch(
        torch.from_numpy(ids),
        torch.from_numpy(positions),
        torch.from_numpy(targets),
        None if aligned is None else torch.from_numpy(aligned),
        torch.from_numpy(np.append(starts, len(ids)).astype(np.int32)),
        int(lengths.max()),
    )
