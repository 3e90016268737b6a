"""Segments of long documents in, how hard and how varied their negatives are out: pandas frames to look at or to plot."""

import dask.dataframe as dd
import numpy as np
import pandas as pd


def similarity_by_rank(segments: dd.DataFrame) -> pd.DataFrame:
    """Of the inserted chunks by rank (0 the nearest): mean, least and greatest score, number. Columns rank, mean ..."""
    inserted = segments[segments["rank"] >= 0][["rank", "score"]].compute()
    inserted = inserted.astype({"rank": "int64", "score": "float64"})
    by_rank = inserted.groupby("rank")["score"].agg(["mean", "min", "max", "count"])
    return by_rank.reset_index()


def uses_by_chunk(segments: dd.DataFrame) -> pd.DataFrame:
    """In how many long documents each chunk serves as a negative, the most used first: chunk_id, uses."""
    negatives = segments[segments["role"] == "negative"][["chunk_id"]].compute()
    uses = negatives["chunk_id"].astype("int64").value_counts(sort=False)
    frame = uses.rename_axis("chunk_id").reset_index(name="uses")
    return frame.sort_values(["uses", "chunk_id"], ascending=[False, True], ignore_index=True)


def chunks_by_uses(uses: pd.DataFrame, num_chunks: int) -> pd.DataFrame:
    """How many of a corpus' chunks are used how often, those never used included: uses, chunks."""
    counts = np.bincount(uses["uses"].to_numpy(np.int64), minlength=1)
    counts[0] = num_chunks - len(uses)
    return pd.DataFrame({"uses": np.arange(len(counts)), "chunks": counts})
