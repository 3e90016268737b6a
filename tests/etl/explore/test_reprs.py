"""Objects show themselves shortly, and whatever is in a document's text or name is shown, not obeyed."""

import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from etl.explore import Run
from etl.inputs import Input
from tests.conftest import make_texts
from tests.etl.explore.conftest import made

HOSTILE = "<script>alert(1)</script>\x1b[2J\u202e"


def test_reprs_are_of_one_to_five_lines(run: Run) -> None:
    long_document = run.sample(1)[0]
    for each in (run, long_document, run.document(0), run.packed_row(0), run.index):
        assert 1 <= len(repr(each).splitlines()) <= 5
    assert re.search(r"24 long documents, 12 packed sequences", repr(run))
    assert re.search(r"1,024 tokens = \d+ meta-chunks \+ \d+ negatives\n.*mean similarity 0\.\d+", repr(long_document))
    assert "Index(Flat," in repr(run.index)
    assert "2,048 tokens, 2 long documents" in repr(run.packed_row(0))


def test_a_run_shows_its_accounts_as_a_table(run: Run) -> None:
    shown = run._repr_html_()
    assert shown.count("<tr>") == len(run.accounts.groupby(["stage", "unit"])) + 1
    assert "1 exact copy" in shown


def test_a_long_document_shows_a_box_for_each_segment(run: Run) -> None:
    long_document = run.sample(1)[0]
    assert long_document._repr_html_().count('type="radio"') >= len(long_document.segments)
    row = run.packed_row(0)
    assert [span.end for span in row.long_documents[0].spans][-1] == row.indices[0, 1]
    assert row._repr_html_().count('type="radio"') >= sum(len(each.segments) for each in row.long_documents)


@pytest.fixture(scope="module")
def hostile(recipe_of: Any, tmp_path_factory: pytest.TempPathFactory) -> Run:
    import dataclasses

    folder: Path = tmp_path_factory.mktemp("hostile<u>")
    rows = [
        {"id": f"{HOSTILE}{n}", "text": f"{text}\n{HOSTILE}", "source": HOSTILE}
        for n, (_, text) in enumerate(make_texts(40))
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "corpus.parquet")
    recipe = recipe_of(folder / "work", synthesis={"num_samples": 4})
    return made(dataclasses.replace(recipe, input=Input(path=str(folder / "corpus.parquet"), id="id", source="source")))


def test_hostile_names_and_texts_are_escaped(hostile: Run) -> None:
    long_document, row = hostile.sample(1)[0], hostile.packed_row(0)
    for each in (hostile, long_document, row, hostile.sample(2)):
        assert not re.search("<script|<u>|\x1b|\u202e", each._repr_html_())
    for each in (hostile, long_document, row, hostile.document(0)):
        assert repr(each).replace("\n", "").isprintable()
