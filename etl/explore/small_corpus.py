"""A corpus in, some of its documents out, with a tokenizer and a model: enough to try the method in a minute."""

import dataclasses
import hashlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask.dataframe as dd
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from etl import frames, pipeline
from etl.docstrings import train_tokenizer, write_corpus
from etl.engine import Engine
from etl.explore.run import Run
from etl.inputs import Input, list_files, plan_splits, read_tables
from etl.job import prepare
from etl.offline_model import offline_model
from etl.parts import write_table
from etl.recipe import Recipe, resolved_yaml
from etl.work import is_work_folder
from nextlong.config import Chunking, Embedding, Indexing, Mining, Packing, Synthesis
from nextlong.errors import UserError
from nextlong.tokenizing import Tokenizer, resolve_tokenizer

log = logging.getLogger(__name__)

_PLACES = 8  # of the corpus, from which documents are taken
_VOCABULARY = 4096
_DEMO = "demo/docstrings.parquet"
_SCHEMA = pa.schema([("id", pa.string()), ("text", pa.large_string()), ("source", pa.string())])
_SECTIONS: dict[str, Any] = {
    "chunking": Chunking,
    "embedding": Embedding,
    "index": Indexing,
    "mining": Mining,
    "synthesis": Synthesis,
    "packing": Packing,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SmallCorpus:
    """Some documents of a corpus in a file of their own, and what is needed to make long ones of them."""

    origin: str
    """Where they come from."""
    path: Path
    """Parquet: id, text, source."""
    tokenizer: str
    model: str
    num_documents: int
    num_chars: int

    @property
    def input(self) -> Input:
        """As a recipe's section."""
        return Input(path=str(self.path), id="id", source="source")

    @property
    def documents(self) -> dd.DataFrame:
        """The documents as a lazy Dask dataframe, as `etl.frames.read` gives them."""
        return frames.read(self.input)

    @property
    def tokenizer_file(self) -> Path:
        """The tokenizer.json that `tokenizer` means."""
        return resolve_tokenizer(self.tokenizer).absolute()

    @property
    def vocab_size(self) -> int:
        """Entries of the tokenizer."""
        return Tokenizer(self.tokenizer_file).vocab_size

    def recipe(self, **sections: dict[str, Any]) -> Recipe:
        """A recipe for them; sections by name: recipe(synthesis={"target_length_tokens": 4096}).

        Its output is a folder beside the documents, named by what the recipe says: the same settings, the same folder.
        """
        given = {"embedding": {"model": self.model}} | sections
        made = {name: _SECTIONS[name](**settings) for name, settings in given.items()}
        recipe = Recipe(input=self.input, output=str(self.path.parent), tokenizer=self.tokenizer, **made)
        name = hashlib.sha256(resolved_yaml(recipe).encode()).hexdigest()[:12]
        return dataclasses.replace(recipe, output=str(self.path.parent / f"work-{name}"))

    def run(self, engine: Engine | None = None, **sections: dict[str, Any]) -> Run:
        """The finished run of such a recipe, in this process unless there is an engine; made once, then opened.

        Stages that an earlier run of these documents has are taken over from it: mostly the embeddings.
        """
        job = prepare(self.recipe(**sections))
        earlier = [path for path in sorted(self.path.parent.glob("work-*")) if path != job.work.path]
        pipeline.claim(job, reuse=[path for path in earlier if is_work_folder(path)], remedy="Remove it.")
        pipeline.run(job, engine or Engine())
        return Run(job.work.path)

    def split(self, every: int = 5) -> tuple["SmallCorpus", "SmallCorpus"]:
        """Two corpora without a common document: one to train on, and one with every fifth document, to hold out.

        Raises UserError where one of them would have none.
        """
        table = pq.read_table(self.path)
        is_held_out = np.arange(table.num_rows) % every == every - 1
        if is_held_out.all() or not is_held_out.any():
            raise UserError(f"every is {every}, but it must be from 2 to the number of documents, {table.num_rows}.")
        parts = {f"train-{every}": ~is_held_out, f"held-out-{every}": is_held_out}
        first, second = (self._part(name, table.filter(pa.array(mask))) for name, mask in parts.items())
        return first, second

    def _part(self, name: str, table: pa.Table) -> "SmallCorpus":
        path = self.path.parent / name / self.path.name
        path.parent.mkdir(exist_ok=True)
        write_table(path, table, rows_per_group=64)
        num_chars = pc.sum(pc.utf8_length(table["text"])).as_py()
        return dataclasses.replace(self, path=path, num_documents=table.num_rows, num_chars=num_chars)

    def __repr__(self) -> str:
        return (
            f"SmallCorpus: {self.num_documents:,} documents, {self.num_chars:,} characters of {self.origin}\n"
            f"  tokenizer {self.tokenizer}\n"
            f"  model     {self.model}"
        )


def small_corpus(
    corpus: str,
    *,
    folder: str | Path,
    documents: int = 200,
    text: str = "text",
    tokenizer: str | None = None,
    model: str | None = None,
) -> SmallCorpus:
    """At most so many documents of a corpus (a file, folder, glob or URL, as input.path), from eight places of it.

    corpus: what `nextlong demo` makes (demo/docstrings.parquet) need not be there: the docstrings of installed packages
    are then read anew. Of Parquet the columns `id` and `source` are used where they
    are. tokenizer: None: one of 4,096 entries is trained on them; model: None: the demo's. Written into a folder inside
    `folder`, once. Raises UserError for a corpus that cannot be read, or has no such text.
    """
    if documents < 1:
        raise UserError(f"documents is {documents}, but it must be at least 1.")
    named = f"{corpus} {documents} {text}"
    home = Path(folder).expanduser().absolute() / f"small-{hashlib.sha256(named.encode()).hexdigest()[:8]}"
    path = home / "corpus.parquet"
    if not path.is_file():
        _write(corpus, path, documents, text)
    table = pq.read_table(path, columns=["text"])
    texts = table["text"].to_pylist()
    if tokenizer is None:
        tokenizer = str(home / "tokenizer" / "tokenizer.json")
        if not Path(tokenizer).is_file():
            train_tokenizer(texts, Path(tokenizer), _VOCABULARY)
    return SmallCorpus(
        origin=corpus,
        path=path,
        tokenizer=tokenizer,
        model=model or str(offline_model()),
        num_documents=len(texts),
        num_chars=sum(map(len, texts)),
    )


def _write(corpus: str, path: Path, documents: int, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if corpus.endswith(_DEMO) and not Path(corpus).exists():
        write_corpus(path, num_documents=documents, num_chars=None, seed=0)
        return
    settings = Input(path=corpus, text=text)
    files = list_files(settings)
    if files[0].format == "parquet":
        settings = dataclasses.replace(settings, **_columns_of(settings))
    rows = [row for table in _tables(settings, documents) for row in table.to_pylist()][:documents]
    if not rows:
        raise UserError(f"{corpus} has no document with text in {text!r}.")
    write_table(path, pa.Table.from_pylist(rows, schema=_SCHEMA), rows_per_group=64)


def _columns_of(settings: Input) -> dict[str, Any]:
    """The columns `id` and `source`, where a corpus of Parquet has them."""
    import fsspec

    with fsspec.open(list_files(settings)[0].path, "rb") as file:
        names = pq.read_schema(file).names
    return {name: name for name in ("id", "source") if name in names}


def _tables(settings: Input, documents: int) -> Iterator[pa.Table]:
    """Documents with text from places spread over the corpus, about as many of each; each is read no further."""
    splits = plan_splits(settings, list_files(settings))
    chosen = splits[:: max(1, len(splits) // _PLACES)][:_PLACES]
    for place, split in enumerate(chosen):
        wanted = documents * (place + 1) // len(chosen) - documents * place // len(chosen)
        for read in read_tables(split, settings):
            if wanted <= 0:
                break
            table = read.table.select(["source_id", "text", "source"]).rename_columns(_SCHEMA.names)
            found = table.filter([bool(each and not each.isspace()) for each in table["text"].to_pylist()])[:wanted]
            wanted -= found.num_rows
            yield found
