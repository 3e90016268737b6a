"""An evaluation asked for in; its rows, summary and page in a folder, and the summary, out."""

import logging
from collections.abc import Sequence
from typing import Any

import torch

from evaluation.config import Evaluation
from evaluation.documents import Document
from evaluation.example import Example
from evaluation.layouts import write_helmet, write_ruler, write_texts
from evaluation.measures import Measures, Row, long_documents
from evaluation.memory import check_length_fits, most_tokens, too_long
from evaluation.model import Model, identity, load_model
from evaluation.results import Results, finite, write_json
from evaluation.summary import summarise
from evaluation.tasks import TASKS
from evaluation.tasks.request import TooShortError
from nextlong.errors import UserError

log = logging.getLogger(__name__)

SUMMARY, PAGE = "summary.json", "report.html"
_DEFAULT_LONGEST_TOKENS = 32_768  # minutes for a small model
_DEFAULT_SHORTEST_TOKENS = 256


def evaluate(asked: Evaluation, *, shows_progress: bool = False) -> dict[str, Any]:
    """Measure what is asked for, shorter lengths first, and write summary.json and report.html.

    What out/results.jsonl has is not computed again. "too_long" of the summary is a sentence about a length that did
    not fit into memory, else None: the shorter ones are measured. Raises UserError for what cannot be measured.
    """
    model = load_model(asked.model, device=asked.device, dtype=asked.dtype)
    lengths = sorted(set(asked.lengths or default_lengths(model.positions)))
    for length in lengths:
        model.check_length(length)
    check_length_fits(model.lm, lengths[-1])
    if asked.asks_questions:
        model.eos_ids()
    measures = Measures(asked, model, Results(asked.out, identity(model)), shows_progress=shows_progress)
    rows, failed = _measure(asked, model, measures, lengths)
    told = {
        "model": str(asked.model),
        "lengths": [length for length in lengths if failed is None or length < failed],
        "settings": {"number": asked.number, "seed": asked.seed, "hay": asked.hay or "noise"},
        "too_long": None,
    }
    if failed is not None:
        told["too_long"] = (
            f"{too_long(model.lm, failed, most_tokens(model.lm))} Results of shorter ones are in {asked.out}."
        )
    summary: dict[str, Any] = finite(told | summarise(rows))
    write_json(asked.out / SUMMARY, summary)
    _write_page(asked, summary)
    return summary


def default_lengths(positions: int | None) -> list[int]:
    """A quarter, a half and all of the positions, or of 32,768, as powers of two."""
    longest = 1 << (min(positions or _DEFAULT_LONGEST_TOKENS, _DEFAULT_LONGEST_TOKENS).bit_length() - 1)
    return [each for each in (longest // 4, longest // 2, longest) if each >= _DEFAULT_SHORTEST_TOKENS] or [longest]


def _measure(
    asked: Evaluation, model: Model, measures: Measures, lengths: Sequence[int]
) -> tuple[dict[str, list[Row]], int | None]:
    """The rows of each measure, and the length for which there was no memory; of that one none are told."""
    rows: dict[str, list[Row]] = {"answer": [], "attention": [], "loss": [], "gain": []}
    documents = long_documents(asked, model, lengths)  # mistakes come first
    fitting: list[int] = []
    failed = None
    for length in lengths:
        try:
            answered, probed = _at_length(asked, measures, length)
        except torch.OutOfMemoryError:
            failed = length
            documents = long_documents(asked, model, fitting)
            break
        rows["answer"] += answered
        rows["attention"] += probed
        fitting.append(length)
    while documents:
        try:
            rows["loss"], rows["gain"] = _of_documents(measures, documents)
            break
        except torch.OutOfMemoryError:
            failed = len(documents[0].ids)
            fitting = [length for length in fitting if length < failed]
            documents = long_documents(asked, model, fitting)
    return rows, failed


def _of_documents(measures: Measures, documents: Sequence[Document]) -> tuple[list[Row], list[Row]]:
    """Losses, and gains of those that have one."""
    losses = list(measures.losses(documents))
    gains = [row for row in measures.gains(documents) if row["chunks"]]
    if not gains:
        length = f"{len(documents[0].ids):,}"
        log.info(
            "no gain from context: no document is known to have two meta-chunks in its first %s tokens; it needs a "
            "packed folder of long documents, and --lengths as long as they are",
            length,
        )
    return losses, gains


def _at_length(asked: Evaluation, measures: Measures, length_tokens: int) -> tuple[list[Row], list[Row]]:
    """The answers, and the attention."""
    made = _examples(asked, measures, length_tokens)
    if asked.layouts is not None and made:
        together = [example for examples in made.values() for example in examples]
        if set(made) != {"key_value"}:  # RULER has no such task
            write_ruler(asked.layouts / "ruler", together, measures.tokenizer)
        write_helmet(asked.layouts / "helmet", together)
        write_texts(asked.layouts / f"texts-{length_tokens}.jsonl", together)
    answered = [row for examples in made.values() for row in measures.answer(examples)]
    return answered, list(measures.probe(length_tokens)) if asked.probes else []


def _examples(asked: Evaluation, measures: Measures, length_tokens: int) -> dict[str, list[Example]]:
    """By task; of tasks that nobody named, those that the length has room for."""
    made: dict[str, list[Example]] = {}
    too_short: list[TooShortError] = []
    for task in dict.fromkeys(TASKS if asked.tasks is None else asked.tasks):
        try:
            made[task] = measures.examples(task, length_tokens)
        except TooShortError as error:
            too_short.append(error)
    if too_short:
        told = ", ".join(f"{error.task} at least {error.least_tokens:,}" for error in too_short)
        if asked.tasks is not None or not made:
            raise UserError(
                f"--lengths has {length_tokens:,}, but by this tokenizer tasks take more tokens: {told}. Ask for "
                f"greater lengths, or for other tasks."
            )
        log.warning("left out at %s tokens, by this tokenizer too few: %s", f"{length_tokens:,}", told)
    return made


def _write_page(asked: Evaluation, summary: dict[str, Any]) -> None:
    try:
        from evaluation.page import page
    except ImportError as error:
        log.warning("no %s is written: %s (pip install 'nextlong[report]')", PAGE, error)
        return
    try:
        (asked.out / PAGE).write_text(page(summary), encoding="utf-8")
    except OSError as error:
        raise UserError(f"{asked.out / PAGE} cannot be written ({error}). The numbers are in {SUMMARY}.") from error
