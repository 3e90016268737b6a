"""The slow twin gives what a person gets by hand."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nextlong.config import Mining, Synthesis
from tests import reference
from tests.reference import Negative

TEXTS = st.one_of(
    st.text(alphabet=st.sampled_from("ab .\n。!\t"), max_size=120),
    st.text(alphabet=st.sampled_from('a.”"\n\r\u2028\u3000'), max_size=120),
    st.text(max_size=120),
)


@pytest.mark.parametrize(
    ("text", "granularity", "chunks"),
    [
        ("", 3, [""]),
        ("ab\nc\nd", 3, ["ab\nc", "d"]),  # 2 + 1 characters, the newline is not counted
        ("abcd\ne", 3, ["abcd", "e"]),  # too long a paragraph stands alone, and nothing is emitted before it
        ("\n\nabcd", 3, ["abcd"]),  # the two blank lines are lost
        ("a\n\nabcd", 3, ["a\n", "abcd"]),  # behind text they stay
        ("abcd\n\n", 3, ["abcd", "\n"]),  # the last group always comes out
        ("\n\n", 3, ["\n\n"]),
    ],
)
def test_published_chunks_by_hand(text: str, granularity: int, chunks: list[str]) -> None:
    assert reference.published_chunks(text, granularity) == chunks


@given(TEXTS, st.integers(1, 20))
def test_published_chunks_lose_newlines_only_and_exceed_only_with_one_paragraph(text: str, granularity: int) -> None:
    chunks = reference.published_chunks(text, granularity)
    assert "".join(chunks).replace("\n", "") == text.replace("\n", "")
    for chunk in chunks:
        assert len(chunk.replace("\n", "")) <= granularity or "\n" not in chunk


@given(TEXTS, st.integers(1, 20))
def test_published_chunks_give_a_text_without_long_paragraphs_back(text: str, granularity: int) -> None:
    short = "\n".join(paragraph[:granularity] for paragraph in text.split("\n"))
    assert "\n".join(reference.published_chunks(short, granularity)) == short


@pytest.mark.parametrize(
    ("text", "granularity", "chunks"),
    [
        ("", 3, []),
        ("abc", 3, [("abc", "")]),
        ("abc\nd", 3, [("abc", "\n"), ("d", "")]),  # the newline may be the character after the window
        ("abc\n", 3, [("abc", "\n")]),  # and the text may end with it
        ("a\nb\ncd", 4, [("a\nb", "\n"), ("cd", "")]),  # the last newline of several
        ("A. B! Cde", 7, [("A. B! ", ""), ("Cde", "")]),  # the last sentence end
        ("A.” bcd", 5, [("A.” ", ""), ("bcd", "")]),  # with its closing quote
        ("A.bc de", 6, [("A.bc ", ""), ("de", "")]),  # no sentence ends here: the last blank
        ("好。好好好", 3, [("好。", ""), ("好好好", "")]),  # no blank needed
        ("ab. cd ef", 8, [("ab. ", ""), ("cd ef", "")]),  # a sentence end before a later blank
        ("abcdefg", 3, [("abc", ""), ("def", ""), ("g", "")]),
        (" abcdef", 4, [(" abc", ""), ("def", "")]),  # not after the first blank: only blanks before it
        ("\nabcdef", 4, [("\nabc", ""), ("def", "")]),
        ("\n\n\n\nab", 3, [("\n\n\n", "\n"), ("ab", "")]),  # only blanks: the last newline
        ("\n    ab", 3, [("\n  ", ""), ("  a", ""), ("b", "")]),  # unless it comes first
        ("    ab", 3, [("   ", ""), (" ab", "")]),
    ],
)
def test_split_chunks_by_hand(text: str, granularity: int, chunks: list[tuple[str, str]]) -> None:
    assert reference.split_chunks(text, granularity) == chunks


@given(TEXTS, st.integers(1, 20))
def test_split_chunks_give_the_text_back_within_the_granularity(text: str, granularity: int) -> None:
    chunks = reference.split_chunks(text, granularity)
    assert "".join(chunk + joiner for chunk, joiner in chunks) == text
    assert all(1 <= len(chunk) <= granularity for chunk, _ in chunks)
    assert {joiner for _, joiner in chunks} <= {"", "\n"}


def test_a_corpus_is_numbered_through_and_its_blank_documents_have_no_chunks() -> None:
    documents, chunks = reference.chunk_corpus({4: "ab\ncd", 2: " \n", 7: "ef"}, 2)
    assert documents == {2: [], 4: [0, 1], 7: [2]}
    assert chunks == {0: ("ab", "\n"), 1: ("cd", ""), 2: ("ef", "")}
    documents, chunks = reference.chunk_corpus({0: "abcd\n\n"}, 3, long_paragraphs="keep")
    assert documents == {0: [0, 1]}
    assert chunks == {0: ("abcd", "\n"), 1: ("\n", "")}


# Two documents' chunks 0 1 and 2 3, and a third one's 4 5; what they score against chunk 0.
VECTORS = np.array([[1, 0], [0.5, 1], [0.75, 0], [1, 0.25], [0.875, 0], [0.25, 1]], dtype=np.float16)
TEXT_OF = dict(enumerate(["zero", "one", "two", "three", "one", "five"]))


def test_neighbours_are_ordered_by_score_then_id() -> None:
    assert reference.exact_neighbours(VECTORS, 0) == [(3, 1.0), (4, 0.875), (2, 0.75), (1, 0.5), (5, 0.25)]
    assert reference.exact_neighbours(VECTORS, 0, 2) == [(3, 1.0), (4, 0.875)]
    assert reference.exact_neighbours(np.ones((4, 1), np.float16), 2) == [(0, 1.0), (1, 1.0), (3, 1.0)]


def test_scores_are_the_stored_numbers_product_rounded_to_six_places() -> None:
    vectors = np.array([[1.0], [0.1], [0.3]], dtype=np.float16)  # stored: 0.0999755859375, 0.300048828125
    rounded = [(2, np.float32(0.300049)), (1, np.float32(0.099976))]
    assert reference.exact_neighbours(vectors, 0) == rounded


def _candidates(num_candidates: int, similarity: float | None) -> tuple[list[tuple[int, float]], dict[str, int]]:
    kept, counts = reference.candidates(
        0, [0, 1], vectors=VECTORS, text_of=TEXT_OF, num_candidates=num_candidates, near_duplicate_similarity=similarity
    )
    assert counts["retrieved"] == len(kept) + counts["exact_copy"] + counts["near_duplicate"]
    return kept, dict(+counts)


def test_candidates_by_hand() -> None:
    # The order is 0 (own), 3 (scores 1.0), 4 (a copy of 1), 2, 1 (own), 5.
    assert _candidates(3, 0.95) == (
        [(2, 0.75)],
        {"retrieved": 3, "own_document": 1, "exact_copy": 1, "near_duplicate": 1},
    )
    everything = {"retrieved": 4, "own_document": 2, "exact_copy": 1, "near_duplicate": 1}
    assert _candidates(4, 0.95) == ([(2, 0.75), (5, 0.25)], everything)
    assert _candidates(99, 0.95) == ([(2, 0.75), (5, 0.25)], everything)
    assert _candidates(2, None) == ([(3, 1.0)], {"retrieved": 2, "own_document": 1, "exact_copy": 1})
    # A copy is a copy even when its score is that of a near-duplicate; the bound itself is dropped.
    assert _candidates(3, 0.75) == ([], {"retrieved": 3, "own_document": 1, "exact_copy": 1, "near_duplicate": 2})


def test_a_score_that_rounds_to_the_bound_is_a_near_duplicate() -> None:
    vectors = np.array([[1, 1], [0.95, 0.95 - float(np.float16(0.95))]], dtype=np.float16)
    assert reference.exact_neighbours(vectors, 0) == [(1, float(np.float32(0.95)))]
    kept, counts = reference.candidates(
        0, [0], vectors=vectors, text_of=TEXT_OF, num_candidates=9, near_duplicate_similarity=0.95
    )
    assert kept == []
    assert counts["near_duplicate"] == 1


@pytest.mark.parametrize(
    ("target", "chars_per_token", "meta_chars", "num_meta_chunks", "granularity", "k"),
    [
        (1000, 4.0, 2000, 2, 500, 4),  # (1000 * 4 * 1.5 - 2000) / (2 * 500) = 4000 / 1000
        (1000, 4.0, 2001, 2, 500, 3),  # 3999 / 1000
        (1000, 4.0, 6001, 2, 500, 0),  # -1 / 1000
        (131_072, 4.5, 10_240, 5, 2048, 85),  # (884736 - 10240) / 10240 = 85.4
    ],
)
def test_k_by_hand(
    target: int, chars_per_token: float, meta_chars: int, num_meta_chunks: int, granularity: int, k: int
) -> None:
    found = reference.negatives_per_chunk(
        target_length_tokens=target,
        chars_per_token=chars_per_token,
        overshoot_ratio=1.5,
        meta_chars=meta_chars,
        num_meta_chunks=num_meta_chunks,
        granularity=granularity,
    )
    assert found == k


def test_twice_k_candidates_when_that_is_above_512() -> None:
    assert [reference.num_candidates_auto(k) for k in (0, 256, 257)] == [512, 512, 514]


# Three meta-chunks of 10 + 12 + 8 = 30 tokens; 14 has the text of 11, 17 has no tokens.
META = [0, 1, 2]
NUM_TOKENS = {0: 10, 1: 12, 2: 8, 10: 15, 11: 20, 12: 30, 13: 5, 14: 7, 15: 6, 16: 10, 17: 0, 18: 9}
ALLOCATION_TEXT_OF = {chunk_id: f"text {chunk_id}" for chunk_id in NUM_TOKENS} | {14: "text 11"}
FOUND = [
    [(10, 0.9, 0), (11, 0.8, 1), (12, 0.7, 2)],
    [(10, 0.9, 0), (13, 0.8, 1), (14, 0.7, 2), (15, 0.6, 3)],
    [(16, 0.9, 0), (13, 0.8, 1), (17, 0.7, 2), (18, 0.6, 3)],
]


def test_paper_budget_by_hand() -> None:
    kept = reference.allocate_paper(META, FOUND, NUM_TOKENS, ALLOCATION_TEXT_OF, k=2, target=80)
    assert kept.outcome == "kept"
    assert kept.negatives == [
        [(10, 0, 0.9, 15), (11, 1, 0.8, 20)],
        [(13, 1, 0.8, 5), (15, 3, 0.6, 6)],
        [(16, 0, 0.9, 10), (18, 3, 0.6, 9)],
    ]
    assert kept.num_tokens == 30 + 35 + 11 + 19
    assert kept.counts == {"already_used": 2, "copy_in_document": 1}

    # With k = 1 the second list is left at 13: its copy is not met.
    kept = reference.allocate_paper(META, FOUND, NUM_TOKENS, ALLOCATION_TEXT_OF, k=1, target=60)
    assert kept.negatives == [[(10, 0, 0.9, 15)], [(13, 1, 0.8, 5)], [(16, 0, 0.9, 10)]]
    assert kept.counts == {"already_used": 1}

    short = reference.allocate_paper(META, FOUND, NUM_TOKENS, ALLOCATION_TEXT_OF, k=1, target=61)
    assert short[:3] == ("too_short", [], 60)
    assert reference.allocate_paper(META, FOUND, NUM_TOKENS, ALLOCATION_TEXT_OF, k=0, target=30).negatives == [[]] * 3


def test_exact_budget_by_hand_with_shortening_and_a_second_pass() -> None:
    # 100 - 30 = 70: quotas 24, 23, 23.
    # First pass.  0: 15 of 10, 9 of 11's 20.  1: 10 is used, 5 of 13, 14 is a copy, 6 of 15, leaves 12.
    #              2: wants 23 + 12; 10 of 16, 13 is used, 17 is empty, 9 of 18, leaves 16.
    # Second pass. 0: 11 grows by 11 to 20, then 5 of 12's 30.
    kept = reference.allocate_exact(META, FOUND, NUM_TOKENS, ALLOCATION_TEXT_OF, 100, 0.5)
    assert kept.outcome == "kept"
    assert kept.negatives == [
        [(10, 0, 0.9, 15), (11, 1, 0.8, 20), (12, 2, 0.7, 5)],
        [(13, 1, 0.8, 5), (15, 3, 0.6, 6)],
        [(16, 0, 0.9, 10), (18, 3, 0.6, 9)],
    ]
    assert kept.num_tokens == 100
    assert kept.counts == {"already_used": 2, "copy_in_document": 1}


def test_exact_budget_stops_looking_when_it_has_enough() -> None:
    # 60 - 30 = 30: 10 each. 0: 10 of 10. 1: 10 is used, 5 of 13, 14 now is no copy: 5 of its 7. 2: 10 of 16.
    kept = reference.allocate_exact(META, FOUND, NUM_TOKENS, ALLOCATION_TEXT_OF, 60, 0.5)
    assert kept.negatives == [
        [(10, 0, 0.9, 10)],
        [(13, 1, 0.8, 5), (14, 2, 0.7, 5)],
        [(16, 0, 0.9, 10)],
    ]
    assert kept.counts == {"already_used": 1}


def test_what_does_not_fit_or_does_not_reach_is_dropped() -> None:
    # All there is: 65 of 10, 11, 12; 11 of 13, 15; 19 of 16, 18; with the meta-chunks 125.
    assert reference.allocate_exact(META, FOUND, NUM_TOKENS, ALLOCATION_TEXT_OF, 125, 0.5).outcome == "kept"
    short = reference.allocate_exact(META, FOUND, NUM_TOKENS, ALLOCATION_TEXT_OF, 126, 0.5)
    assert short[:3] == ("too_short", [], 125)
    long = reference.allocate_exact(META, FOUND, NUM_TOKENS, ALLOCATION_TEXT_OF, 59, 0.5)
    assert long == ("meta_too_long", [], 30, {})
    nothing_to_add = reference.allocate_exact(META, FOUND, NUM_TOKENS, ALLOCATION_TEXT_OF, 30, 1.0)
    assert nothing_to_add == ("kept", [[], [], []], 30, {})


NEGATIVES = [[Negative(5, 0, 0.9, 4), Negative(6, 2, 0.5, 1)], [Negative(7, 1, 0.25, 3)]]


def _assemble(position: str, target: int = 13, doc_id: int = 0) -> list[reference.Segment]:
    return reference.assemble([0, 1], NEGATIVES, position, 3, 7, doc_id, num_tokens={0: 2, 1: 3}, target=target)


def test_segments_by_hand() -> None:
    assert _assemble("head") == [
        (0, "meta", 0, 2, -1, None),
        (5, "negative", 2, 6, 0, 0.9),
        (6, "negative", 6, 7, 2, 0.5),
        (1, "meta", 7, 10, -1, None),
        (7, "negative", 10, 13, 1, 0.25),
    ]
    assert _assemble("tail") == [
        (5, "negative", 0, 4, 0, 0.9),
        (6, "negative", 4, 5, 2, 0.5),
        (0, "meta", 5, 7, -1, None),
        (7, "negative", 7, 10, 1, 0.25),
        (1, "meta", 10, 13, -1, None),
    ]


def test_segments_are_cut_at_the_target() -> None:
    assert _assemble("head", target=8)[3:] == [(1, "meta", 7, 8, -1, None)]
    assert _assemble("head", target=7) == _assemble("head")[:3]


def test_a_random_position_is_drawn_once_a_meta_chunk() -> None:
    seen = set()
    for doc_id in range(40):
        rng = np.random.default_rng([3, 7, doc_id])
        first, second = int(rng.integers(0, 3)), int(rng.integers(0, 2))
        order = [segment.chunk_id for segment in _assemble("random", doc_id=doc_id)]
        assert (order.index(0), order.index(1) - 3) == (first, second)
        assert [chunk_id for chunk_id in order if chunk_id > 1] == [5, 6, 7]
        seen.add((first, second))
    assert len(seen) == 6


# Four documents: "aa\nbb", "cc\ndd", "ee\nff", and 7 tokens with a copy of "aa"; the last has one chunk only.
CORPUS = {0: "aa\nbb", 1: "cc\ndd", 2: "ee\nff", 3: "aa\ngg\nh", 9: "i"}
CORPUS_VECTORS = np.array(
    [
        [1, 0],  # aa
        [0, 1],  # bb
        [0.5, 0.125],  # cc
        [0.375, 0.25],  # dd
        [0.25, 0.375],  # ee
        [0.125, 0.5],  # ff
        [0.75, 0.75],  # aa of document 3
        [0, 0],  # gg
        [0, 0],  # h
        [0, 0],  # i
    ],
    dtype=np.float16,
)


def _long_documents(
    vectors: object = CORPUS_VECTORS, **synthesis: object
) -> tuple[list[dict], dict[str, int], dict[str, int]]:
    documents, chunks = reference.chunk_corpus(CORPUS, 2)
    long_docs, outcomes, rules = reference.long_documents(
        documents,
        chunks=chunks,
        vectors=vectors,
        encode=lambda text: [ord(character) for character in text],
        mining=Mining(),
        synthesis=Synthesis(**({"target_length_tokens": 12} | synthesis)),
        granularity=2,
        sampling_stage=4,
        interleaving_stage=6,
    )
    return long_docs, dict(outcomes), dict(rules)


def _text(long_doc: dict) -> str:
    return "".join(map(chr, long_doc["input_ids"]))


def test_long_documents_by_hand() -> None:
    long_docs, outcomes, rules = _long_documents()
    # Documents 0, 1, 2 have 5 tokens of 12; document 3 has 7, more than half.
    assert outcomes == {"kept": 3, "meta_too_long": 1}
    order = np.random.default_rng([0, 4]).permutation([0, 1, 2, 3]).tolist()
    assert [(doc["sample_id"], doc["doc_id"]) for doc in long_docs] == [
        (place, doc_id) for place, doc_id in enumerate(order) if doc_id != 3
    ]
    first = next(doc for doc in long_docs if doc["doc_id"] == 0)
    # 7 tokens to share: 4 and 3. "aa" finds cc, dd, ee, ff, gg, h, i (aa is a copy): 3 of "cc\n", 1 of "dd".
    # "bb" finds ff, ee, dd, cc: 2 of "ff", 1 of "ee\n".
    assert _text(first) == "aa\ncc\ndbbffe"
    assert first["segments"] == [
        (0, "meta", 0, 3, -1, None),
        (2, "negative", 3, 6, 0, 0.5),
        (3, "negative", 6, 7, 1, 0.375),
        (1, "meta", 7, 9, -1, None),
        (5, "negative", 9, 11, 0, 0.5),
        (4, "negative", 11, 12, 1, 0.375),
    ]
    # Document 0 has 2 meta-chunks x 8 others, 1 and 2 the same, document 3 has 3 x 7; aa is a copy for both
    # chunks of 0 and for all three of 3.
    assert (rules["retrieved"], rules["exact_copy"]) == (2 * 8 * 3 + 3 * 7, 2 + 3)


def test_drawing_ends_with_the_last_sample_wanted() -> None:
    every, _, _ = _long_documents()
    for wanted in (1, 2, 3, 4):
        long_docs, outcomes, _ = _long_documents(num_samples=wanted)
        assert long_docs == every[:wanted]
        draws = 4 if wanted == 4 else every[wanted - 1]["sample_id"] + 1
        assert sum(outcomes.values()) == draws


def test_the_paper_budget_is_cut_at_the_target() -> None:
    # One character is one token, so k = floor((12 * 1 * 1.5 - 5) / (2 * 2)) = 3, and (18 - 7) / (3 * 2) = 1 for
    # document 3, which takes bb, cc and dd: 7 + 2 + 3 + 2 tokens.
    long_docs, outcomes, _ = _long_documents(budget="paper", position="tail")
    assert outcomes == {"kept": 4}
    assert all(len(doc["input_ids"]) == 12 for doc in long_docs)
    # "aa" takes cc, dd and ee; of "bb" and its ff and what follows one token is left.
    first = next(doc for doc in long_docs if doc["doc_id"] == 0)
    assert _text(first) == "cc\nddee\naa\nf"
    assert first["segments"][-1] == (5, "negative", 11, 12, 0, 0.5)
    third = next(doc for doc in long_docs if doc["doc_id"] == 3)
    assert _text(third) == "bbaa\ncc\ngg\nd"


def test_selected_candidates_keep_the_rank_they_were_found_at() -> None:
    kept = [(5, 0.9), (6, 0.8), (7, 0.7), (8, 0.6)]
    assert reference.selected(kept, "top", 0, 3, 11) == [(5, 0.9, 0), (6, 0.8, 1), (7, 0.7, 2), (8, 0.6, 3)]
    assert reference.selected(kept, "top", 1, 3, 11) == [(6, 0.8, 1), (7, 0.7, 2), (8, 0.6, 3)]
    assert reference.selected(kept, "tail", 2, 3, 11) == [(8, 0.6, 3), (7, 0.7, 2)]
    assert reference.selected(kept, "top", 9, 3, 11) == []
    order = np.random.default_rng([3, 3, 11]).permutation(3)
    left = [(6, 0.8, 1), (7, 0.7, 2), (8, 0.6, 3)]
    assert reference.selected(kept, "random_candidates", 1, 3, 11) == [left[place] for place in order]


@pytest.mark.parametrize(
    ("seed", "drawn", "kept", "counts"),
    [
        (0, [5, 3, 1, 4], [(5, 0.25)], {"retrieved": 2, "near_duplicate": 1}),  # ended before 1 is met
        (1, [1, 5, 0, 4], [(5, 0.25)], {"retrieved": 2, "own_document": 2, "exact_copy": 1}),
        (2, [3, 2, 1, 4], [(2, 0.75)], {"retrieved": 2, "near_duplicate": 1}),
    ],
)
def test_random_chunks_by_hand(
    seed: int, drawn: list[int], kept: list[tuple[int, float]], counts: dict[str, int]
) -> None:
    assert np.random.default_rng([seed, 3, 0]).choice(6, size=4, replace=False).tolist() == drawn
    settings = {"vectors": VECTORS, "text_of": TEXT_OF, "near_duplicate_similarity": 0.95}
    found, met = reference.random_chunks(0, [0, 1], num_candidates=2, seed=seed, **settings)
    assert (found, dict(+met)) == (kept, counts)
    found, met = reference.random_chunks(0, [0, 1], num_candidates=99, seed=seed, **settings)
    assert (sorted(found), met["retrieved"]) == ([(2, 0.75), (5, 0.25)], 4)


def test_over_used_candidates_are_passed_over() -> None:
    settings = {"num_tokens": NUM_TOKENS, "text_of": ALLOCATION_TEXT_OF}
    kept = reference.allocate_paper(META, FOUND, k=2, target=80, over_used={10, 14}, **settings)
    assert kept.negatives == [
        [(11, 1, 0.8, 20), (12, 2, 0.7, 30)],
        [(13, 1, 0.8, 5), (15, 3, 0.6, 6)],
        [(16, 0, 0.9, 10), (18, 3, 0.6, 9)],
    ]
    assert kept.counts == {"over_used": 3, "already_used": 1}  # 14 is a copy of 11 too, but counts as over-used
    # Quotas 24, 23, 23. 0: 15 of 10, 9 of 12. 1: 10 is used, 5 of 13, 7 of 14, 6 of 15, leaves 5.
    # 2: wants 28, 10 of 16, 9 of 18, leaves 9: 12 grows to 18.
    kept = reference.allocate_exact(META, FOUND, target=100, max_meta_ratio=0.5, over_used={11}, **settings)
    assert kept.negatives == [
        [(10, 0, 0.9, 15), (12, 2, 0.7, 18)],
        [(13, 1, 0.8, 5), (14, 2, 0.7, 7), (15, 3, 0.6, 6)],
        [(16, 0, 0.9, 10), (18, 3, 0.6, 9)],
    ]
    assert kept.counts == {"over_used": 1, "already_used": 2}


def _of(long_docs: list[dict], doc_id: int) -> dict:
    return next(doc for doc in long_docs if doc["doc_id"] == doc_id)


def test_long_documents_without_the_top_or_from_the_tail_by_hand() -> None:
    # "aa" finds cc, dd, ee, ff, gg, h, i and wants 4 tokens; "bb" finds ff, ee, dd, cc, gg, h, i and wants 3.
    skipped = _of(_long_documents(skip_top=1)[0], 0)
    assert _text(skipped) == "aa\nddeebbcc\n"
    assert [segment.rank for segment in skipped["segments"]] == [-1, 1, 2, -1, 3]
    tail = _of(_long_documents(negatives="tail")[0], 0)
    assert _text(tail) == "aa\nihggbbcc\n"
    assert [segment.rank for segment in tail["segments"]] == [-1, 6, 5, 4, -1, 3]
    # Without the first five, "aa" and "bb" both have h and i only: 5 + 2 tokens.
    _, outcomes, _ = _long_documents(negatives="tail", skip_top=5)
    assert outcomes == {"too_short": 3, "meta_too_long": 1}


def test_random_negatives_come_in_drawn_order() -> None:
    first = _of(_long_documents(negatives="random")[0], 0)
    drawn = np.random.default_rng([0, 3, 0]).choice(10, size=10, replace=False).tolist()
    usable = [chunk_id for chunk_id in drawn if chunk_id not in (0, 1, 6)]  # 0, 1 are its own, 6 is a copy
    meta_places = [place for place, segment in enumerate(first["segments"]) if segment.role == "meta"]
    mine = first["segments"][1 : meta_places[1]]
    assert len(mine) >= 2
    scores = dict(reference.ranked_chunks(CORPUS_VECTORS, 0))
    assert [segment[0] for segment in mine] == usable[: len(mine)]
    assert [segment[4:] for segment in mine] == [(rank, scores[usable[rank]]) for rank in range(len(mine))]


def test_the_meta_chunk_is_repeated_by_hand() -> None:
    long_docs, outcomes, rules = _long_documents(None, negatives="self_repeat", max_uses_per_chunk=1)
    assert (outcomes, rules) == ({"kept": 3, "meta_too_long": 1}, {})
    # 7 tokens to share: 4 of "aa\n" and 3 of "bb".
    first = _of(long_docs, 0)
    assert _text(first) == "aa\naa\nabbbbb"
    assert first["segments"] == [
        (0, "meta", 0, 3, -1, None),
        (0, "repeat", 3, 6, 0, None),
        (0, "repeat", 6, 7, 1, None),
        (1, "meta", 7, 9, -1, None),
        (1, "repeat", 9, 11, 0, None),
        (1, "repeat", 11, 12, 1, None),
    ]


def test_the_meta_chunk_is_repeated_k_times_by_the_paper_budget() -> None:
    # k is 3, and 1 for document 3, whose 7 tokens become 14.
    long_docs, outcomes, _ = _long_documents(None, negatives="self_repeat", budget="paper")
    assert outcomes == {"kept": 4}
    assert _text(_of(long_docs, 0)) == "aa\n" * 4
    assert _of(long_docs, 0)["segments"][1:] == [(0, "repeat", 3 + 3 * r, 6 + 3 * r, r, None) for r in range(3)]
    assert _text(_of(long_docs, 3)) == "aa\naa\ngg\ngg\n"
    # k is floor((12 - 5) / 4) = 1, and 0 for document 3.
    _, outcomes, _ = _long_documents(None, negatives="self_repeat", budget="paper", overshoot_ratio=1.0)
    assert outcomes == {"too_short": 4}


def test_a_meta_chunk_without_tokens_passes_its_repeats_on() -> None:
    # 9 tokens to share: 5 and 4. Chunk 0 takes 3 + 2, chunk 1 none; then 0's last grows to 3 and 3 are left.
    repeats = [[(chunk_id, None, rank) for rank in range(12)] for chunk_id in (0, 1)]
    texts = {0: "aa\n", 1: ""}
    kept = reference.allocate_exact([0, 1], repeats, {0: 3, 1: 0}, texts, 12, 0.5, repeats=True)
    assert kept == ("kept", [[(0, 0, None, 3), (0, 1, None, 3), (0, 2, None, 3)], []], 12, {})
    assert reference.allocate_exact([1], repeats[1:], {1: 0}, texts, 12, 0.5, repeats=True)[:3] == ("too_short", [], 0)


def test_no_chunk_is_a_negative_more_often_than_wanted_by_hand() -> None:
    assert np.random.default_rng([0, 4]).permutation(4).tolist() == [2, 1, 0, 3]
    long_docs, outcomes, rules = _long_documents(max_uses_per_chunk=1)
    # Document 2 takes 6, 1, 3 and 2. "cc" of 1 takes 0 and, 6 being over-used, 4; "dd" passes 6 and 1 over, finds 0
    # and 4 used, takes 5 and 7. For document 0 only h and i are left; each of its chunks passes 5 others over.
    assert [_text(doc) for doc in long_docs] == ["ee\naa\nbffddc", "cc\naa\neddffg"]
    assert [segment.rank for segment in long_docs[1]["segments"]] == [-1, 0, 2, -1, 4, 5]
    assert outcomes == {"kept": 2, "too_short": 1, "meta_too_long": 1}
    assert rules["over_used"] == 3 + 5 + 5
    long_docs, outcomes, rules = _long_documents(max_uses_per_chunk=3)
    assert (long_docs, outcomes, rules) == _long_documents()


def test_each_draw_is_for_one_length_by_hand() -> None:
    # The drawn order is 2, 1, 0, 3.
    assert np.random.default_rng([0, 4]).choice(2, size=4, p=[1 / 2, 1 / 2]).tolist() == [1, 0, 0, 0]
    assert np.random.default_rng([0, 4]).choice(2, size=4, p=[1 / 3, 2 / 3]).tolist() == [1, 0, 1, 1]
    long_docs, outcomes, _ = _long_documents(target_length_tokens=[12, 10])
    assert [(doc["sample_id"], doc["doc_id"]) for doc in long_docs] == [(1, 1), (2, 0), (0, 2)]
    assert [len(doc["input_ids"]) for doc in long_docs] == [12, 12, 10]
    assert outcomes == {"kept": 3, "meta_too_long": 1}
    long_docs, outcomes, _ = _long_documents(target_length_tokens=[12, 10], num_samples=[1, 2])
    assert [(doc["sample_id"], doc["doc_id"]) for doc in long_docs] == [(1, 1), (0, 2), (2, 0)]
    assert outcomes == {"kept": 3}


def test_uses_run_through_the_lengths() -> None:
    settings = {"target_length_tokens": [12, 10], "num_samples": 1}
    # Document 1 comes first and takes 0, 4, 1 and 5; then "ff" of document 2 cannot have bb.
    assert [_text(doc) for doc in _long_documents(**settings)[0]] == ["cc\naa\neddbbf", "ee\naa\nffbb"]
    long_docs, _, rules = _long_documents(max_uses_per_chunk=1, **settings)
    assert [_text(doc) for doc in long_docs] == ["cc\naa\neddbbf", "ee\naa\nffdd"]
    assert rules["over_used"] == 1


# Documents of 4, 2, 4, 4, 2 tokens; 3 is blank, and 9 has no tokens though it points where 1 does.
LIBRARY = {1: "aa\na", 2: "bb", 3: " ", 5: "cc\nc", 6: "dd\nd", 8: "ee", 9: "--"}
SIZES = {1: 4, 2: 2, 5: 4, 6: 4, 8: 2}
LIBRARY_VECTORS = [[1, 0], [1, 0], [0, 1], [3, 0], [3, 8], [4, 3], [4, 3], [0, 0], [1, 0]]
KEYWORDS = {1: ["x"], 2: ["x"], 5: ["y"], 6: ["y"], 8: ["y"], 9: ["y"]}


def _score(number: float) -> float:
    return float(np.float32(number))


def _concatenated(strategy: str, target: int | list[int], num_candidates: int = 2, **synthesis: object) -> list[dict]:
    documents, chunks = reference.chunk_corpus(LIBRARY, 2)
    long_docs = reference.concatenated(
        documents,
        chunks=chunks,
        encode=lambda text: [ord(character) for character in text if character != "-"],
        synthesis=Synthesis(strategy=strategy, target_length_tokens=target, **synthesis),
        vectors=LIBRARY_VECTORS if strategy in ("knn", "iclm") else None,
        num_candidates=num_candidates if strategy in ("knn", "iclm") else None,
        keywords=KEYWORDS if strategy == "quest" else None,
    )
    assert long_docs
    assert all(doc["doc_id"] == doc["documents"][0] for doc in long_docs)
    assert all(doc["segments"][-1].end == len(doc["input_ids"]) for doc in long_docs)
    return long_docs


def _samples(long_docs: list[dict]) -> list[tuple[int, list[int], str]]:
    return [(doc["sample_id"], doc["documents"], _text(doc)) for doc in long_docs]


def test_standard_windows_by_hand() -> None:
    assert np.random.default_rng([0, 1]).permutation([1, 2, 5, 6, 8]).tolist() == [2, 8, 6, 1, 5]
    long_docs = _concatenated("standard", 6)
    assert _samples(long_docs) == [(0, [2, 8, 6], "bbeedd"), (1, [1, 5], "aa\nacc")]
    assert long_docs[1]["segments"] == [
        (0, "document", 0, 3, -1, None),
        (1, "document", 3, 4, -1, None),
        (3, "document", 4, 6, -1, None),
    ]
    assert _concatenated("standard", 6, num_samples=1) == long_docs[:1]
    # 8 tokens: 2, 8, 6 exactly, then 1 and 5; 9 tokens: 2, 8, 6, 1, and 5 is not enough.
    assert [doc["documents"] for doc in _concatenated("standard", 8)] == [[2, 8, 6], [1, 5]]
    assert [doc["documents"] for doc in _concatenated("standard", 9)] == [[2, 8, 6, 1]]


def test_each_window_is_for_one_length_by_hand() -> None:
    assert np.random.default_rng([0, 4]).choice(2, size=9, p=[1 / 2, 1 / 2]).tolist()[:5] == [1, 0, 0, 0, 1]
    every = [(0, [2, 8, 6], "bbeedd"), (1, [1], "aa\na"), (2, [5], "cc\nc")]
    assert _samples(_concatenated("standard", [4, 6])) == every
    assert _samples(_concatenated("standard", [4, 6], num_samples=[1, 1])) == every[:2]


def test_a_window_that_is_not_wanted_is_passed_over() -> None:
    gathered = [reference.Gathered(number, length, []) for number, length in enumerate([0, 0, 1, 0, 1, 1])]
    assert [one.sample_id for one in reference.first_wanted(gathered, [1, 2])] == [0, 2, 4]
    assert reference.first_wanted(gathered, [None, None]) == gathered


def test_a_document_stands_once_in_a_window() -> None:
    stream = [reference.Member(doc_id, -1, None) for doc_id in (1, 1, 2, 2, 1, 5)]
    found = reference.windows(stream, SIZES, Synthesis(strategy="quest", target_length_tokens=6))
    assert [[member.doc_id for member in one.members] for one in found] == [[1, 2], [2, 1]]


def test_document_vectors_by_hand() -> None:
    documents, _ = reference.chunk_corpus(LIBRARY, 2)
    found = reference.document_vectors({doc_id: documents[doc_id] for doc_id in SIZES}, LIBRARY_VECTORS)
    six, eight = _score(0.6), _score(0.8)
    assert found == {1: [1, 0], 2: [0, 1], 5: [six, eight], 6: [eight, six], 8: [0, 0]}
    assert reference.document_neighbours(found, 3) == {
        1: [(6, eight), (5, six), (2, 0)],
        2: [(5, eight), (6, six), (1, 0)],
        5: [(6, _score(0.96)), (2, eight), (1, six)],
        6: [(5, _score(0.96)), (1, eight), (2, six)],
        8: [(1, 0), (2, 0), (5, 0)],
    }


def test_the_path_by_hand() -> None:
    neighbours = {1: [(2, 0.9)], 2: [(1, 0.9)], 5: [(2, 0.8)], 6: [(2, 0.8)], 8: [(9, 0.1)], 9: [(8, 0.1)]}
    # 2 has three neighbours, the others one. From 2 it is as far to 5 as to 6; 5 leads nowhere, nor does 6.
    assert reference.iclm_path(neighbours) == [
        (1, -1, None),
        (2, -1, 0.9),
        (5, -1, 0.8),
        (6, -1, None),
        (8, -1, None),
        (9, -1, 0.1),
    ]


def test_the_path_visits_every_document_once() -> None:
    vectors = np.random.default_rng(0).normal(size=(30, 3))
    vector_of = {3 * row: vector.tolist() for row, vector in enumerate(vectors)}
    for num_candidates in (1, 2, 5, None):
        neighbours = reference.document_neighbours(vector_of, num_candidates)
        path = reference.iclm_path(neighbours)
        assert sorted(member.doc_id for member in path) == sorted(vector_of)
        steps = [(a.doc_id, b.doc_id, b.score) for a, b in itertools.pairwise(path) if b.score is not None]
        assert len(steps) >= 10
        assert all((b, score) in neighbours[a] or (a, score) in neighbours[b] for a, b, score in steps)
    assert len(steps) == 29  # with every document a neighbour, no start but the first


def test_iclm_by_hand() -> None:
    # One neighbour each: 1-6, 2-5, 5-6, 8-1. 2 and 8 have one edge: the path is 2, 5, 6, 1, 8.
    assert np.random.default_rng([0, 1]).permutation(3).tolist() == [2, 0, 1]
    long_docs = _concatenated("iclm", 4, num_candidates=1)
    assert _samples(long_docs) == [(0, [1], "aa\na"), (1, [2, 5], "bbcc"), (2, [6], "dd\nd")]
    assert [segment[4:] for segment in long_docs[0]["segments"]] == [(-1, None)] * 2
    assert long_docs[1]["segments"] == [(2, "document", 0, 2, -1, None), (3, "document", 2, 4, -1, _score(0.8))]
    assert _concatenated("iclm", 4, num_candidates=1, num_samples=2) == long_docs[:2]
    (only,) = _concatenated("iclm", 9, num_candidates=1)
    assert only["documents"] == [2, 5, 6]
    scores = [segment.score for segment in only["segments"]]
    assert scores == [None, _score(0.8), _score(0.8), _score(0.96)]


def test_knn_by_hand() -> None:
    # The order is 2, 8, 6, 1, 5. 2 takes 5; 8 takes 1, its nearest by the lower doc_id; 6 finds 5 and 1 used.
    long_docs = _concatenated("knn", 6)
    assert _samples(long_docs) == [(0, [2, 5], "bbcc\nc"), (1, [8, 1], "eeaa\na")]
    assert long_docs[0]["segments"] == [
        (2, "document", 0, 2, -1, None),
        (3, "document", 2, 5, 0, _score(0.8)),
        (4, "document", 5, 6, 0, _score(0.8)),
    ]
    assert _concatenated("knn", 6, num_samples=1) == long_docs[:1]
    assert [doc["documents"] for doc in _concatenated("knn", 7)] == [[2, 5, 6]]


NEAREST = {1: [(5, 0.5), (6, 0.4)], 2: [(5, 0.9)], 5: [], 6: [(5, 0.9), (1, 0.8)], 8: [(2, 0.8), (5, 0.7), (1, 0.6)]}


@pytest.mark.parametrize(
    ("target", "num_samples", "groups"),
    [
        # 2 does not reach 3 and stays free: 8 takes it; 6 is left with 1, and 1 with 6.
        (3, None, [(1, 0, [(8, -1, None), (2, 0, 0.8), (5, 1, 0.7)])]),
        # 8 finds 2 and 5 used: its third is taken; 6 finds both used.
        (2, None, [(0, 0, [(2, -1, None), (5, 0, 0.9)]), (1, 0, [(8, -1, None), (1, 2, 0.6)])]),
        # The lengths are 3, 2, 2, 2, 3: 2 does not reach 3, 8 takes 2; then 6 takes 5, unless one of 2 is enough.
        ([2, 3], None, [(1, 0, [(8, -1, None), (2, 0, 0.8)]), (2, 0, [(6, -1, None), (5, 0, 0.9)])]),
        ([2, 3], 1, [(1, 0, [(8, -1, None), (2, 0, 0.8)])]),
    ],
)
def test_knn_groups_by_hand(target: int | list[int], num_samples: int | None, groups: list[tuple]) -> None:
    synthesis = Synthesis(strategy="knn", target_length_tokens=target, num_samples=num_samples)
    assert reference.knn_groups(NEAREST, dict.fromkeys(NEAREST, 1), synthesis) == groups


@pytest.mark.parametrize("strategy", ["standard", "iclm", "knn"])
def test_no_document_is_used_twice(strategy: str) -> None:
    rng = np.random.default_rng(1)
    texts = {doc_id: "".join(rng.choice(list("ab\n"), size=9)) + "a" for doc_id in range(40)}
    documents, chunks = reference.chunk_corpus(texts, 4)
    for target in (15, 35, [15, 35]):
        long_docs = reference.concatenated(
            documents,
            chunks=chunks,
            encode=lambda text: [ord(character) for character in text],
            synthesis=Synthesis(strategy=strategy, target_length_tokens=target),
            vectors=rng.normal(size=(len(chunks), 4)),
            num_candidates=8,
        )
        used = [doc_id for doc in long_docs for doc_id in doc["documents"]]
        assert len(used) > 8
        assert len(set(used)) == len(used)
        lengths = {len(doc["input_ids"]) for doc in long_docs}
        assert lengths == ({target} if isinstance(target, int) else set(target))
        assert [doc["sample_id"] for doc in long_docs] == sorted({doc["sample_id"] for doc in long_docs})


def test_quest_groups_by_hand() -> None:
    # x is in three documents, y in two, z in one: 4 is left out, 2 has x only.
    keywords = {1: ["y", "x", "y"], 2: ["x"], 4: ["z"], 5: ["x", "y"], 7: []}
    seen = set()
    for seed in range(20):
        one, five = [["x", "y"][np.random.default_rng([seed, 5, doc_id]).integers(2)] for doc_id in (1, 5)]
        groups = reference.quest_groups(keywords, seed)
        assert groups["x"] == [doc_id for doc_id, key in ((1, one), (2, "x"), (5, five)) if key == "x"]
        assert groups.get("y", []) == [doc_id for doc_id, key in ((1, one), (5, five)) if key == "y"]
        seen.add((one, five))
    assert len(seen) == 4


@pytest.mark.parametrize("oversampling", [1, 2])
def test_quest_stream_by_hand(oversampling: int) -> None:
    keywords = {1: ["x"], 2: ["x"], 5: ["y"], 6: ["y"], 8: ["y"], 9: ["z"], 10: ["z"]}
    groups = {"x": [1, 2], "y": [5, 6, 8], "z": [9, 10]}
    synthesis = Synthesis(strategy="quest", target_length_tokens=1, seed=7, keyword_oversampling=oversampling)
    # By size and name x, z, y; of three keys one is rare: x.
    occurrences = ["x"] * oversampling + ["z", "y"]
    rng = np.random.default_rng([7, 1])
    order = rng.permutation(len(occurrences))
    expected = [doc_id for place in order for doc_id in rng.permutation(groups[occurrences[place]])]
    stream = reference.quest_stream(keywords, synthesis)
    assert stream == [(doc_id, -1, None) for doc_id in expected]
    assert len(stream) == 2 * oversampling + 2 + 3


def test_quest_by_hand() -> None:
    # Documents 1, 2 (6 tokens) and 5, 6, 8 (10 tokens); 9 has no tokens.
    synthesis = Synthesis(strategy="quest", target_length_tokens=6)
    without_nine = {doc_id: keywords for doc_id, keywords in KEYWORDS.items() if doc_id != 9}
    stream = [member.doc_id for member in reference.quest_stream(without_nine, synthesis)]
    assert sorted(stream) == [1, 1, 2, 2, 5, 6, 8]
    windows: list[list[int]] = [[]]
    for doc_id in stream:
        if doc_id not in windows[-1]:
            windows[-1].append(doc_id)
        if sum(SIZES[other] for other in windows[-1]) >= 6:
            windows.append([])
    long_docs = _concatenated("quest", 6)
    assert [doc["documents"] for doc in long_docs] == windows[:-1]
    assert [doc["sample_id"] for doc in long_docs] == list(range(len(windows) - 1))
    assert all(segment[4:] == (-1, None) for doc in long_docs for segment in doc["segments"])


def test_hardness_by_hand() -> None:
    segments = [
        (0, "meta", 0, 2, -1, None),
        (5, "negative", 2, 6, 0, 0.75),
        (6, "negative", 6, 7, 2, 0.5),
        (7, "negative", 7, 8, 3, 0.25),
        (1, "meta", 8, 10, -1, None),
        (2, "meta", 10, 13, -1, None),
        (8, "negative", 13, 15, 0, 0.25),
        (9, "negative", 15, 16, 8, 0.125),
        (3, "meta", 16, 17, -1, None),
    ]
    # Ranks 0, 1, 2-3, 4-7, 8-15.
    expected = ([0.5, None, 0.375, None, 0.125], [6, 0, 3])
    assert reference.hardness([reference.Segment(*segment) for segment in segments]) == expected
    repeats = [reference.Segment(0, "meta", 0, 2, -1, None), reference.Segment(0, "repeat", 2, 4, 0, None)]
    assert reference.hardness(repeats) == ([], [])


def test_best_fit_by_hand() -> None:
    # Of 8 tokens: 17 are 8, 7 and 2; sizes 8 7 5 3 2 2. 5 + 3 fill one, 2 of 17 goes to neither 8 nor 7, 2 joins it.
    rows = reference.best_fit([17, 5, 1, 3, 2], 8, 0)
    assert sorted(rows) == [[(0, 0, 8)], [(0, 8, 7)], [(0, 15, 2), (4, 0, 2)], [(1, 0, 5), (3, 0, 3)]]
    assert reference.best_fit([1, 0], 8, 0) == []
    # Of two sequences with room for 3 (after 5 of document 0, then of 1), the one that came to it last.
    assert sorted(reference.best_fit([5, 5, 3], 8, 0)) == [[(0, 0, 5)], [(1, 0, 5), (2, 0, 3)]]


def test_first_fit_by_hand() -> None:
    assert reference.first_fit([5, 5, 3, 4, 3], 8) == 3  # 5 + 3, 5 + 3, 4
    assert reference.first_fit([], 8) == 0


def test_mixed_by_hand() -> None:
    # Halves may be owed at once: 1/2 each, ties to the first, then the other.
    assert reference.mixed([Fraction(1, 2)] * 2, 4) == [0, 1, 0, 1]
    # Of 1/4 and 3/4, the first is owed 1/2 after two rows, and then can wait no row, the second 3/2 - 1 likewise.
    assert reference.mixed([Fraction(1, 4), Fraction(3, 4)], 4) == [1, 0, 1, 1]
    assert reference.mixed([Fraction(1)], 2) == [0, 0]
