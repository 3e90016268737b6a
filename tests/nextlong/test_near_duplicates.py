"""Near-duplicates: thresholds are inclusive, counts cover all that was compared, examples are the nearest."""

from typing import Any

import numpy as np
import pytest

from nextlong.near_duplicates import THRESHOLDS, NearDuplicateRules, NearDuplicates, total

JUST_BELOW = np.nextafter(np.float32(0.9), np.float32(0))
SKETCHES = np.array([[1, 2, 3, 4], [1, 2, 9, 9], [1, 9, 9, 9], [1, 2, 3, 4], [9, 2, 3, 4]], np.uint32)


def found(rules: NearDuplicates, query: int, ids: list[int], scores: list[float]) -> tuple[list[bool], list[bool]]:
    by_similarity, by_overlap = rules.find(
        np.full(len(ids), query), np.array(ids, np.int64), np.array(scores, np.float32)
    )
    return by_similarity.tolist(), by_overlap.tolist()


def test_from_the_threshold_on_a_candidate_is_a_near_duplicate() -> None:
    rules = NearDuplicates(NearDuplicateRules(similarity=0.9))
    assert found(rules, 0, [1, 2, 3, 4], [1.0, 0.9, JUST_BELOW, -0.2]) == ([True, True, False, False], [False] * 4)


def test_overlaps_are_estimated_from_the_sketches_of_query_and_candidates() -> None:
    """Of the four numbers of sketch 0, its candidates share 1 (id 2), 4 (id 3), 2 (id 1) and 3 (id 4)."""
    rules = NearDuplicates(NearDuplicateRules(overlap=0.5, fetch_sketches=SKETCHES.__getitem__))
    assert found(rules, 0, [2, 3, 1, 4], [0.99, 0.1, 0.1, 0.1]) == ([False] * 4, [False, True, True, True])
    assert rules.to_dict()["overlap"]["just_below"] == [[0.25, 0, 2]]


def test_each_rule_is_applied_whatever_the_other_says() -> None:
    both = NearDuplicateRules(similarity=0.9, overlap=0.5, fetch_sketches=SKETCHES.__getitem__)
    rules = NearDuplicates(both)
    assert found(rules, 0, [3, 2, 1], [0.95, 0.95, 0.1]) == ([True, True, False], [True, False, True])
    assert {name: facts["compared"] for name, facts in rules.to_dict().items()} == {"similarity": 3, "overlap": 3}


def test_without_rules_nothing_is_a_near_duplicate_or_counted() -> None:
    rules = NearDuplicates(NearDuplicateRules())
    assert found(rules, 0, [1, 2], [1.0, 1.0]) == ([False, False], [False, False])
    assert rules.to_dict() == {}


def test_overlaps_need_sketches() -> None:
    rules = NearDuplicates(NearDuplicateRules(overlap=0.5))
    with pytest.raises(ValueError, match="near_duplicate_overlap needs sketches of the chunks"):
        found(rules, 0, [1], [0.5])


def test_counts_say_how_many_reach_each_threshold() -> None:
    """0.75 is no threshold of the list: the recipe's own has its place among them."""
    rules = NearDuplicates(NearDuplicateRules(similarity=0.75))
    found(rules, 0, [1, 2, 3], [1.0, 0.97, 0.5])
    found(rules, 7, [4, 5, 6], [0.75, 0.7499, -0.3])
    found(rules, 8, [], [])
    facts = rules.to_dict()["similarity"]
    assert (facts["threshold"], facts["compared"]) == (0.75, 6)
    assert list(facts["at_or_above"].items()) == [
        ("0.5", 5), ("0.6", 4), ("0.7", 4), ("0.75", 3), ("0.8", 2), ("0.85", 2), ("0.9", 2), ("0.95", 2),
        ("0.98", 1), ("0.99", 1), ("1.0", 1),
    ]  # fmt: skip


def test_what_is_counted_at_the_threshold_is_what_is_dropped() -> None:
    for threshold in THRESHOLDS:
        rules = NearDuplicates(NearDuplicateRules(similarity=threshold))
        levels = np.array(THRESHOLDS, np.float32)
        scores = np.concatenate([levels, np.nextafter(levels, np.float32(0))])
        is_near, _ = rules.find(np.zeros(len(scores), np.int64), np.arange(len(scores)), scores)
        at_or_above = rules.to_dict()["similarity"]["at_or_above"]
        assert is_near.sum() == at_or_above[str(threshold)] == sum(scores >= np.float32(threshold)) > 0
        assert list(at_or_above) == [str(level) for level in THRESHOLDS]


