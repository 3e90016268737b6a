"""The slow twin gives what a person gets by hand."""

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
    [(10, 0.9), (11, 0.8), (12, 0.7)],
    [(10, 0.9), (13, 0.8), (14, 0.7), (15, 0.6)],
    [(16, 0.9), (13, 0.8), (17, 0.7), (18, 0.6)],
]


def test_paper_budget_by_hand() -> None:
    kept = reference.allocate_paper(META, FOUND, NUM_TOKENS, ALLOCATION_TEXT_OF, k=2, target=80)
    assert kept.outcome == "kept"
    assert kept.negatives == [
        [(10, 0, 0.9, 15), (11, 1, 0.8, 20)],
        [(13, 1, 0.8, 5), (15, 3, 0.6, 6)],
        [(16, 0, 0.9, 10), (17, 2, 0.7, 0)],
    ]
    assert kept.num_tokens == 30 + 35 + 11 + 10
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


def _long_documents(**synthesis: object) -> tuple[list[dict], dict[str, int], dict[str, int]]:
    documents, chunks = reference.chunk_corpus(CORPUS, 2)
    long_docs, outcomes, rules = reference.long_documents(
        documents,
        chunks=chunks,
        vectors=CORPUS_VECTORS,
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
