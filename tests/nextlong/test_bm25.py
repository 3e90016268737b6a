"""BM25: Lucene's formula, one exact order, and the same answers from disk, alone, and for any text."""

import math
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nextlong.bm25 import Bm25
from nextlong.decontamination import words

RNG = np.random.default_rng(2)
VOCABULARY = [f"w{i}" for i in range(60)]
TEXTS = [" ".join(RNG.choice(VOCABULARY, RNG.integers(1, 40), p=np.arange(60, 0, -1) / 1830)) for _ in range(300)]
TEXTS[7] = ""
TEXTS[200] = TEXTS[5]
QUERIES = [*TEXTS[::20], "w59 w59 w1", "unknown w58", ""]

WORLD = ["The naïve café", "東京は大きい。東京", "مرحبا بالعالم", "हिन्दी में लिखो", "😀 🎉", "İstanbul ΣΑΣ x_1", "can't"]


def _twin(texts: Sequence[str], query: str) -> list[float]:
    """Lucene's BM25 of every text, by hand: each distinct word of the query once."""
    of_texts = [Counter(words(text)) for text in texts]
    lengths = [sum(of_text.values()) for of_text in of_texts]
    average = sum(lengths) / len(texts)
    scores = []
    for of_text, length in zip(of_texts, lengths, strict=True):
        score = 0.0
        for word in set(words(query)) & set(of_text):
            df = sum(word in other for other in of_texts)
            idf = math.log(1 + (len(texts) - df + 0.5) / (df + 0.5))
            score += idf * of_text[word] / (of_text[word] + 1.5 * (1 - 0.75 + 0.75 * length / average))
        scores.append(score)
    return scores


