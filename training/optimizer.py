"""AdamW and its schedule: linear warmup, then a cosine down to a share of the peak, in one formula."""

import dataclasses
import math
from collections.abc import Iterable

import torch

from nextlong.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Optimizer:
    """How weights change (Tables 8 and 9)."""

    steps: int
    """Optimizer steps of the whole run."""
    learning_rate: float
    """At the end of the warmup."""
    warmup_steps: int | None = None
    """None: warmup_ratio of the steps."""
    warmup_ratio: float = 0.1
    min_ratio: float = 0.1
    """Learning rate at the last step, as a share of the peak."""
    beta1: float = 0.9
    beta2: float = 0.95
    epsilon: float = 1e-8
    weight_decay: float = 0.1
    """Of matrices; vectors (norms, biases) have none."""
    clip: float = 1.0
    """Greatest norm of all gradients."""

    def __post_init__(self) -> None:
        for name, is_valid, bound in (
            ("steps", self.steps >= 1, "at least 1"),
            ("learning_rate", self.learning_rate > 0, "above 0"),
            ("warmup_steps", self.warmup_steps is None or self.warmup_steps >= 0, "at least 0, or null"),
            ("warmup_ratio", 0 <= self.warmup_ratio <= 1, "from 0 to 1"),
            ("min_ratio", 0 <= self.min_ratio <= 1, "from 0 to 1"),
            ("beta1", 0 <= self.beta1 < 1, "from 0 to below 1"),
            ("beta2", 0 <= self.beta2 < 1, "from 0 to below 1"),
            ("weight_decay", self.weight_decay >= 0, "at least 0"),
            ("clip", self.clip > 0, "above 0"),
        ):
            if not is_valid:
                raise UserError(f"optimizer.{name} is {getattr(self, name)}, but it must be {bound}.")

    @property
    def num_warmup(self) -> int:
        """Steps of the warmup."""
        return round(self.warmup_ratio * self.steps) if self.warmup_steps is None else self.warmup_steps

    def rate(self, step: int) -> float:
        """The learning rate of step 0, 1, ...: peak * (step + 1) / warmup, then a cosine to min_ratio * peak."""
        if step < self.num_warmup:
            return self.learning_rate * (step + 1) / self.num_warmup
        place = min(1.0, (step - self.num_warmup) / max(1, self.steps - 1 - self.num_warmup))
        return self.learning_rate * (self.min_ratio + (1 - self.min_ratio) * (1 + math.cos(math.pi * place)) / 2)


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
