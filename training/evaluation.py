"""Held-out rows and a model in; its loss on them out: of all targets, by place in the document, and by segment role.

Each data rank takes a part of the rows and all sums are added up, so the numbers do not depend on the ranks but for the
order of a float64 sum.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from nextlong.errors import UserError
from nextlong.packed_folder import Folder
from training.boundaries import IGNORED, Batch, collate
from training.config import Evaluation
from training.data import Rows
from training.model import PackedLM
from training.parallel import Ranks
from training.stopping import Stop

ROLES = ("meta", "negative")
"""Of segments, by provenance, of which the loss is told apart."""


@dataclasses.dataclass(frozen=True)
class _Row:
    """A row, and which of its targets count where."""

    batch: Batch
    groups: Tensor
    """int64 [1 + roles, T]: of each target its position bucket; its role, or -1."""


class Evaluator:
    """The loss on the first rows of each held-out folder."""

    def __init__(self, settings: Evaluation, ranks: Ranks, rows: Rows, *, most_tokens: int | None) -> None:
        """rows: that are trained on. most_tokens: of a held-out sequence; None: any number.

        Raises UserError for a folder of another tokenizer than theirs, with longer sequences, without any target in the
        rows that are measured, and for rows that cannot be read.
        """
        self._settings, self._ranks, self._vocab_size = settings, ranks, rows.vocab_size
        self._folders = [Folder.open(name, field="evaluation.folders") for name in settings.folders]
        for folder in self._folders:
            self._check(folder, rows.tokenizer_sha256, most_tokens)

    def _check(self, folder: Folder, tokenizer_sha256: str, most_tokens: int | None) -> None:
        found = folder.manifest["tokenizer_sha256"]
        if found != tokenizer_sha256:
            raise UserError(
                f"evaluation.folders: {folder.path} was made with another tokenizer than data.folders: sha256 "
                f"{found[:12]} and {tokenizer_sha256[:12]}."
            )
        if most_tokens is not None and folder.length_tokens > most_tokens:
            raise UserError(
                f"evaluation.folders: {folder.path} has sequences of {folder.length_tokens:,} tokens, but the model is "
                f"made for {most_tokens:,} positions. Pack it shorter, or set model.extend_positions to true."
            )
        measured = range(min(self._settings.rows, len(folder)))
        if not any(self._row(folder, number).batch.num_targets for number in measured):
            raise UserError(
                f"evaluation.folders: {folder.path} has no target in its first {len(measured)} rows: all is masked."
            )

    def is_due(self, step: int, *, is_last: bool) -> bool:
        """Whether to evaluate after so many steps."""
        return bool(self._folders) and (is_last or step % self._settings.every_steps == 0)

    def measure(self, model: PackedLM, stop: Stop) -> dict[str, Any] | None:
        """{"loss", "targets", "loss_meta", ..., "loss_at_0_511", ...}, on all ranks; of several folders "folders", too.

        Positions are the target's in its document; what has no target is left out. All ranks call it together. None:
        any of them was asked to stop meanwhile.
        """
        was_training = model.training
        model.eval()
        sums = [found for folder in self._folders if (found := self._measure(model, folder, stop)) is not None]
        model.train(was_training)
        if len(sums) < len(self._folders):
            return None
        lengths = [folder.length_tokens for folder in self._folders]
        whole = self._told(sum(sums[1:], sums[0]), lengths[0]) if len(set(lengths)) == 1 else _overall(sums)
        if len(sums) == 1:
            return whole
        told = [self._told(*each) for each in zip(sums, lengths, strict=True)]
        return whole | {"folders": dict(zip(self._settings.folders, told, strict=True))}

    def _measure(self, model: PackedLM, folder: Folder, stop: Stop) -> Tensor | None:
        """float64 [2, groups]: sums of losses, and numbers of targets, of all ranks; None: stopped."""
        ranks, device = self._ranks, self._ranks.device
        sums = torch.zeros(2, self._num_groups, dtype=torch.float64, device=device)
        for row in self._rows(folder):
            if stop.anywhere()[0]:
                return None
            with torch.no_grad():
                _, losses = model(row.batch.to(device))
            part = len(losses) * ranks.sequence_rank
            own = slice(part, part + len(losses))
            targets, groups = row.batch.targets[own].to(device), row.groups[:, own].to(device)
            for each in groups:
                counted = (targets != IGNORED) & (each >= 0)
                sums[0].index_add_(0, each[counted], losses[counted].double())
                sums[1].index_add_(0, each[counted], torch.ones_like(losses[counted], dtype=torch.float64))
        model.reshard()  # the root stays whole after a forward pass, for a backward pass that does not come
        dist.all_reduce(sums)
        return sums

    def _rows(self, folder: Folder) -> Iterator[_Row]:
        """This data rank's rows; where it has fewer than others, a row without targets: all ranks compute together."""
        ranks = self._ranks
        wanted = min(self._settings.rows, len(folder))
        for first in range(0, wanted, ranks.data_size):
            number = first + ranks.data_rank
            row = self._row(folder, min(number, wanted - 1))
            if number >= wanted:
                row = dataclasses.replace(row, groups=torch.full_like(row.groups, -1))
            yield row

    def _row(self, folder: Folder, number: int) -> _Row:
        found = folder.read(number, self._vocab_size)
        batch = collate(found.input_ids, [found.pieces(0)], found.mask, multiple=self._ranks.sequence_size)
        positions = batch.position_ids.numpy() + 1  # of the target
        bucket = self._bucket(positions, found.length_tokens)
        roles = np.full(len(positions), -1, np.int64)
        for place, role in enumerate(ROLES):
            for start, end in folder.segments(number, role):
                roles[max(0, start - 1) : end - 1] = self._settings.buckets + place
        return _Row(batch, torch.from_numpy(np.stack([bucket, roles])))

    def _bucket(self, positions: NDArray[np.int64], length: int) -> NDArray[np.int64]:
        return np.searchsorted(np.array(self._edges(length)[1:-1]), positions, side="right").astype(np.int64)

    def _edges(self, length: int) -> list[int]:
        """Where buckets begin, and the end: 0, L / 2^(n - 1), ... L / 4, L / 2, L."""
        return [0, *(-(-length // 2**each) for each in range(self._settings.buckets - 1, -1, -1))]

    @property
    def _num_groups(self) -> int:
        return self._settings.buckets + len(ROLES)

    def _told(self, sums: Tensor, length: int) -> dict[str, Any]:
        edges = self._edges(length)
        names = [f"at_{first}_{last - 1}" for first, last in pairwise(edges)] + list(ROLES)
        told = _overall([sums[:, : self._settings.buckets]])
        for name, total, number in zip(names, *sums.tolist(), strict=True):
            if number:
                told |= {f"loss_{name}": total / number, f"targets_{name}": int(number)}
        return told


def _overall(sums: Sequence[Tensor]) -> dict[str, Any]:
    """Of all targets; every one is in a position bucket."""
    total, number = sum((each.sum(1) for each in sums[1:]), sums[0].sum(1)).tolist()
    return {"loss": total / number, "targets": int(number)}
