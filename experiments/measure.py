"""A trained model and held-out texts in; its measures, a row each, out.

evaluation.run gives scores, losses by position and attention. Scores may all be 0 for a small model, so others are
graded: by how much the loss of an answer, of a repeated span, or of a text falls when distant context holds what it
needs. All of these are in nats a token, and 0 for a model that does not use it.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.blocks import token_losses
from evaluation.config import Evaluation
from evaluation.documents import Document
from evaluation.example import Example
from evaluation.example_cache import cached_examples
from evaluation.gain import gain_of
from evaluation.model import Model, load_model
from evaluation.run import evaluate
from evaluation.tasks import TASKS
from experiments.data import Folders
from experiments.plan import MARGIN_TASKS, Plan

Row = dict[str, Any]
Ids = NDArray[np.int64]
_SPAN_TOKENS = 16
_SEED = 1  # of what is measured; for all models the same


def measure(plan: Plan, out: Path, model_folder: Path, results: Path) -> list[Row]:
    """[{"measure", "value", "better": "high", "low" or "neither"}] of a model, in float32.

    results: folder for what evaluation.run writes.
    """
    model = load_model(model_folder, dtype="float32")
    texts = held_out_ids(plan, out, model)
    rows = [*_suite(plan, out, model_folder, results), *_gains(plan, model, texts)]
    rows += [*_spans(plan, model, texts), *_margins(plan, out, model)]
    return rows


def held_out_ids(plan: Plan, out: Path, model: Model) -> list[Ids]:
    """[long_tokens] of each held-out text that has so many."""
    lines = Folders(out).held_out.read_text(encoding="utf-8").splitlines()
    found = [model.prompt_ids(json.loads(line)["text"]).cpu().numpy() for line in lines]
    return [ids[: plan.long_tokens] for ids in found if len(ids) >= plan.long_tokens]


def _suite(plan: Plan, out: Path, model_folder: Path, results: Path) -> Iterator[Row]:
    folders = Folders(out)
    asked = Evaluation(
        model=model_folder,
        out=results,
        tasks=tuple(TASKS),  # all at every length, or none: a mean is over the same tasks
        lengths=plan.lengths,
        number=max(1, plan.number // 2),
        depths=plan.depths[::2],
        hay=str(folders.hay),
        documents=folders.held_out,
        num_documents=plan.held_out,
        probes=4,
        seed=_SEED,
        dtype="float32",
    )
    found = evaluate(asked)
    for each in found["positions"]:
        yield _row(f"loss at {each['first']}-{each['last']}", each["mean"], better="low")
    for length in plan.lengths:
        scores = [each for each in found["scores"] if each["length_tokens"] == length]
        for each in scores:
            yield _row(f"score {each['task']} at {length}", 100 * each["mean"])
        yield _row(f"score of all tasks at {length}", 100 * float(np.mean([each["mean"] for each in scores])))
    for each in found["attention"]:
        share = each["over_layers"]["first_third"]["mean"]
        yield _row(f"attention to the first third at {each['length_tokens']}", 100 * share, better="neither")


def _gains(plan: Plan, model: Model, texts: Sequence[Ids]) -> Iterator[Row]:
    """By how much text beyond the last short_tokens lowers the loss on pieces of held-out texts."""
    for name, documents in (("of a text", _whole(plan, texts)), ("of a text in pieces", _spread(plan, texts))):
        means = []
        for document in documents:
            chunks = gain_of(model, document)
            gains = [each["near"] - each["whole"] for each in chunks]
            means.append(float(np.average(gains, weights=[each["targets"] for each in chunks])))
        yield _row(f"gain {name}", float(np.mean(means)))


def _whole(plan: Plan, texts: Sequence[Ids]) -> Iterator[Document]:
    """As they are; what is measured are pieces, short_tokens apart."""
    pieces = _pieces(plan)
    for number, ids in enumerate(texts):
        yield Document(f"text {number}", ids, pieces)


def _spread(plan: Plan, texts: Sequence[Ids]) -> Iterator[Document]:
    """The consecutive pieces of one text, short_tokens of another one between each two."""
    pieces = _pieces(plan)
    sizes = (pieces[:, 1] - pieces[:, 0]).tolist()
    for number, ids in enumerate(texts):
        found, place = np.empty(0, np.int64), 0
        for between, size in enumerate(sizes):
            other = texts[(number + 1 + between % (len(texts) - 1)) % len(texts)]
            start = (between * plan.short_tokens) % (len(other) - plan.short_tokens + 1)
            found = np.concatenate([found, ids[place : place + size], other[start : start + plan.short_tokens]])
            place += size
        yield Document(f"text {number} in pieces", found[: plan.long_tokens], pieces)


def _pieces(plan: Plan) -> Ids:
    """[n, 2]: start and end of pieces of a quarter of short_tokens, short_tokens apart."""
    size, step = plan.short_tokens // 4, plan.short_tokens + plan.short_tokens // 4
    starts = np.arange(0, plan.long_tokens - size + 1, step)
    return np.stack([starts, starts + size], axis=1).astype(np.int64)


def _spans(plan: Plan, model: Model, texts: Sequence[Ids]) -> Iterator[Row]:
    """By how much the loss of random tokens is lower where they stood before, at a distance, than where others did."""
    vocabulary = model.tokenizer.get_vocab_size()
    for distance in plan.distances:
        margins = []
        for number in range(plan.num_spans):
            rng = np.random.default_rng([_SEED, distance, number])
            span, other = rng.integers(1, vocabulary, (2, _SPAN_TOKENS))
            text = texts[number % len(texts)]
            before, between = text[: plan.long_tokens - distance - 2 * _SPAN_TOKENS], text[::-1][:distance][::-1]
            true, untrue = (np.concatenate([before, each, between]) for each in (span, other))
            margins.append(_margin(model, true, untrue, span, skipped=1))
        yield _row(f"repeated span at distance {distance}", float(np.mean(margins)))


def _margins(plan: Plan, out: Path, model: Model) -> Iterator[Row]:
    """By how much an answer's loss is lower where the text tells it than where it tells another one."""
    hay, folder = Folders(out).hay.read_text(encoding="utf-8"), out / "examples"
    for length in plan.lengths:
        means = []
        for task in MARGIN_TASKS:
            made = cached_examples(
                folder, task, model.tokenizer, length,
                tokenizer_sha256=model.tokenizer_sha256, number=plan.number, seed=_SEED, depths=plan.depths, hay=hay,
            )  # fmt: skip
            means.append(float(np.mean([_margin_of(model, example) for example in made])))
            yield _row(f"margin {task} at {length}", means[-1])
        yield _row(f"margin of all tasks at {length}", float(np.mean(means)))


