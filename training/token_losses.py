"""A trained model and packed sequences in, the loss of every token out: for looking, on one process."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from nextlong.sequences import Sequences
from training.boundaries import IGNORED, collate
from training.command import process_group
from training.config import Model
from training.model import build
from training.parallel import make_ranks


def token_losses(model: Path | str, sequences: Sequences) -> NDArray[np.float32]:
    """float32 [n, L]: the loss of each token given those before it in its document; NaN where it is nobody's target.

    model: a transformers folder. Computed in float32, one sequence at a time. No process group may be up.
    """
    losses = np.full(sequences.input_ids.shape, np.nan, np.float32)
    with process_group(), torch.no_grad():
        lm = build(Model(path=str(model), precision="float32", checkpointing=False), make_ranks()).eval()
        for row in range(len(sequences)):
            one = sequences.rows(row, row + 1)
            batch = collate(one.input_ids, [one.pieces(0)], one.mask)
            found = lm(batch.to(next(lm.parameters()).device))[1].cpu()
            is_target = (batch.targets != IGNORED).numpy()
            losses[row, 1:][is_target[:-1]] = found.numpy()[is_target]
    return losses
