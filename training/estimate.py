"""A recipe and a model's config.json in, what a GPU must hold and how long a step takes out; nothing is computed.

Every number has its formula here. What is saved for the backward pass is what transformers' layers save, counted tensor
by tensor (tests/training/test_estimate.py); what libraries and fragmentation take is assumed.
"""

import dataclasses

from nextlong.errors import UserError
from training.config import Training, check_heads, rows_per_step
from training.flops import PEAK_FLOPS, flops_of
from training.shape import Shape

GIB = 1 << 30
LOSS_BLOCK_TOKENS = 768
"""As training.loss has it."""
LIBRARIES_BYTES = 3 * GIB // 2
"""Assumed: CUDA's context, the communication library's buffers, workspaces of cuBLAS."""
FRAGMENTED_RATIO = 0.04
"""Assumed: what the allocator holds beyond what is used."""
_BYTES = {"bfloat16": 2, "float32": 4, "float64": 8}


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes a GPU."""

    weights: int
    gradients: int
    optimizer: int
    whole: int
    """Parameters that are gathered at the fullest moment: embedding and head, and the layers at work."""
    inputs: int
    """Saved for the backward pass till the end: with checkpointing the layers' inputs, without all activations."""
    layer: int
    """Activations of the layer at work, and their gradients (with checkpointing; else gradients alone)."""
    attention: int
    """What FA2's backward pass takes for a moment: dQ in float32, and dK, dV for every query head."""
    loss: int
    """A block of logits with what is made of it, the head's gradient in float32, hidden states and theirs."""
    reduction: int
    """Gradients of embedding and head before they are shared out."""
    step: int
    """What AdamW takes for a moment."""

    @property
    def moments(self) -> dict[str, int]:
        """What is held beside weights, gradients and optimizer state, by moment; the fullest decides."""
        return {
            "loss": self.whole + self.inputs + self.loss,
            "backward pass of a layer": self.whole + self.inputs + max(self.layer, self.attention),
            "reduction": self.whole + self.reduction,
            "optimizer": self.step,
        }

    @property
    def fullest(self) -> str:
        """The moment that holds the most."""
        return max(self.moments, key=lambda name: self.moments[name])

    @property
    def held(self) -> int:
        """Weights, gradients and optimizer state."""
        return self.weights + self.gradients + self.optimizer

    @property
    def total(self) -> int:
        """Bytes that the GPU must have."""
        return round((self.held + self.moments[self.fullest]) * (1 + FRAGMENTED_RATIO)) + LIBRARIES_BYTES


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What a training takes on a number of ranks."""

    shape: Shape
    ranks: int
    length_tokens: int
    rows_a_step: int
    micro_steps: int
    tokens_a_rank: int
    """Of a micro-step."""
    memory: Memory
    memory_otherwise: Memory
    """With model.checkpointing the other way."""
    flops: float
    """Of a step, of documents as long as rows."""
    flops_least: float
    """Of a step, of the shortest documents."""
    sent_bytes: float
    """By a GPU in a micro-step, to share out weights and gradients."""
    exchanged_bytes: float
    """By a GPU in a micro-step, between ranks that share a sequence."""

    def seconds(self, mfu: float, *, least: bool = False, peak: float = PEAK_FLOPS["H100"]) -> float:
        """Of a step, at this share of a GPU's peak."""
        return (self.flops_least if least else self.flops) / (self.ranks * peak * mfu)


