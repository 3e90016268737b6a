"""A model's sizes and documents' lengths in, floating point operations of a training step out; no torch needed."""

from typing import Any

PEAK_FLOPS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "B200": 2250e12}
"""Dense bfloat16, a second; by what a device's name holds."""


def flops_of(*, num_matrix_parameters: int, num_tokens: int, squared_lengths: float, config: Any) -> float:
    """Of a forward and a backward pass: 6 a parameter and token, and attention inside documents.

    Causal attention reads half of each document's square: 2 * 2 * n^2 / 2 * H * D a layer forward, three times that in
    all. What checkpointing computes again is not counted.
    """
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    attention = 6 * config.num_hidden_layers * heads * width * squared_lengths
    return 6.0 * num_matrix_parameters * num_tokens + float(attention)
