"""Attention inside documents, in the place of transformers' own: causal, and never across a boundary.

It is registered as "packed" with transformers' AttentionInterface and gets `cu_seqlens` and `max_seqlen` through the
model's keyword arguments. No mask of T x T is ever built.
"""

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from nextlong.errors import UserError
from training.parallel import gather_heads, scatter_heads

NAME = "packed"
_KERNEL_DTYPES = (torch.bfloat16, torch.float16)
_UNKNOWN = ("sliding_window", "softcap", "s_aux")
"""Keywords of transformers that change what is attended to."""


def register() -> None:
    """Make the name known to transformers; calling it again does nothing."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, packed_attention)


def packed_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    *,
    cu_seqlens: Tensor,
    max_seqlen: int,
    sequence_group: dist.ProcessGroup | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """query [1, H, T, D], key and value [1, K, T, D] -> [1, T, H, D]. cu_seqlens: int32 [documents + 1], of all T.

    sequence_group: the ranks that hold T / sp tokens each; inside, each has all tokens of H / sp heads. Dropout,
    sliding windows, capped scores and sinks are refused: they would be left out.
    """
    if refused := ["dropout"] * bool(dropout) + [name for name in _UNKNOWN if others.get(name) is not None]:
        raise UserError(f"{type(module).__name__} asks for {refused[0]}, which attention inside documents does not do.")
    queries, keys, values = (each[0].transpose(0, 1) for each in (query, key, value))  # [T, heads, D]
    if sequence_group is not None:
        queries, keys, values = (scatter_heads(each, sequence_group) for each in (queries, keys, values))
    attend = _on_gpu if query.is_cuda and query.dtype in _KERNEL_DTYPES else _by_document
    found = attend(queries, keys, values, cu_seqlens, max_seqlen, scaling)
    if sequence_group is not None:
        found = gather_heads(found, sequence_group)
    return found[None], None


def _by_document(
    query: Tensor, key: Tensor, value: Tensor, cu_seqlens: Tensor, max_seqlen: int, scaling: float | None
) -> Tensor:
    """One document after the other, where there is no kernel for several: on a CPU, and in full precision."""
    lengths = torch.diff(cu_seqlens).tolist()
    documents = zip(*(each.transpose(0, 1)[None].split(lengths, dim=2) for each in (query, key, value)), strict=True)
    found = [
        F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling, enable_gqa=True) for q, k, v in documents
    ]
    return torch.cat(found, dim=2)[0].transpose(0, 1)


def _on_gpu(
    query: Tensor, key: Tensor, value: Tensor, cu_seqlens: Tensor, max_seqlen: int, scaling: float | None
) -> Tensor:
    import inspect

    from torch.nn.attention.varlen import varlen_attn

    options: dict[str, Any] = {"window_size": (-1, 0), "scale": scaling}  # causal; a list would silently not be
    if query.shape[1] != key.shape[1] and "enable_gqa" in inspect.signature(varlen_attn).parameters:
        options["enable_gqa"] = True
    found: Tensor = varlen_attn(query, key, value, cu_seqlens, cu_seqlens, max_seqlen, max_seqlen, **options)
    return found
