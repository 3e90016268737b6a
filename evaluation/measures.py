"""A model, an evaluation and the rows that are there, in; the rows of each measure, computed where missing, out."""

import hashlib
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from tokenizers import Tokenizer as FastTokenizer
from tqdm.auto import tqdm

from evaluation import perplexity
from evaluation.attention_probe import attention_shares
from evaluation.config import Evaluation
from evaluation.documents import Document, read_documents
from evaluation.example import Example
from evaluation.example_cache import cached_examples
from evaluation.gain import gain_of
from evaluation.generation import answers
from evaluation.haystack import NEEDLES, NOISE
from evaluation.model import Model
from evaluation.results import Results, key_of
from evaluation.scoring import score
from nextlong.errors import UserError

log = logging.getLogger(__name__)

_PROBE_DEPTH = 1 / 6  # the middle of the first third: attention to it is what an answer needs
Row = dict[str, Any]
T = TypeVar("T")


class Measures:
    """The measures of one model."""

    def __init__(self, asked: Evaluation, model: Model, results: Results, *, shows_progress: bool) -> None:
        self._asked, self._model, self._results = asked, model, results
        self._shows_progress = shows_progress
        self._hay = hay_text(asked.hay)

    @property
    def tokenizer(self) -> FastTokenizer:
        """The model's."""
        return self._model.tokenizer

    def examples(self, task: str, length_tokens: int) -> list[Example]:
        """Those of a task and length, from the user's cache if they are there."""
        return self._examples(task, length_tokens, self._asked.number, self._asked.depths)

    def answer(self, made: Sequence[Example]) -> Iterator[Row]:
        """What the model says to each example, and its score."""
        keys = {example: _key(example) for example in made}
        missing = [example for example in made if self._results.get(keys[example]) is None]
        said = answers(self._model, made, set(missing).__contains__)
        what = f"{made[0].task}, {made[0].length_tokens:,} tokens"
        for example, output in self._bar(said, what, len(missing)):
            kept = example._asdict()
            for name in ("context", "question"):
                del kept[name]
            self._results.add(
                keys[example], {"kind": "answer"} | kept | {"output": output, "score": score(example, output)}
            )
        yield from (row for key in keys.values() if (row := self._results.get(key)) is not None)

    def probe(self, length_tokens: int) -> Iterator[Row]:
        """The attention of the last token of needle prompts, whose needle stands in the first third."""
        made = self._examples("needle", length_tokens, self._asked.probes, [_PROBE_DEPTH])
        for example in self._bar(made, f"attention, {length_tokens:,} tokens", len(made)):

            def compute(example: Example = example) -> Row:
                ids = self._model.prompt_ids(example.context + example.question)
                return {"length_tokens": length_tokens, "shares": attention_shares(self._model, ids).tolist()}

            yield self._once("attention", [example.context, example.question], compute)

    def losses(self, documents: Sequence[Document]) -> Iterator[Row]:
        """Of each document by position."""
        for document in self._bar(documents, "loss by position", len(documents)):
            yield self._of_document(
                "loss", document, lambda each: {"positions": perplexity.loss_by_position(self._model, each)}
            )

    def gains(self, documents: Sequence[Document]) -> Iterator[Row]:
        """Of each document's meta-chunks."""
        for document in self._bar(documents, "gain from context", len(documents)):
            yield self._of_document("gain", document, lambda each: {"chunks": gain_of(self._model, each)})

    def _bar(self, each: Iterable[T], what: str, total: int) -> Iterable[T]:
        bar: Iterable[T] = tqdm(each, what, total, disable=not self._shows_progress, leave=False)
        return bar

    def _of_document(self, kind: str, document: Document, measure: Callable[[Document], Row]) -> Row:
        digest = hashlib.sha256(document.ids.tobytes() + document.meta_chunks.tobytes()).hexdigest()
        kept = {"document": document.name, "length_tokens": len(document.ids)}
        return self._once(kind, [digest, document.num_special], lambda: kept | measure(document))

    def _once(self, kind: str, parts: Sequence[object], compute: Callable[[], Row]) -> Row:
        key = key_of(kind, parts)
        return self._results.get(key) or self._results.add(key, {"kind": kind} | compute())

    def _examples(self, task: str, length_tokens: int, number: int, depths: Sequence[float]) -> list[Example]:
        return cached_examples(
            Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nextlong" / "examples",
            task,
            self._model.tokenizer,
            length_tokens,
            tokenizer_sha256=self._model.tokenizer_sha256,
            number=number,
            seed=self._asked.seed,
            depths=depths,
            hay=self._hay,
        )


def hay_text(hay: str | None) -> str | None:
    """noise, needles, None, or the text of the file that is named. Raises UserError where it cannot be read."""
    if hay in (None, NOISE, NEEDLES):
        return hay
    try:
        return Path(str(hay)).expanduser().read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UserError(f"--hay is neither noise nor needles, and no text file ({error}).") from error


def long_documents(asked: Evaluation, model: Model, lengths: Sequence[int]) -> list[Document]:
    """The first documents that have the longest of these lengths that any has, cut there; none where none are asked.

    All are of one length, so that losses at all positions are of the same documents. How many were read and what became
    of them is logged. Raises UserError where none has the shortest.
    """
    if asked.documents is None or not lengths:
        return []
    by_length: dict[int, list[Document]] = {length: [] for length in sorted(lengths, reverse=True)}
    seen: list[int] = []
    for document in read_documents(asked.documents, model):
        seen.append(len(document.ids))
        for length, some in by_length.items():
            if length <= seen[-1] and len(some) < asked.num_documents:
                some.append(document.first(length))
        if len(by_length[max(lengths)]) == asked.num_documents:
            break
    length, found = next(((length, found) for length, found in by_length.items() if found), (0, []))
    if not found:
        raise UserError(
            f"--documents: {asked.documents} has no document of {min(lengths):,} tokens; the longest has "
            f"{max(seen, default=0):,}. Give longer ones, or --lengths with a shorter one."
        )
    too_short = sum(each < length for each in seen)
    is_less = length < max(lengths) or len(found) < asked.num_documents
    log.log(
        logging.WARNING if is_less else logging.INFO,
        "documents: %s read, %s measured at %s tokens, %s shorter%s",
        *(f"{each:,}" for each in (len(seen), len(found), length, too_short)),
        f"; {asked.documents} has no more" if is_less else "",
    )
    return found


def _key(example: Example) -> str:
    return key_of("answer", [example.task, example.context, example.question, *example.answers, example.max_new_tokens])
