"""A text in; which share of the last token's attention goes to the first and to the last third of it, by layer, out.

After section 5.1 and appendix B.4 of the paper, which look at the attention of the last token over a long context.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evaluation.blocks import new_cache, read
from evaluation.intervals import mean_interval
from evaluation.model import Model

PARTS = ("first_third", "middle_third", "last_third", "first_token")
"""Thirds sum up to 1. The first token, on which many heads rest whatever the text, is told apart from its third too."""


def attention_shares(model: Model, ids: Tensor) -> NDArray[np.float64]:
    """[layers, 4]: shares of PARTS of a text [T], T > 2, mean over heads; the last token itself counts to its third.

    All but the last token are read in blocks; the last is one query a layer, computed plainly (eager), so that no
    matrix over the whole length exists. Raises ValueError for a shorter text.
    """
    if len(ids) < 3:
        raise ValueError(f"thirds need three tokens, but the text has {len(ids)}")
    cache = new_cache()
    read(model, ids[:-1], cache)
    before = model.lm.config._attn_implementation
    model.lm.set_attn_implementation("eager")
    try:
        with torch.inference_mode():
            out = model.read(ids[-1:], cache, output_attentions=True)
    finally:
        model.lm.set_attn_implementation(before)
    return shares_of(torch.stack([layer[0, :, -1].float() for layer in out.attentions]))


def shares_of(weights: Tensor) -> NDArray[np.float64]:
    """[layers, 4]: PARTS of the attention [layers, heads, T] of one token, which sums up to 1 over T."""
    length = weights.shape[-1]
    cuts = [0, length // 3, length - length // 3, length]
    means = weights.double().mean(1)
    parts = [means[:, start:end].sum(-1) for start, end in pairwise(cuts)]
    found: NDArray[np.float64] = torch.stack([*parts, means[:, 0]], dim=-1).cpu().numpy()
    return found


def over_texts(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """{"texts", "over_layers": {part: {"mean", "low", "high"}}, "by_layer": {part: means}} of texts of one length."""
    shares = np.array([row["shares"] for row in rows])
    over_layers = {}
    for place, part in enumerate(PARTS):
        over_layers[part] = mean_interval(shares[:, :, place].mean(axis=1).tolist())._asdict()
    by_layer = {part: shares[:, :, place].mean(axis=0).tolist() for place, part in enumerate(PARTS)}
    return {"texts": len(rows), "over_layers": over_layers, "by_layer": by_layer}
