"""A user's corpus at any fsspec address becomes a sorted list of files, and the files become splits of even size."""

import logging
from typing import Literal

logger = logging.getLogger(__name__)

Format = Literal["parquet", "jsonl", "text"]

_ENDINGS: dict[Format, tuple[str, ...]] = {
    "parquet": (".parquet",),
    "jsonl": (".jsonl", ".ndjson", ".json"),
    "text": (".txt", ".md", ".rst"),
}
