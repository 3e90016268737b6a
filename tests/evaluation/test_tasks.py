"""Examples of every task: answered by who reads them, of the length asked for, the same wherever they are made."""

import hashlib
import json
import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from evaluation import scoring
from evaluation.example import Example
from evaluation.haystack import plain
from evaluation.tasks import TASKS, examples
from nextlong.errors import UserError
from tests.conftest import make_texts
from tests.evaluation import oracle
from tests.evaluation.tokenizers_made import KINDS, made, unigram

ROOT = Path(__file__).parents[2]
OWN = "\n\n".join(text for _, text in make_texts(60, seed=4))
CHINESE = "长城很长。人们在那里走了一整天，傍晚才回到村子里！" * 300
HAYS = {"noise": None, "needles": "needles", "text": OWN, "chinese": CHINESE, "no stops": "flour water salt " * 4000}
IN_HAY = ("needle", "multikey", "multivalue", "variables")


def ask(task: str, kind: str = "byte_level", length: int = 1200, **changed: object) -> list[Example]:
    told: dict[str, object] = {"number": 2, "seed": 5, "depths": [0.0, 0.4, 1.0], "hay": None}
    return examples(task, made(kind), length, **(told | changed))  # type: ignore[arg-type]


def whole(example: Example, kind: str) -> int:
    return len(made(kind).encode(example.context + example.question).ids)


@pytest.mark.parametrize("hay", HAYS)
@pytest.mark.parametrize("task", TASKS)
def test_a_program_that_reads_the_text_gets_100(task: str, hay: str) -> None:
    for each in ask(task, hay=HAYS[hay], number=3):
        answer = oracle.answer(each)
        assert scoring.score(each, answer) == 1, (answer, each.answers)
        assert len(made("byte_level").encode(answer).ids) <= each.max_new_tokens


@pytest.mark.parametrize("task", TASKS)
def test_a_guesser_gets_chance(task: str) -> None:
    """Who knows the form of an answer, but not which: a share of answers that is known."""
    rng = np.random.default_rng(0)
    asked = ask(task, number=4, length=2000)
    chances = [len(each.answers) / len(set(oracle.choices(each))) for each in asked]
    scores = [[scoring.score(each, oracle.guess(each, rng)) for _ in range(100)] for each in asked]
    assert np.mean(scores) == pytest.approx(np.mean(chances), abs=0.06)
    expected = {"needle": 1, "multikey": 1 / 4, "multivalue": 1, "variables": 1 / 3}  # of what stands in the text
    assert np.mean(chances) == pytest.approx(expected.get(task, 0), abs=0.12)
    made_up = [scoring.score(each, str(rng.integers(10**6, 10**7))) for each in asked]
    assert not any(made_up)


KNOWN = [(kind, hay) for kind in KINDS for hay in HAYS if (kind, hay) != ("unigram", "chinese")]


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(("kind", "hay"), KNOWN)
def test_examples_fill_their_length_and_never_exceed_it(task: str, kind: str, hay: str) -> None:
    for length in (1024, 3000):
        found = ask(task, kind, length, hay=HAYS[hay], number=1)
        assert len(found) == (3 if task in ("needle", "multikey", "key_value") else 1)
        for each in found:
            assert length * 0.98 <= whole(each, kind) + each.max_new_tokens <= length


def test_a_short_length_is_filled_but_for_a_sentence_and_a_long_one_but_for_1_in_400() -> None:
    for task in TASKS:
        for length, missing in ((650, 30), (40_000, 100)):
            for each in ask(task, length=length, number=1, depths=[0.3]):
                assert length - missing <= whole(each, "byte_level") + each.max_new_tokens <= length


def test_hay_of_letters_that_a_tokenizer_does_not_know_is_refused() -> None:
    with pytest.raises(UserError, match=r"a token of [0-9,]+ characters of the hay, so it knows none of its letters"):
        ask("needle", "unigram", hay=CHINESE)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("task", TASKS)
