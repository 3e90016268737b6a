"""A trained model and packed sequences in, the loss of every token out; and what moves where a document is replaced.

For looking, on one process: a training itself tells what `evaluation` measures.
"""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nextlong.errors import UserError
from nextlong.packed_folder import Folder
from nextlong.sequences import Sequences
from training.boundaries import IGNORED, collate
from training.command import process_group
from training.config import Model
from training.model import build
from training.parallel import make_ranks


def read_rows(folder: Path | str, number: int = 1) -> Sequences:
    """The first rows of a packed folder. Raises UserError for a folder that no export made, and for too many."""
    found = Folder.open(str(folder))
    if not 1 <= number <= len(found):
        raise UserError(f"{folder} has {len(found):,} rows, but {number} are asked for.")
    return found.reader.read(0, number)


def token_losses(model: Path | str, sequences: Sequences) -> NDArray[np.float32]:
    """float32 [n, L]: the loss of each token given those before it in its document; NaN where it is nobody's target.

    model: a transformers folder. Computed in float32, one sequence at a time. No process group may be up.
    """
    losses = np.full(sequences.input_ids.shape, np.nan, np.float32)
    with process_group(), torch.no_grad():
        ranks = make_ranks()
        lm = build(Model(path=str(model), precision="float32", checkpointing=False), ranks).eval()
        for row in range(len(sequences)):
            one = sequences.rows(row, row + 1)
            batch = collate(one.input_ids, [one.pieces(0)], one.mask)
            found = lm(batch.to(ranks.device))[1].cpu().numpy()
            is_target = (batch.targets != IGNORED).numpy()
            losses[row, 1:] = np.where(is_target, found, np.nan)[:-1]
    return losses


def with_random_document(sequences: Sequences, document: int, *, vocab_size: int, seed: int = 0) -> Sequences:
    """The sequences, with one document of the first of them (from 0) replaced by random tokens; boundaries stay."""
    pieces = sequences.pieces(0)
    if not 0 <= document < len(pieces):
        raise UserError(f"the sequence has {len(pieces)} documents, numbered from 0, but no document {document}.")
    start, end = pieces[document]
    ids = sequences.input_ids.copy()
    ids[0, start:end] = np.random.default_rng(seed).integers(vocab_size, size=end - start)
    return dataclasses.replace(sequences, input_ids=ids)


def largest_changes(before: NDArray[np.float32], after: NDArray[np.float32], sequences: Sequences) -> list[float]:
    """For each document of the first sequence by how much the loss of one of its tokens moved, at most."""
    moved = np.abs(after[0] - before[0])
    return [float(np.nanmax(moved[start:end])) for start, end in sequences.pieces(0).tolist()]


def loss_by_place(evaluation: Mapping[str, Any]) -> list[tuple[str, float]]:
    """(places, loss) of a line of metrics.jsonl of kind evaluation, such as ("0-511", 5.2), in order; NaN left out."""
    found = {tuple(map(int, match.groups())): loss for name, loss in evaluation.items() if (match := _PLACES(name))}
    return [(f"{first}-{last}", loss) for (first, last), loss in sorted(found.items()) if not np.isnan(loss)]


_PLACES = re.compile(r"loss_at_(\d+)_(\d+)").fullmatch
