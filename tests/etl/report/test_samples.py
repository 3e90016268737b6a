"""What is read of the data does not grow with it, and the page says of how much it is."""

from collections.abc import Callable
from pathlib import Path

import pytest

from etl.report import samples
from etl.report.samples import chunk_samples, hardness_samples, spread
from etl.work import Work


def test_parts_are_spread_evenly_and_no_more_than_wanted() -> None:
    assert spread(range(10), 16) == list(range(10))
    assert spread(range(100), 4) == [0, 25, 50, 75]
    assert spread([], 4) == []


def test_of_a_small_run_all_is_read(work_of: Callable[[str], Path]) -> None:
    work = Work.open(work_of("nextlong"))
    found = chunk_samples(work) | hardness_samples(work)
    assert set(found) == {"document_tokens", "chunk_tokens", "meta_distances", "meta_ratios"}
    manifest = work["chunk"].manifest() or {}
    assert found["document_tokens"].told == f"all {manifest['account']['documents']['kept']:,} documents"
    assert found["chunk_tokens"].told == f"all {manifest['rows']:,} chunks"
    assert found["chunk_tokens"].values.sum() == manifest["account"]["tokens"]["kept"]
    assert found["document_tokens"].values.sum() == manifest["account"]["tokens"]["kept"]
    values = (work["interleave"].manifest() or {})["values"]
    assert found["meta_ratios"].values.mean() == pytest.approx(values["meta_ratio"], abs=1e-6)
    assert found["meta_distances"].values.mean() == pytest.approx(values["mean_meta_distance_tokens"], abs=1e-6)


def test_of_a_large_run_a_sample_is_read_and_told(
    work_of: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(samples, "MOST_PARTS", 2)
    monkeypatch.setattr(samples, "ROWS_A_PART", 5)
    monkeypatch.setattr(samples, "LONG_DOCUMENTS_A_PART", 3)
    work = Work.open(work_of("nextlong"))
    num_documents = (work["chunk"].manifest() or {})["account"]["documents"]["kept"]
    chunks, long_documents = chunk_samples(work), hardness_samples(work)
    assert len(chunks["chunk_tokens"].values) == len(chunks["document_tokens"].values) == 10
    assert chunks["chunk_tokens"].told.startswith("a sample of 10 of ")
    assert chunks["document_tokens"].told == f"a sample of 10 of {num_documents} documents"
    assert long_documents["meta_ratios"].told == "a sample of 6 of 24 long documents"


def test_windows_have_no_meta_chunks_to_measure(work_of: Callable[[str], Path]) -> None:
    assert hardness_samples(Work.open(work_of("standard"))) == {}
