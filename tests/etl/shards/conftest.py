"""A finished run, and packed folders made of it and of the corpus."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from etl import pipeline
from etl.engine import Engine
from etl.inputs import Input
from etl.recipe import Recipe
from etl.shards.export import export
from etl.shards.laid_out import PackSettings
from etl.shards.of_documents import PackSource
from etl.shards.of_folder import PackedFolder
from etl.shards.tokens import Documents
from etl.work import Work
from nextlong.config import Chunking, Embedding, Mining, Packing, Synthesis
from nextlong.shards.parquet import Parquet
from nextlong.tokenizing import Tokenizer
from tests.conftest import TARGET

LENGTH = 256


@pytest.fixture(scope="session")
def work(corpus_file: Path, tokenizer_file: Path, model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Work:
    """A finished run: long documents of TARGET tokens, one a sequence. Not to be changed."""
    return _run(corpus_file, tokenizer_file, model_folder, tmp_path_factory.mktemp("work"), TARGET, None)


@pytest.fixture(scope="session")
def packed_work(
    corpus_file: Path, tokenizer_file: Path, model_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Work:
    """The same with four long documents a sequence, and sequences of one of the double length."""
    folder = tmp_path_factory.mktemp("packed")
    return _run(corpus_file, tokenizer_file, model_folder, folder, [TARGET, 2 * TARGET], 4 * TARGET)


def _run(corpus: Path, tokenizer: Path, model: Path, folder: Path, target: Any, length: int | None) -> Work:
    recipe = Recipe(
        input=Input(path=str(corpus), id="id", source="source", part_rows=40),
        output=str(folder / "work"),
        tokenizer=str(tokenizer),
        chunking=Chunking(granularity_chars=300),
        embedding=Embedding(model=str(model)),
        mining=Mining(),
        synthesis=Synthesis(target_length_tokens=target, num_samples=12, docs_per_part=4),
        packing=Packing(sequence_length_tokens=length),
    )
    job = pipeline.start(recipe)
    pipeline.run(job, Engine())
    return Work.open(job.work.path)


@pytest.fixture(scope="session")
def texts(corpus_file: Path) -> list[str]:
    """The texts of the corpus' documents, nulls left out."""
    return [text for text in pq.read_table(corpus_file)["text"].to_pylist() if text is not None]


Pack = Callable[..., PackedFolder]


@pytest.fixture
def pack(corpus_file: Path, tokenizer_file: Path, tmp_path: Path) -> Pack:
    """pack(name, kind="text", path=corpus, whole=False, engine=..., format_=("parquet", Parquet()), **settings)."""

    def make(
        name: str = "out",
        *,
        kind: Any = "text",
        path: Any = None,
        whole: bool = False,
        engine: Engine | None = None,
        format_: tuple[str, Any] = ("parquet", Parquet()),
        columns: dict[str, str] | None = None,
        **settings: Any,
    ) -> PackedFolder:
        reading = Input(path=str(path or corpus_file), **(columns or ({"source": "source"} if path is None else {})))
        documents = Documents(kind=kind, input=reading, has_whole_rows=whole)
        how = PackSettings(**({"length_tokens": LENGTH} | settings))
        source = PackSource.of(documents, how, Tokenizer(tokenizer_file), "convert" if whole else "pack")
        export(source, str(tmp_path / name), format_[0], format_[1], engine or Engine())
        return PackedFolder.open(tmp_path / name)

    return make