def test_a_length_that_is_too_small_is_refused_and_the_least_one_told(task: str, kind: str) -> None:
    with pytest.raises(UserError, match=f"task {task} takes at least [0-9,]+ tokens by this tokenizer, so 100 are"):
        ask(task, kind, 100)
    with pytest.raises(UserError) as caught:
        ask(task, kind, 100, depths=[0.5], number=1)
    told = re.search(r"at least ([0-9,]+)", str(caught.value))
    assert told is not None
    least = int(told.group(1).replace(",", ""))
    found = ask(task, kind, least + 40, depths=[0.5], number=1)  # another length has other random names
    assert all(whole(each, kind) + each.max_new_tokens <= least + 40 for each in found)


@pytest.mark.parametrize(("kind", "hay"), [each for each in KNOWN if each[0] != "word_piece"])
@pytest.mark.parametrize("task", ["needle", "multikey"])
def test_needles_stand_at_their_depth_within_a_sentence(task: str, kind: str, hay: str) -> None:
    depths = [0.0, 0.1, 0.35, 0.5, 0.8, 1.0]
    for each in ask(task, kind, 6000, depths=depths, number=1, hay=HAYS[hay]):
        text = each.context.split("\n\n", 1)[1]
        name = each.query.split()[-1]
        stated = re.search(rf"Write it down: a door code of the house called {name} is \d+\.", text)
        assert stated is not None
        before, needle, total = (_tokens(kind, part) for part in (text[: stated.start()], stated.group(), text))
        assert each.depth is not None
        sentence = 64 * _tokens(kind, " flour water salt") / 3 if hay == "no stops" else 130
        assert abs(before - each.depth * (total - needle)) <= sentence / 2 + 5


def _tokens(kind: str, text: str) -> int:
    return len(made(kind).encode(text, add_special_tokens=False).ids)


def test_a_pair_stands_at_its_depth() -> None:
    for each in ask("key_value", length=4000, depths=[0.0, 0.25, 1.0]):
        pairs = list(json.loads(each.context.split("\n\n")[1]))[:-1]
        assert each.depth is not None
        assert pairs.index(each.query) == round(each.depth * (len(pairs) - 1))


@pytest.mark.parametrize(("task", "contexts"), [("needle", 6), ("multikey", 2), ("key_value", 2)])
def test_questions_on_one_context_follow_one_another(task: str, contexts: int) -> None:
    found = ask(task)
    changes = sum(before.context != after.context for before, after in pairwise(found))
    assert len({each.context for each in found}) == contexts == changes + 1
    assert len({each.question for each in found}) == 6


@pytest.mark.parametrize("task", TASKS)
def test_no_token_spans_context_and_question(task: str) -> None:
    """Of byte-level BPE, which most models have: what was computed of a context is good for each of its questions."""
    for each in ask(task):
        parts = _ids(each.context) + _ids(each.question)
        assert parts == _ids(each.context + each.question)
        assert "\n" not in each.context[-2:-1]


def _ids(text: str) -> list[int]:
    return made("byte_level").encode(text, add_special_tokens=False).ids


def test_assignments_of_a_chain_stand_in_their_order() -> None:
    for each in ask("variables", number=5):
        places = [each.context.index(f"Set {name} to") for name in each.answers]
        assert places == sorted(places)


def test_the_third_word_is_more_frequent_than_the_fourth() -> None:
    for length in (450, 460, 600, 3000):
        for each in ask("frequent_words", length=length):
            counts = [each.context.split().count(word) for word in each.answers]
            others = set(each.context.split("\n\n")[1].split()) - set(each.answers)
            assert counts == sorted(counts, reverse=True)
            assert counts[2] > max(each.context.split().count(word) for word in others)