def estimate(recipe: Training, shape: Shape, *, ranks: int, length_tokens: int) -> Estimate:
    """Raises UserError for what a training on so many ranks would refuse."""
    sp, replicas, micro_rows = recipe.parallel.sp, recipe.parallel.dp_replicate, recipe.batch.micro_rows
    if ranks < 1 or ranks % (sp * replicas):
        raise UserError(
            f"parallel.sp * parallel.dp_replicate is {sp * replicas}, but must divide the number of ranks, {ranks}. "
            f"Say another number with --ranks."
        )
    check_heads(shape.num_attention_heads, shape.num_key_value_heads, sp)
    rows = rows_per_step(recipe.batch.global_tokens, length_tokens)
    data_ranks = ranks // sp
    if rows % (data_ranks * micro_rows):
        raise UserError(
            f"an optimizer step has {rows} rows, which {data_ranks} data-parallel ranks with {micro_rows} rows a "
            f"micro-step do not divide."
        )
    tokens = -(-micro_rows * length_tokens // sp)
    size, shards = _BYTES[recipe.model.precision], ranks // replicas
    is_checkpointed = recipe.model.checkpointing
    memory, otherwise = (
        _memory(shape, tokens, shards=shards, sp=sp, size=size, is_checkpointed=each)
        for each in (is_checkpointed, not is_checkpointed)
    )
    all_tokens = rows * length_tokens
    flops = [
        flops_of(
            num_matrix_parameters=shape.num_matrix_parameters, num_tokens=all_tokens, squared_lengths=each, config=shape
        )
        for each in (float(rows) * length_tokens**2, 2.0 * all_tokens)
    ]
    width = shape.head_dim * (2 * shape.num_attention_heads + 2 * max(shape.num_key_value_heads, sp if sp > 1 else 0))
    passes = 3 if is_checkpointed else 2  # forward, again, backward
    return Estimate(
        shape=shape,
        ranks=ranks,
        length_tokens=length_tokens,
        rows_a_step=rows,
        micro_steps=rows // (data_ranks * micro_rows),
        tokens_a_rank=tokens,
        memory=memory,
        memory_otherwise=otherwise,
        flops=flops[0],
        flops_least=flops[1],
        sent_bytes=_sent_bytes(
            shape, size, shards=shards, replicas=replicas, micro_steps=rows // (data_ranks * micro_rows)
        ),
        exchanged_bytes=passes * shape.num_hidden_layers * tokens * width * size * (sp - 1) / sp,
    )


def _sent_bytes(shape: Shape, size: int, *, shards: int, replicas: int, micro_steps: int) -> float:
    """By a GPU in a micro-step: a layer is gathered twice, the rest once, gradients are dealt out in full precision.

    Replicas of a shard add up their gradients at the end of the step.
    """
    layers = shape.num_parameters - shape.num_root_parameters
    dealt = size * (shape.num_parameters + layers) + _master(size) * shape.num_parameters
    added = 2 * _master(size) * shape.num_parameters / shards * (replicas - 1) / replicas / micro_steps
    return dealt * (shards - 1) / shards + added


def _master(size: int) -> int:
    """Bytes of a weight that the optimizer changes, for a computation of that size."""
    return max(4, size)


def _memory(shape: Shape, tokens: int, *, shards: int, sp: int, size: int, is_checkpointed: bool) -> Memory:
    """Of a GPU that holds a shard of everything and so many tokens. size: bytes of a number of the computation."""
    own, master = -(-shape.num_parameters // shards), _master(size)
    hidden, layers, layer_parameters = shape.hidden_size, shape.num_hidden_layers, shape.num_layer_parameters
    heads, width, wide = shape.num_attention_heads, shape.head_dim, shape.intermediate_size
    kv_heads = max(shape.num_key_value_heads, sp) if sp > 1 else shape.num_key_value_heads
    activations = activation_bytes(shape, size, kv_heads=kv_heads)
    gradients_of_mlp = size * (3 * wide + 2 * hidden)
    head = shape.vocab_size * hidden
    attention = heads * width * (4 + size) + 4 * heads + 2 * kv_heads * width * size  # dQ twice, row sums, dK and dV
    if heads != kv_heads:
        attention += 2 * heads * width * size  # dK and dV of every query head, before they are summed
    saved_then = activations - size * 4 * wide  # when attention's turn comes, the MLP's are gone
    layer, at_attention = activations + gradients_of_mlp, saved_then + attention + 2 * size * hidden
    if not is_checkpointed:
        layer, at_attention = gradients_of_mlp, max(0, attention + 2 * size * hidden - size * 4 * wide)
    of_model = tokens * (size * hidden + (4 + 2 * size) * hidden + 8 * 4)  # embedding, last norm, ids and targets
    inputs = layers * (size * hidden if is_checkpointed else activations) * tokens
    return Memory(
        weights=master * own,
        gradients=master * own,
        optimizer=2 * master * own,
        # Two layers, since the next is gathered meanwhile; and the gradients of one, whole and as they are shared out.
        whole=size * shape.num_root_parameters + (3 * size + master) * layer_parameters,
        inputs=inputs + of_model,
        layer=tokens * layer + size * head,
        attention=tokens * at_attention + size * head,
        loss=min(tokens, LOSS_BLOCK_TOKENS) * shape.vocab_size * (master + size)
        + 2 * master * head
        + 2 * size * hidden * tokens,
        reduction=(size + master) * shape.num_root_parameters,
        step=master * own,
    )


def activation_bytes(shape: Shape, size: int, *, kv_heads: int | None = None) -> int:
    """Bytes a token that a layer saves for its backward pass. kv_heads: as attention gets them; None: the model's.

    A norm saves its input in float32 and what it gives twice; attention its query, key, value, result (twice: by tokens
    and by heads) and a number a head; the MLP four times its width.
    """
    heads, width = shape.num_attention_heads, shape.head_dim
    kv_heads = kv_heads or shape.num_key_value_heads
    norms = 2 * ((4 + 2 * size) * shape.hidden_size + 4)
    attention = size * width * (3 * heads + 2 * kv_heads) + 4 * heads
    if shape.has_qk_norm:
        attention += (heads + shape.num_key_value_heads) * ((4 + size) * width + 4)
    return norms + attention + 4 * size * shape.intermediate_size
