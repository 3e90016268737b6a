"""The segments of long documents as a lazy Dask dataframe, a row each: who serves where, and how often."""

from pathlib import Path

import dask.dataframe as dd
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from etl.schemas import SEGMENT, meta, to_frame
from etl.stage_rows import Tables

SEGMENTS = pa.schema([("sample_id", pa.int64()), *SEGMENT])
"""Of which long document, and the fields of schemas.SEGMENT."""


def lazy_segments(tables: Tables) -> dd.DataFrame:
    """The segments of long documents (columns of SEGMENTS), one partition a part; the token ids are not read."""
    if not tables:
        return dd.from_pandas(meta(SEGMENTS), npartitions=1)
    return dd.from_map(read_segments, [path for path, _ in tables], meta=meta(SEGMENTS))


def read_segments(path: Path) -> pd.DataFrame:
    """The segments of a part, in order."""
    table = pq.read_table(path, columns=["sample_id", "segments"])
    owners = table["sample_id"].take(pc.list_parent_indices(table["segments"]))
    segments = pc.list_flatten(table["segments"])
    columns = [owners, *[pc.struct_field(segments, field.name) for field in SEGMENT]]
    return to_frame(pa.table(columns, schema=SEGMENTS))
