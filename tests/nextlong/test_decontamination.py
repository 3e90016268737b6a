"""N-grams of words: what counts as a word, and that hashes find what sets of tuples find."""

import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nextlong import decontamination
from nextlong.decontamination import EvaluationNgrams, collect_ngrams, ngram_hashes, words

THIRTEEN = "the quick brown fox jumps over the lazy dog and runs away quickly"


def _ngrams(*files: list[str], ngram_words: int = 13) -> EvaluationNgrams:
    return collect_ngrams(files, ngram_words)[0]


def _slow_words(text: str) -> list[str]:
    """Words letter by letter."""
    found: list[str] = []
    is_open = False
    for letter in unicodedata.normalize("NFKC", text).lower():
        name = unicodedata.name(letter, "")
        if any(each in name for each in ("IDEOGRAPH", "HIRAGANA", "KATAKANA")) and letter.isalnum():
            found.append(letter)
            is_open = False
        elif letter.isalnum():
            found[-1:] = [found[-1] + letter] if is_open else [*found[-1:], letter]
            is_open = True
        elif unicodedata.category(letter)[0] == "M" and is_open:
            found[-1] += letter
        else:
            is_open = False
    return found


def _slow_first_file(text: str, files: list[list[str]], ngram_words: int) -> int:
    def grams(text: str) -> set[tuple[str, ...]]:
        found = _slow_words(text)
        return {tuple(found[place : place + ngram_words]) for place in range(len(found) - ngram_words + 1)}

    hits = [number for number, texts in enumerate(files) if any(grams(text) & grams(each) for each in texts)]
    return min(hits, default=-1)


def test_thirteen_words_are_found_across_punctuation_case_and_line_breaks() -> None:
    ngrams = _ngrams([f"Question: {THIRTEEN}?"])
    assert ngrams.first_file(THIRTEEN) == 0
    assert ngrams.first_file("So: The QUICK, brown\n\nfox -- jumps_over; the 'lazy' dog\tand runs away quickly!") == 0
    assert ngrams.first_file("ｔｈｅ ｑｕｉｃｋ " + THIRTEEN[10:] + " – wide letters") == 0


def test_twelve_words_are_not_found_nor_thirteen_in_another_order() -> None:
    ngrams = _ngrams([THIRTEEN])
    twelve = THIRTEEN.split()[:12]
    assert ngrams.first_file(" ".join(twelve)) == -1
    assert ngrams.first_file(" ".join([*twelve, "slowly", *THIRTEEN.split()[1:]])) == -1
    assert ngrams.first_file(" ".join(reversed(THIRTEEN.split()))) == -1
    assert ngrams.first_file(" ".join([*twelve[::-1], *THIRTEEN.split()])) == 0


def test_words_are_runs_of_letters_and_digits_and_single_ideographs() -> None:
    assert words("Don't  e-mail_me: 3.14, x² ½") == ["don", "t", "e", "mail", "me", "3", "14", "x2", "1", "2"]
    assert words("NExtLong采用硬负例。カタカナ・ひら、") == ["nextlong", *"采用硬负例カタカナひら"]
    assert words("한국어 문장") == ["한국어", "문장"]
    assert words("CAFE\u0301 Naïve ΣΊΣΥΦΟΣ हिन्दी में") == ["café", "naïve", "σίσυφος", "हिन्दी", "में"]
    assert words("abc— “quoted”, naive") == ["abc", "quoted", "naive"]
    assert words("") == words(" ,.;_ ") == words("—「」") == []


def test_chinese_is_found_by_its_ideographs() -> None:
    ngrams = _ngrams(["下列哪一项是中华人民共和国的首都？"])
    assert ngrams.first_file("请问：下列、哪一项是中华人民共和国的首都") == 0
    assert ngrams.first_file("下列哪一项是中华人民共和") == -1  # twelve


def test_the_first_of_several_files_takes_a_text() -> None:
    other = " ".join(f"word{number}" for number in range(13))
    ngrams = _ngrams([other], [THIRTEEN, other], [THIRTEEN])
    assert [ngrams.first_file(text) for text in (other, THIRTEEN, f"{THIRTEEN} {other}", "none")] == [0, 1, 0, -1]
    assert ngrams.files.tolist() == [0 if each == ngram_hashes(other, 13)[0] else 1 for each in ngrams.hashes]
    assert len(ngrams.hashes) == 2


def test_texts_too_short_to_match_are_counted_by_file() -> None:
    ngrams, num_short = collect_ngrams([["a b c", THIRTEEN, ""], [THIRTEEN], ["x"]], 13)
    assert num_short == [2, 0, 1]
    assert len(ngrams.hashes) == 1
    nothing, num_short = collect_ngrams([["a b c"]], 13)
    assert (nothing.first_file(THIRTEEN), num_short) == (-1, [1])
    assert _ngrams().first_file(THIRTEEN) == -1


def test_hashes_are_a_polynomial_of_the_words_numbers_the_same_everywhere() -> None:
    assert len(ngram_hashes(THIRTEEN, 13)) == 1
    assert len(ngram_hashes(THIRTEEN, 14)) == 0
    one, two = ngram_hashes("alpha", 1).tolist() + ngram_hashes("beta", 1).tolist()
    assert ngram_hashes("Alpha beta", 2).tolist() == [(one * 0x9E3779B97F4A7C15 + two) % 2**64]
    assert one.to_bytes(8, "little").hex() == "5306d220eac8089a"  # printf alpha | b2sum -l 64
    assert ngram_hashes("", 1).dtype == np.uint64


def test_a_text_is_hashed_alike_in_one_piece_or_many() -> None:
    text = " ".join(f"w{number} 字" for number in range(150_000))
    assert len(text) > 1_000_000
    hashes = ngram_hashes(text, 13)
    assert len(hashes) == 300_000 - 12
    assert np.array_equal(hashes[-100:], ngram_hashes(" ".join(text.split(" ")[-112:]), 13))
    edge = text[:1_000_000].count(" ")  # around the cut
    around = " ".join(text.split(" ")[edge - 50 : edge + 62])
    assert np.array_equal(hashes[edge - 50 : edge + 50], ngram_hashes(around, 13))


def test_remembered_words_stay_few_and_short(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = decontamination._Numbers()
    monkeypatch.setattr(numbers, "greatest_size", 3)
    first = [numbers[word] for word in "a b c d e".split()]
    assert len(numbers) == 2
    assert [numbers[word] for word in "a b c d e".split()] == first
    before = len(numbers)
    assert numbers["x" * 65] == numbers["x" * 65]
    assert len(numbers) == before


LETTERS = st.sampled_from([*"abAB1  _'—éΣ中々カー・한कि〇ｶ", "ｶﾞ", "e\u0301"])


@given(st.lists(LETTERS, max_size=40).map("".join))
@settings(max_examples=300, deadline=None)
def test_words_are_those_of_a_slow_twin(text: str) -> None:
    assert words(text) == _slow_words(text)


TEXTS = st.lists(st.sampled_from(["a", "b", "B", "中", "é", ", ", "\n"]), max_size=30).map(" ".join)


@given(TEXTS, st.lists(st.lists(TEXTS, max_size=3), max_size=3), st.integers(1, 6))
@settings(max_examples=300, deadline=None)
def test_files_are_those_of_a_slow_twin_with_sets_of_tuples(
    text: str, files: list[list[str]], ngram_words: int
) -> None:
    ngrams, num_short = collect_ngrams(files, ngram_words)
    assert ngrams.first_file(text) == _slow_first_file(text, files, ngram_words)
    assert num_short == [sum(len(_slow_words(each)) < ngram_words for each in texts) for texts in files]
