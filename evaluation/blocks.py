"""Tokens in, in blocks whose keys and values are kept; logits of the next token, or the loss of every token, out."""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:
    from evaluation.model import Model

BLOCK_TOKENS = 1024
"""Read at once: a mask of them over 512K tokens takes 0.5 GB, their logits over 128K words as much."""


def new_cache() -> Any:
    """Keys and values of no token yet; those of all are kept, in layers of a sliding window, too, so it can be cut."""
    from transformers import DynamicCache

    return DynamicCache()


def read(model: "Model", ids: Tensor, cache: Any) -> Tensor:
    """Read tokens [T], T > 0, after those in a cache, which keeps them; the logits [vocabulary] of the next one."""
    with torch.inference_mode():
        for block in ids.split(BLOCK_TOKENS):
            out = model.read(block, cache, logits_to_keep=1)
    logits: Tensor = out.logits[0, -1]
    return logits


def forget(cache: Any, length_tokens: int) -> None:
    """Keep the first so many tokens of a cache."""
    if (surplus := cache.get_seq_length() - length_tokens) > 0:
        cache.crop(-surplus)  # 0 would be another thing to older versions of transformers


def token_losses(model: "Model", ids: Tensor) -> NDArray[np.float32]:
    """[T - 1]: the loss of the tokens 1 ... T - 1 of a text, each given all before it; in float32 at least."""
    cache, losses = new_cache(), []
    for block, targets in zip(ids[:-1].split(BLOCK_TOKENS), ids[1:].split(BLOCK_TOKENS), strict=True):
        with torch.inference_mode():
            logits = model.read(block, cache).logits[0]
        numbers = torch.promote_types(logits.dtype, torch.float32)
        losses.append(torch.nn.functional.cross_entropy(logits.to(numbers), targets, reduction="none"))
    found: NDArray[np.float32] = torch.cat(losses).cpu().numpy()
    return found
