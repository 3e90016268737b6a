"""Packing: documents in order, boundaries that tile, a remainder that is told."""

import pytest

from nextlong.errors import UserError
from nextlong.packing import documents_per_sequence, domain_of, pack


def test_documents_fill_sequences_in_order_and_the_rest_is_told() -> None:
    sequences, left = pack(7, 3, 100)
    assert [sequence.members for sequence in sequences] == [[0, 1, 2], [3, 4, 5]]
    assert sequences[0].indices.tolist() == [[0, 100], [100, 200], [200, 300]]
    assert left == 1


def test_a_sequence_is_one_document_by_default() -> None:
    assert documents_per_sequence(None, 65536) == 1
    assert documents_per_sequence(524288, 65536) == 8


def test_a_length_that_is_no_multiple_is_refused() -> None:
    with pytest.raises(UserError, match=r"100,000, which is no multiple .* 65,536. Use e.g. 65,536"):
        documents_per_sequence(100_000, 65536)


def test_a_sequence_of_several_sources_is_mixed() -> None:
    assert domain_of(["a", "a"]) == "a"
    assert domain_of(["a", "b"]) == "mixed"
