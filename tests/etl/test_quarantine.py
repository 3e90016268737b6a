"""Documents that break a tokenizer or a model are named and left out; the rest finishes, whoever does the work."""

import dataclasses
import importlib
import json
import os
import platform
import shutil
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from etl import quarantine
from etl.connect import local_engine
from etl.engine import Engine
from etl.parts import PartResult
from etl.recipe import Recipe, resolved_yaml
from etl.work import Work
from nextlong.errors import UserError
from tests.conftest import build_model, make_texts
from tests.etl.test_cli import nextlong
from tests.etl.test_pipeline import data_files, run

MakeRecipe = Callable[..., Recipe]
POISON = "zyzzyva"
POISONED = {"doc-7", "doc-31", "doc-88"}
REASONS = {"raises": "indices element out of data bounds", "dies": "the process died of it (SIGFPE)"}


@pytest.fixture(scope="module")
def poisoned_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 documents, three of which hold the word that no tokenizer or model here can stand."""
    texts = enumerate(make_texts(120))
    rows = [{"id": f"doc-{place}", "text": text, "source": topic} for place, (topic, text) in texts]
    for row in rows:
        if row["id"] in POISONED:
            lines = row["text"].split("\n")
            row["text"] = "\n".join([*lines[: len(lines) // 2], f"Here is a {POISON}.", *lines[len(lines) // 2 :]])
    path = tmp_path_factory.mktemp("poisoned") / "corpus.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=10)
    return path


@pytest.fixture(scope="module")
def poisoned_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Models that read the word as a token of its own, and then raise (an index out of bounds) or die (-2**63 / -1)."""
    folder = tmp_path_factory.mktemp("models")
    model = build_model(folder / "model")  # one for both: training a tokenizer twice may give two
    return {way: _break_model(Path(shutil.copytree(model, folder / way)), way) for way in ("raises", "dies")}


def _break_model(folder: Path, way: str) -> Path:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    poison_id = tokenizer.get_vocab_size()
    tokenizer.add_tokens([POISON])
    tokenizer.save(str(folder / "tokenizer.json"))
    if way == "raises":
        return folder
    model = onnx.load(folder / "model.onnx")
    graph = model.graph
    [table] = [each for each in graph.initializer if each.name == "table"]
    rows = numpy_helper.to_array(table)
    table.CopyFrom(numpy_helper.from_array(np.vstack([rows, rows[:1]]), "table"))
    values = {"next": np.array(poison_id + 1), "least": np.array(-(2**63)), "zero": np.zeros(1, np.float32)}
    for name, value in values.items():
        graph.initializer.append(numpy_helper.from_array(value, name))
    graph.initializer.append(numpy_helper.from_array(np.array([2]), "last"))
    graph.node[-1].input[0] = "sum"
    steps = [
        helper.make_node("Sub", ["input_ids", "next"], ["difference"]),
        helper.make_node("Div", ["least", "difference"], ["quotient"]),
        helper.make_node("Cast", ["quotient"], ["number"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["number", "zero"], ["nothing"]),
        helper.make_node("Unsqueeze", ["nothing", "last"], ["column"]),
        helper.make_node("Add", ["mixed", "column"], ["sum"]),
    ]
    nodes = [*graph.node[:-1], *steps, graph.node[-1]]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.save(model, folder / "model.onnx")
    return folder


@pytest.fixture
def poisoned_recipe(make_recipe: MakeRecipe, poisoned_corpus: Path) -> MakeRecipe:
    def make(name: str, model: Path, **synthesis: Any) -> Recipe:
        return make_recipe(
            name, input={"path": str(poisoned_corpus)}, embedding={"model": str(model)}, synthesis=synthesis
        )

    return make


def healthy_words() -> list[str]:
    """All words of the corpus but the poisonous one, as a tokenizer splits them."""
    split = pre_tokenizers.Whitespace().pre_tokenize_str
    return sorted({word for _, text in make_texts(120) for word, _ in split(text)} | {"Here"})


def records(work: Work) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (work.path / "quarantine.jsonl").read_text().splitlines()]


def poisoned_doc_ids(work: Work) -> set[int]:
    return {record["doc_id"] for record in records(work)}


