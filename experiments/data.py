"""A plan and a corpus in; tokenizer, held-out texts, and packed folders of the short and the long stages, out.

All of it is the package's own: what `nextlong pack`, `nextlong compare` and `nextlong export` do.
"""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from tokenizers import Tokenizer as FastTokenizer

from etl import compare, pipeline
from etl.docstrings import train_tokenizer, write_corpus
from etl.engine import Engine
from etl.inputs import Input
from etl.parts import read_json, write_json, write_table, written_aside
from etl.recipe import Recipe
from etl.shards.export import export
from etl.shards.laid_out import PackSettings
from etl.shards.of_documents import PackSource
from etl.shards.of_work import WorkSource
from etl.shards.tokens import Documents
from evaluation.tasks import TASKS, examples
from experiments.corpus import Split, read_corpus, split
from experiments.plan import Plan
from nextlong.config import Chunking, Embedding, Mining, Synthesis
from nextlong.errors import UserError
from nextlong.fitting import Fitting
from nextlong.shards.arrow import Arrow
from nextlong.tokenizing import Tokenizer

log = logging.getLogger(__name__)

END_OF_TEXT = 0
"""Id of the only special token of etl.docstrings' tokenizer."""
_TOKENIZER_CHARS = 8_000_000  # that a small BPE is trained on
_FACTS = "data.json"


class Folders:
    """Where the data of an experiment is."""

    def __init__(self, out: Path) -> None:
        self.root = out / "data"
        self.corpus = self.root / "corpus.parquet"
        self.documents = self.root / "documents.parquet"
        self.repeats = self.root / "repeats.parquet"
        self.passages = self.root / "passages.parquet"
        self.held_out = self.root / "held-out.jsonl"
        self.hay = self.root / "hay.txt"
        self.tokenizer = self.root / "tokenizer" / "tokenizer.json"
        self.short = [self.root / "short", self.root / "short-repeats"]

    def work(self, seed: int) -> Path:
        """Of the comparison that makes the long documents of a seed."""
        return self.root / f"compared-{seed}"

    def long(self, method: str, seed: int) -> Path:
        """The packed folder of a long stage."""
        return self.root / f"long-{seed}" / method


def known_facts(out: Path) -> dict[str, Any] | None:
    """What make_data told, when all of it was made; None: it is to be made, or gone on with."""
    return read_json(Folders(out).root / _FACTS)


def make_data(plan: Plan, out: Path, engine: Engine, *, corpus: Path | None, model: str) -> dict[str, Any]:
    """Make what is missing; returns facts: of the split, and of each method and seed.

    corpus: parquet; None: docstrings of installed packages. model: of embeddings. Raises UserError where the corpus
    does not serve a method.
    """
    folders = Folders(out)
    facts: dict[str, Any] = {"split": _write_split(plan, folders, corpus), "long": {}}
    _check_tasks(plan, folders)
    _pack_short(plan, folders, engine)
    for seed in plan.seeds:
        facts["long"][str(seed)] = _make_long(plan, folders, seed, model, engine)
    write_json(folders.root / _FACTS, facts)
    return facts


def _write_split(plan: Plan, folders: Folders, corpus: Path | None) -> dict[str, int]:
    if corpus is None and not folders.corpus.is_file():
        write_corpus(folders.corpus, num_documents=None, num_chars=plan.corpus_chars, seed=0)
    found = split(read_corpus(corpus or folders.corpus), plan)
    folders.root.mkdir(parents=True, exist_ok=True)
    _write_texts(folders.documents, found.documents)
    _write_texts(folders.repeats, found.repeats)
    _write_texts(folders.passages, found.passages)
    with written_aside(folders.held_out) as aside:
        aside.write_text("".join(json.dumps({"text": text}) + "\n" for text in found.held_out), encoding="utf-8")
    with written_aside(folders.hay) as aside:
        aside.write_text("\n".join(found.held_out), encoding="utf-8")
    if not folders.tokenizer.is_file():
        train_tokenizer(_evenly(found.documents, _TOKENIZER_CHARS), folders.tokenizer, plan.vocabulary)
    return _counts(found)


