"""`nextlong eval` on real models: every measure is there, nothing is computed twice, and mistakes are one sentence."""

import json
import logging
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from etl.cli import main
from evaluation import measures, memory
from evaluation.example import Example
from evaluation.model import Model
from evaluation.tasks import TASKS
from tests.evaluation.models_made import text, write_model, write_packed

LENGTHS = (768, 1024)
LAYOUT = [("meta", 150), ("negative", 300), ("meta", 150), ("negative", 300), ("meta", 150)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "llama", max_position_embeddings=1024)


@pytest.fixture(scope="module")
def packed(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_packed(tmp_path_factory.mktemp("packed") / "shards", model / "tokenizer.json", LAYOUT)


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def _eval(
    model: Path, out: Path, *others: object, tasks: str = "needle multikey", lengths: Iterable[int] = LENGTHS
) -> int:
    words: list[object] = ["eval", model, "--tasks", *tasks.split(), "--lengths", *lengths, "--out", out, *others]
    words += ["--number", 1, "--depths", 0, 1, "--device", "cpu"]
    return main(list(map(str, words)))


def _rows(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Tokens of each call of the model."""
    counted: list[int] = []
    plain = Model.read

    def read(self: Model, ids: torch.Tensor, cache: Any, **options: Any) -> Any:
        counted.append(len(ids))
        return plain(self, ids, cache, **options)

    monkeypatch.setattr(Model, "read", read)
    return counted


def test_all_measures_are_there_and_nothing_is_computed_twice(
    model: Path, packed: Path, tmp_path: Path, reads: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    others = ("--documents", packed, "--num-documents", 2, "--probes", 1)
    assert _eval(model, out, *others) == 0
    told = capsys.readouterr().out
    for said in ("needle ", "multikey ", "loss at tokens", "gain from distant context", "attention, % to"):
        assert said in told
    kinds = [row["kind"] for row in _rows(out)]
    assert {kind: kinds.count(kind) for kind in kinds} == {"answer": 2 * 2 * 2, "attention": 2, "loss": 2, "gain": 2}
    before, summary, page = _rows(out), (out / "summary.json").read_text(), (out / "report.html").read_text()
    numbers = json.loads(summary)
    assert {each["depth"] for each in numbers["needles"]} == {0, 1}
    assert numbers["positions"][-1]["last"] == 1023
    assert numbers["gain"]["meta_chunks"] == 2 * 1, "the third meta-chunk ends behind token 1,024"
    assert page.count('class="figure"') == 6
    assert not re.search(r"""(?:src|href)=["'](?!data:)""", page.split("<script>")[0])

    del reads[:]
    assert _eval(model, out, *others) == 0
    assert reads == []
    assert _rows(out) == before
    assert (out / "summary.json").read_text() == summary

    lines = (out / "results.jsonl").read_text().splitlines(keepends=True)
    (out / "results.jsonl").write_text("".join(lines[1::2])[:-9])
    assert _eval(model, out, *others) == 0
    assert reads
    assert sorted(row["key"] for row in _rows(out)) == sorted(row["key"] for row in before)
    assert {row["key"]: row for row in _rows(out)} == {row["key"]: row for row in before}
    assert (out / "summary.json").read_text() == summary


def test_a_program_that_knows_gets_all_points(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def knows(_: Model, made: list[Example], is_wanted: Any) -> Iterator[tuple[Example, str]]:
        yield from ((each, f" {', '.join(each.answers)}.") for each in made if is_wanted(each))

    monkeypatch.setattr(measures, "answers", knows)
    out = tmp_path / "out"
    assert _eval(model, out, "--probes", 0, lengths=[1024]) == 0
    numbers = json.loads((out / "summary.json").read_text())
    assert [each["mean"] for each in [*numbers["scores"], *numbers["needles"]]] == [1.0] * 4
    assert (numbers["positions"], numbers["gain"], numbers["attention"]) == ([], None, [])


def test_examples_are_written_as_others_read_them(model: Path, tmp_path: Path) -> None:
    assert (
        _eval(
            model,
            tmp_path / "out",
            "--probes",
            0,
            "--layouts",
            tmp_path / "layouts",
            tasks="needle key_value",
            lengths=[1024],
        )
        == 0
    )
    names = {str(path.relative_to(tmp_path / "layouts")) for path in (tmp_path / "layouts").rglob("*.jsonl")}
    assert "ruler/1024/data/niah_single_1/validation.jsonl" in names
    assert "helmet/json_kv/validation_1024.jsonl" in names
    assert "texts-1024.jsonl" in names


def test_texts_may_be_a_file_and_hay_too(model: Path, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": text(500, seed)}) + "\n" for seed in range(3)))
    (tmp_path / "hay.txt").write_text(text(800))
    others = ("--documents", tmp_path / "a.jsonl", "--hay", tmp_path / "hay.txt", "--probes", 0)
    assert _eval(model, tmp_path / "out", *others, tasks="needle", lengths=[1024]) == 0
    numbers = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert numbers["positions"][-1]["documents"] == 3
    assert numbers["gain"] is None
    assert {row["hay"] for row in _rows(tmp_path / "out") if row["kind"] == "answer"} <= {"text", "text, repeated"}


def test_a_length_without_memory_keeps_the_shorter_ones(
    model: Path, packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    plain = Model.read

    def read(self: Model, ids: torch.Tensor, cache: Any, **options: Any) -> Any:
        if cache.get_seq_length() + len(ids) > 800:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return plain(self, ids, cache, **options)

    monkeypatch.setattr(Model, "read", read)
    out = tmp_path / "out"
    assert _eval(model, out, "--documents", packed, "--probes", 1, tasks="needle") == 2
    assert re.search(
        r"1,024 tokens does not fit into memory.* longest that fits is of about [\d,]+ tokens", caplog.text
    )
    numbers = json.loads((out / "summary.json").read_text())
    assert {each["length_tokens"] for each in numbers["scores"]} == {768}
    assert numbers["positions"][-1]["last"] == 767
    assert numbers["lengths"] == [768]


@pytest.mark.parametrize(
    ("others", "said"),
    [
        (["--lengths", "2048"], "length of 2,048 tokens is asked for, but .* has 1,024 positions"),
        (["--lengths", "0"], "--lengths is 0"),
        (["--tasks", "neddle"], "there is no task 'neddle'.* Did you mean needle?"),
        (["--depths", "1.5"], "--depths has 1.5"),
        (["--number", "0"], "--number is 0"),
        (["--hay", "nowhere.txt"], "--hay is neither noise nor needles, and no text file"),
        (["--tasks", "--probes", "0"], "nothing is asked for"),
        (["--documents", "nowhere"], "there is no file or folder nowhere"),
        (["--lengths", "16"], r"--lengths has 16, but .* take more tokens: needle at least [0-9]+. Ask for greater"),
    ],
)
def test_a_mistake_is_one_sentence(
    model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, others: list[str], said: str
) -> None:
    words = ["eval", str(model), "--out", str(tmp_path / "out"), "--device", "cpu"]
    defaults = {"--tasks": ["needle"], "--lengths": ["768"], "--number": ["1"], "--depths": ["0"], "--probes": ["0"]}
    for name, values in defaults.items():
        words += [] if name in others else [name, *values]
    assert main(words + others) == 2
    (message,) = [each.getMessage() for each in caplog.records if each.levelno == logging.ERROR]
    assert re.search(said, message)
    assert "\n" not in message


def test_a_length_has_the_tasks_that_it_has_room_for(
    model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """Named ones are refused together, before any is asked; of all of them those that do not fit are left out."""
    shared = ["--lengths", "512", "1024", "--number", "1", "--depths", "0", "--probes", "0", "--device", "cpu"]
    words = ["eval", str(model), "--out", str(tmp_path / "out"), *shared]
    assert main([*words, "--tasks", "needle", "key_value", "variables"]) == 2
    assert re.search(r"--lengths has 512, but .* take more tokens: key_value at least [0-9]+, variables", caplog.text)
    assert not (tmp_path / "out" / "results.jsonl").exists()
    assert main(words) == 0
    assert re.search(r"left out at 512 tokens, .* key_value at least", capsys.readouterr().err)
    asked = {(row["task"], row["length_tokens"]) for row in _rows(tmp_path / "out")}
    assert {task for task, length in asked if length == 1024} == {*TASKS}
    assert ("needle", 512) in asked
    assert ("key_value", 512) not in asked


def test_what_is_no_model_is_one_sentence(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "empty").mkdir()
    for name, said in (("nothing", "there is no folder"), ("empty", "is no exported model")):
        assert _eval(tmp_path / name, tmp_path / "out") == 2
        assert said in caplog.text


def test_a_length_that_a_cpu_has_no_memory_for_is_refused_before_any_work(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reads: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(memory, "free_bytes", lambda _: 5_000_000)
    assert _eval(model, tmp_path / "out") == 2
    assert "The longest that fits is of about 860 tokens" in caplog.text
    assert not reads


def test_results_of_another_model_are_not_gone_on_with(
    model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = write_model(tmp_path / "other", seed=1, max_position_embeddings=1024)
    for folder, status in ((model, 0), (other, 2)):
        assert _eval(folder, tmp_path / "out", "--probes", 0, tasks="needle", lengths=[768]) == status
    assert "results of another model" in caplog.text


def test_names_are_shown_as_text(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "<img onerror=alert(1)>", max_position_embeddings=1024)
    assert _eval(folder, tmp_path / "out", "--probes", 0, tasks="needle", lengths=[768]) == 0
    page = (tmp_path / "out" / "report.html").read_text()
    assert "&lt;img onerror" in page
    assert "<img" not in page.split("<script>")[0]


def test_without_plotly_no_page_is_promised(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "evaluation.page", None)
    assert _eval(model, tmp_path / "out", "--probes", 0, tasks="needle", lengths=[768]) == 0
    told = capsys.readouterr()
    assert "pip install 'nextlong[report]'" in told.err
    assert "report.html" not in told.out
    assert "results.jsonl: every answer" in told.out


def test_without_torch_it_says_what_to_install(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "evaluation.run", None)
    assert _eval(model, tmp_path / "out") == 2
    assert "pip install 'nextlong[train]'" in caplog.text
