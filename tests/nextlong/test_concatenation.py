"""Concatenation: the windows of the slow twins, and an outcome for every document."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pytest

from nextlong.concatenation import DocumentNeighbours, Documents, Gathered, gather
from nextlong.config import Synthesis
from tests import reference

Neighbours = dict[int, list[tuple[int, float]]]
STRATEGIES = ["standard", "knn", "iclm", "quest"]
NUM_CORPORA = 120


class Corpus(NamedTuple):
    tokens: dict[int, int]
    nearest: Neighbours
    keywords: dict[int, list[str]]


def random_corpus(seed: int, num_documents: int = 40) -> Corpus:
    """Some documents have no tokens, some no neighbours, some no keyword; few different scores, no symmetry."""
    rng = np.random.default_rng([99, seed])
    doc_ids = np.sort(rng.choice(500, num_documents, replace=False)).tolist()
    tokens = {doc_id: int(rng.integers(1, 9)) if rng.random() > 0.2 else 0 for doc_id in doc_ids}
    with_tokens = [doc_id for doc_id in doc_ids if tokens[doc_id]]
    connected = [doc_id for doc_id in with_tokens if rng.random() > 0.2]
    scores = np.float32(rng.integers(-2, 6, (500, 500)) / 10)
    nearest: Neighbours = {}
    for doc_id in with_tokens:
        others = rng.permutation(connected)[: rng.integers(6)].tolist() if doc_id in connected else []
        listed = [(other, scores[doc_id, other].item()) for other in others if other != doc_id]
        nearest[doc_id] = sorted(listed, key=lambda pair: (-pair[1], pair[0]))
    words = [f"word {number**2 // 100}" for number in range(100)]  # the later ones are seldom shared
    keywords = {doc_id: rng.choice(words, rng.integers(5)).tolist() for doc_id in doc_ids if rng.random() > 0.1}
    return Corpus(tokens, nearest, keywords)


def random_synthesis(strategy: str, seed: int) -> Synthesis:
    lengths = [(6, None), (6, 3), (25, None), ([5, 16, 9], None), ([5, 16], 2), ([16, 5], [1, 7])]
    target, num_samples = lengths[seed % len(lengths)]
    return Synthesis(
        strategy=strategy,
        target_length_tokens=target,
        num_samples=num_samples,
        seed=seed,
        keyword_oversampling=1 + seed % 3,
    )


def gathered(corpus: Corpus, strategy: str, target: int | list[int] = 6, **settings: object) -> Gathered:
    return gather_by(corpus, Synthesis(strategy=strategy, target_length_tokens=target, **settings))


def gather_by(corpus: Corpus, synthesis: Synthesis) -> Gathered:
    """Give the module what its strategy reads, and nothing else."""
    doc_ids, num_tokens = (np.array(list(column)) for column in (corpus.tokens, corpus.tokens.values()))
    return gather(
        Documents(doc_ids, num_tokens),
        synthesis,
        neighbours=as_arrays(corpus.nearest) if synthesis.strategy in ("knn", "iclm") else None,
        keywords=corpus.keywords if synthesis.strategy == "quest" else None,
    )


def as_arrays(nearest: Neighbours) -> DocumentNeighbours:
    shape = len(nearest), max(map(len, nearest.values()), default=0)
    ids, scores = np.full(shape, -1), np.full(shape, np.inf, np.float32)
    for row, listed in enumerate(nearest.values()):
        for rank, pair in enumerate(listed):
            ids[row, rank], scores[row, rank] = pair
    return DocumentNeighbours(np.array(list(nearest)), ids, scores)


def expected(corpus: Corpus, synthesis: Synthesis) -> tuple[list[reference.Gathered], Counter[str]]:
    """The twins' windows, and what became of every document."""
    sizes = {doc_id: tokens for doc_id, tokens in corpus.tokens.items() if tokens}
    keywords = {doc_id: corpus.keywords.get(doc_id, []) for doc_id in sizes}
    if synthesis.strategy == "knn":
        windows = reference.knn_groups(corpus.nearest, sizes, synthesis)
        too_short = unsuccessful_seeds(windows, sizes, synthesis)
    elif synthesis.strategy == "iclm":
        path = reference.iclm_path(with_higher_scores(corpus.nearest))
        windows, too_short = complete_and_rest(path, sizes, synthesis)
        windows = reference.shuffled(windows, synthesis.seed)
    elif synthesis.strategy == "quest":
        windows, too_short = complete_and_rest(reference.quest_stream(keywords, synthesis), sizes, synthesis)
    else:
        windows, too_short = complete_and_rest(reference.standard_stream(sizes, synthesis.seed), sizes, synthesis)
    kept = reference.first_wanted(windows, synthesis.wanted)
    if synthesis.strategy in ("standard", "quest") and num_by_length(kept, synthesis) == synthesis.wanted:
        too_short = set()  # all there are to be: no window was begun after the last one
    outcomes: Counter[str] = Counter()
    for doc_id in corpus.tokens:
        others = {word for other, listed in keywords.items() if other != doc_id for word in listed}
        if doc_id not in sizes:
            outcomes["no_tokens"] += 1
        elif synthesis.strategy == "quest" and not others & set(keywords[doc_id]):
            outcomes["no_shared_keyword" if keywords[doc_id] else "no_keyword"] += 1
        elif doc_id in doc_ids_of(kept):
            outcomes["kept"] += 1
        else:
            outcomes["too_short" if doc_id in too_short else "not_drawn"] += 1
    return kept, outcomes


