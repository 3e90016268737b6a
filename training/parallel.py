"""Ranks in: the mesh of data and sequence parallelism, and the exchange between ranks that share a sequence (Ulysses).

A rank of sequence parallelism holds T / sp tokens of a batch and all heads; inside attention it holds all T tokens of
H / sp heads. Weights are sharded over all ranks, whatever the degree.
"""

import dataclasses
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from nextlong.errors import UserError


@dataclasses.dataclass(frozen=True)
class Ranks:
    """Where this process stands."""

    mesh: DeviceMesh
    """[dp_replicate, dp_shard * sp]: over the second dimension parameters are sharded, over the first replicated."""
    sequence_group: dist.ProcessGroup | None
    """The ranks that share a sequence; None: sp is 1."""
    data_rank: int
    """Which rows are read here: the same on all ranks of a sequence group."""
    data_size: int
    sequence_rank: int
    sequence_size: int

    @property
    def device(self) -> torch.device:
        """Of this process."""
        return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def make_ranks(*, sp: int = 1, dp_replicate: int = 1) -> Ranks:
    """The ranks of a process group that is up. Raises UserError for degrees that do not divide their number."""
    world, rank = dist.get_world_size(), dist.get_rank()
    for name, degree in (("parallel.sp", sp), ("parallel.dp_replicate", dp_replicate)):
        if degree < 1 or world % degree:
            raise UserError(f"{name} is {degree}, but it must divide the number of ranks, {world}.")
    if world % (sp * dp_replicate):
        raise UserError(
            f"parallel.sp * parallel.dp_replicate is {sp * dp_replicate}, but must divide the number of ranks, {world}."
        )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    mesh = init_device_mesh(device, (dp_replicate, world // dp_replicate), mesh_dim_names=("replicate", "shard"))
    groups = init_device_mesh(device, (world // sp, sp), mesh_dim_names=("data", "sequence"))
    return Ranks(mesh, groups["sequence"].get_group() if sp > 1 else None, rank // sp, world // sp, rank % sp, sp)


class _AllToAll(torch.autograd.Function):
    """[sp, ...] in, the same out: block i goes to rank i. Its own backward."""

    @staticmethod
    def forward(ctx: Any, blocks: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        return _exchange(blocks, group)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _exchange(grad, ctx.group), None


def _exchange(blocks: Tensor, group: dist.ProcessGroup) -> Tensor:
    sent = blocks.contiguous()
    found = torch.empty_like(sent)  # of what is contiguous: else its strides would not be those that are written
    dist.all_to_all_single(found, sent, group=group)
    return found


def scatter_heads(states: Tensor, group: dist.ProcessGroup) -> Tensor:
    """[T / sp, H, D] of all heads -> [T, H / sp, D] of the whole sequence; fewer heads than ranks are repeated."""
    size = dist.get_world_size(group)
    if states.shape[1] < size:
        states = states.repeat_interleave(size // states.shape[1], dim=1)
    length, heads, width = states.shape
    blocks = states.reshape(length, size, heads // size, width).transpose(0, 1)  # by the rank that gets them
    return _AllToAll.apply(blocks, group).reshape(size * length, heads // size, width)


def gather_heads(states: Tensor, group: dist.ProcessGroup) -> Tensor:
    """[T, H / sp, D] of the whole sequence -> [T / sp, H, D] of all heads."""
    size = dist.get_world_size(group)
    length, heads, width = states.shape
    blocks = states.reshape(size, length // size, heads, width)
    found = _AllToAll.apply(blocks, group)  # [sp (heads), T / sp, H / sp, D]
    return found.transpose(0, 1).reshape(length // size, size * heads, width)
