"""A training recipe: what is trained, on what, how, and where it goes; checked once, when it is made."""

import dataclasses
import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from nextlong.errors import UserError

if TYPE_CHECKING:
    import torch


def _check_positive(section: str, settings: Any, names: Iterable[str]) -> None:
    _check(section, settings, [(name, getattr(settings, name) >= 1, "at least 1") for name in names])


def _check(section: str, settings: Any, rules: Iterable[tuple[str, bool, str]]) -> None:
    """Raise UserError for the first of (field, whether it is valid, what it must be) that is not valid."""
    for name, is_valid, bound in rules:
        if not is_valid:
            raise UserError(f"{section}.{name} is {getattr(settings, name)}, but it must be {bound}.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model:
    """What is trained."""

    path: str
    """A transformers folder (config.json, safetensors, fast tokenizer), or a hub id, which is fetched."""
    rope_theta: float | None = None
    """Base of the rotary positions; None: the model's own. Longer sequences want a larger one (Table 8)."""
    extend_positions: bool = False
    """Whether sequences may be longer than the model's positions without another base."""
    precision: Literal["bfloat16", "float32", "float64"] = "bfloat16"
    """Of the computation; master weights are float32 (float64 for float64)."""
    checkpointing: bool = True
    """Whether each layer's activations are computed again in the backward pass."""
    from_scratch: bool = False
    """Random weights by the folder's configuration, in place of its own."""
    seed: int = 0
    """Of random weights."""

    def __post_init__(self) -> None:
        theta = self.rope_theta
        _check(
            "model",
            self,
            [
                ("rope_theta", theta is None or 1 < theta < math.inf, "above 1, or null"),
                ("seed", 0 <= self.seed < 1 << 32, "from 0 to 2^32 - 1"),
            ],
        )

    @property
    def folder(self) -> Path:
        """The model's."""
        return Path(self.path).expanduser()

    @property
    def dtype(self) -> "torch.dtype":
        """Of the computation."""
        import torch

        found: torch.dtype = getattr(torch, self.precision)
        return found

    @property
    def master_dtype(self) -> "torch.dtype":
        """Of the weights that the optimizer changes."""
        import torch

        return torch.float64 if self.precision == "float64" else torch.float32


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data:
    """What is trained on."""

    folders: list[str]
    """Packed folders (of nextlong export, pack, convert, mix) of one sequence length: arrow, parquet or MDS."""
    proportions: list[float] | None = None
    """Of sequences, one a folder, exact at every step; None: by the folders' numbers of sequences."""
    seed: int = 0
    """Of the order in which each folder's sequences are taken, anew in every pass over it; none twice in a pass."""
    negative_weight: float = 1.0
    """Of targets in negative segments, by provenance; 1: the plain loss of the paper."""
    threads: int = 2
    """That read ahead."""

    def __post_init__(self) -> None:
        if not self.folders:
            raise UserError("data.folders is empty: give packed folders.")
        if self.proportions is not None and len(self.proportions) != len(self.folders):
            raise UserError(
                f"data.proportions has {len(self.proportions)} numbers for {len(self.folders)} folders: give one for "
                f"each, or leave it out."
            )
        _check(
            "data",
            self,
            [
                ("seed", 0 <= self.seed < 1 << 32, "from 0 to 2^32 - 1"),
                ("negative_weight", 0 <= self.negative_weight <= 100, "from 0 to 100"),
                ("threads", self.threads >= 1, "at least 1"),
            ],
        )


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
        names = ("global_tokens", "micro_rows", "sequence_tokens")
        _check_positive("batch", self, [name for name in names if getattr(self, name) is not None])


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
    """Share of the steps in which the learning rate rises, where warmup_steps is not given."""
    min_ratio: float = 0.1
    """Learning rate at the last step, as a share of the peak."""
    beta1: float = 0.9
    """AdamW's decay of the mean of the gradients (Table 9)."""
    beta2: float = 0.95
    """AdamW's decay of the mean of their squares (Table 9)."""
    epsilon: float = 1e-8
    """Added to AdamW's denominator; PyTorch's default."""
    weight_decay: float = 0.1
    """Of matrices; vectors (norms, biases) have none."""
    clip: float = 1.0
    """Greatest norm of all gradients."""

    def __post_init__(self) -> None:
        warmup = self.warmup_steps
        _check(
            "optimizer",
            self,
            [
                ("steps", self.steps >= 1, "at least 1"),
                ("learning_rate", 0 < self.learning_rate < math.inf, "above 0"),
                ("warmup_steps", warmup is None or 0 <= warmup <= self.steps, "from 0 to optimizer.steps, or null"),
                ("warmup_ratio", 0 <= self.warmup_ratio <= 1, "from 0 to 1"),
                ("min_ratio", 0 <= self.min_ratio <= 1, "from 0 to 1"),
                ("beta1", 0 <= self.beta1 < 1, "from 0 to below 1"),
                ("beta2", 0 <= self.beta2 < 1, "from 0 to below 1"),
                ("epsilon", 0 < self.epsilon < math.inf, "above 0"),
                ("weight_decay", 0 <= self.weight_decay < math.inf, "at least 0"),
                ("clip", self.clip > 0, "above 0"),
            ],
        )

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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parallel:
    """How the ranks share the work."""

    sp: int = 1
    """Ranks that share a sequence (Ulysses)."""
    dp_replicate: int = 1
    """Groups of ranks that each hold a whole sharded model (hybrid sharding); 1: one."""

    def __post_init__(self) -> None:
        _check_positive("parallel", self, ["sp", "dp_replicate"])


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
        _check_positive("saving", self, ["every_steps", "keep"])


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
        _check_positive("evaluation", self, ["every_steps", "rows", "buckets"])


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

    @property
    def folder(self) -> Path:
        """The run folder."""
        return Path(self.output).expanduser()

    def with_model(self, path: str) -> "Training":
        """The same with its model elsewhere."""
        return dataclasses.replace(self, model=dataclasses.replace(self.model, path=path))


def rows_per_step(global_batch_tokens: int, length_tokens: int) -> int:
    """Rows of an optimizer step. Raises UserError for tokens that are no whole number of rows."""
    if global_batch_tokens % length_tokens or global_batch_tokens < length_tokens:
        near = max(1, round(global_batch_tokens / length_tokens)) * length_tokens
        raise UserError(
            f"batch.global_tokens is {global_batch_tokens:,}, which is no multiple of the sequence length, "
            f"{length_tokens:,}. Take e.g. {near:,}."
        )
    return global_batch_tokens // length_tokens


def check_heads(num_heads: int, num_kv_heads: int, sp: int) -> None:
    """Raise UserError where heads cannot be dealt out to the ranks of a sequence."""
    if num_heads % sp:
        raise UserError(f"the model has {num_heads} attention heads, which parallel.sp = {sp} does not divide.")
    if num_kv_heads % sp and sp % num_kv_heads:
        raise UserError(
            f"the model has {num_kv_heads} key and value heads and parallel.sp is {sp}: one must divide the other."
        )