def complete_and_rest(
    stream: list[reference.Member], sizes: dict[int, int], synthesis: Synthesis
) -> tuple[list[reference.Gathered], set[int]]:
    """A huge document at the end of the stream completes its last window, and shows what was in it."""
    *complete, last = reference.windows([*stream, reference.Member(-1, -1, None)], sizes | {-1: 10**9}, synthesis)
    return complete, {member.doc_id for member in last.members} - {-1}


def unsuccessful_seeds(windows: list[reference.Gathered], sizes: dict[int, int], synthesis: Synthesis) -> set[int]:
    """Unused documents on whose turn their length was still wanted."""
    seeds = reference.standard_stream(sizes, synthesis.seed)
    found = set()
    for turn, length in enumerate(reference.drawn_lengths(synthesis, len(seeds))):
        before = [window for window in windows if window.sample_id < turn]
        if num_by_length(before, synthesis)[length] != synthesis.wanted[length]:
            found.add(seeds[turn].doc_id)
    return found - set(doc_ids_of(windows))


def with_higher_scores(nearest: Neighbours) -> Neighbours:
    """Both of two documents that list each other get the higher of their scores."""
    return {
        doc_id: [(other, max(score, dict(nearest[other]).get(doc_id, score))) for other, score in listed]
        for doc_id, listed in nearest.items()
    }


def num_by_length(windows: Sequence[reference.Gathered], synthesis: Synthesis) -> list[int]:
    return [sum(window.length == length for window in windows) for length in range(len(synthesis.targets))]


def doc_ids_of(windows: Sequence[reference.Gathered]) -> list[int]:
    return [member.doc_id for window in windows for member in window.members]


def members(found: Gathered) -> list[list[int]]:
    return [[member.doc_id for member in window.members] for window in found.windows]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_windows_and_outcomes_are_those_of_the_twin(strategy: str) -> None:
    seen: Counter[str] = Counter()
    for seed in range(NUM_CORPORA):
        corpus, synthesis = random_corpus(seed), random_synthesis(strategy, seed)
        found = gather_by(corpus, synthesis)
        windows, outcomes = expected(corpus, synthesis)
        assert found.windows == windows
        assert found.outcomes == outcomes
        assert found.outcomes.total() == len(corpus.tokens)
        assert min(found.outcomes.values()) > 0
        seen += outcomes + Counter(windows=len(windows), several=any(len(window.members) > 2 for window in windows))
    names = {"windows", "several", "kept", "no_tokens", "too_short", "not_drawn"}
    assert set(seen) == names | ({"no_keyword", "no_shared_keyword"} if strategy == "quest" else set())
    assert min(seen.values()) > NUM_CORPORA / 4


@pytest.mark.parametrize("strategy", ["standard", "knn", "iclm"])
def test_no_document_is_used_twice(strategy: str) -> None:
    for seed in range(20):
        used = doc_ids_of(gather_by(random_corpus(seed), random_synthesis(strategy, 6 * seed)).windows)
        assert len(used) == len(set(used)) > 1


def test_quest_repeats_documents_but_not_in_one_window() -> None:
    repeated = 0
    for seed in range(20):
        windows = gathered(random_corpus(seed), "quest", 12, seed=seed, keyword_oversampling=3).windows
        assert all(len(set(doc_ids_of([window]))) == len(window.members) for window in windows)
        repeated += len(set(doc_ids_of(windows))) < len(doc_ids_of(windows))
    assert repeated == 20