def test_examples_are_the_four_nearest_on_either_side_ties_by_meta_chunk_then_candidate() -> None:
    rules = NearDuplicates(NearDuplicateRules(similarity=0.5))
    found(rules, 9, [1, 2, 3, 4, 5, 6], [1.0, 0.75, 0.625, 0.4375, 0.25, 0.125])
    found(rules, 8, [30, 31, 32], [0.625, 0.5, 0.4375])
    found(rules, 8, [20, 21, 22], [0.625, 0.375, 0.4375])
    facts = rules.to_dict()["similarity"]
    assert facts["just_above"] == [[0.5, 8, 31], [0.625, 8, 20], [0.625, 8, 30], [0.625, 9, 3]]
    assert facts["just_below"] == [[0.4375, 8, 22], [0.4375, 8, 32], [0.4375, 9, 4], [0.375, 8, 21]]


def test_of_more_equals_than_four_the_examples_are_the_lowest_ids_in_whatever_order_they_come() -> None:
    rules = NearDuplicates(NearDuplicateRules(similarity=0.5))
    found(rules, 9, [6, 5, 4, 3, 2, 1], [0.25] * 6)
    assert rules.to_dict()["similarity"]["just_below"] == [[0.25, 9, number] for number in (1, 2, 3, 4)]


def test_fewer_than_four_examples_are_all_there_are() -> None:
    rules = NearDuplicates(NearDuplicateRules(similarity=0.5))
    found(rules, 3, [4], [0.75])
    facts = rules.to_dict()["similarity"]
    assert (facts["just_below"], facts["just_above"]) == ([], [[0.75, 3, 4]])


def part(compared: int, counts: list[int], below: list[list[Any]], above: list[list[Any]]) -> dict[str, Any]:
    levels = {"0.5": counts[0], "0.9": counts[1]}
    return {
        "similarity": {
            "threshold": 0.5, "compared": compared, "at_or_above": levels, "just_below": below, "just_above": above,
        }
    }  # fmt: skip


def test_a_total_adds_parts_and_keeps_the_nearest_examples() -> None:
    one = part(9, [5, 2], [[0.4, 1, 2], [0.1, 1, 3]], [[0.6, 1, 4], [0.8, 1, 5], [0.9, 1, 6], [1.0, 1, 7]])
    other = part(4, [2, 0], [[0.45, 8, 2]], [[0.5, 9, 1], [0.6, 0, 9]])
    nearest_below = [[0.45, 8, 2], [0.4, 1, 2], [0.1, 1, 3]]
    nearest_above = [[0.5, 9, 1], [0.6, 0, 9], [0.6, 1, 4], [0.8, 1, 5]]
    expected = part(13, [7, 2], nearest_below, nearest_above)
    assert total([one, other]) == total([other, one]) == expected
    assert total([one]) == one


def test_a_total_keeps_rules_apart_and_of_nothing_is_nothing() -> None:
    rules = NearDuplicates(NearDuplicateRules(0.9, 0.5, SKETCHES.__getitem__))
    found(rules, 0, [3, 2, 1], [0.95, 0.95, 0.1])
    twice = total([rules.to_dict(), rules.to_dict()])
    assert {name: facts["at_or_above"]["0.5"] for name, facts in twice.items()} == {"similarity": 4, "overlap": 4}
    assert {name: facts["at_or_above"]["0.8"] for name, facts in twice.items()} == {"similarity": 4, "overlap": 2}
    assert total([]) == total([{}, {}]) == {}


def test_the_total_of_parts_is_what_one_alone_would_have_met() -> None:
    rng = np.random.default_rng(2)
    rules = [NearDuplicates(NearDuplicateRules(similarity=0.9)) for _ in range(4)]
    for query in range(60):
        ids = np.sort(rng.choice(1000, 20, replace=False))
        scores = np.sort(rng.random(20, np.float32).round(2))[::-1]
        for each in (rules[0], rules[1 + query % 3]):
            each.find(np.full(20, query), ids, scores)
    whole, parts = rules[0].to_dict(), [each.to_dict() for each in rules[1:]]
    assert whole["similarity"]["compared"] == 1200
    assert all(len(whole["similarity"][side]) == 4 for side in ("just_below", "just_above"))
    assert total(parts) == total(parts[::-1]) == whole