def _check_row(scores: np.ndarray, ids: np.ndarray, twin: Sequence[float]) -> int:
    """A row of neighbours against the twin's scores of all texts; returns how many were found."""
    found = int((ids >= 0).sum())
    assert found == min(len(ids), sum(score > 0 for score in twin))
    assert (ids[:found] >= 0).all()
    assert (ids[found:] == -1).all()
    assert np.isneginf(scores[found:]).all()
    np.testing.assert_allclose(scores[:found], [twin[i] for i in ids[:found]], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(scores[:found], sorted(twin, reverse=True)[:found], rtol=1e-4, atol=1e-6)
    pairs = [(-score, i) for score, i in zip(scores[:found].tolist(), ids[:found].tolist(), strict=True)]
    assert pairs == sorted(set(pairs))
    return found


@pytest.mark.parametrize("top_k", [1, 7, 100, 1000])
def test_neighbours_are_those_of_lucenes_formula(top_k: int) -> None:
    scores, ids = Bm25.build(TEXTS).neighbours(QUERIES, top_k)
    assert scores.shape == ids.shape == (len(QUERIES), min(top_k, len(TEXTS)))
    assert (scores.dtype, ids.dtype) == (np.float32, np.int64)
    found = [_check_row(*row, _twin(TEXTS, query)) for *row, query in zip(scores, ids, QUERIES, strict=True)]
    assert max(found) > top_k / 5
    assert found[-1] == 0  # the query without words


def test_every_cut_is_a_prefix_of_the_full_order() -> None:
    index = Bm25.build(TEXTS)
    full = index.neighbours(QUERIES, len(TEXTS))
    assert full.ids[0, 0] == 0
    for top_k in (0, 1, 2, 3, 50, 299):
        cut = index.neighbours(QUERIES, top_k)
        assert cut.ids.tolist() == full.ids[:, :top_k].tolist()
        assert cut.scores.tolist() == full.scores[:, :top_k].tolist()


def test_equal_scores_are_ordered_by_id_also_at_the_cut() -> None:
    index = Bm25.build(["b c", *["a b"] * 50, "a", *["b a"] * 50])
    scores, ids = index.neighbours(["a"], 40)
    assert ids[0].tolist() == [51, *range(1, 40)]
    assert len(set(scores[0, 1:].tolist())) == 1
    assert index.neighbours(["a"], 200).ids[0].tolist() == [51, *range(1, 51), *range(52, 102), -1]


def test_scores_of_given_ids_are_those_of_the_neighbours() -> None:
    index = Bm25.build(TEXTS)
    for query, text in enumerate(TEXTS):
        scores, ids = (row[0] for row in index.neighbours([text], len(TEXTS)))
        shuffled = RNG.permutation(len(ids))
        found = index.scores_of(np.array([query]), ids[None, shuffled])
        assert found.tolist() == [scores[shuffled].tolist()]
    some = index.scores_of(np.array([0, 0]), np.array([[7, -1, 7]] * 2))
    assert some.dtype == np.float32
    assert some.tolist() == [[0, -np.inf, 0]] * 2  # text 7 is empty


def test_indexed_texts_are_looked_up_by_id_as_by_their_text(tmp_path: Path) -> None:
    Bm25.build(TEXTS).save(tmp_path)
    ids = RNG.permutation(len(TEXTS))
    for index in (Bm25.build(TEXTS), Bm25.open(tmp_path)):
        by_id, by_text = index.neighbours_of(ids, 9), index.neighbours([TEXTS[each] for each in ids], 9)
        assert by_id.ids.tolist() == by_text.ids.tolist()
        assert by_id.scores.tolist() == by_text.scores.tolist()


def test_a_query_is_the_set_of_its_words() -> None:
    index = Bm25.build(TEXTS)
    found = [index.neighbours([query], 20) for query in ("w3 w8", "w8 w3", "W8, w3! w3 w3 nowhere")]
    assert found[0].ids[0, 0] >= 0
    assert all(np.array_equal(one, other) for result in found[1:] for one, other in zip(found[0], result, strict=True))


def test_a_row_does_not_depend_on_the_other_queries() -> None:
    index = Bm25.build(iter(TEXTS))
    together = index.neighbours(QUERIES, 30)
    for row, query in enumerate(QUERIES):
        alone = index.neighbours([query], 30)
        assert alone.ids[0].tobytes() == together.ids[row].tobytes()
        assert alone.scores[0].tobytes() == together.scores[row].tobytes()


@pytest.mark.parametrize("texts", [TEXTS, WORLD, ["", "!"], []], ids=["many", "world", "wordless", "none"])
def test_an_opened_index_answers_bit_for_bit_as_the_built_one(texts: list[str], tmp_path: Path) -> None:
    built = Bm25.build(texts)
    built.save(tmp_path)
    opened = Bm25.open(tmp_path)
    assert len(opened) == len(built) == len(texts)
    for one, other in zip(
        built.neighbours([*QUERIES, *WORLD], 50), opened.neighbours([*QUERIES, *WORLD], 50), strict=True
    ):
        assert one.shape == (len(QUERIES) + len(WORLD), min(50, len(texts)))
        assert one.tobytes() == other.tobytes()


def test_an_opened_index_lies_in_shared_pages(tmp_path: Path) -> None:
    Bm25.build(TEXTS).save(tmp_path)
    data = Bm25.open(tmp_path)._index.scores["data"]
    assert isinstance(data.base, np.memmap)


def test_the_same_texts_give_the_same_bytes_in_any_process(tmp_path: Path) -> None:
    code = (
        "import logging, sys; from pathlib import Path; from nextlong.bm25 import Bm25; logging.basicConfig(level=20);"
        "from tests.nextlong.test_bm25 import TEXTS, WORLD; Bm25.build(TEXTS + WORLD).save(Path(sys.argv[1]))"
    )
    files = []
    for seed in ("1", "2"):
        folder = tmp_path / seed
        folder.mkdir()
        ran = subprocess.run(
            [sys.executable, "-W", "error", "-c", code, str(folder)],
            env={"PYTHONHASHSEED": seed},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=True,
        )
        assert ran.stdout + ran.stderr == ""  # no bars, and no debug messages where the command line wants INFO
        files.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert files[0]
    assert files[0] == files[1]


def test_texts_without_a_shared_word_are_no_neighbours() -> None:
    index = Bm25.build(["alpha beta", "", "beta gamma", "?!"])
    assert index.neighbours(["delta", "", "...", "gamma"], 3).ids.tolist() == [
        [-1] * 3,
        [-1] * 3,
        [-1] * 3,
        [2, -1, -1],
    ]
    assert index.neighbours([], 3).ids.shape == (0, 3)


@pytest.mark.parametrize("texts", [[], [""], ["", "\n", "😀"]])
def test_an_index_without_words_finds_nothing(texts: list[str]) -> None:
    index = Bm25.build(texts)
    scores, ids = index.neighbours(["a b", "", "😀"], 2)
    assert ids.shape == (3, min(2, len(texts)))
    assert (ids == -1).all()
    assert np.isneginf(scores).all()


@pytest.mark.parametrize(
    ("query", "nearest"),
    [("CAFÉ", 0), ("京", 1), ("العالم بالعالم", 2), ("में", 3), ("σας", 5), ("X", 5), ("t", 6)],
)
def test_words_of_any_script_are_found(query: str, nearest: int) -> None:
    assert Bm25.build(WORLD).neighbours([query], 3).ids[0].tolist() == [nearest, -1, -1]


ANY_TEXT = st.text(st.characters(), max_size=12) | st.lists(st.sampled_from("abc東あé"), max_size=8).map(" ".join)


@given(st.lists(ANY_TEXT, max_size=8), ANY_TEXT, st.integers(1, 9))
@example(["\ud800 a", "a"], "a \udfff", 1)
def test_any_texts_can_be_indexed_and_searched(texts: list[str], query: str, top_k: int) -> None:
    index = Bm25.build(texts)
    scores, ids = index.neighbours([query], top_k)
    _check_row(scores[0], ids[0], _twin(texts, query) if texts else [])
    if texts:
        alike = index.neighbours([texts[0]], top_k)
        assert index.neighbours_of(np.array([0]), top_k).ids.tolist() == alike.ids.tolist()
