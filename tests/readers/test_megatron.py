"""Megatron's .bin and .idx that we export, read and compared by megatron-core."""

from pathlib import Path

import numpy as np
import pytest

from tests.readers.conftest import Export
from tests.readers.equal import assert_same, assert_same_files
from tests.readers.programs import read, run
from tests.readers.scripts.rows_file import save

VOCABULARIES = {"uint16": 65_499, "int32": 65_500}
"""The rule of the readers: uint16 below 65,500."""


@pytest.mark.parametrize("dtype", VOCABULARIES)
@pytest.mark.parametrize("of", ["plain", "long"])
def test_a_row_is_a_document_of_one_sequence(exported: Export, dtype: str, of: str) -> None:
    made = exported("megatron", of=of, vocab_size=VOCABULARIES[dtype])
    rows, types = read("megatron", "read_megatron", made.folder / "sequences")
    assert_same(rows, [{"input_ids": row["input_ids"], "document": number} for number, row in enumerate(made.rows)])
    assert types["input_ids"] == [f"ndarray:{dtype}"]


@pytest.mark.parametrize("dtype", VOCABULARIES)
@pytest.mark.parametrize("of", ["plain", "long"])
def test_a_sample_of_a_gpt_dataset_is_a_row(exported: Export, dtype: str, of: str, tmp_path: Path) -> None:
    """One row an epoch is never a sample: a sample's last label is the first token of the row after it."""
    made = exported("megatron", of=of, vocab_size=VOCABULARIES[dtype])
    length = made.rows[0]["length"]
    samples, _ = read(
        "megatron", "read_megatron", made.folder / "sequences", sequence_length=length, cache=tmp_path / "cache"
    )
    numbers = {row["input_ids"].tobytes(): number for number, row in enumerate(made.rows)}
    seen = [numbers[sample["tokens"].astype(np.uint32).tobytes()] for sample in samples]
    assert len(set(seen)) == len(seen) == len(made.rows) - 1 > 0
    for sample in samples:
        np.testing.assert_array_equal(sample["labels"][:-1], sample["tokens"][1:])
        assert sample["loss_mask"].all()


def test_labels_are_minus_100_where_the_mask_is_0(exported: Export) -> None:
    made = exported("megatron", of="masked", vocab_size=VOCABULARIES["uint16"])
    labels, _ = read("megatron", "read_megatron", made.folder / "sequences_label")
    for label, row in zip(labels, made.rows, strict=True):
        np.testing.assert_array_equal(label["input_ids"], np.where(row["mask"], row["input_ids"].astype(int), -100))
    assert not all(row["mask"].all() for row in made.rows)


@pytest.mark.parametrize("dtype", VOCABULARIES)
def test_files_are_byte_for_byte_what_the_reference_builder_makes(exported: Export, dtype: str, tmp_path: Path) -> None:
    made = exported("megatron", of="long", vocab_size=VOCABULARIES[dtype])
    save(tmp_path / "rows.npz", made.rows)
    (tmp_path / "reference").mkdir()
    prefix = tmp_path / "reference" / "sequences"
    run("megatron", "readers.scripts.write_megatron", tmp_path / "rows.npz", prefix, dtype)
    assert_same_files(made.folder, tmp_path / "reference")


def test_boundaries_lie_beside(exported: Export) -> None:
    """Row, start and end of each piece."""
    made = exported("megatron", vocab_size=VOCABULARIES["uint16"])
    found = np.load(made.folder / "sequences.boundaries.npy", allow_pickle=False)
    expected = [[number, *piece] for number, row in enumerate(made.rows) for piece in row["indices"].tolist()]
    assert found.tolist() == expected
