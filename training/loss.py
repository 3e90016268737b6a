"""Hidden states, the head's weight and targets in; the summed cross-entropy out, a block of logits at a time.

A vocabulary of 128,256 times 524,288 positions never exists at once: logits live for a block, in which the gradients of
hidden states and weight are made as well, so that nothing is computed twice.
"""

from typing import Any

import torch
from torch import Tensor

from training.boundaries import IGNORED

BLOCK_TOKENS = 1024


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, weights: Tensor | None, block: int
    ) -> tuple[Tensor, Tensor]:
        exact = torch.float64 if hidden.dtype == torch.float64 else torch.float32
        losses = torch.zeros(len(targets), dtype=exact, device=hidden.device)
        needs_hidden, needs_weight = ctx.needs_input_grad[:2]
        grad_hidden = torch.zeros_like(hidden) if needs_hidden else None
        grad_weight = torch.zeros_like(weight, dtype=exact) if needs_weight else None
        wide = weight if hidden.is_cuda else weight.to(exact)
        for start in range(0, len(targets), block):
            rows = slice(start, start + block)
            valid = targets[rows] != IGNORED
            logits = _logits(hidden[rows], wide, exact)
            norms = torch.logsumexp(logits, 1)
            labels = torch.where(valid, targets[rows], 0)
            scale = valid.to(exact) if weights is None else valid * weights[rows].to(exact)
            losses[rows] = (norms - logits.gather(1, labels[:, None])[:, 0]) * scale
            if needs_hidden or needs_weight:
                logits.sub_(norms[:, None]).exp_()  # probabilities
                logits[torch.arange(len(labels), device=labels.device), labels] -= 1
                logits.mul_(scale[:, None])
                narrow = logits.to(hidden.dtype)
                if grad_hidden is not None:
                    grad_hidden[rows] = narrow @ weight
                if grad_weight is not None:
                    grad_weight += (narrow.T @ hidden[rows]).to(exact)
        ctx.save_for_backward(grad_hidden, grad_weight)
        ctx.weight_dtype = weight.dtype
        return losses.sum(), losses

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden, grad_weight = ctx.saved_tensors
        if grad_hidden is not None:
            grad_hidden = grad_hidden * grad.to(grad_hidden.dtype)
        if grad_weight is not None:
            grad_weight = (grad_weight * grad.to(grad_weight.dtype)).to(ctx.weight_dtype)
        return grad_hidden, grad_weight, None, None, None


def _logits(hidden: Tensor, weight: Tensor, exact: torch.dtype) -> Tensor:
    """In full precision: rounded to bfloat16 they would put the loss off by half a percent."""
    if hidden.is_cuda and hidden.dtype in (torch.bfloat16, torch.float16):
        return torch.mm(hidden, weight.T, out_dtype=exact)
    return hidden.to(exact) @ weight.T


def linear_cross_entropy(
    hidden: Tensor, weight: Tensor, targets: Tensor, weights: Tensor | None = None, *, block: int = BLOCK_TOKENS
) -> tuple[Tensor, Tensor]:
    """(sum, losses [T]) of the cross-entropy of hidden [T, d] @ weight[V, d].T over targets int64 [T]; -100 counts 0.

    weights: float32 [T], of each target; None: 1. Sums are float32, float64 for float64 inputs; only the sum has a
    gradient. Logits take block * V numbers, whatever T.
    """
    total, losses = _LinearCrossEntropy.apply(hidden, weight, targets, weights, block)
    return total, losses.detach()
