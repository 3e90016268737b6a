"""Stage read with evaluation texts: what shares an n-gram with them goes, by file, and nothing else."""

import dataclasses
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from etl import decontaminate, pipeline
from etl.engine import Engine
from etl.inputs import InputFile
from etl.parts import Part
from etl.recipe import Recipe, load_recipe, resolved_yaml
from etl.work import Work
from nextlong.config import Decontamination
from nextlong.errors import UserError
from tests.conftest import make_texts

MakeRecipe = Callable[..., Recipe]

QUESTION = "Which of these rivers, on its way to the sea, passes through ten countries of Europe?"
ANSWER = "The Danube, which rises in the Black Forest and reaches the Black Sea after 2,850 kilometres."
PASSAGE = "Call me Ishmael. Some years ago, never mind how long precisely, having little or no money in my purse."
CHINESE = "下列关于光合作用的叙述，正确的是哪一项？"


def read(recipe: Recipe, engine: Engine | None = None) -> tuple[Work, dict[str, Any]]:
    """The work folder and the account of stage read."""
    job = pipeline.start(recipe)
    summary = pipeline.run(job, engine or Engine(), only="read")
    account: dict[str, Any] = summary["stages"]["read"]["account"]
    return job.work, account


def documents(work: Work) -> pa.Table:
    return pa.concat_tables([pq.read_table(path) for path, _ in work["read"].tables()])


