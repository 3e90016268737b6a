"""What counts as an answer, and how sure a mean of scores is."""

import numpy as np
import pytest

from evaluation.example import Example
from evaluation.scoring import interval, score


def example(*answers: str) -> Example:
    return Example("needle", 1000, 0, 0.5, "context\n", "question", answers, 10)


@pytest.mark.parametrize(
    ("answers", "output", "expected"),
    [
        (["4817263"], " 4817263.\nQuestion: and", 1),
        (["4817263"], "4,817,263", 0),
        (["4817263"], "48172631", 0),
        (["4817263"], "14817263", 0),
        (["4817263"], "", 0),
        (["lumiro"], "They are LUMIRO, tavone", 1),
        (["lumiro"], "lumiros", 0),
        (["lumiro", "tavone", "bafele"], "tavone and lumiro", 2 / 3),
        (["lumiro", "tavone"], "tavone tavone", 1 / 2),
        (["12ab-34cd"], 'is "12ab - 34cd"', 1),
        (["12ab-34cd"], "34cd 12ab", 0),
        (["12ab-34cd"], "12ab", 0),
        (["7654321", "7654321"], "7654321", 1),
    ],
)
def test_an_answer_is_contained_as_whole_words(answers: list[str], output: str, expected: float) -> None:
    assert score(example(*answers), output) == pytest.approx(expected)


@pytest.mark.parametrize("number", [5, 20, 100])
@pytest.mark.parametrize("chance", [0.05, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("parts", [1, 4])
def test_an_interval_holds_the_true_mean_about_95_times_in_100(number: int, chance: float, parts: int) -> None:
    """Of zeros and ones, on the average over chances near a given one; of shares (parts of 4), at least so often."""
    rng = np.random.default_rng(number)
    chances = np.clip(chance + rng.uniform(-0.04, 0.04, 2000), 0.01, 0.99)
    found = [interval((rng.binomial(parts, each, number) / parts).tolist()) for each in chances]
    held = np.mean([each.low <= true <= each.high for each, true in zip(found, chances, strict=True)])
    assert held >= 0.92
    assert parts == 4 or held <= 0.985
    assert all(0 <= each.low <= each.mean <= each.high <= 1 for each in found)


def test_an_interval_of_equal_scores_is_not_a_point() -> None:
    assert interval([1.0] * 10) == pytest.approx((1.0, 0.7225, 1.0), abs=1e-4)
    assert interval([0.0] * 10) == pytest.approx((0.0, 0.0, 0.2775), abs=1e-4)
    assert interval([0.5]).low < 0.1


@pytest.mark.parametrize("scores", [[], [0.5, 1.1], [-0.1], [float("nan")]])
def test_no_scores_and_others_than_from_0_to_1_are_refused(scores: list[float]) -> None:
    with pytest.raises(ValueError, match="each between 0 and 1"):
        interval(scores)