def used_doc_ids(work: Work) -> set[int]:
    """Of every chunk in every long document."""
    tables = [pq.read_table(path, columns=["chunk_id", "doc_id"]) for path, _ in work["chunk"].tables()]
    chunks = pa.concat_tables(tables)
    doc_of = dict(zip(chunks["chunk_id"].to_pylist(), chunks["doc_id"].to_pylist(), strict=True))
    long_documents = [pq.read_table(path, columns=["segments"]) for path, _ in work["interleave"].tables()]
    segments = [each for table in long_documents for row in table["segments"].to_pylist() for each in row]
    return {doc_of[segment["chunk_id"]] for segment in segments}


@pytest.mark.parametrize(
    "synthesis",
    [{}, {"negatives": "random"}, {"strategy": "knn"}, {"strategy": "iclm"}],
    ids=["nextlong", "random", "knn", "iclm"],
)
def test_a_document_that_the_model_cannot_stand_is_neither_extended_nor_a_neighbour(
    poisoned_recipe: MakeRecipe, poisoned_models: dict[str, Path], synthesis: dict[str, Any]
) -> None:
    work, summary = run(poisoned_recipe("work", poisoned_models["raises"], num_samples=None, **synthesis))
    assert {(each["stage"], each["source_id"]) for each in records(work)} == {("embed", name) for name in POISONED}
    assert all(REASONS["raises"] in each["reason"] for each in records(work))
    used = used_doc_ids(work)
    assert len(used) > 60
    assert not used & poisoned_doc_ids(work)
    accounts = {stage: facts["account"] for stage, facts in summary["stages"].items()}
    assert accounts["interleave"]["documents"]["dropped"]["quarantined"] == 3
    num_chunks = accounts["embed"]["chunks"]["dropped"]["quarantined"]
    assert num_chunks == sum(row["num_chunks"] for row in _documents(work) if row["source_id"] in POISONED)
    if synthesis.get("strategy") is None:
        assert accounts["index"]["vectors"]["dropped"] == {"zero_vector": num_chunks}
    else:
        assert accounts["index"]["vectors"]["read"] == len(_documents(work)) - 3


def _data(work: Work) -> dict[str, str]:
    """The files of a run but the manifests, which name the model."""
    return {name: digest for name, digest in data_files(work).items() if not name.endswith("manifest.json")}


def _documents(work: Work) -> list[dict[str, Any]]:
    tables = [pq.read_table(path.with_suffix(".documents.parquet")) for path, _ in work["chunk"].tables()]
    rows: list[dict[str, Any]] = pa.concat_tables(tables).to_pylist()
    return rows


@pytest.mark.skipif(platform.machine() != "x86_64", reason="elsewhere no division kills a process")
def test_a_document_that_kills_the_workers_is_left_out_like_one_that_raises(
    poisoned_recipe: MakeRecipe, poisoned_models: dict[str, Path]
) -> None:
    raised, _ = run(poisoned_recipe("raised", poisoned_models["raises"]))
    with local_engine(2) as engine:
        died, _ = run(poisoned_recipe("died", poisoned_models["dies"]), engine)
    assert {each["reason"] for each in records(died)} == {REASONS["dies"]}
    assert [each["source_id"] for each in records(died)] == [each["source_id"] for each in records(raised)]
    assert _data(died) == _data(raised)


def test_a_document_that_the_tokenizer_cannot_stand_has_no_chunks(
    make_recipe: MakeRecipe, poisoned_corpus: Path, tmp_path: Path, two_workers: Engine
) -> None:
    tokenizer = Tokenizer(models.WordLevel({word: place for place, word in enumerate(healthy_words())}))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    sections: dict[str, Any] = {"input": {"path": str(poisoned_corpus)}, "synthesis": {"target_length_tokens": 256}}
    works = []
    for name, engine in (("alone", Engine()), ("two", two_workers)):
        recipe = make_recipe(name, **sections)
        recipe = dataclasses.replace(recipe, tokenizer=str(tmp_path / "tokenizer.json"))
        work, summary = run(recipe, engine)
        works.append(work)
        assert {(each["stage"], each["source_id"]) for each in records(work)} == {("chunk", name) for name in POISONED}
        assert all("WordLevel error: Missing [UNK] token" in each["reason"] for each in records(work))
        account = summary["stages"]["chunk"]["account"]
        assert account["documents"] == {"read": 120, "kept": 117, "dropped": {"quarantined": 3}}
        assert account["chars"]["read"] == summary["stages"]["read"]["account"]["chars"]["kept"]
        assert not {row["source_id"] for row in _documents(work)} & POISONED
    assert data_files(works[0]) == data_files(works[1])


