"""Chunks: nothing is lost under "split", the published rule is met chunk for chunk under "keep"."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nextlong.chunking import chunk_document, chunk_text, text_hashes
from tests import reference

ADVERSARIAL = st.text(alphabet=st.sampled_from("ab .\n。!\t"), max_size=200)


@given(ADVERSARIAL, st.integers(1, 30))
def test_keep_gives_the_published_chunks(text: str, granularity: int) -> None:
    ours = chunk_text(text, granularity_chars=granularity, long_paragraphs="keep")
    assert ours == reference.published_chunks(text, granularity)


@given(ADVERSARIAL, st.integers(1, 30))
def test_keep_loses_only_newlines(text: str, granularity: int) -> None:
    chunks = chunk_document(text, granularity_chars=granularity, long_paragraphs="keep")
    rebuilt = "".join(chunk + joiner for chunk, joiner in zip(*chunks, strict=True))
    assert rebuilt.replace("\n", "") == text.replace("\n", "")
    assert chunks.num_chars == len(rebuilt) <= len(text)


@given(ADVERSARIAL, st.integers(1, 30))
def test_split_gives_the_document_back_in_chunks_of_at_most_the_granularity(text: str, granularity: int) -> None:
    chunks = chunk_document(text, granularity_chars=granularity)
    assert "".join(chunk + joiner for chunk, joiner in zip(*chunks, strict=True)) == text
    assert all(0 < len(chunk) <= granularity or chunk == "" for chunk in chunks.texts)
    assert set(chunks.joiners) <= {"", "\n"}


@given(ADVERSARIAL, st.integers(1, 30))
def test_split_equals_its_slow_twin(text: str, granularity: int) -> None:
    ours = chunk_document(text, granularity_chars=granularity)
    assert list(zip(*ours, strict=True)) == reference.split_chunks(text, granularity)


@given(st.text(max_size=300), st.integers(1, 50))
def test_split_gives_any_text_back(text: str, granularity: int) -> None:
    chunks = chunk_document(text, granularity_chars=granularity)
    assert "".join(chunk + joiner for chunk, joiner in zip(*chunks, strict=True)) == text


def test_a_long_paragraph_is_cut_at_sentences_then_words_then_anywhere() -> None:
    assert chunk_text("One two. Three four. Five", granularity_chars=20) == ["One two. ", "Three four. Five"]
    assert chunk_text("one two three four", granularity_chars=10) == ["one two ", "three four"]
    assert chunk_text("abcdefghij" * 2, granularity_chars=8) == ["abcdefgh", "ijabcdef", "ghij"]
    assert chunk_text("你好。再见。你好", granularity_chars=6) == ["你好。再见。", "你好"]


def test_lines_are_not_cut_while_they_fit() -> None:
    text = "first line\nsecond line\nthird line"
    assert chunk_document(text, granularity_chars=22).texts == ["first line\nsecond line", "third line"]
    assert chunk_document(text, granularity_chars=22).joiners == ["\n", ""]


def test_published_rule_counts_no_newlines_and_passes_a_long_line_whole() -> None:
    assert [len(chunk) for chunk in chunk_text("a\n" * 5000, long_paragraphs="keep")] == [4095, 4095, 1808]
    assert chunk_text("b" * 9000, long_paragraphs="keep") == ["b" * 9000]
    assert chunk_text("", long_paragraphs="keep") == [""]


def test_published_rule_loses_blank_lines_before_a_long_line() -> None:
    chunks = chunk_document("\n\n" + "b" * 10 + "\nc", granularity_chars=5, long_paragraphs="keep")
    assert chunks.texts == ["b" * 10, "c"]
    assert len("\n\n" + "b" * 10 + "\nc") - chunks.num_chars == 2


def test_no_chunk_is_blank_while_its_neighbour_can_take_the_blank_lines() -> None:
    for text in ("x y\nz\n\n" + "v" * 6, "\n\n" + "y" * 30, "ab cd\n\n\n" + "z" * 20 + "\n"):
        assert all(chunk.strip() for chunk in chunk_text(text, granularity_chars=8)), text


@pytest.mark.parametrize("text", ["a\x00b" * 50, "👩‍👩‍👧 " * 40, "שלום עולם " * 30])
def test_any_script_and_nul_bytes_survive(text: str) -> None:
    assert "".join(chunk_text(text, granularity_chars=16)) == text


def test_equal_texts_have_equal_hashes_and_others_do_not() -> None:
    hashes = text_hashes(["one", "two", "one", ""])
    assert hashes[0] == hashes[2]
    assert len(set(hashes.tolist())) == 3
