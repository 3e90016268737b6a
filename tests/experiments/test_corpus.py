"""Held-out texts are long, natural and shared with nothing that is trained on."""

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from experiments.corpus import Document, passage, read_corpus, split
from nextlong.decontamination import ngram_hashes
from nextlong.errors import UserError
from tests.conftest import make_texts
from tests.experiments.plans import MICRO

PLAN = dataclasses.replace(MICRO, held_out=3)


def _corpus(number: int = 60) -> list[Document]:
    texts = [(topic, text) for topic, text in make_texts(2 * number, seed=2) if len(text) < PLAN.held_out_chars]
    return [Document(text, topic) for topic, text in texts[:number]]


def _long(number: int) -> list[Document]:
    rng = np.random.default_rng(0)
    return [Document(" ".join(f"w{each}" for each in rng.integers(10**9, size=400)), "long") for _ in range(number)]


def _ngrams(texts: list[str]) -> set[int]:
    return {int(each) for text in texts for each in ngram_hashes(text, 13)}


def test_held_out_texts_are_long_documents_where_there_are_enough() -> None:
    corpus = [*_corpus(), *_long(6)]
    found = split(corpus, PLAN)
    assert len(found.held_out) == PLAN.held_out
    assert all(len(text) >= PLAN.held_out_chars for text in found.held_out)
    assert set(found.held_out) < {document.text for document in corpus[-6:]}
    assert len(found.documents) == len(corpus) - PLAN.held_out


def test_else_they_are_consecutive_documents_of_one_source() -> None:
    corpus = sorted(_corpus(), key=lambda document: document.source)
    found = split(corpus, PLAN)
    whole = "\n\n".join(document.text for document in corpus)
    assert len(found.held_out) == PLAN.held_out
    for text in found.held_out:
        assert len(text) >= PLAN.held_out_chars
        assert text in whole
        first = whole.index(text)
        sources = {document.source for document in corpus if first <= whole.index(document.text) < first + len(text)}
        assert len(sources) == 1


def test_no_document_shares_thirteen_words_in_a_row_with_a_held_out_text() -> None:
    long = _long(6)
    quotes = [Document("Before. " + document.text[200:500] + " After.", "quote") for document in long]
    found = split([*_corpus(), *long, *quotes], PLAN)
    assert found.num_overlapping == PLAN.held_out  # of each held-out text its quotation
    assert not _ngrams(found.held_out) & _ngrams(found.documents)


def test_the_split_is_the_same_each_time() -> None:
    corpus = [*_corpus(), *_long(6)]
    assert split(corpus, PLAN) == split(corpus, PLAN)


def test_passages_are_parts_of_at_most_the_length_and_whole_lines_where_lines_are_short() -> None:
    rng = np.random.default_rng(0)
    text = "\n".join(f"line {number} of a text" for number in range(200)) + "\n"
    for most in (50, 200, 1000, len(text)):
        for _ in range(20):
            found = passage(text, most, rng)
            assert found in text
            assert most / 4 < len(found) <= most
            assert set(found.splitlines()) <= set(text.splitlines())
    assert 50 <= len(passage("x" * 1000, 100, rng)) <= 100


def test_repeats_come_back_after_another_passage() -> None:
    found = split([*_corpus(), *_long(6)], PLAN)
    assert len(found.repeats) == PLAN.num_repeats > 10
    for text in found.repeats:
        lengths = [size for size in range(1, len(text) // 2) if text.startswith(text[-size:])]
        assert max(lengths) >= PLAN.short_tokens // 16
        assert len(text) <= 3 * PLAN.short_tokens + 2


def test_a_corpus_without_long_texts_is_refused() -> None:
    with pytest.raises(UserError, match="larger corpus"):
        split(_corpus(3), PLAN)


def test_files_that_are_no_corpus_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_text("no")
    with pytest.raises(UserError, match="no parquet file"):
        read_corpus(tmp_path / "a.parquet")
    pq.write_table(pa.table({"words": ["a"]}), tmp_path / "b.parquet")
    with pytest.raises(UserError, match="no column text"):
        read_corpus(tmp_path / "b.parquet")
    pq.write_table(pa.table({"text": ["a", None, ""]}), tmp_path / "c.parquet")
    assert read_corpus(tmp_path / "c.parquet") == [Document("a", "")]