@pytest.mark.long
def test_a_text_that_the_query_model_cannot_stand_gets_no_keywords(
    make_recipe: MakeRecipe, poisoned_corpus: Path, query_folder: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(query_folder, tmp_path / "queries"))
    specification = json.loads((folder / "tokenizer.json").read_text())
    specification["model"]["unk_token"] = "none"  # so that a word it does not know is an error
    every_other_word = {"type": "Replace", "pattern": {"Regex": rf"\b(?!{POISON}\b)\w+"}, "content": "water"}
    every_mark = {"type": "Replace", "pattern": {"Regex": r"[^\w\s]"}, "content": " "}
    specification["normalizer"] = {"type": "Sequence", "normalizers": [every_other_word, every_mark]}
    (folder / "tokenizer.json").write_text(json.dumps(specification))
    few = tmp_path / "few.parquet"  # generating queries is slow
    pq.write_table(pq.read_table(poisoned_corpus).slice(24, 12), few)
    recipe = make_recipe(
        input={"path": str(few)},
        synthesis={"strategy": "quest", "query_model": str(folder), "num_samples": None},
    )
    work, summary = run(recipe)
    assert [(each["stage"], each["source_id"]) for each in records(work)] == [("mine", "doc-31")]
    assert summary["stages"]["mine"]["account"]["documents"]["dropped"] == {"quarantined": 1}
    assert summary["stages"]["interleave"]["account"]["documents"]["dropped"]["quarantined"] == 1


def test_the_command_line_says_where_they_are_named(
    poisoned_recipe: MakeRecipe, poisoned_models: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "recipe.yaml").write_text(resolved_yaml(poisoned_recipe("work", poisoned_models["raises"])))
    ran = nextlong("run", tmp_path / "recipe.yaml", "--workers", 0)
    assert f"3 documents are quarantined: {tmp_path / 'work' / 'quarantine.jsonl'} says why" in ran.stderr
    assert "3 quarantined" in ran.stdout


def test_a_model_that_fails_on_everything_is_no_documents_fault(poisoned_recipe: MakeRecipe, tmp_path: Path) -> None:
    folder = build_model(tmp_path / "model")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_special_tokens([POISON])
    tokenizer.post_processor = processors.BertProcessing((POISON, tokenizer.token_to_id(POISON)), ("[CLS]", 2))
    tokenizer.save(str(folder / "tokenizer.json"))
    with pytest.raises(RuntimeError, match=r"9 of 40 documents fail alone, so that it is hardly their fault.*bounds"):
        run(poisoned_recipe("work", folder))
    assert not (tmp_path / "work" / "quarantine.jsonl").exists()


@pytest.mark.parametrize("what", ["tokenizer", "model"])
def test_a_run_without_any_document_left_says_so(
    make_recipe: MakeRecipe, poisoned_models: dict[str, Path], tmp_path: Path, what: str
) -> None:
    """Each is alone in its part, where nothing tells it from a tokenizer that fails on everything; one is empty."""
    texts = ["", *[f"{POISON} {number}" for number in range(3)]]
    pq.write_table(pa.table({"text": texts}), tmp_path / "corpus.parquet")
    knows = {"tokenizer": "nothing", "model": "[UNK]"}[what]
    Tokenizer(models.WordLevel({knows: 0}, "[UNK]")).save(str(tmp_path / "tokenizer.json"))
    recipe = make_recipe(
        input={"path": str(tmp_path / "corpus.parquet"), "id": None, "source": None, "part_rows": 1},
        embedding={"model": str(poisoned_models["raises"])},
    )
    message = rf"all 3 are quarantined, since the {what} fails on each alone, as .+\. Check the {what}\."
    with pytest.raises(UserError, match=message):
        run(dataclasses.replace(recipe, tokenizer=str(tmp_path / "tokenizer.json")))


