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
            labels = torch.where(valid, targets[rows], 0)[:, None]
            scale = valid.to(exact) if weights is None else valid * weights[rows].to(exact)
            # One block of logits, changed in place: logits, then their exponentials, probabilities and gradients.
            logits = _matmul(hidden[rows], wide.T, exact)
            logits.sub_(logits.amax(1, keepdim=True))
            chosen = logits.gather(1, labels)
            sums = logits.exp_().sum(1, keepdim=True)
            losses[rows] = (sums.log() - chosen)[:, 0] * scale
            if needs_hidden or needs_weight:
                logits.div_(sums).scatter_add_(1, labels, torch.full_like(sums, -1)).mul_(scale[:, None])
                narrow = logits.to(hidden.dtype)
                if grad_hidden is not None:
                    grad_hidden[rows] = narrow @ weight
                if grad_weight is not None:
                    _add_matmul(grad_weight, narrow.T, hidden[rows])
        ctx.save_for_backward(grad_hidden, grad_weight)
        ctx.weight_dtype = weight.dtype
        ctx.mark_non_differentiable(losses)
        return losses.sum(), losses

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden, grad_weight = ctx.saved_tensors
        if grad_hidden is not None:
            grad_hidden = grad_hidden * grad.to(grad_hidden.dtype)
        if grad_weight is not None:
            scaled = torch.empty_like(grad_weight, dtype=ctx.weight_dtype)
            grad_weight = torch.mul(grad_weight, grad.to(grad_weight.dtype), out=scaled)
        return grad_hidden, grad_weight, None, None, None


def _matmul(left: Tensor, right: Tensor, exact: torch.dtype) -> Tensor:
    """In full precision: logits rounded to bfloat16 would put the loss off by half a percent."""
    if left.is_cuda and left.dtype in (torch.bfloat16, torch.float16):
        return torch.mm(left, right, out_dtype=exact)
    return left.to(exact) @ right.to(exact)


def _add_matmul(total: Tensor, left: Tensor, right: Tensor) -> None:
    if left.dtype == total.dtype:
        total.addmm_(left, right)
    else:
        total += _matmul(left, right, total.dtype)


def linear_cross_entropy(
    hidden: Tensor, weight: Tensor, targets: Tensor, weights: Tensor | None = None, *, block: int = BLOCK_TOKENS
) -> tuple[Tensor, Tensor]:
    """(sum, losses [T]) of the cross-entropy of hidden [T, d] @ weight[V, d].T over targets int64 [T]; -100 counts 0.

    weights: float32 [T], of each target; None: 1. Sums are float32, float64 for float64 inputs; only the sum has a
    gradient. Logits take block * V numbers, whatever T.
    """
    total, losses = _LinearCrossEntropy.apply(hidden, weight, targets, weights, block)
    return total, losses
