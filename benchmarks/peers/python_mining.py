"""Mining as a script would write it: a Python loop over what FAISS found, with sets. It keeps what ours keeps."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nextlong.mining import MetaDocument

Pairs = list[tuple[float, int]]
"""Scores and chunk_ids of one meta-chunk's neighbours, nearest first."""


class Loops(NamedTuple):
    """What such a script keeps at hand."""

    vectors: NDArray[np.float16]
    hashes: Sequence[int]
    similarity: float

    def mine(self, documents: Sequence[MetaDocument], found: NDArray[np.int64]) -> list[Pairs]:
        """The candidates of every meta-chunk, from the ids [n, k] that FAISS found for it."""
        queries = [chunk_id for document in documents for chunk_id in document.chunk_ids.tolist()]
        return self.judge(documents, [self.score_again(*each) for each in zip(queries, found, strict=True)])

    def score_again(self, query: int, found: NDArray[np.int64]) -> Pairs:
        """Exact scores of ids [k], one at a time."""
        vector = self.vectors[query].astype(np.float64)
        pairs = []
        for chunk_id in found.tolist():
            if chunk_id >= 0:
                score = round(float(self.vectors[chunk_id].astype(np.float64) @ vector), 6)
                pairs.append((float(np.float32(score)), chunk_id))
        return sorted(pairs, key=lambda pair: (-pair[0], pair[1]))

    def judge(self, documents: Sequence[MetaDocument], neighbours: Sequence[Pairs]) -> list[Pairs]:
        """The rules alone, on scored neighbours."""
        of_chunks, dropped = iter(neighbours), Counter[str]()
        kept: list[Pairs] = []
        for document in documents:
            own = set(document.chunk_ids.tolist())
            copied = {self.hashes[chunk_id] for chunk_id in own}
            kept += [self._keep(next(of_chunks), own, copied, document.num_candidates, dropped) for _ in own]
        return kept

    def _keep(self, pairs: Pairs, own: set[int], copied: set[int], wanted: int, dropped: Counter[str]) -> Pairs:
        kept: Pairs = []
        num_others = 0
        for score, chunk_id in pairs:
            if num_others == wanted:
                break
            if chunk_id in own:
                dropped["own_document"] += 1
                continue
            num_others += 1
            if self.hashes[chunk_id] in copied:
                dropped["exact_copy"] += 1
            elif score >= self.similarity:
                dropped["near_duplicate"] += 1
            else:
                kept.append((score, chunk_id))
        return kept