def _margin_of(model: Model, example: Example) -> float:
    (answer,) = example.answers
    rng = np.random.default_rng([_SEED, example.number, *example.query.encode()])
    other = another(answer, rng)
    ids = model.tokenizer.encode(f" {answer}", add_special_tokens=False).ids
    true, untrue = (
        model.prompt_ids(context + example.question).cpu().numpy()
        for context in (example.context, example.context.replace(answer, other))
    )
    return _margin(model, true, untrue, np.array(ids, np.int64))


def another(answer: str, rng: np.random.Generator) -> str:
    """An answer of the same form: each digit another digit, each letter of a hexadecimal number another one."""
    kinds = ("0123456789", "abcdef")
    found = ""
    for letter in answer:
        kind = next((kind for kind in kinds if letter in kind), letter)
        place = kind.index(letter)
        found += kind[(place + (int(rng.integers(1, len(kind))) if len(kind) > 1 else 0)) % len(kind)]
    return found


def _margin(model: Model, true: Ids, untrue: Ids, answer: Ids, *, skipped: int = 0) -> float:
    """The mean loss of an answer after another context, less that after the true one; but for its first tokens."""
    losses = []
    for context in (untrue, true):
        found = token_losses(model, model.as_ids(np.concatenate([context, answer]).tolist()))
        losses.append(float(found[len(found) - len(answer) + skipped :].astype(np.float64).mean()))
    return losses[0] - losses[1]


def _row(name: str, value: float, *, better: str = "high") -> Row:
    return {"measure": name, "value": value, "better": better}
