"""Runs and their segments in, how hard and how varied the negatives are out, as pandas frames."""

from typing import Any

import dask.dataframe as dd
import numpy as np
import pandas as pd

from etl.explore.run import Run
from nextlong.errors import UserError


def similarity_by_rank(segments: dd.DataFrame) -> pd.DataFrame:
    """Of the inserted chunks by rank (0 the nearest): mean, least and greatest score, number. Columns rank, mean ..."""
    inserted = segments[segments["rank"] >= 0][["rank", "score"]].compute()
    inserted = inserted.astype({"rank": "int64", "score": "float64"})
    by_rank: pd.DataFrame = inserted.groupby("rank")["score"].agg(["mean", "min", "max", "count"])
    by_rank = by_rank.reset_index()
    return by_rank


def uses_by_chunk(segments: dd.DataFrame) -> pd.DataFrame:
    """In how many long documents each chunk serves as a negative, the most used first: chunk_id, uses."""
    negatives = segments[segments["role"] == "negative"][["chunk_id"]].compute()
    uses = negatives["chunk_id"].astype("int64").value_counts(sort=False)
    frame: pd.DataFrame = uses.rename_axis("chunk_id").reset_index(name="uses")
    frame = frame.sort_values(["uses", "chunk_id"], ascending=[False, True], ignore_index=True)
    return frame


def chunks_by_uses(uses: pd.DataFrame, num_chunks: int) -> pd.DataFrame:
    """How many of a corpus' chunks are used how often, those never used included: uses, chunks."""
    counts = np.bincount(uses["uses"].to_numpy(np.int64), minlength=1)
    counts[0] = num_chunks - len(uses)
    return pd.DataFrame({"uses": np.arange(len(counts)), "chunks": counts})


def near_duplicates(run: Run, rule: str = "similarity") -> pd.DataFrame:
    """What share of all candidates reaches a threshold: columns threshold, share. rule: similarity or overlap."""
    facts = _facts(run, rule)
    shares = {level: number / max(1, facts["compared"]) for level, number in facts["at_or_above"].items()}
    return pd.DataFrame(shares.items(), columns=["threshold", "share"])


def nearest_pairs(run: Run, rule: str = "similarity", *, side: str = "just_below") -> pd.DataFrame:
    """The pairs next to the threshold, kept (just_below) or dropped (just_above): value, and both texts."""
    pairs = _facts(run, rule)[side]
    rows = [(value, *[run.chunk(each)["text"] for each in pair]) for value, *pair in pairs]
    return pd.DataFrame(rows, columns=["value", "meta_chunk", "candidate"])


def _facts(run: Run, rule: str) -> dict[str, Any]:
    facts: dict[str, Any] = run.summary["stages"].get("mine", {}).get("values", {}).get("near_duplicates", {})
    if rule not in facts:
        raise UserError(f"{run.path} was made without mining.near_duplicate_{rule}, so nothing was compared.")
    found: dict[str, Any] = facts[rule]
    return found


def compare_runs(runs: dict[str, Run]) -> pd.DataFrame:
    """A row a run: its chunks and long documents, and of these mean similarity, distance of meta-chunks and uses."""
    rows = {name: _in_short(run.summary["stages"]) for name, run in runs.items()}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("run").reset_index()


def _in_short(stages: dict[str, Any]) -> dict[str, Any]:
    values = stages["interleave"]["values"]
    return {
        "chunks": stages["chunk"]["rows"],
        "long documents": stages["interleave"]["rows"],
        "similarity": values.get("mean_similarity"),
        "meta distance": values.get("mean_meta_distance_tokens"),
        "uses a chunk": values.get("uses_per_chunk"),
    }
