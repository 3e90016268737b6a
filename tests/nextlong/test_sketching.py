"""Sketches: estimates near the exact overlap of word 5-grams, the same in every process and batch."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nextlong.decontamination import words
from nextlong.sketching import overlaps, sketch

RNG = np.random.default_rng(3)


def _text_pairs() -> list[tuple[str, str]]:
    """Texts of 60-300 words and copies in which between none and nearly all of a tail is replaced."""
    pairs = []
    for number in range(400):
        first = RNG.integers(0, 5000, RNG.integers(60, 300))
        second = first.copy()
        kept = len(first) * (number % 40) // 39
        second[kept:] = RNG.integers(5000, 9000, len(first) - kept)
        pairs.append((" ".join(f"w{i}" for i in first), " ".join(f"w{i}" for i in second)))
    return pairs


PAIRS = _text_pairs()


def _exact(first: str, second: str) -> float:
    """Jaccard overlap of the sets of word 5-grams, by sets of tuples."""
    one, other = (
        {tuple(text[i : i + 5]) for i in range(max(1, len(text) - 4))} - {()} for text in (words(first), words(second))
    )
    return len(one & other) / len(one | other) if one and other else 0.0


@pytest.mark.parametrize("num_hashes", [64, 256])
def test_estimates_are_within_the_statistical_error_of_the_exact_overlap(num_hashes: int) -> None:
    firsts = sketch([first for first, _ in PAIRS], num_hashes=num_hashes)
    seconds = sketch([second for _, second in PAIRS], num_hashes=num_hashes)
    exact = np.array([_exact(*pair) for pair in PAIRS])
    estimates = np.array([overlaps(one, other[None])[0] for one, other in zip(firsts, seconds, strict=True)])
    deviations = np.sqrt(exact * (1 - exact) / num_hashes)
    errors = estimates - exact
    assert ((exact > 0.2) & (exact < 0.8)).sum() > 100
    assert (np.abs(errors) <= 5 * deviations + 1e-6).all()
    assert np.abs(errors).mean() < deviations.mean()  # a normal error's mean size is 0.8 of its deviation
    assert abs(errors.mean()) < 4 * np.sqrt((deviations**2).mean() / len(PAIRS))


def test_identical_texts_overlap_fully_and_disjoint_ones_not_at_all() -> None:
    text = PAIRS[0][0]
    sketches = sketch([text, text.upper() + "!", PAIRS[0][1], "other words " * 30])
    found = overlaps(sketches[0], sketches)
    assert found.dtype == np.float32
    assert found.tolist() == [1, 1, 0, 0]


def test_repeating_a_run_of_words_changes_nothing_and_their_order_does() -> None:
    sketches = sketch(["a b c d e " * 2, "a b c d e " * 9, "e d c b a " * 2])
    assert overlaps(sketches[0], sketches).tolist() == [1, 1, 0]


def test_a_text_of_fewer_than_five_words_is_one_run() -> None:
    sketches = sketch(["a b c", "A, b; c.", "a b c d", "c b a", "東京は", "東 京 は"])
    assert overlaps(sketches[0], sketches).tolist() == [1, 1, 0, 0, 0, 0]
    assert overlaps(sketches[4], sketches).tolist() == [0, 0, 0, 0, 1, 1]


def test_texts_without_words_overlap_with_nothing() -> None:
    sketches = sketch(["", "?! 😀", "a b c d e f"])
    assert (sketches[:2] == 2**32 - 1).all()
    assert overlaps(sketches[0], sketches).tolist() == [0, 0, 0]
    assert overlaps(sketches[2], sketches).tolist() == [0, 0, 1]


def test_a_row_depends_on_its_text_alone() -> None:
    texts = [*(first for first, _ in PAIRS[:50]), "", "a b"]
    together = sketch(texts)
    assert together.dtype == np.uint32
    assert together.shape == (52, 64)
    assert np.array_equal(together, np.concatenate([sketch([text]) for text in texts]))
    assert np.array_equal(together[::-1], sketch(texts[::-1]))
    assert sketch([], num_hashes=16).shape == (0, 16)
    assert overlaps(together[0], together[:0]).shape == (0,)


def test_sketches_are_the_same_in_any_process() -> None:
    texts = [PAIRS[3][0], "東京 मराठी é", ""]
    code = f"from nextlong.sketching import sketch; print(sketch({texts!r}).tobytes().hex())"
    outputs = {
        subprocess.run(
            [sys.executable, "-W", "error", "-X", "utf8", "-c", code],
            env={"PYTHONHASHSEED": seed},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert outputs == {sketch(texts).tobytes().hex()}


ANY_TEXT = st.text(st.characters(), max_size=40) | st.lists(st.sampled_from("abc東é"), max_size=20).map(" ".join)


@given(ANY_TEXT, ANY_TEXT)
@example("\ud800", "a\udfff b")
def test_any_texts_can_be_sketched(first: str, second: str) -> None:
    sketches = sketch([first, second])
    found = overlaps(sketches[0], sketches)
    assert found[0] == (1 if words(first) else 0)
    exact = _exact(first, second)
    assert 0 <= found[1] <= 1
    if exact in (0, 1):
        assert found[1] == exact
