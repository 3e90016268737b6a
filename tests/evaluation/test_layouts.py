"""What RULER's and HELMET's programs find in the files, and what a recipe keeps out of training data."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from etl import pipeline
from etl.engine import Engine
from etl.recipe import Recipe
from evaluation.example import Example
from evaluation.layouts import write_helmet, write_ruler, write_texts
from evaluation.tasks import TASKS, examples
from nextlong.config import Decontamination
from nextlong.decontamination import collect_ngrams, words
from nextlong.errors import UserError
from tests.conftest import make_texts
from tests.evaluation.tokenizers_made import made

TOKENIZER = made("byte_level")
LENGTH = 1000


def ask(task: str, hay: str | None = None, length: int = LENGTH) -> list[Example]:
    return examples(task, TOKENIZER, length, number=2, seed=3, depths=[0.1, 0.9], hay=hay)


EVERY = [each for task in TASKS for each in ask(task)] + ask("needle", "needles") + ask("needle", "Our text. " * 300)


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_ruler_finds_a_folder_a_task_with_its_fields(tmp_path: Path) -> None:
    paths = write_ruler(tmp_path, EVERY, TOKENIZER)
    found = {path.parent.name: read(path) for path in paths}
    assert {path.relative_to(tmp_path).as_posix() for path in paths} == {
        f"{LENGTH}/data/{name}/validation.jsonl" for name in found
    }
    needles = ["niah_single_1", "niah_single_2", "niah_multikey_1", "niah_multikey_2", "niah_multivalue"]
    assert sorted(found) == sorted([*needles, "vt", "fwe"])
    fields = ["answer_prefix", "index", "input", "length", "length_w_model_temp", "outputs"]
    for name, rows in found.items():
        assert [row["index"] for row in rows] == list(range(len(rows)))
        for row in rows:
            assert sorted(row) == sorted([*fields, *(["token_position_answer"] if name in needles else [])])
            assert LENGTH * 0.97 <= row["length"] == row["length_w_model_temp"] <= LENGTH


def test_rulers_prompts_are_ours_and_answers_are_where_it_is_told(tmp_path: Path) -> None:
    asked = ask("multikey")
    (path,) = write_ruler(tmp_path, asked, TOKENIZER)
    for row, each in zip(read(path), asked, strict=True):
        assert row["input"] + row["answer_prefix"] == each.context + each.question
        assert row["answer_prefix"].startswith("Answer: ")
        assert row["outputs"] == list(each.answers)
        assert row["length"] == len(TOKENIZER.encode(each.context + each.question).ids) + each.max_new_tokens
        ids = TOKENIZER.encode(row["input"], add_special_tokens=False).ids
        place = row["token_position_answer"]
        assert each.answers[0] in TOKENIZER.decode(ids[place - 1 : place + 9])
        assert each.answers[0] not in TOKENIZER.decode(ids[place + 1 : place + 12])


def test_helmets_ruler_loader_finds_its_fields(tmp_path: Path) -> None:
    paths = write_helmet(tmp_path, [each for each in EVERY if each.task != "key_value"])
    names = {path.relative_to(tmp_path).as_posix(): read(path) for path in paths}
    assert f"ruler/niah_multikey_1/validation_{LENGTH}.jsonl" in names
    assert len(names) == 7
    for name, rows in names.items():
        for row in rows:
            assert list(row) == [
                "context", "query", "type_needle_v", "num_v", "example", "answer", "outputs",
            ]  # fmt: skip
            assert row["query"] in row["context"]
            assert row["answer"] == row["outputs"]
            assert len(row["answer"]) == row["num_v"]
            assert all(answer in row["context"] for answer in row["answer"])
            assert not row["context"].startswith(("Read", "Below"))
            kind = "" if "niah" not in name else "door codes" if "multivalue" in name else "door code"
            assert row["type_needle_v"] == kind


def test_helmets_json_kv_loader_finds_its_fields(tmp_path: Path) -> None:
    asked = ask("key_value")
    (path,) = write_helmet(tmp_path, asked)
    assert path == tmp_path / "json_kv" / f"validation_{LENGTH}.jsonl"
    for row in read(path):
        assert sorted(row) == ["answer", "context", "demos", "num_kvs", "question"]
        pairs = json.loads(row["context"])
        assert pairs[row["question"]] == row["answer"]
        assert len(pairs) == row["num_kvs"] + 1  # the note
        assert len(row["demos"]) >= 2
        assert all(pairs[key] == value and key != row["question"] for key, value in row["demos"])


def test_lengths_have_their_own_files_and_what_a_suite_has_not_is_told(tmp_path: Path) -> None:
    both = [*ask("variables"), *ask("variables", length=1200)]
    assert len(write_ruler(tmp_path, both, TOKENIZER)) == len(write_helmet(tmp_path, both)) == 2
    with pytest.raises(UserError, match="none of these examples is of a task that RULER has"):
        write_ruler(tmp_path, ask("key_value"), TOKENIZER)


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    return write_texts(tmp_path / "evaluation" / "texts.jsonl", EVERY)


def test_a_needle_sentence_is_found_by_its_words(texts: Path) -> None:
    """By as many words as a recipe looks for: sentences of needles have them, and their names are nowhere else."""
    ngrams, _ = collect_ngrams([[row["text"] for row in read(texts)]], Decontamination().ngram_words)
    for each in EVERY:
        for answer in each.answers if each.task in ("needle", "multikey", "multivalue") else ():
            stated = next(line for line in each.context.split(". ") if answer in line)
            stated = stated[stated.index("Write it down") :]
            assert len(words(stated)) >= Decontamination().ngram_words
            assert ngrams.first_file(f"Before it. {stated} and after it.") == 0
    assert ngrams.first_file("Write it down: a door code of the house called tavone was changed to 4817263.") == -1
    assert all(ngrams.first_file(text) == -1 for _, text in make_texts(200, seed=8))


def test_a_training_document_with_a_needle_is_dropped(
    tmp_path: Path, texts: Path, make_recipe: Callable[..., Recipe]
) -> None:
    needle = next(each for each in EVERY if each.task == "needle")
    stated = next(line for line in needle.context.split(". ") if needle.answers[0] in line)
    documents = [text for _, text in make_texts(30)]
    documents[7] = f"{documents[7]} {stated}. {documents[7]}"
    pq.write_table(pa.table({"text": documents}), tmp_path / "corpus.parquet")
    recipe = make_recipe(input={"path": str(tmp_path / "corpus.parquet"), "id": None, "source": None})
    job = pipeline.start(dataclasses.replace(recipe, decontamination=Decontamination(path=str(texts))))
    account = pipeline.run(job, Engine(), only="read")["stages"]["read"]["account"]
    assert account["documents"]["dropped"] == {"contaminated by texts.jsonl": 1}