def test_own_text_begins_at_a_seeded_sentence_and_says_when_it_is_repeated() -> None:
    found = [ask("needle", number=1, depths=[0.5], hay=OWN, seed=seed)[0] for seed in range(4)]
    beginnings = {each.context.split("\n\n")[1][:40] for each in found}
    assert len(beginnings) == 4
    assert {each.hay for each in found} == {"text"}
    own = plain(OWN)
    for each in found:
        text = re.sub(r" ?Write it down: .* is \d+\. ?", " ", each.context.split("\n\n", 1)[1])
        assert " ".join(text.split()) in " ".join(f"{own} {own}".split())
        assert re.search(r"([.!?] |\n|^)$", own[: own.index(text[:60])])
    assert ask("needle", number=1, hay=OWN[:2000])[0].hay == "text, repeated"
    assert ask("needle", number=1, hay="A word.")[0].hay == "text, repeated"
    assert {each.hay for each in ask("multivalue", hay="needles")} == {"needles"}


def test_more_examples_leave_the_first_ones_as_they_are() -> None:
    for task in TASKS:
        few, many = ask(task, number=1), ask(task, number=2)
        assert many[: len(few)] == few
        assert ask(task, number=1, seed=6) != few


def digest() -> str:
    """Of examples of every task and hay, by a tokenizer that no training made."""
    found = [ask(task, "every_byte", hay=hay) for task in TASKS for hay in (None, "needles", OWN)]
    assert len(found) == 18
    return hashlib.sha256(json.dumps(found).encode()).hexdigest()


def test_examples_are_the_same_in_another_process_and_on_another_machine() -> None:
    """Where it fails on purpose, raise example_cache's _FORMAT_VERSION."""
    told = subprocess.run(
        [sys.executable, "-c", "from tests.evaluation.test_tasks import digest; print(digest())"],
        cwd=ROOT, env=os.environ | {"PYTHONHASHSEED": "1"}, check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    assert told.strip() == digest() == "6c99b902915c946d959f5720aca1a5a3682eabc21a069e579079f3f788f8eaeb"


def test_a_tokenizer_that_truncates_or_pads_is_counted_without() -> None:
    tokenizer = Tokenizer.from_str(made("byte_level").to_str())
    tokenizer.enable_truncation(64)
    tokenizer.enable_padding(length=5000)
    told = {"number": 1, "seed": 5, "depths": [0.5], "hay": None}
    assert examples("needle", tokenizer, 1200, **told) == ask("needle", **told)
    assert tokenizer.truncation is not None


def test_a_tokenizer_that_loses_letters_or_digits_is_refused() -> None:
    words = Tokenizer(models.WordLevel({"<unk>": 0, "the": 1}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    no_decoder = Tokenizer.from_str(made("byte_level").to_str())
    no_decoder.decoder = None  # type: ignore[assignment]
    for tokenizer in (words, unigram(letters="".join(chr(each) for each in range(97, 123))), no_decoder):
        for task in TASKS:
            with pytest.raises(UserError, match=f"task {task}: the tokenizer does not give back"):
                examples(task, tokenizer, 4096, number=1, seed=0, depths=[0.5], hay=None)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"task": "neddle"}, r"no task 'neddle', only needle, .*\. Did you mean needle\?"),
        ({"task": ""}, "no task ''"),
        ({"depths": [0.5, 1.01]}, "depths are numbers from 0 .* not 0.5, 1.01"),
        ({"depths": [-0.1]}, "not -0.1"),
        ({"depths": [float("nan")]}, "not nan"),
        ({"depths": []}, "not none"),
        ({"hay": ""}, "hay is empty"),
        ({"hay": " \n\u3000\t"}, "hay is empty"),
        ({"number": 0}, "number of examples and a length are at least 1"),
        ({"length": 0}, "a length are at least 1"),
        ({"seed": -1}, "a seed at least 0"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_a_sentence(changed: dict[str, object], told: str) -> None:
    with pytest.raises(UserError, match=told):
        ask(**({"task": "needle"} | changed))  # type: ignore[arg-type]
