"""Hardness: similarities by rank and distances of meta-chunks, by hand for several documents at once."""

import numpy as np
import pytest

from nextlong.hardness import SegmentColumns, meta_distances, similarity_by_rank

Row = tuple[str, int, int, float]  # role, tokens, rank, score


def columns(*documents: list[Row]) -> SegmentColumns:
    """Segments laid end to end; each document begins at token 0."""
    rows = [(number, *row) for number, document in enumerate(documents) for row in document]
    roles = [role for _, role, *_ in rows]
    ends = np.concatenate([np.empty(0, np.int32), *[np.cumsum([row[1] for row in each]) for each in documents]])
    lengths = np.array([tokens for _, _, tokens, *_ in rows], np.int32)
    return SegmentColumns(
        document=np.array([number for number, *_ in rows], np.int64),
        is_meta=np.array([role == "meta" for role in roles], np.bool_),
        is_negative=np.array([role == "negative" for role in roles], np.bool_),
        start=(ends - lengths).astype(np.int32),
        end=ends.astype(np.int32),
        rank=np.array([rank for *_, rank, _ in rows], np.int32),
        score=np.array([score for *_, score in rows], np.float32),
    )


def meta(tokens: int = 10) -> Row:
    return "meta", tokens, -1, float("nan")


def negative(rank: int, score: float, tokens: int = 5) -> Row:
    return "negative", tokens, rank, score


def test_ranks_are_put_together_by_powers_of_two() -> None:
    """Buckets 0, 1, 2-3, 4-7, 8-15, 16-31: the first and the last rank of each."""
    ranks = [0, 1, 2, 3, 4, 7, 8, 15, 16, 31]
    document = [meta(), *[negative(rank, rank / 32) for rank in ranks]]
    found = similarity_by_rank(columns(document), 1)
    assert found.counts.tolist() == [[1, 1, 2, 2, 2, 2]]
    assert (found.sums * 32).tolist() == [[0, 1, 5, 11, 23, 47]]
    assert found.means() == [[0, 1 / 32, 5 / 64, 11 / 64, 23 / 64, 47 / 64]]


def test_documents_are_kept_apart_and_empty_buckets_are_none_up_to_the_last() -> None:
    found = similarity_by_rank(
        columns(
            [negative(0, 0.5), meta(), negative(3, 0.25), meta(), negative(2, 0.75)],
            [meta(), meta()],
            [meta(), negative(4, 0.125)],
            [meta(), negative(0, 1.0), meta(), negative(0, 0.5)],
        ),
        4,
    )
    assert found.means() == [[0.5, None, 0.5], [], [None, None, None, 0.125], [0.75]]
    assert found.counts.tolist() == [[1, 0, 2, 0], [0, 0, 0, 0], [0, 0, 0, 1], [2, 0, 0, 0]]


def test_a_similarity_of_zero_or_below_counts() -> None:
    assert similarity_by_rank(columns([negative(0, 0.0), negative(1, -0.5)]), 1).means() == [[0.0, -0.5]]


@pytest.mark.parametrize("role", ["meta", "repeat", "document"])
def test_only_negatives_have_a_similarity_by_rank(role: str) -> None:
    document = [negative(0, 0.5), (role, 5, 0, 0.25), (role, 5, 9, 0.25)]
    assert similarity_by_rank(columns(document), 1).means() == [[0.5]]
    assert similarity_by_rank(columns(document[1:]), 1).means() == [[]]


def test_sums_are_in_double_precision() -> None:
    """In float32 each 0.125 would be lost beside 1e8."""
    found = similarity_by_rank(columns([negative(0, 1e8), *[negative(0, 0.125)] * 8]), 1)
    assert found.sums.tolist() == [[1e8 + 1]]


def test_without_segments_there_is_nothing_by_rank_and_no_distance() -> None:
    assert similarity_by_rank(columns([], []), 2).means() == [[], []]
    assert similarity_by_rank(columns(), 0).means() == []
    assert [each.tolist() for each in meta_distances(columns([], []), 2)] == [[], []]
    assert meta_distances(columns(), 0) == []


def test_distances_are_tokens_between_the_end_of_a_meta_chunk_and_the_start_of_the_next() -> None:
    found = meta_distances(
        columns(
            [negative(0, 0.5)],
            [meta(10), negative(0, 0.5, 5), negative(1, 0.5, 2), meta(20), meta(3), negative(0, 0.5, 9)],
            [negative(0, 0.5), ("repeat", 5, 0, float("nan")), ("document", 5, -1, float("nan"))],
            [negative(0, 0.5, 4), meta(10), ("repeat", 6, 0, float("nan")), meta(10), negative(0, 0.5, 8), meta(1)],
            [negative(0, 0.5), meta(7), negative(1, 0.5)],
        ),
        5,
    )
    assert [each.tolist() for each in found] == [[], [7, 0], [], [6, 8], []]
    assert {each.dtype for each in found} == {np.dtype(np.int32)}


def test_every_document_of_several_has_its_own_distances() -> None:
    document = [meta(10), meta(10), negative(0, 0.5, 2), meta(1)]
    found = meta_distances(columns(document[:2], document[1:], [], document), 4)
    assert [each.tolist() for each in found] == [[0], [2], [], [0, 2]]
