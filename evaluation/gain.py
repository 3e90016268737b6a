"""Long documents with known meta-chunks in; by how much distant context lowers the loss on each meta-chunk, out.

A long document is m1 n n m2 n n m3 ...: meta-chunks m of one document, and negatives n between. For m2, m3, ... two
losses are compared, of the same tokens: those of the meta-chunk.

    whole   m1 n n m2 n n [m3]    all that stands before it, as in training
    near          <s> n n [m3]    only what stands between the last meta-chunk and this one: the earlier meta-chunks,
                                  and all up to the end of the last of them, are cut off

The gain is near - whole, in nats a token: what the model takes from beyond the negatives, which is what the method
trains. The tokens directly before are the same in both; special tokens that begin the document begin both. Positions
count from the beginning of what is read. The first token of a meta-chunk that has nothing before it when cut is left
out of both.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from evaluation.blocks import token_losses
from evaluation.documents import Document
from evaluation.intervals import mean_interval
from evaluation.model import Model


def gain_of(model: Model, document: Document) -> list[dict[str, Any]]:
    """[{"start", "distance", "targets", "whole", "near"}] of the second meta-chunk and those after it.

    start: its place in the document. distance: tokens between the last meta-chunk and it. whole, near: mean losses of
    its targets. It takes two passes over the document's tokens.
    """
    if len(document.meta_chunks) < 2:
        return []
    ids, lead = document.ids, document.ids[: document.num_special]
    losses = token_losses(model, model.as_ids(ids))
    found = []
    for (_, cut), (start, end) in pairwise(document.meta_chunks.tolist()):
        before = len(lead) + start - cut
        first = start if before else start + 1
        if first < end:
            near = token_losses(model, model.as_ids(np.concatenate([lead, ids[cut:end]])))[-(end - first) :]
            whole = losses[first - 1 : end - 1]
            means = {name: float(each.astype(np.float64).mean()) for name, each in (("whole", whole), ("near", near))}
            found.append({"start": start, "distance": start - cut, "targets": end - first} | means)
    return found


def over_documents(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """{"mean", "low", "high", "whole", "near", "documents", "meta_chunks", "by_start"} of several documents' chunks.

    A document counts as one, with its targets' mean: its meta-chunks are not independent. by_start: the same for
    meta-chunks that start in the first quarter of the longest start, and so on.
    """
    longest = max(chunk["start"] for row in rows for chunk in row["chunks"])
    quarters = []
    for first, end in pairwise(longest * part // 4 for part in range(5)):
        parts = [[each for each in row["chunks"] if first < each["start"] <= end] for row in rows]
        if any(parts):
            quarters.append({"first": first + 1, "last": end} | _means(filter(None, parts)))
    return _means(row["chunks"] for row in rows) | {"by_start": quarters}


def _means(documents: Iterable[Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    documents = list(documents)
    whole, near = ([_mean(chunks, name) for chunks in documents] for name in ("whole", "near"))
    mean, low, high = mean_interval([cut - all_ for cut, all_ in zip(near, whole, strict=True)])
    return {
        "mean": mean,
        "low": low,
        "high": high,
        "whole": float(np.mean(whole)),
        "near": float(np.mean(near)),
        "documents": len(documents),
        "meta_chunks": sum(map(len, documents)),
    }


def _mean(chunks: Sequence[Mapping[str, Any]], name: str) -> float:
    return float(np.average([each[name] for each in chunks], weights=[each["targets"] for each in chunks]))
