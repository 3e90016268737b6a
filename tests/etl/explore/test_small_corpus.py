"""Some documents of any corpus, and runs of them: spread over it, the same each time, and taking over what is there."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from etl.explore import SmallCorpus, small_corpus
from nextlong.errors import UserError
from tests.conftest import TARGET, make_texts


@pytest.fixture
def small(corpus_file: Path, tokenizer_file: Path, model_folder: Path, tmp_path: Path) -> SmallCorpus:
    options: dict[str, Any] = {"tokenizer": str(tokenizer_file), "model": str(model_folder)}
    return small_corpus(str(corpus_file), folder=tmp_path, documents=40, **options)


def test_documents_are_taken_from_places_spread_over_the_corpus(small: SmallCorpus, corpus_file: Path) -> None:
    rows, whole = pq.read_table(small.path).to_pylist(), pq.read_table(corpus_file).to_pylist()
    texts = {row["id"]: row["text"] for row in whole}
    assert small.num_documents == len(rows) == len({row["id"] for row in rows}) <= 40
    assert all(texts[row["id"]] == row["text"] for row in rows)
    assert "40 documents" in repr(small)


def test_lines_and_text_files_are_taken_too(tokenizer_file: Path, model_folder: Path, tmp_path: Path) -> None:
    texts = [text for _, text in make_texts(6)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"body": text}) + "\n" for text in texts))
    (tmp_path / "notes").mkdir()
    for number, text in enumerate(texts):
        (tmp_path / "notes" / f"{number}.md").write_text(text)
    options: dict[str, Any] = {"folder": tmp_path, "tokenizer": str(tokenizer_file), "model": str(model_folder)}
    lines = small_corpus(str(tmp_path / "rows.jsonl"), text="body", documents=4, **options)
    files = small_corpus(str(tmp_path / "notes"), documents=4, **options)
    assert (lines.num_documents, files.num_documents) == (4, 4)


def test_the_same_settings_are_one_run_and_others_take_over_its_embeddings(small: SmallCorpus) -> None:
    settings: dict[str, Any] = {"chunking": {"granularity_chars": 300}}
    first = small.run(synthesis={"target_length_tokens": TARGET}, **settings)
    again = small.run(synthesis={"target_length_tokens": TARGET}, **settings)
    other = small.run(synthesis={"target_length_tokens": 2 * TARGET}, **settings)
    assert first.path == again.path != other.path
    [array] = (first.path / "3-embeddings").glob("*.npy")
    assert array.samefile(other.path / "3-embeddings" / array.name)
    assert other.sample(1)[0].num_tokens == 2 * TARGET


def test_what_is_held_out_is_in_no_training_document(small: SmallCorpus) -> None:
    train, held_out = (set(pq.read_table(each.path)["id"].to_pylist()) for each in small.split(5))
    assert not train & held_out
    assert train | held_out == set(pq.read_table(small.path)["id"].to_pylist())
    assert len(held_out) == small.num_documents // 5
    with pytest.raises(UserError, match=r"every is 1, .*from 2"):
        small.split(1)


def test_what_cannot_be_taken_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="documents is 0"):
        small_corpus("corpus.parquet", folder=tmp_path, documents=0)
    with pytest.raises(UserError, match="nowhere"):
        small_corpus(str(tmp_path / "nowhere.parquet"), folder=tmp_path)
    (tmp_path / "blank.jsonl").write_text('{"text": " "}\n')
    with pytest.raises(UserError, match="no document with text"):
        small_corpus(str(tmp_path / "blank.jsonl"), folder=tmp_path)
