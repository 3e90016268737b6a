"""A finished run, to look into from Python or Jupyter, without a cluster: `from etl.explore import Run`.

The import costs Dask's dataframes, pandas and PyArrow, about two seconds; a model or an index is loaded when it is
first asked. Nothing here writes into a run's folder, and what is lazy runs on Dask's current scheduler or client.
"""

from etl.explore.document import Document
from etl.explore.long_document import LongDocument
from etl.explore.packed_row import PackedRow
from etl.explore.run import Run
from etl.explore.small_corpus import SmallCorpus, small_corpus
from etl.explore.tables import Preview

__all__ = ["Document", "LongDocument", "PackedRow", "Preview", "Run", "SmallCorpus", "small_corpus"]
