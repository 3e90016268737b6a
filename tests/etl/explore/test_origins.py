"""Where chunks come from, and their texts: every one of a run, reading only the row groups that hold them."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from etl.explore import Run
from etl.origins import Origin, _texts, chunk_origins
from etl.work import Work


def test_every_chunk_comes_from_its_document(run: Run) -> None:
    names = run.documents.compute().set_index("doc_id")["source_id"]
    expected = {
        row.chunk_id: Origin(row.doc_id, names[row.doc_id], row.chunk_index, row.text)
        for row in run.chunks.compute().itertuples()
    }
    work = Work.open(run.path)
    assert chunk_origins(work, reversed(expected)) == expected
    assert len(expected) > 300
    some = [*expected][::17]
    bare = {chunk: expected[chunk]._replace(text="") for chunk in some}
    assert chunk_origins(work, some, with_text=False) == bare
    assert chunk_origins(work, []) == {}


def test_texts_are_read_from_the_row_groups_that_hold_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq.write_table(pa.table({"text": [f"text {place}" for place in range(95)]}), tmp_path / "part", row_group_size=10)
    read: list[int] = []
    real = pq.ParquetFile.read_row_group

    def noted(file: Any, group: int, **options: Any) -> pa.Table:
        read.append(group)
        return real(file, group, **options)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", noted)
    places = [0, 9, 10, 55, 90, 94]
    assert _texts(tmp_path / "part", np.array(places)) == [f"text {place}" for place in places]
    assert read == [0, 1, 5, 9]
