"""A training recipe: what is trained, on what, how, and where it goes; checked once, when it is made."""

import dataclasses

from nextlong.errors import UserError
from training.data import Data
from training.model import Model
from training.optimizer import Optimizer


@dataclasses.dataclass(frozen=True, kw_only=True)
class Batching:
    """How rows become steps."""

    global_tokens: int
    """Of an optimizer step, over all ranks; a multiple of the sequence length. Accumulation follows."""
    micro_rows: int = 1
    """Rows that a data-parallel rank computes at once."""
    sequence_tokens: int | None = None
    """Of a row: folders of other lengths are refused. None: whatever the folders have."""

    def __post_init__(self) -> None:
        for name in ("global_tokens", "micro_rows", "sequence_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"batch.{name} is {value}, but it must be at least 1.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parallel:
    """How the ranks share the work."""

    sp: int = 1
    """Ranks that share a sequence (Ulysses)."""
    dp_replicate: int = 1
    """Groups of ranks that each hold a whole sharded model (hybrid sharding); 1: one."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Saving:
    """What is kept of a run."""

    every_steps: int = 100
    """Between checkpoints; the last step always has one."""
    keep: int = 2
    """Checkpoints; older ones are deleted."""
    init_from: str | None = None
    """A finished run: start from its weights and optimizer state, with this recipe's data and schedule."""

    def __post_init__(self) -> None:
        for name in ("every_steps", "keep"):
            if getattr(self, name) < 1:
                raise UserError(f"saving.{name} is {getattr(self, name)}, but it must be at least 1.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Held-out loss during training."""

    folders: list[str] = dataclasses.field(default_factory=list)
    """Packed folders that are not trained on; empty: none."""
    every_steps: int = 100
    """Between evaluations."""
    rows: int = 16
    """Of each folder, the first ones."""
    buckets: int = 8
    """Into which positions of a document are cut, each double the one before."""

    def __post_init__(self) -> None:
        for name in ("every_steps", "rows", "buckets"):
            if getattr(self, name) < 1:
                raise UserError(f"evaluation.{name} is {getattr(self, name)}, but it must be at least 1.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """Everything that decides a run."""

    output: str
    """The run folder: recipe, metrics, checkpoints, and at the end the model as a transformers folder."""
    model: Model
    """What is trained."""
    data: Data
    """What it is trained on."""
    batch: Batching
    """How rows become steps."""
    optimizer: Optimizer
    """How weights change."""
    parallel: Parallel = Parallel()
    """How the ranks share the work."""
    saving: Saving = Saving()
    """What is kept."""
    evaluation: Evaluation = Evaluation()
    """Held-out loss."""
