"""The graded measures: a model that copies what it read is rewarded at every distance, one that does not is not."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer as FastTokenizer
from torch import Tensor

from evaluation.example import Example
from evaluation.model import Model
from evaluation.tasks import examples
from experiments import measure
from experiments.plan import MARGIN_TASKS
from tests.experiments.plans import MICRO

HAY = "Some words stand here. Others follow them. " * 40


class _Copier:
    """After a token it expects what followed the longest like ending before; a strength of 0 expects nothing."""

    def __init__(self, vocabulary: int, strength: float) -> None:
        self._vocabulary, self._strength = vocabulary, strength
        self.device = torch.device("cpu")

    def __call__(self, **inputs: Any) -> Any:
        return self.forward(**inputs)

    def forward(self, *, input_ids: Tensor, cache: Any, **_: Any) -> Any:
        ids = input_ids[0].tolist()
        logits = torch.zeros(1, len(ids), self._vocabulary)
        for place in range(2, len(ids)):
            for before in range(place - 1, 1, -1):
                if ids[before - 2 : before + 1] == ids[place - 2 : place + 1]:
                    logits[0, place, ids[before + 1]] = self._strength
                    break
        return SimpleNamespace(logits=logits)


def _model(tokenizer_file: Path, strength: float) -> Model:
    fast = FastTokenizer.from_file(str(tokenizer_file))
    return Model(tokenizer_file.parent, _Copier(fast.get_vocab_size(), strength), fast, "made", None)


def _texts() -> list[Any]:
    rng = np.random.default_rng(0)
    return [rng.integers(1, 600, MICRO.long_tokens) for _ in range(3)]


@pytest.fixture(scope="module")
def made(tokenizer_file: Path) -> list[Example]:
    fast = FastTokenizer.from_file(str(tokenizer_file))
    return [
        example
        for task in MARGIN_TASKS
        for example in examples(task, fast, 700, number=1, seed=0, depths=[0.0, 0.9], hay=HAY)
    ]


@pytest.mark.parametrize(("strength", "least", "most"), [(0.0, 0.0, 0.0), (8.0, 2.0, 20.0)])
def test_repeated_spans_reward_copying_at_every_distance(
    tokenizer_file: Path, strength: float, least: float, most: float
) -> None:
    rows = list(measure._spans(MICRO, _model(tokenizer_file, strength), _texts()))
    assert [row["measure"] for row in rows] == ["repeated span at distance 64", "repeated span at distance 400"]
    assert all(least <= row["value"] <= most for row in rows)


def test_margins_reward_copying_and_nothing_else(tokenizer_file: Path, made: list[Example]) -> None:
    assert {example.task for example in made} == set(MARGIN_TASKS)
    for example in made:
        assert measure._margin_of(_model(tokenizer_file, 0.0), example) == 0
        assert measure._margin_of(_model(tokenizer_file, 8.0), example) > 1


def test_the_other_answer_has_the_form_of_the_answer_and_stands_at_its_place(made: list[Example]) -> None:
    for example in made:
        (answer,) = example.answers
        other = measure.another(answer, np.random.default_rng(0))
        assert len(other) == len(answer)
        for ours, theirs in zip(answer, other, strict=True):
            assert (ours == theirs) == (ours == "-")
            assert ours.isdigit() == theirs.isdigit()
        assert answer in example.context


def test_gains_reward_what_stands_beyond_the_short_length(tokenizer_file: Path) -> None:
    texts = [
        np.tile(text[: MICRO.short_tokens + 16], 10)[: MICRO.long_tokens] for text in _texts()
    ]  # beyond what is near
    for strength, is_rewarded in ((0.0, False), (8.0, True)):
        rows = {row["measure"]: row["value"] for row in measure._gains(MICRO, _model(tokenizer_file, strength), texts)}
        assert (rows["gain of a text"] > 0.5) == is_rewarded
        assert set(rows) == {"gain of a text", "gain of a text in pieces"}


def test_pieces_of_a_text_stand_in_their_order_between_others(tokenizer_file: Path) -> None:
    texts = [np.full(MICRO.long_tokens, 1000 * number) + np.arange(MICRO.long_tokens) for number in range(3)]
    for number, document in enumerate(measure._spread(MICRO, texts)):
        assert len(document.ids) == MICRO.long_tokens
        own = np.concatenate([document.ids[start:end] for start, end in document.meta_chunks])
        assert own.tolist() == texts[number][: len(own)].tolist()
        gaps = np.diff(document.meta_chunks.reshape(-1))[1::2]
        assert set(gaps.tolist()) == {MICRO.short_tokens}
        for (_, start), (end, _) in zip(document.meta_chunks[:-1], document.meta_chunks[1:], strict=True):
            assert not set(document.ids[start:end].tolist()) & set(texts[number].tolist())