@pytest.mark.parametrize("strategy", ["standard", "iclm"])
def test_a_window_as_long_as_the_corpus_has_every_document_once(strategy: str) -> None:
    for seed in range(20):
        corpus = random_corpus(seed)
        found = gathered(corpus, strategy, sum(corpus.tokens.values()), seed=seed)
        assert sorted(members(found)[0]) == sorted(corpus.nearest)
        assert set(found.outcomes) == {"kept", "no_tokens"}
        path = reference.iclm_path(with_higher_scores(corpus.nearest))
        if strategy == "iclm":
            assert found.windows[0].members == path
            assert sum(member.score is not None for member in path) > 5


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_length_has_no_more_windows_than_wanted_and_those_are_the_first(strategy: str) -> None:
    corpus = random_corpus(3, num_documents=80)
    every = gathered(corpus, strategy, [5, 9]).windows
    few = gathered(corpus, strategy, [5, 9], num_samples=2).windows
    assert Counter(window.length for window in few) == {0: 2, 1: 2}
    assert len(every) > 6
    if strategy != "knn":  # there, what an unwanted window would have used is free for the next ones
        assert few == reference.first_wanted(every, [2, 2])


TOKENS = {1: 3, 2: 2, 5: 4, 6: 1, 8: 2, 9: 0}


@pytest.mark.parametrize(
    ("target", "num_samples", "windows", "outcomes"),
    [
        (5, None, [[2, 8, 6], [1, 5]], {"kept": 5}),
        (6, None, [[2, 8, 6, 1]], {"kept": 4, "too_short": 1}),
        (5, 1, [[2, 8, 6]], {"kept": 3, "not_drawn": 2}),
        (6, 1, [[2, 8, 6, 1]], {"kept": 4, "not_drawn": 1}),
        # The lengths drawn are 6, 2, 2: after 2, 8, 6, 1 comes 5 alone.
        ([2, 6], None, [[2, 8, 6, 1], [5]], {"kept": 5}),
        (13, None, [], {"too_short": 5}),
    ],
)
def test_standard_by_hand(
    target: int | list[int], num_samples: int | None, windows: list[list[int]], outcomes: dict[str, int]
) -> None:
    assert np.random.default_rng([0, 1]).permutation([1, 2, 5, 6, 8]).tolist() == [2, 8, 6, 1, 5]
    assert np.random.default_rng([0, 4]).choice(2, size=3, p=[0.5, 0.5]).tolist() == [1, 0, 0]
    found = gathered(Corpus(TOKENS, {}, {}), "standard", target, num_samples=num_samples)
    assert members(found) == windows
    assert found.outcomes == outcomes | {"no_tokens": 1}


NEAREST: Neighbours = {
    1: [(5, 0.5), (6, 0.25)],
    2: [(5, 0.875)],
    5: [],
    6: [(5, 0.875), (1, 0.75)],
    8: [(2, 0.75), (1, 0.5)],
}


@pytest.mark.parametrize(
    ("target", "num_samples", "windows", "outcomes"),
    [
        # The order is 2, 8, 6, 1, 5. 2 takes 5; 8 finds 2 used and takes its second; 6 finds both used.
        (5, None, {0: [(2, -1, None), (5, 0, 0.875)], 1: [(8, -1, None), (1, 1, 0.5)]}, {"kept": 4, "too_short": 1}),
        # 2 and 5 have 6 tokens, so 2 stays free, and 8 takes it; 6 with 5 has 5, 5 alone 4.
        (7, None, {1: [(8, -1, None), (2, 0, 0.75), (1, 1, 0.5)]}, {"kept": 3, "too_short": 2}),
        # After 2 with 5 nobody has a turn.
        (5, 1, {0: [(2, -1, None), (5, 0, 0.875)]}, {"kept": 2, "not_drawn": 3}),
        # 2 with 5, then 8 with 2 and 1 are too short.
        (8, 1, {2: [(6, -1, None), (5, 0, 0.875), (1, 1, 0.75)]}, {"kept": 3, "too_short": 2}),
        # Who has enough tokens takes no neighbour.
        (1, None, {turn: [(doc_id, -1, None)] for turn, doc_id in enumerate([2, 8, 6, 1, 5])}, {"kept": 5}),
    ],
)
def test_knn_by_hand(
    target: int, num_samples: int | None, windows: dict[int, list[tuple]], outcomes: dict[str, int]
) -> None:
    found = gathered(Corpus(TOKENS, NEAREST, {}), "knn", target, num_samples=num_samples)
    assert {window.sample_id: window.members for window in found.windows} == windows
    assert found.outcomes == outcomes | {"no_tokens": 1}


