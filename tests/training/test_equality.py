"""Ranks, sequence parallelism and checkpointing change nothing: gradients are those of every document run alone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.marks import in_soak
from tests.training.ranks import launch

LAYOUTS = [
    [[60, 100, 96]],  # the second straddles two ranks
    [[128, 128]],  # ends where a rank ends
    [[255]],  # one document of the whole row, of a length that two ranks do not divide
    [[2] * 33],
    [[2, 3, 2, 90, 2], [99], [50, 49]],
    [[5, 126, 128, 2]],
]
BOUND = {"float64": 1e-10, "float32": 1e-5, "bfloat16": 0.05}
"""bfloat16 is that far from itself in another order, the loss by weights aside."""


FEW = LAYOUTS[:1] + LAYOUTS[4:5]
CASES: list[tuple[str, str, bool, list[Any]]] = [
    ("llama", "float64", True, LAYOUTS),
    ("llama", "float32", False, LAYOUTS),
    ("llama-mqa", "float64", False, LAYOUTS),
    ("llama-mqa", "float32", True, FEW),
    ("llama-tied", "float64", True, FEW),
    ("llama-3", "float64", False, FEW),
    ("qwen2", "float64", True, FEW),
    ("qwen3", "float64", True, FEW),
    ("mistral", "float64", False, FEW),
    ("llama", "bfloat16", True, FEW),
]


@pytest.mark.parametrize(
    ("ranks", "degrees", "cases"),
    [(2, [2], CASES), *in_soak((2, [1], CASES), (4, [2, 4], [CASES[0], CASES[2]]))],
    ids=["2", "2 of data", "4"],
)
def test_loss_and_gradients_are_those_of_every_document_alone(
    ranks: int, degrees: list[int], cases: list[Any], models: Callable[[str], str], tmp_path: Path
) -> None:
    request = [
        {
            "model": models(kind), "precision": precision, "sp": sp, "checkpointing": checkpointing,
            "layouts": layouts, "masked": 0.3,
            "dp_replicate": ranks // sp if kind == "llama-mqa" else 1,
        }
        for kind, precision, checkpointing, layouts in cases
        for sp in degrees
    ]  # fmt: skip
    answers = launch("gradients", request, tmp_path, ranks=ranks)
    assert len(answers) == len(request)
    for case, answer in zip(request, answers, strict=True):
        where = f"{Path(case['model']).name} {case['precision']} sp {case['sp']}: {answer}"
        for name in ("loss", "losses", "gradient", "norm"):
            assert answer[name] < BOUND[case["precision"]], where
        assert answer["weighted"] < 1e-6, where
        assert answer["moved"] > 20 * len(case["layouts"]), where
        assert answer["unmoved"] > 100, where
