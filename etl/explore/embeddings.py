"""The embeddings of a run as a lazy Dask dataframe, as `etl.frames.embed` gives them."""

from pathlib import Path

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pyarrow as pa

from etl.parts import read_array
from etl.schemas import embeddings, meta, to_frame
from etl.work import StageFolder
from nextlong.errors import UserError


def lazy_embeddings(stage: StageFolder) -> dd.DataFrame:
    """chunk_id and embedding of every chunk of a finished stage, one partition a part. UserError where it has none."""
    if stage.settings.get("skipped"):
        raise UserError(f"{stage.path} holds no embeddings: {stage.settings['skipped']}.")
    dimensions = (stage.manifest() or {})["values"]["dimensions"]
    rows = [rows for _, rows in stage.tables()]
    firsts = np.cumsum([0, *rows])[:-1].tolist()
    return dd.from_map(read_embeddings, stage.arrays(), firsts, meta=meta(embeddings(dimensions)))


def read_embeddings(path: Path, first_chunk_id: int) -> pd.DataFrame:
    """The embeddings of a part, as float16."""
    vectors = read_array(path).astype(np.float16, copy=False)
    chunk_ids = pa.array(np.arange(first_chunk_id, first_chunk_id + len(vectors)))
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
    return to_frame(pa.table([chunk_ids, column], schema=embeddings(vectors.shape[1])))
