"""The analysis is what a hand computes: intervals paired by seed, orders, and rank correlation."""

import math
from itertools import product
from typing import Any

import numpy as np
import pytest
from scipy import stats

from experiments.analysis import analyse, as_markdown, as_rows, kendall
from experiments.plan import METHODS, PAPER_SCORES

T_TWO = 4.302653  # 97.5 % quantile of Student's t with two degrees of freedom


def _rows(values: dict[str, list[float]], better: str = "high", measure: str = "m") -> list[dict[str, Any]]:
    return [
        {"method": method, "seed": seed, "measure": measure, "value": value, "better": better}
        for method, of_seeds in values.items()
        for seed, value in enumerate(of_seeds)
    ]


def test_intervals_are_students_and_paired_by_seed() -> None:
    (outcome,) = analyse(_rows({"standard": [10, 20, 60], "knn": [11, 22, 63]}))
    knn, standard = outcome.methods
    assert (knn.method, standard.method, standard.difference) == ("knn", "standard", None)
    assert knn.value.mean == pytest.approx(32)
    assert knn.difference is not None
    half = T_TWO * 1 / math.sqrt(3)  # differences are 1, 2, 3: standard deviation 1
    assert knn.difference == pytest.approx((2, 2 - half, 2 + half), rel=1e-5)


def test_pairing_takes_out_what_seeds_do_to_both() -> None:
    (outcome,) = analyse(_rows({"standard": [0.0, 100.0, -100.0], "knn": [1.0, 101.0, -99.0]}))
    knn = outcome.methods[0]
    assert knn.difference is not None
    assert knn.difference == pytest.approx((1, 1, 1))
    assert knn.value.high - knn.value.low > 400


def test_only_shared_seeds_are_compared() -> None:
    rows = _rows({"standard": [1.0, 2.0, 3.0], "knn": [2.0, 4.0, 1000.0]})
    (outcome,) = analyse([row for row in rows if (row["method"], row["seed"]) != ("standard", 2)])
    differences = {each.method: each.difference for each in outcome.methods}
    assert differences["knn"] is not None
    assert differences["knn"].mean == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("better", "order"), [("high", ["quest", "knn", "standard"]), ("low", ["standard", "knn", "quest"])]
)
def test_the_best_comes_first(better: str, order: list[str]) -> None:
    rows = _rows({"standard": [1, 1], "knn": [2, 2], "quest": [3, 3]}, better)
    (outcome,) = analyse(rows)
    assert [each.method for each in outcome.methods] == order


def test_kendall_is_scipys_with_ties_and_without() -> None:
    rng = np.random.default_rng(0)
    for values in (5, 100):
        for _ in range(50):
            first, second = rng.integers(0, values, (2, 6)).tolist()
            expected = float(stats.kendalltau(first, second).statistic)
            assert kendall(first, second) == pytest.approx(expected, nan_ok=True)
    assert math.isnan(kendall([1, 1, 1], [1, 2, 3]))


@pytest.mark.parametrize(("sign", "tau", "chance"), [(1, 1.0, 1 / 120), (-1, -1.0, 1.0)])
@pytest.mark.parametrize("better", ["high", "low"])
def test_the_papers_order_and_its_reverse(sign: int, tau: float, chance: float, better: str) -> None:
    direction = sign if better == "high" else -sign
    values = {name: [direction * score, direction * score + 1] for name, score in PAPER_SCORES.items()}
    extra = {"nextlong": [1e6, 1e6], "nextlong-random": [-1e6, -1e6]}  # not in the paper's table: of no weight
    (outcome,) = analyse(_rows(values | extra, better))
    assert outcome.tau == pytest.approx(tau)
    assert outcome.chance == pytest.approx(chance)


def test_one_exchanged_pair_of_five_has_tau_of_eight_tenths() -> None:
    values = {name: [score] for name, score in PAPER_SCORES.items()}
    values["standard"], values["quest"] = values["quest"], values["standard"]  # neighbours in the paper's order
    (outcome,) = analyse(_rows(values))
    assert outcome.tau == pytest.approx(0.8)
    assert outcome.chance == pytest.approx(5 / 120)  # the order itself, and four exchanges of neighbours


def test_what_is_neither_better_nor_worse_has_no_order() -> None:
    (outcome,) = analyse(_rows({name: [score] for name, score in PAPER_SCORES.items()}, "neither"))
    assert (outcome.tau, outcome.chance) == (None, None)
    assert all(row["place"] is None for row in as_rows([outcome]))


def test_without_the_baseline_nothing_is_compared() -> None:
    with pytest.raises(ValueError, match="standard"):
        analyse(_rows({"knn": [1.0]}))


def test_the_table_has_every_method_and_marks_what_an_interval_sets_apart() -> None:
    values = {name: [float(place), place + 10.0, place + 20.0] for place, name in enumerate(METHODS)}
    values["quest"] = [-50.0, 0.0, 80.0]
    text = as_markdown(analyse(_rows(values)))
    lines = {line.split(" | ")[0].strip("| "): line for line in text.splitlines() if line.startswith("| ")}
    for name in METHODS:
        assert name in lines
        assert ("*" in lines[name]) == (name not in ("standard", "quest"))
    assert "Kendall" in text


def test_a_single_seed_has_no_interval() -> None:
    text = as_markdown(analyse(_rows({"standard": [1.0], "knn": [2.0]})))
    assert "nan" not in text
    assert "+1.000" in text


def test_rows_are_one_a_method_and_measure() -> None:
    made = [row for measure in "ab" for row in _rows({"standard": [1.0, 2.0], "knn": [2.0, 2.5]}, measure=measure)]
    told = as_rows(analyse(made))
    assert [(row["measure"], row["place"], row["method"]) for row in told] == [
        (measure, place, method) for measure, (place, method) in product("ab", [(1, "knn"), (2, "standard")])
    ]
    assert all(row["seeds"] == 2 for row in told)


def test_variants_are_compared_with_another_baseline() -> None:
    rows = _rows({"standard": [0.0, 5.0], "nextlong": [3.0, 7.0], "nextlong-random": [2.0, 5.0]})
    (outcome,) = analyse(rows, baseline="nextlong")
    differences = {each.method: each.difference for each in outcome.methods}
    assert differences["nextlong"] is None
    assert differences["nextlong-random"] is not None
    assert differences["nextlong-random"].mean == pytest.approx(-1.5)
    assert "against nextlong" in as_markdown([outcome])