@pytest.fixture
def evaluation(tmp_path: Path) -> list[str]:
    """Two evaluation files, of questions with answers and of one passage; QUESTION is in both."""
    folder = tmp_path / "evaluation"
    folder.mkdir()
    rows = [
        {"question": QUESTION, "answer": ANSWER},
        {"question": CHINESE, "answer": None},
        {"question": "Too short?", "answer": "Yes."},
    ]
    (folder / "quiz.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "whale.txt").write_text(f"LOOMINGS\n\n{PASSAGE}\n\n{QUESTION}")
    return [str(folder / "quiz.jsonl"), str(folder / "whale.txt")]


PLANTED = {3, 20, 21, 45, 46, 70, 71}
"""Contaminated doc_ids; 46 is a copy of 21, and 70 of 3."""


@pytest.fixture
def planted(tmp_path: Path) -> dict[str, Any]:
    """A corpus in three parts with texts of the evaluation files inside, copies, an empty text and a null."""
    texts: list[str | None] = [text for _, text in make_texts(90)]
    texts[3] = f"{texts[3]}\nQ: which of these RIVERS on its way to the sea passes through ten countries of europe\n"
    texts[20] = f"{ANSWER.upper()} {texts[20]}"
    texts[21] = f"{texts[21]}{PASSAGE.replace(' ', chr(10))}"
    texts[22] = f"{texts[22]} {' '.join(PASSAGE.split()[:12])} and other twelve words"
    texts[45] = f"{texts[45]}{PASSAGE} {QUESTION}"
    texts[46] = texts[21]
    texts[47] = texts[1]
    texts[48], texts[49] = "", None
    texts[70] = texts[3]
    texts[71] = f"{texts[71]}问：下列、关于光合作用的叙述，正确的是。"
    path = tmp_path / "planted.parquet"
    pq.write_table(pa.table({"text": texts}), path, row_group_size=10)
    return {"path": str(path), "id": None, "source": None}


def decontaminated(recipe: Recipe, path: list[str], **settings: Any) -> Recipe:
    section = Decontamination(path=path, **({"text": ["question", "answer"]} | settings))
    return dataclasses.replace(recipe, decontamination=section)


def test_contaminated_documents_are_dropped_by_file_and_all_else_is_kept(
    make_recipe: MakeRecipe, planted: dict[str, Any], evaluation: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    plain, before = read(make_recipe("plain", input=planted))
    assert before["documents"]["dropped"] == {"empty_text": 1, "null_text": 1, "exact_copy": 3}
    with caplog.at_level(logging.WARNING):
        work, account = read(decontaminated(make_recipe(input=planted), evaluation))
    assert account["documents"] == {
        "read": 90,
        "kept": 90 - len(PLANTED) - 3,
        "dropped": {
            "contaminated by quiz.jsonl": 5,
            "contaminated by whale.txt": 2,
            "empty_text": 1,
            "exact_copy": 1,
            "null_text": 1,
        },
    }
    for unit in ("documents", "chars"):
        assert account[unit]["read"] == account[unit]["kept"] + sum(account[unit]["dropped"].values())
    everything, kept = documents(plain).to_pylist(), documents(work).to_pylist()
    assert kept == [row for row in everything if row["doc_id"] not in PLANTED]
    assert PLANTED - {46, 70} < {row["doc_id"] for row in everything}
    assert "2 texts of quiz.jsonl are shorter than decontamination.ngram_words=13 words" in caplog.text
    assert "texts of whale.txt" not in caplog.text
    assert not list(work["read"].path.glob("scan-*"))


def test_worker_processes_give_the_same_documents(
    make_recipe: MakeRecipe, planted: dict[str, Any], evaluation: list[str], two_workers: Engine
) -> None:
    alone, one = read(decontaminated(make_recipe("alone", input=planted), evaluation))
    many, other = read(decontaminated(make_recipe("many", input=planted | {"part_rows": 10}), evaluation), two_workers)
    assert len(many["read"].tables()) > len(alone["read"].tables()) > 1
    assert documents(alone).equals(documents(many))
    assert one == other


def test_an_interrupted_stage_goes_on_without_reading_the_evaluation_texts_again(
    make_recipe: MakeRecipe, planted: dict[str, Any], evaluation: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted(Engine):
        def run(self, parts: Sequence[Part], *, doing: str, unit: str) -> list[dict[str, Any]]:
            if doing == "count documents":
                raise KeyboardInterrupt
            return super().run(parts, doing=doing, unit=unit)

    fresh, whole = read(decontaminated(make_recipe("fresh", input=planted), evaluation))
    recipe = decontaminated(make_recipe(input=planted), evaluation)
    with pytest.raises(KeyboardInterrupt):
        read(recipe, Interrupted())
    monkeypatch.setattr(decontaminate, "collect_ngrams", lambda *_: pytest.fail("read again"))
    work, account = read(recipe)
    assert account == whole
    assert documents(work).equals(documents(fresh))


def test_a_changed_evaluation_file_is_refused(
    make_recipe: MakeRecipe, planted: dict[str, Any], evaluation: list[str]
) -> None:
    recipe = decontaminated(make_recipe(input=planted), evaluation)
    read(recipe)
    Path(evaluation[1]).write_text("Another passage, of as many words as are needed for an n-gram of thirteen words.")
    with pytest.raises(UserError, match=r"from stage 'read' on it differs \(decontamination was .*whale.txt"):
        read(recipe)
    with pytest.raises(UserError, match=r"from stage 'read' on it differs \(decontamination was .*, is null\)"):
        read(make_recipe(input=planted))


def test_the_fingerprint_knows_no_path_and_nothing_where_nothing_is_compared(
    make_recipe: MakeRecipe, planted: dict[str, Any], evaluation: list[str], tmp_path: Path
) -> None:
    recipe = make_recipe(input=planted)
    plain = pipeline.start(recipe).work["read"]
    unused = decontaminated(recipe, [], text=["other"], ngram_words=5)
    assert pipeline.start(unused).work["read"].fingerprint == plain.fingerprint
    assert "decontamination" not in plain.settings
    here = pipeline.start(decontaminated(recipe, evaluation)).work["read"]
    moved = (tmp_path / "evaluation").rename(tmp_path / "elsewhere")
    paths = [f"{moved}/quiz.jsonl", f"{moved}/whale.*"]
    there = pipeline.start(decontaminated(recipe, paths)).work["read"]
    assert plain.fingerprint != here.fingerprint == there.fingerprint
    assert str(tmp_path) not in json.dumps(there.settings)
    for changed in ({"ngram_words": 12}, {"text": ["question"]}):
        assert pipeline.start(decontaminated(recipe, paths, **changed)).work["read"].fingerprint != there.fingerprint


def test_errors_name_the_settings_of_the_section(
    make_recipe: MakeRecipe, planted: dict[str, Any], evaluation: list[str], tmp_path: Path
) -> None:
    recipe = make_recipe(input=planted)
    pq.write_table(pa.table({"question": [QUESTION]}), tmp_path / "quiz.parquet")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "quiz.csv").write_text(QUESTION)
    for path, message in {
        str(tmp_path / "none"): r"^decontamination.path .*none does not exist",
        evaluation[
            0
        ]: r"^quiz.jsonl, line 1: there is no field 'text' \(decontamination.text\).*Set decontamination.text",
        str(tmp_path / "quiz.parquet"): r"quiz.parquet has no column 'text' \(decontamination.text\)",
        str(tmp_path / "other"): r"^decontamination.path .* only 1 .csv\. Looked for .*\.zst\)\.$",
    }.items():
        with pytest.raises(UserError, match=message):
            read(decontaminated(recipe, [path], text=["text"]))
    mended, account = read(decontaminated(recipe, [evaluation[0]]))
    assert account["documents"]["dropped"]["contaminated by quiz.jsonl"] == 5
    assert mended["read"].manifest() is not None


def test_more_evaluation_files_than_can_be_told_apart_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    many = [InputFile(f"/e/{number}.txt", f"{number}.txt", 1, "text") for number in range(10_001)]
    monkeypatch.setattr(decontaminate, "list_files", lambda settings: many)
    with pytest.raises(UserError, match=r"decontamination\.path has 10,001 files"):
        decontaminate.evaluation_files(Decontamination(path=["/e"]))


def test_evaluation_texts_that_are_all_too_short_contaminate_nothing(
    make_recipe: MakeRecipe, planted: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "short.txt").write_text("a few words")
    _, account = read(decontaminated(make_recipe(input=planted), [str(tmp_path / "short.txt")]))
    assert account["documents"]["dropped"] == {"empty_text": 1, "exact_copy": 3, "null_text": 1}


def test_a_recipe_file_states_the_evaluation_files(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = decontaminated(make_recipe(), ["a.jsonl", "b"], ngram_words=8)
    (tmp_path / "recipe.yaml").write_text(resolved_yaml(recipe))
    assert load_recipe(str(tmp_path / "recipe.yaml")).decontamination == recipe.decontamination
    changed = load_recipe(str(tmp_path / "recipe.yaml"), ["--decontamination.path", '["c"]'])
    assert changed.decontamination == Decontamination(path=["c"], text=["question", "answer"], ngram_words=8)