def _check_tasks(plan: Plan, folders: Folders) -> None:
    """Raise UserError for a tokenizer or a length that a task cannot do with, before hours of training."""
    fast = FastTokenizer.from_file(str(folders.tokenizer))
    hay = folders.hay.read_text(encoding="utf-8")
    for task in TASKS:
        examples(task, fast, plan.lengths[0], number=1, seed=0, depths=plan.depths, hay=hay)


def _counts(found: Split) -> dict[str, int]:
    return {
        "held_out": len(found.held_out),
        "held_out_chars": sum(map(len, found.held_out)),
        "overlapping": found.num_overlapping,
        "documents": len(found.documents),
        "document_chars": sum(map(len, found.documents)),
        "passage_chars": sum(map(len, found.passages)),
    }


def _write_texts(path: Path, texts: Sequence[str]) -> None:
    if not path.is_file():  # else it is the same, and an earlier time of writing keeps what was made of it
        write_table(path, pa.table({"text": pa.array(texts, pa.large_string())}), rows_per_group=64)


def _evenly(texts: Sequence[str], chars: int) -> list[str]:
    return list(texts[:: max(1, sum(map(len, texts)) // chars)])


def _pack_short(plan: Plan, folders: Folders, engine: Engine) -> None:
    """Documents end to end, cut into rows, and repeats, whole where they fit; attention stays inside each."""
    tokenizer = Tokenizer(folders.tokenizer)
    hows: list[Fitting] = ["concat", "best-fit"]
    for texts, out, fitting in zip((folders.documents, folders.repeats), folders.short, hows, strict=True):
        tail: Any = "drop" if fitting == "concat" else "pad"
        settings = PackSettings(length_tokens=plan.short_tokens, fitting=fitting, eos=END_OF_TEXT, tail=tail)
        documents = Documents(kind="text", input=Input(path=str(texts)))
        export(PackSource.of(documents, settings, tokenizer, "pack"), str(out), "arrow", Arrow(), engine)


def _make_long(plan: Plan, folders: Folders, seed: int, model: str, engine: Engine) -> dict[str, Any]:
    """Long documents by every method from the same passages, as packed folders. Returns facts by method."""
    out = folders.work(seed)
    jobs = compare.prepare_all(_recipe(plan, folders, seed, model), plan.methods, out)
    if seed != plan.seeds[0]:
        for name, job in jobs.items():  # chunks, embeddings and index are those of the first seed
            pipeline.claim(job, reuse=[folders.work(plan.seeds[0]) / name], remedy=f"Delete {out}.")
    facts = {}
    for outcome in compare.compare(jobs, out, engine):
        if outcome.facts is None:
            raise UserError(f"the corpus does not serve the method {outcome.name}: {outcome.error}")
        source = WorkSource.open(out / outcome.name)
        manifest = export(source, str(folders.long(outcome.name, seed)), "arrow", Arrow(), engine)
        facts[outcome.name] = outcome.facts | {"rows": manifest["rows"], "passes": plan.long_rows / manifest["rows"]}
        if manifest["rows"] < plan.long_rows:
            log.warning(
                "%s, seed %d: %d long documents of %d wanted", outcome.name, seed, manifest["rows"], plan.long_rows
            )
    return facts


def _recipe(plan: Plan, folders: Folders, seed: int, model: str) -> Recipe:
    return Recipe(
        input=Input(path=str(folders.passages.absolute())),
        output=str(folders.root / "compared"),
        tokenizer=str(folders.tokenizer.absolute()),
        chunking=Chunking(granularity_chars=plan.granularity_chars),
        embedding=Embedding(model=model),
        mining=Mining(near_duplicate_overlap=0.8),
        synthesis=Synthesis(target_length_tokens=plan.long_tokens, num_samples=plan.long_rows, seed=seed),
    )
