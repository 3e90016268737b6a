"""AdamW and its schedule: linear warmup, then a cosine down to a share of the peak, in one formula."""

from collections.abc import Iterable

import torch

from training.config import Optimizer


def make_adamw(settings: Optimizer, parameters: Iterable[torch.nn.Parameter]) -> torch.optim.AdamW:
    """AdamW over matrices with weight decay and over vectors without."""
    trained = [each for each in parameters if each.requires_grad]
    groups = [
        {"params": [each for each in trained if each.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [each for each in trained if each.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        groups, lr=settings.rate(0), betas=(settings.beta1, settings.beta2), eps=settings.epsilon, foreach=True
    )
