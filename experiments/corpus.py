"""A corpus in; long texts that are held out, and the other documents, without any that shares words with these, out."""

import dataclasses
import logging
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from experiments.plan import Plan
from nextlong.decontamination import collect_ngrams
from nextlong.errors import UserError

log = logging.getLogger(__name__)

_NGRAM_WORDS = 13
_SEED = 0  # one split for all seeds of a plan: what is measured stays the same


class Document(NamedTuple):
    """A row of the corpus."""

    text: str
    source: str


@dataclasses.dataclass(frozen=True)
class Split:
    """What the corpus becomes."""

    held_out: list[str]
    """Natural long texts: documents that are long enough, else consecutive ones of one source, joined."""
    documents: list[str]
    """Those trained on, whole, in the corpus' order."""
    passages: list[str]
    """Of each of them one, of at most document_chars: what long documents are made of."""
    repeats: list[str]
    """Of the short stage: a passage, another one, and the first again."""
    num_overlapping: int
    """Documents left out since they share thirteen words in a row with a held-out text."""


def read_corpus(path: Path) -> list[Document]:
    """The documents of a parquet file with a column text and, if it has one, source; empty ones are left out.

    Raises UserError for a file that is none.
    """
    try:
        names = pq.read_schema(path).names
        columns = [name for name in ("text", "source") if name in names]
        if "text" not in columns:
            raise UserError(f"--corpus: {path} has no column text.")
        rows = pq.read_table(path, columns=columns).to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"--corpus: {path} is no parquet file that can be read ({error}).") from error
    return [Document(str(row["text"]), str(row.get("source") or "")) for row in rows if row["text"]]


def split(corpus: Sequence[Document], plan: Plan) -> Split:
    """Draw the held-out texts, and leave out of training what overlaps with them.

    Raises UserError for a corpus without so many long texts.
    """
    runs = [[place] for place, document in enumerate(corpus) if len(document.text) >= plan.held_out_chars]
    if len(runs) < 2 * plan.held_out:
        runs = list(_joined(corpus, plan.held_out_chars))
    if len(runs) < 2 * plan.held_out:
        raise UserError(
            f"--corpus gives {len(runs)} texts of {plan.held_out_chars:,} characters, but {2 * plan.held_out} are "
            f"needed, half of them to be held out. Give a larger corpus, or a smaller --scale."
        )
    rng = np.random.default_rng(_SEED)
    chosen = [runs[place] for place in sorted(rng.permutation(len(runs))[: plan.held_out].tolist())]
    held_out = ["\n\n".join(corpus[place].text for place in run) for run in chosen]
    ngrams, _ = collect_ngrams([held_out], _NGRAM_WORDS)
    taken = {place for run in chosen for place in run}
    others = [document.text for place, document in enumerate(corpus) if place not in taken]
    documents = [text for text in others if ngrams.first_file(text) < 0]
    log.info("%d of %d documents overlap with held-out texts", len(others) - len(documents), len(others))
    passages = [passage(text, plan.document_chars, rng) for text in documents]
    return Split(held_out, documents, passages, _repeats(documents, plan, rng), len(others) - len(documents))


def passage(text: str, most_chars: int, rng: np.random.Generator) -> str:
    """A text, or whole lines from a random place in it on; where a line is longer than a passage, a part of it."""
    if len(text) <= most_chars:
        return text
    start = int(rng.integers(len(text) - most_chars + 1))
    if start:
        start = max(text.rfind("\n", 0, start + 1) + 1, start - most_chars // 2)
    found = text[start : start + most_chars]
    end = found.rfind("\n")
    return found[: end + 1] if end >= most_chars // 2 else found


def _repeats(texts: Sequence[str], plan: Plan, rng: np.random.Generator) -> list[str]:
    """Passages of up to a letter a token of a row: three of them take a row or less."""
    found = []
    for _ in range(plan.num_repeats):
        sizes = rng.integers(plan.short_tokens // 4, plan.short_tokens + 1, 2).tolist()
        drawn = [passage(texts[int(rng.integers(len(texts)))], size, rng).strip("\n") for size in sizes]
        found.append("\n".join((*drawn, drawn[0])))
    return found


def _joined(corpus: Sequence[Document], least_chars: int) -> Iterator[list[int]]:
    """Places of consecutive documents of one source that are long enough together."""
    for _, group in groupby(range(len(corpus)), key=lambda place: corpus[place].source):
        run: list[int] = []
        chars = 0
        for place in group:
            run.append(place)
            chars += len(corpus[place].text)
            if chars >= least_chars:
                yield run
                run, chars = [], 0
