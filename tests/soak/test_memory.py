"""Peak memory of the trainer's loss at the sizes of a small model."""

import pytest

from tests.training.test_loss import check_peaks


@pytest.mark.parametrize("num_tokens", [4_096, 16_384])
def test_its_memory_is_a_fraction_of_the_plain_one(num_tokens: int) -> None:
    check_peaks(num_tokens, 1_024)
