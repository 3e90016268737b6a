"""An estimate in, a page for people out: what `nextlong train --dry-run` prints."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

from nextlong.errors import UserError
from training.config import Training
from training.estimate import FRAGMENTED_RATIO, GIB, Estimate, Memory, estimate
from training.shape import KNOWN, Shape

_CARDS = {"80 GB": 79.6 * GIB, "141 GB": 140.4 * GIB}  # what an H100 and an H200 have
_NVLINK, _NETWORK = 350e9, 40e9
"""Bytes a second and GPU, assumed: within a machine, and between machines at 400 Gbit/s a GPU."""


def page(recipe: Training, *, ranks: int | None = None, length_tokens: int | None = None, mfu: float = 0.4) -> str:
    """For people. ranks: None: torchrun's, or 1. length_tokens: None: the recipe's, or the data's.

    Raises UserError for what does not fit together, and where the sequence length is not known.
    """
    if not 0 < mfu <= 1:
        raise UserError(f"--mfu is {mfu:g}, but it must be above 0, and at most 1.")
    ranks = int(os.environ.get("WORLD_SIZE", "1")) if ranks is None else ranks
    length = length_tokens or recipe.batch.sequence_tokens or _length_of(recipe.data.folders[0])
    if length < 2:
        raise UserError(f"--length is {length}, but it must be at least 2.")
    found = estimate(recipe, Shape.read(recipe.model.path), ranks=ranks, length_tokens=length)
    return "\n".join([*_what(recipe, found), "", *_memory(recipe, found), "", *_time(recipe, found, mfu)])


def _length_of(folder: str) -> int:
    try:
        return int(json.loads((Path(folder).expanduser() / "manifest.json").read_text())["sequence_length_tokens"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"the sequence length is not known: data.folders has no packed folder {folder} here. Say --length TOKENS."
        ) from error


def _what(recipe: Training, found: Estimate) -> Iterator[str]:
    shape, parallel = found.shape, recipe.parallel
    note = "" if shape.model_type in KNOWN else ", counted as Llama"
    yield (
        f"{'model':<12}{shape.num_parameters:,} parameters, {shape.num_hidden_layers} layers, "
        f"{shape.num_attention_heads} heads ({shape.num_key_value_heads} of keys and values), vocabulary "
        f"{shape.vocab_size:,}{note}"
    )
    yield (
        f"{'step':<12}{found.rows_a_step * found.length_tokens:,} tokens: {found.rows_a_step:,} sequences of "
        f"{found.length_tokens:,}, {found.micro_steps:,} micro-step{'s' * (found.micro_steps > 1)}"
    )
    yield (
        f"{'ranks':<12}{found.ranks:,}: {found.ranks // parallel.sp:,} data-parallel, {parallel.sp} to a sequence, "
        f"weights in {found.ranks // parallel.dp_replicate:,} shards; {found.tokens_a_rank:,} tokens a GPU at once"
    )


def _memory(recipe: Training, found: Estimate) -> Iterator[str]:
    own, other = found.memory, found.memory_otherwise
    names = ["checkpointing", "without"] if recipe.model.checkpointing else ["without", "checkpointing"]
    yield f"{'memory a GPU, GiB':<54}{names[0]:>16}{names[1]:>16}"
    rows = {
        "weights": (own.weights, other.weights),
        "gradients": (own.gradients, other.gradients),
        "optimizer state": (own.optimizer, other.optimizer),
        "gathered weights: embedding, head, layers at work": (own.whole, other.whole),
        "saved for the backward pass": (own.inputs, other.inputs),
    }
    parts = {
        "the layer at work, with its gradients": "layer",
        "attention's backward pass (FA2)": "attention",
        "loss: block of logits, head's gradient": "loss",
        "gradients of embedding and head": "reduction",
        "AdamW's step": "step",
    }
    for name, pair in rows.items():
        yield _row(f"  {name}", *pair)
    for name, field in parts.items():
        yield _row(f"  for a moment: {name}", getattr(own, field), getattr(other, field))
    yield _row(f"  libraries, and {FRAGMENTED_RATIO:.0%} lost to fragments, assumed", *map(_rest, (own, other)))
    yield _row("at the fullest moment", own.total, other.total)
    yield f"{'  which is':<54}{_short(own.fullest):>16}{_short(other.fullest):>16}"
    for card, size in _CARDS.items():
        verdicts = ["fits" if each.total <= size else "does not fit" for each in (own, other)]
        yield f"{f'  {card}':<54}{verdicts[0]:>16}{verdicts[1]:>16}"


def _rest(memory: Memory) -> int:
    return memory.total - memory.held - memory.moments[memory.fullest]


def _short(moment: str) -> str:
    return moment.removesuffix(" pass of a layer")


def _row(name: str, own: float, other: float) -> str:
    return f"{name:<54}{own / GIB:>16,.2f}{other / GIB:>16,.2f}"


def _time(recipe: Training, found: Estimate, mfu: float) -> Iterator[str]:
    steps = recipe.optimizer.steps
    most, least = found.seconds(mfu), found.seconds(mfu, least=True)
    yield f"{'time':<12}at {mfu:.0%} of the peak of an H100 or H200, assumed (--mfu), of documents"
    for name, each, flops in (("as long as sequences", most, found.flops), ("of few tokens", least, found.flops_least)):
        whole = _seconds(each * steps)
        yield f"{'':<12}{name:<22}{_seconds(each):>10} a step, {whole:>10} for {steps:,}, {flops:.2e} FLOPs a step"
    yield f"{'sent':<12}by a GPU in a micro-step, in part while it computes, at speeds assumed"
    yield _sent("weights, gradients", found.sent_bytes)
    if found.exchanged_bytes:
        yield _sent("parts of sequences", found.exchanged_bytes)
    size = found.shape.num_parameters * 12 / GIB
    yield f"{'checkpoint':<12}{size:,.1f} GiB on disk, each of the {recipe.saving.keep} that are kept"
    yield "Nothing was written."


def _sent(name: str, num_bytes: float) -> str:
    within, between = _seconds(num_bytes / _NVLINK), _seconds(num_bytes / _NETWORK)
    return f"{'':<12}{name:<22}{num_bytes / GIB:>6,.1f} GiB, {within:>8} within a machine, {between} between machines"


def _seconds(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.3g} s"
    if seconds < 7200:
        return f"{seconds / 60:,.0f} min"
    return f"{seconds / 3600:,.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:,.1f} days"