NONE: frozenset[int] = frozenset()


def attempt(
    first: int,
    last: int,
    *,
    raising: frozenset[int] = NONE,
    killing: frozenset[int] = NONE,
    by: signal.Signals = signal.SIGKILL,
) -> None:
    """Fails on some documents, by an exception or by the death of its process."""
    if killing & set(range(first, last)):
        if by != signal.SIGKILL:
            signal.signal(by, signal.SIG_DFL)  # nohup, for one, has it ignored
        os.kill(os.getpid(), by)
    if raising & set(range(first, last)):
        raise ValueError(f"cannot\n read {min(raising & set(range(first, last)))}")


def written(poisoned: Any, *, failing: frozenset[int]) -> PartResult:
    """A part that can be written only without some documents."""
    if not failing <= set(poisoned):
        raise ValueError("a document fails")
    return PartResult(values=dict(poisoned))


def test_failing_documents_are_found_and_the_part_is_written_without_them() -> None:
    failing = frozenset({0, 17, 18, 999})
    result = quarantine.write_without_poisoned(
        partial(written, failing=failing), partial(attempt, raising=failing), 1000
    )
    assert result.values == {place: f"ValueError: cannot read {place}" for place in sorted(failing)}


def test_those_that_kill_their_process_are_found_by_children() -> None:
    raising, killing = frozenset({3}), frozenset({40, 41})
    write, trial = partial(written, failing=raising | killing), partial(attempt, raising=raising, killing=killing)
    result = quarantine.write_without_poisoned(write, trial, 100, carefully=True)
    assert result.values == {
        3: "ValueError: cannot read 3",
        40: "the process died of it (SIGKILL)",
        41: "the process died of it (SIGKILL)",
    }


class ReadBy:
    """An attempt with which a process does something when it is handed it."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self._call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self._call

    def __call__(self, first: int, last: int) -> None:
        raise AssertionError("it was tried")


@pytest.mark.parametrize(
    ("trial", "message"),
    [
        (ReadBy(os._exit, 3), r"a process ended before it tried any document, by no fault of theirs \(exit status 3\)"),
        (ReadBy(importlib.import_module, "no_such_module"), "ModuleNotFoundError: No module named 'no_such_module'"),
        *[
            (partial(attempt, killing=frozenset({0}), by=sent), rf"while it tried documents, .*\({sent.name}\)")
            for sent in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        ],
    ],
    ids=["exits", "lacks a module", "SIGTERM", "SIGINT", "SIGHUP"],
)
def test_a_child_that_ends_otherwise_makes_no_document_guilty(trial: Any, message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        quarantine.write_without_poisoned(partial(written, failing=NONE), trial, 1, carefully=True)


def test_a_child_that_cannot_start_makes_no_document_guilty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "etl").mkdir()
    (tmp_path / "etl" / "__init__.py").write_text("import no_such_module")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RuntimeError, match=r"before it tried any document, .*\(exit status 1\)"):
        quarantine.write_without_poisoned(partial(written, failing=NONE), attempt, 1, carefully=True)


def refuse(first: int, last: int) -> None:
    """A user's mistake, whatever the documents."""
    raise UserError("the model has no output")


def test_a_mistake_in_the_settings_is_no_documents_fault() -> None:
    def write(_: object) -> PartResult:
        raise UserError("the model has no output")

    with pytest.raises(UserError, match="the model has no output"):
        quarantine.write_without_poisoned(write, refuse, 4)
    with pytest.raises(RuntimeError, match="the model has no output"):
        quarantine.write_without_poisoned(write, refuse, 4, carefully=True)


def test_what_fails_without_any_documents_fault_is_raised() -> None:
    for number in (1, 50):
        with pytest.raises(RuntimeError, match="ValueError: a document fails"):
            quarantine.write_without_poisoned(partial(written, failing=frozenset({0})), attempt, number)
    with pytest.raises(RuntimeError, match="2 of 2 documents fail alone"):
        quarantine.write_without_poisoned(
            partial(written, failing=frozenset({0})), partial(attempt, raising=frozenset({0, 1})), 2
        )
