"""Plans are what they say: the same tokens for every method, to the step, and lengths that are multiples."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from experiments.plan import PAPER_SCORES, SCALES, TOY, Plan
from nextlong.errors import UserError
from training.shape import Shape
from training.tiny_model import write_tiny_model

each_plan = pytest.mark.parametrize("plan", SCALES.values(), ids=SCALES.keys())


@each_plan
def test_stages_are_whole_steps_of_whole_rows(plan: Plan) -> None:
    assert plan.short_steps * plan.batch_tokens == plan.short_stage_tokens
    assert plan.long_steps * plan.batch_tokens == plan.long_stage_tokens == plan.long_rows * plan.long_tokens
    assert plan.batch_tokens % plan.micro_tokens == 0


@each_plan
def test_lengths_are_eight_to_thirty_two_times_the_short_ones(plan: Plan) -> None:
    assert 8 <= plan.long_tokens / plan.short_tokens <= 32
    assert plan.lengths[-1] == plan.long_tokens
    assert max(plan.distances) + 32 <= plan.long_tokens
    slowest = [plan.short_tokens * plan.short_theta ** (-30 / 32), plan.long_tokens * plan.long_theta ** (-30 / 32)]
    assert slowest[0] == pytest.approx(slowest[1], rel=0.01)  # radians that the slowest pair of a head of 32 turns


@each_plan
def test_all_methods_of_the_paper_and_its_ablations_are_compared_by_three_seeds(plan: Plan) -> None:
    assert {*PAPER_SCORES, "nextlong", "nextlong-random", "nextlong-self-repeat"} == set(plan.methods)
    assert len(set(plan.seeds)) == 3
    assert {plan.base(seed) for seed in plan.seeds} == set(range(plan.bases))


@each_plan
def test_the_parameters_told_are_those_of_the_model(plan: Plan, tmp_path: Path, tokenizer_file: Path) -> None:
    folder = write_tiny_model(
        tmp_path / "model", tokenizer_file, positions=8, hidden_size=plan.hidden_size, num_layers=plan.num_layers
    )
    shape = dataclasses.replace(Shape.read(str(folder)), vocab_size=plan.vocabulary)
    assert shape.num_parameters == plan.parameters


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"long_stage_tokens": TOY.batch_tokens + 1}, "long_stage_tokens"),
        ({"batch_tokens": TOY.long_tokens // 2}, "batch_tokens"),
        ({"methods": ("standard", "quests")}, "quests"),
        ({"repeats_ratio": 1.0}, "repeats_ratio"),
        ({"methods": ("knn", "standard")}, "comes first"),
    ],
)
def test_what_methods_could_not_share_is_refused(changed: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        dataclasses.replace(TOY, **changed)
