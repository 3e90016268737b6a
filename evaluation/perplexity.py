"""Documents of one length in, the loss of their tokens by position out."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from evaluation.blocks import token_losses
from evaluation.documents import Document
from evaluation.intervals import mean_interval
from evaluation.model import Model

_SHORTEST_TOKENS = 64  # of the first bucket
_MOST_BUCKETS = 12


def loss_by_position(model: Model, document: Document) -> list[dict[str, Any]]:
    """[{"first", "last", "loss", "targets"}]: the mean loss of the tokens first ... last, each given all before it.

    Token 0 is nobody's target; special tokens before a text are none either. Computed in float32 at least.
    """
    losses = token_losses(model, model.as_ids(document.ids))
    found = []
    for first, end in pairwise(edges(len(document.ids))):
        targets = losses[max(first, 1, document.num_special) - 1 : end - 1].astype("float64")
        if len(targets):
            found.append({"first": first, "last": end - 1, "loss": float(targets.mean()), "targets": len(targets)})
    return found


def edges(length_tokens: int) -> list[int]:
    """Where buckets begin, and the end: 0, L / 2^n, ... L / 4, L / 2, L."""
    halves = [length_tokens]
    while halves[0] // 2 >= _SHORTEST_TOKENS and len(halves) < _MOST_BUCKETS:
        halves.insert(0, -(-halves[0] // 2))
    return [0, *halves]


def over_documents(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """[{"first", "last", "mean", "low", "high", "documents"}] of the `positions` of several documents of one length."""
    told = []
    for each in zip(*(row["positions"] for row in rows), strict=True):
        mean, low, high = mean_interval([bucket["loss"] for bucket in each])
        told.append({"first": each[0]["first"], "last": each[0]["last"], "mean": mean, "low": low, "high": high})
        told[-1]["documents"] = len(each)
    return told
