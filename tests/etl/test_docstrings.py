"""The demo's corpus: real documents of whatever is installed, the same on every run, and nothing imported for it."""

import json
import subprocess
import sys
from collections import Counter
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer as FastTokenizer

import etl.docstrings
from etl.docstrings import DocstringDocument, docstring_documents, module_text, train_tokenizer, write_corpus
from nextlong.tokenizing import Tokenizer
from tests.conftest import make_texts

LONG = "It says what a module of this kind would say. " * 6


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two packages that are importable but would fail if they were, and no standard library."""
    for package, modules in {"first": 6, "second": 3}.items():
        folder = tmp_path / "lib" / package
        (folder / "tests").mkdir(parents=True)
        (folder / "inner").mkdir()
        (folder / "__init__.py").write_text(f'"""{package}. {LONG}"""\nraise SystemExit("imported")\n')
        (folder / "tests" / "test_it.py").write_text(f'"""{LONG}"""\n')
        (folder / "short.py").write_text('"""Too short."""\n')
        (folder / "broken.py").write_text("def :\n")
        (folder / "inner" / "__init__.py").write_text("")
        for number in range(modules):
            (folder / "inner" / f"m{number}.py").write_text(f'"""{number} in {package}. {LONG}"""\n')
    (tmp_path / "empty").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path / "lib"))
    monkeypatch.setattr(etl.docstrings, "PACKAGES", ("first", "absent", "second"))
    monkeypatch.setattr(etl.docstrings.sysconfig, "get_paths", lambda: {"stdlib": str(tmp_path / "empty")})
    return tmp_path


def test_a_module_is_its_own_docstring_then_each_name_with_its_docstring() -> None:
    code = b'''"""The module.

  Indented."""
import os

class Outer:
    """A class.

    Its second paragraph.
    """

    def method(self):
        r"""Uses \\d."""
        def inner():
            "Inside."

    def silent(self): pass

if os.name:
    async def conditional():
        """Only there."""

text = """no docstring"""
'''
    assert module_text(code) == (
        "The module.\n\nIndented.\n\n"
        "Outer\nA class.\n\nIts second paragraph.\n\n"
        "Outer.method\nUses \\d.\n\n"
        "Outer.method.inner\nInside.\n\n"
        "conditional\nOnly there."
    )


def test_escapes_that_are_invalid_warn_nobody_and_half_a_surrogate_pair_can_be_written() -> None:
    assert module_text(b'"""A \\d and a \\ud800."""') == "A \\d and a ?."


def test_documents_are_one_a_module_sorted_without_tests_and_short_ones(packages: Path) -> None:
    documents = list(docstring_documents())
    first = ["first", *(f"first.inner.m{number}" for number in range(6))]
    assert [document.source_id for document in documents] == first + ["second"] + [
        f"second.inner.m{n}" for n in range(3)
    ]
    assert Counter(document.source for document in documents) == {"first": 7, "second": 4}
    assert documents[1] == DocstringDocument("first.inner.m0", f"0 in first. {LONG}".strip(), "first")


def test_files_that_do_not_parse_are_counted(packages: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        assert list(docstring_documents())
    assert "2 files do not parse" in caplog.text


def test_installed_packages_are_read_without_importing_them() -> None:
    code = (
        "import sys; from itertools import islice; from etl.docstrings import docstring_documents\n"
        "before = set(sys.modules)\n"
        "found = list(islice(docstring_documents(), 150))\n"
        "print(len(found), {'distributed', 'torch', 'transformers'} & (set(sys.modules) - before))"
    )
    ran = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "150 set()"
    assert ran.stderr == ""


def test_real_documents_have_text_names_and_sources() -> None:
    documents = list(islice(docstring_documents(), 150))
    assert len({document.source_id for document in documents}) == 150
    assert min(len(document.text) for document in documents) >= 200
    for document in documents:
        assert document.source_id.split(".")[0] == document.source
    assert "dask.bag.core" in {document.source_id for document in documents}


def test_a_corpus_takes_from_the_packages_in_turn(packages: Path, tmp_path: Path) -> None:
    path = tmp_path / "new" / "corpus.parquet"
    assert write_corpus(path, num_documents=6, num_chars=None, seed=0) == 6
    table = pq.read_table(path)
    assert table.schema.names == ["id", "text", "source"]
    assert set(table.schema.types) == {pa.large_string()}
    assert Counter(table["source"].to_pylist()) == {"first": 3, "second": 3}
    assert table["id"].to_pylist() == sorted(table["id"].to_pylist())
    texts = {document.source_id: document.text for document in docstring_documents()}
    assert all(texts[row["id"]] == row["text"] for row in table.to_pylist())


def test_the_same_seed_gives_the_same_bytes_and_another_gives_others(packages: Path, tmp_path: Path) -> None:
    written = []
    for number, seed in enumerate([0, 0, 1]):
        path = tmp_path / f"{number}.parquet"
        write_corpus(path, num_documents=5, num_chars=None, seed=seed)
        written.append(path.read_bytes())
    assert written[0] == written[1] != written[2]


def test_a_corpus_ends_with_the_document_that_reaches_its_characters(packages: Path, tmp_path: Path) -> None:
    path = tmp_path / "corpus.parquet"
    assert write_corpus(path, num_documents=None, num_chars=1000, seed=0) == 4
    lengths = [len(text) for text in pq.read_table(path)["text"].to_pylist()]
    assert sum(lengths) >= 1000 > sum(lengths) - max(lengths)


def test_without_a_bound_a_corpus_has_all_documents(packages: Path, tmp_path: Path) -> None:
    path = tmp_path / "corpus.parquet"
    assert write_corpus(path, num_documents=None, num_chars=None, seed=0) == 11
    assert {row["id"] for row in pq.read_table(path).to_pylist()} == {each.source_id for each in docstring_documents()}


def test_the_tokenizer_is_deterministic_exact_and_has_one_special_token(tmp_path: Path) -> None:
    texts = [text for _, text in make_texts(40)]
    paths = [tmp_path / name / "tokenizer.json" for name in ("a", "b")]
    for path in paths:
        train_tokenizer(texts, path, 500)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    fast = FastTokenizer.from_file(str(paths[0]))
    assert fast.get_vocab_size() == 500
    assert fast.token_to_id("<|endoftext|>") == 0
    specification = json.loads(paths[0].read_text())
    assert [token["content"] for token in specification["added_tokens"] if token["special"]] == ["<|endoftext|>"]
    tokenizer = Tokenizer(paths[0])
    assert tokenizer.concatenation == "exact"
    text = "naïve — 東京\n\n\tdef f(): pass  # é\r\n"
    assert tokenizer.decode(tokenizer.encode([text]).ids) == text