# 8 is alone; 1, 5 and 6 have one edge; 1 says 0.5 of 2, and 2 says 0.25 of 1: the higher counts.
GRAPH: Neighbours = {1: [(2, 0.5)], 2: [(5, 0.5), (6, 0.5), (1, 0.25)], 5: [], 6: [], 8: []}


@pytest.mark.parametrize(
    ("target", "num_samples", "windows", "outcomes"),
    [
        (12, None, [[(8, None), (1, None), (2, 0.5), (5, 0.5), (6, None)]], {"kept": 5}),
        # Cut after 1 and after 5; the order of two is drawn as 1, 0 with seed 4. The first of a window has no score.
        (5, None, [[(2, None), (5, 0.5)], [(8, None), (1, None)]], {"kept": 4, "too_short": 1}),
        (5, 1, [[(2, None), (5, 0.5)]], {"kept": 2, "too_short": 1, "not_drawn": 2}),
    ],
)
def test_iclm_by_hand(
    target: int, num_samples: int | None, windows: list[list[tuple]], outcomes: dict[str, int]
) -> None:
    assert np.random.default_rng([4, 1]).permutation(2).tolist() == [1, 0]
    found = gathered(Corpus(TOKENS, GRAPH, {}), "iclm", target, num_samples=num_samples, seed=4)
    assert [[(doc_id, score) for doc_id, _, score in window.members] for window in found.windows] == windows
    assert [window.sample_id for window in found.windows] == list(range(len(windows)))
    assert found.outcomes == outcomes | {"no_tokens": 1}


# "with 9" is no other document's: 9 has no tokens.
KEYWORDS = {1: ["x"], 2: ["x", "x"], 5: ["only 5", "y"], 6: ["y"], 8: ["with 9"], 9: ["with 9", "x", "y"]}


@pytest.mark.parametrize(
    ("target", "num_samples", "windows", "outcomes"),
    [
        # x is the rarer half of two keywords and stands twice; drawn are x, y, x with seed 2.
        (1, None, [[1], [2], [5], [6], [1], [2]], {"kept": 4}),
        (7, None, [[1, 2, 5]], {"kept": 3, "too_short": 1}),
        # 6, 1 and 2 are a second window of 6 tokens.
        (6, None, [[1, 2, 5], [6, 1, 2]], {"kept": 4}),
        (6, 1, [[1, 2, 5]], {"kept": 3, "not_drawn": 1}),
    ],
)
def test_quest_by_hand(
    target: int, num_samples: int | None, windows: list[list[int]], outcomes: dict[str, int]
) -> None:
    rng = np.random.default_rng([2, 1])
    assert rng.permutation(3).tolist() == [0, 2, 1]
    assert [rng.permutation(group).tolist() for group in ([1, 2], [5, 6], [1, 2])] == [[1, 2], [5, 6], [1, 2]]
    found = gathered(Corpus(TOKENS, {}, KEYWORDS), "quest", target, num_samples=num_samples, seed=2)
    assert members(found) == windows
    assert found.outcomes == outcomes | {"no_tokens": 1, "no_shared_keyword": 1}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_without_documents_there_are_no_windows(strategy: str) -> None:
    found = gathered(Corpus({4: 0, 7: 0}, {}, {}), strategy)
    assert found == ([], {"no_tokens": 2})


@pytest.mark.parametrize("strategy", ["nextlong", "knn", "iclm", "quest"])
def test_what_a_strategy_reads_must_be_given(strategy: str) -> None:
    documents = Documents(np.array([1]), np.array([1]))
    with pytest.raises(ValueError, match=f"strategy {strategy} gathers no whole documents, or lacks its neighbours"):
        gather(documents, Synthesis(strategy=strategy, target_length_tokens=1))


def test_neighbours_of_other_documents_are_refused() -> None:
    documents = Documents(np.array([1, 2]), np.array([1, 0]))
    with pytest.raises(ValueError, match="not those of the documents with tokens"):
        gather(
            documents, Synthesis(strategy="knn", target_length_tokens=1), neighbours=as_arrays({1: [(2, 0.5)], 2: []})
        )
