"""What the driver, a task and a process hold does not grow with the corpus, or only by a few numbers a document."""

import contextlib
import dataclasses
import os
import pickle
import resource
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from etl.draw import all_documents, with_names
from etl.engine import Engine
from etl.lookup import TokenFiles, documents_of
from etl.parts import Part
from etl.recipe import Recipe
from etl.schemas import DOCUMENT_CHUNKS
from etl.work import Work
from nextlong.config import Indexing
from nextlong.errors import UserError
from tests.etl.test_pipeline import run

MakeRecipe = Callable[..., Recipe]


class Weighed(Engine):
    """Notes how many bytes travel to a worker with the largest part of each kind of work."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes: dict[str, int] = {}

    def run(self, parts: Sequence[Part], *, doing: str, **options: Any) -> list[dict[str, Any]]:
        for part in parts:
            self.bytes[doing] = max(self.bytes.get(doing, 0), len(pickle.dumps(part)))
        return super().run(parts, doing=doing, **options)


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two corpora of short documents, the second four times as large."""
    folder = tmp_path_factory.mktemp("corpora")
    paths = [folder / "small.parquet", folder / "large.parquet"]
    for path, number in zip(paths, (100, 400), strict=True):
        texts = [f"document {place} of {number}\n" + f"words of line {place} " * 20 for place in range(number)]
        sources = [f"source {place % 3}" for place in range(number)]
        ids = [f"https://example.org/{place}" for place in range(number)]
        pq.write_table(pa.table({"id": ids, "text": texts, "source": sources}), path, row_group_size=50)
    return paths


@pytest.mark.parametrize("strategy", ["nextlong", "knn"])
def test_a_task_is_no_larger_for_a_larger_corpus(make_recipe: MakeRecipe, tables: list[Path], strategy: str) -> None:
    synthesis = {"strategy": strategy, "target_length_tokens": 512, "num_samples": 6, "docs_per_part": 2}
    weighed = []
    for name, corpus in zip(("small", "large"), tables, strict=True):
        sections = {"input": {"path": str(corpus), "part_rows": 50}, "chunking": {"granularity_chars": 100}}
        engine = Weighed()
        run(make_recipe(name, synthesis=synthesis, **sections), engine)
        weighed.append(engine.bytes)
    small, large = weighed
    assert small.keys() == large.keys() >= {"chunk and tokenize", "embed", "build index", "interleave", "pack"}
    assert large.keys() & {"mine negatives", "relate documents"}
    assert {doing: size for doing, size in large.items() if size > small[doing] + 200} == {}


def test_the_drivers_table_holds_numbers_alone(make_recipe: MakeRecipe, tables: list[Path]) -> None:
    work, _ = run(make_recipe(input={"path": str(tables[1]), "part_rows": 50}))
    documents = all_documents(work["chunk"])
    whole = _documents(work)
    assert len(documents) == whole.num_rows == 400
    assert documents.memory_usage(index=False).sum() == 36 * 400
    for name in documents:
        assert documents[name].tolist() == whole[name].to_pylist()


def test_names_are_found_for_documents_in_any_order(make_recipe: MakeRecipe, tables: list[Path]) -> None:
    work, _ = run(make_recipe(input={"path": str(tables[1]), "part_rows": 50}))
    order = np.random.default_rng(0).permutation(400)[:150]
    some = all_documents(work["chunk"]).iloc[order].reset_index(drop=True)
    named, expected = with_names(some, work["chunk"]), _documents(work).take(order)
    assert len(work["chunk"].tables()) > 4
    for name in DOCUMENT_CHUNKS.names:
        assert named[name].tolist() == expected[name].to_pylist()
    assert with_names(some[:0], work["chunk"])["source_id"].tolist() == []


def _documents(work: Work) -> pa.Table:
    return pa.concat_tables([pq.read_table(documents_of(path)) for path, _ in work["chunk"].tables()])


@pytest.fixture
def most_open_files() -> Iterator[int]:
    """This process may open as many files as it has open, and some, and no more."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = 2 * max(map(int, os.listdir("/proc/self/fd"))) + 20
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, before[1]))
    yield most
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.long
def test_token_files_may_be_more_than_a_process_may_open(tmp_path: Path, most_open_files: int) -> None:
    num_files = 2 * most_open_files
    paths = [tmp_path / f"{number}.tokens" for number in range(num_files)]
    for number, path in enumerate(paths):
        np.arange(10 * number, 10 * number + 10, dtype="<u4").tofile(path)
    files = TokenFiles(paths, [10] * num_files)
    _read_all(files, 10 * num_files)
    assert 0 < _num_open(tmp_path) <= most_open_files // 2
    del files
    assert _num_open(tmp_path) == 0


def _num_open(folder: Path) -> int:
    """Files below a folder that this process has open; what other tests left open is not counted."""
    found = 0
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found += os.readlink(f"/proc/self/fd/{number}").startswith(str(folder))
    return found


def _read_all(files: TokenFiles, number: int) -> None:
    starts = np.random.default_rng(0).permutation(number).tolist()
    with ThreadPoolExecutor(4) as pool:
        read = list(pool.map(lambda start: files.read([start], [1]).item(), starts))
    assert read == starts


def test_the_index_is_refused_before_chunks_are_embedded_for_it(make_recipe: MakeRecipe) -> None:
    for strategy, lists in (("nextlong", 5000), ("knn", 200)):
        recipe = make_recipe(strategy, synthesis={"strategy": strategy})
        with pytest.raises(UserError, match=rf"asks for {lists:,} inverted lists, but there are only [\d,]+ training"):
            run(dataclasses.replace(recipe, index=Indexing(factory=f"IVF{lists},Flat")))
        folder = Path(recipe.output)
        assert (folder / "2-chunks" / "manifest.json").is_file()
        assert not list((folder / "3-embeddings").glob("part-*"))
