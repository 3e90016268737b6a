"""Documents in, windows of whole documents out: the methods NExtLong is compared with (Table 1).

A window is one long document before it is cut at its target length. No document stands in a window twice.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nextlong.config import Synthesis
from nextlong.sampling import STAGE_DRAW, STAGE_KEYWORD, draw_lengths


class Documents(NamedTuple):
    """The documents of a corpus, ascending by doc_id."""

    doc_ids: NDArray[np.int64]
    num_tokens: NDArray[np.int64]


class DocumentNeighbours(NamedTuple):
    """The nearest documents of every document that has tokens, ascending by doc_id."""

    doc_ids: NDArray[np.int64]
    ids: NDArray[np.int64]
    """[m, k] doc_ids out of `doc_ids`, nearest first, each once, never the document itself; -1 ends a shorter list."""
    scores: NDArray[np.float32]
    """[m, k]; what stands beside a -1 is not read."""


class Member(NamedTuple):
    """A document as it stands in a window, whole."""

    doc_id: int
    rank: int
    """knn: place among the neighbours of the window's first document, 0 the nearest; -1: not looked up."""
    score: float | None
    """knn: similarity to the window's first document; iclm: to the one before it; None: not found by similarity."""


class Window(NamedTuple):
    """Documents that together have at least the tokens of their target length."""

    sample_id: int
    """When its turn was, in drawn order (knn: that of its first document); turns that gave none leave gaps."""
    length: int
    """Place of its target in `synthesis.targets`."""
    members: list[Member]


class Gathered(NamedTuple):
    """The windows, and what became of every document."""

    windows: list[Window]
    """By sample_id; of every length as many as are wanted, or as there are."""
    outcomes: Counter[str]
    """Documents by what became of them, as told at `gather`; those that are 0 are left out."""


class _Edges(NamedTuple):
    """An undirected graph over rows: the edges of row i are starts[i] to starts[i + 1], ascending by the other row."""

    starts: NDArray[np.int64]
    others: NDArray[np.int32]
    scores: NDArray[np.float32]


_Step = tuple[int, float | None]  # row of the next document of a stream, and its score
_Found = tuple[list[Window], list[int]]  # the wanted windows, and the doc_ids of those that are too short for one


def gather(
    documents: Documents,
    synthesis: Synthesis,
    *,
    neighbours: DocumentNeighbours | None = None,
    keywords: Mapping[int, Sequence[str]] | None = None,
) -> Gathered:
    """Windows by `synthesis.strategy`; documents without tokens do not exist for it. Depends on the seed only.

    standard: documents in random order, cut into windows as soon as their tokens reach the target.
    knn: random documents, each with its nearest unused neighbours, no more than reach the target; every document in
    one window at most. One whose neighbours do not suffice stays free for the windows of others.
    iclm (arXiv:2310.10638): one path through the graph of neighbours, cut likewise, and the windows in random order;
    from a document to its nearest unvisited neighbour, ties by doc_id, or to the unvisited one of lowest degree.
    quest (arXiv:2405.19846): every document draws one of its keywords that another has too; the documents of a keyword
    follow each other in random order, keywords likewise, the rarer half of them `keyword_oversampling` times.

    Outcomes, one a document: kept; no_tokens; no_keyword, no_shared_keyword (quest: none, or none that another has);
    too_short (standard, iclm, quest: of the last, incomplete window; knn: its neighbours did not suffice); not_drawn
    (its turn, or its window, came when no more of its length were wanted). They sum to the documents.

    Reads `neighbours` (knn, iclm) and `keywords` (quest, twice, by doc_id; a document may be missing). Once every
    length has its wanted number the rest is not gathered, except for iclm. Peak memory beside the input: about 200
    bytes a document that is kept, for iclm 60 a neighbour, for quest a counter of all keywords. Raises ValueError when
    what the strategy reads is missing, or the neighbours are not those of the documents with tokens.
    """
    usable = Documents(*(column[documents.num_tokens > 0] for column in documents))
    if neighbours is not None and not np.array_equal(neighbours.doc_ids, usable.doc_ids):
        raise ValueError("neighbours.doc_ids are not those of the documents with tokens")
    outcomes = Counter(no_tokens=len(documents.doc_ids) - len(usable.doc_ids))
    match synthesis.strategy:
        case "standard":
            windows, too_short = _standard(usable, synthesis)
        case "knn" if neighbours is not None:
            windows, too_short = _knn(usable, neighbours, synthesis)
        case "iclm" if neighbours is not None:
            windows, too_short = _iclm(usable, neighbours, synthesis)
        case "quest" if keywords is not None:
            groups = _keyword_groups(usable, keywords, synthesis.seed, outcomes)
            windows, too_short = _quest(usable, groups, synthesis)
        case strategy:
            raise ValueError(f"strategy {strategy} gathers no whole documents, or lacks its neighbours or keywords")
    kept = np.unique([member.doc_id for window in windows for member in window.members])
    outcomes.update(kept=len(kept), too_short=len(np.setdiff1d(too_short, kept)))
    outcomes["not_drawn"] = len(documents.doc_ids) - outcomes.total()
    return Gathered(windows, +outcomes)


def _standard(documents: Documents, synthesis: Synthesis) -> _Found:
    order = _rng(synthesis).permutation(len(documents.doc_ids))
    windows = _Windows(((row, None) for row in order.tolist()), documents, synthesis, most=len(order))
    return list(_first_wanted(windows, synthesis)), windows.incomplete


def _iclm(documents: Documents, neighbours: DocumentNeighbours, synthesis: Synthesis) -> _Found:
    """All windows must be known before they are put in random order: the path begins at the documents few are like."""
    windows = _Windows(_path(_edges(neighbours)), documents, synthesis, most=len(documents.doc_ids))
    complete = list(windows)
    order = _rng(synthesis).permutation(len(complete)).tolist()
    shuffled = (complete[place]._replace(sample_id=sample_id) for sample_id, place in enumerate(order))
    return list(_first_wanted(shuffled, synthesis)), windows.incomplete


def _quest(documents: Documents, groups: Mapping[str, list[int]], synthesis: Synthesis) -> _Found:
    rarest_first = sorted(groups, key=lambda keyword: (len(groups[keyword]), keyword))
    num_rare = len(rarest_first) // 2
    rare = [keyword for keyword in rarest_first[:num_rare] for _ in range(synthesis.keyword_oversampling)]
    occurrences = [groups[keyword] for keyword in rare + rarest_first[num_rare:]]
    most = sum(map(len, occurrences))
    windows = _Windows(_in_random_order(occurrences, _rng(synthesis)), documents, synthesis, most=most)
    return list(_first_wanted(windows, synthesis)), windows.incomplete


def _knn(documents: Documents, neighbours: DocumentNeighbours, synthesis: Synthesis) -> _Found:
    windows: list[Window] = []
    too_short: list[int] = []
    missing = _wanted(synthesis)
    free = np.ones(len(documents.doc_ids), bool)
    lengths = draw_lengths(synthesis, len(free))
    for sample_id, row in enumerate(_rng(synthesis).permutation(len(free)).tolist()):
        length = lengths.item(sample_id)
        if not any(missing):
            break
        if not (free[row] and missing[length]):
            continue
        members = _with_nearest(row, synthesis.targets[length], free, documents, neighbours)
        if members:
            free[np.searchsorted(documents.doc_ids, [member.doc_id for member in members])] = False
            missing[length] -= 1
            windows.append(Window(sample_id, length, members))
        else:
            too_short.append(documents.doc_ids.item(row))
    return windows, too_short


def _with_nearest(
    row: int, target: int, free: NDArray[np.bool_], documents: Documents, neighbours: DocumentNeighbours
) -> list[Member]:
    """A free document and its nearest free neighbours up to the one that reaches the target; empty if none does."""
    ids = np.concatenate([documents.doc_ids[row : row + 1], neighbours.ids[row]])
    rows = np.searchsorted(documents.doc_ids, ids)
    usable = (ids >= 0) & free[rows]
    num_tokens = np.cumsum(np.where(usable, documents.num_tokens[rows], 0))
    if num_tokens[-1] < target:
        return []
    taken = np.flatnonzero(usable[: np.searchsorted(num_tokens, target) + 1])
    ranks = taken - 1  # -1: the document itself
    scores = [None, *neighbours.scores[row, ranks[1:]].tolist()]
    return list(map(Member, ids[taken].tolist(), ranks.tolist(), scores))


class _Windows:
    """Consecutive documents of a stream until their tokens reach the target; can be iterated once.

    A document that the window has already is passed over. `most`: the greatest number of steps in the stream.
    """

    def __init__(self, stream: Iterable[_Step], documents: Documents, synthesis: Synthesis, most: int) -> None:
        self._stream, self._documents, self._targets = stream, documents, synthesis.targets
        self._lengths = draw_lengths(synthesis, most)
        self.incomplete: list[int] = []
        """After the last window: doc_ids of the documents that are left over."""

    def __iter__(self) -> Iterator[Window]:
        sample_id = num_tokens = 0
        members: dict[int, Member] = {}
        for row, score in self._stream:
            if row in members:
                continue
            members[row] = Member(self._documents.doc_ids.item(row), -1, score if members else None)
            num_tokens += self._documents.num_tokens.item(row)
            length = self._lengths.item(sample_id)
            if num_tokens >= self._targets[length]:
                yield Window(sample_id, length, list(members.values()))
                sample_id, num_tokens, members = sample_id + 1, 0, {}
        self.incomplete = [member.doc_id for member in members.values()]


def _first_wanted(windows: Iterable[Window], synthesis: Synthesis) -> Iterator[Window]:
    """The first windows of each length up to its wanted number; reads no further when all are reached."""
    missing = _wanted(synthesis)
    for window in windows:
        if missing[window.length]:
            missing[window.length] -= 1
            yield window
        if not any(missing):
            break


def _wanted(synthesis: Synthesis) -> list[float]:
    return [math.inf if number is None else number for number in synthesis.wanted]


def _edges(neighbours: DocumentNeighbours) -> _Edges:
    """Every neighbour as an edge in both directions; the scores of a BM25 pair may differ, then the higher counts."""
    num_rows, known = len(neighbours.doc_ids), neighbours.ids >= 0
    edges = _both_directions(neighbours, known)
    order = np.argsort(edges)
    scores = np.tile(neighbours.scores[known], 2)[order]
    edges = edges[order]
    del order  # 16 bytes a neighbour
    distinct = np.flatnonzero(np.diff(edges, prepend=-1))
    edges, scores = edges[distinct], np.maximum.reduceat(scores, distinct)
    starts = np.searchsorted(edges, np.arange(num_rows + 1) * num_rows)
    return _Edges(starts, (edges % max(num_rows, 1)).astype(np.int32), scores)


def _both_directions(neighbours: DocumentNeighbours, known: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Edges from row i to row j as i * m + j: those to the neighbours, then in the same order those from them."""
    num_rows = len(neighbours.doc_ids)
    rows = np.repeat(np.arange(num_rows), known.sum(axis=1))
    others = np.searchsorted(neighbours.doc_ids, neighbours.ids[known])
    return np.concatenate([rows * num_rows + others, others * num_rows + rows])


def _path(edges: _Edges) -> Iterator[_Step]:
    """Every row once: from the unvisited one of lowest degree to the nearest unvisited ones, until there is none."""
    degrees = np.diff(edges.starts)
    unvisited = np.ones(len(degrees), bool)
    for start in np.argsort(degrees, kind="stable").tolist():
        step: _Step | None = (start, None) if unvisited[start] else None
        while step:
            yield step
            unvisited[step[0]] = False
            step = _nearest_unvisited(step[0], edges, unvisited)


def _nearest_unvisited(row: int, edges: _Edges, unvisited: NDArray[np.bool_]) -> _Step | None:
    """The path is at a row once only, so its edges need no order by score."""
    first, end = edges.starts.item(row), edges.starts.item(row + 1)
    places = first + np.flatnonzero(unvisited[edges.others[first:end]])
    if not len(places):
        return None
    nearest = places[edges.scores[places].argmax()]  # the first of equals
    return edges.others.item(nearest), edges.scores.item(nearest)


def _keyword_groups(
    documents: Documents, keywords: Mapping[int, Sequence[str]], seed: int, outcomes: Counter[str]
) -> dict[str, list[int]]:
    """Rows by the keyword they drew, ascending; adds those that can draw none to the outcomes."""
    num_documents: Counter[str] = Counter()
    for doc_id in documents.doc_ids.tolist():
        num_documents.update(set(keywords.get(doc_id, ())))
    groups: dict[str, list[int]] = {}
    for row, doc_id in enumerate(documents.doc_ids.tolist()):
        distinct = set(keywords.get(doc_id, ()))
        shared = sorted(keyword for keyword in distinct if num_documents[keyword] > 1)
        if shared:
            place = np.random.default_rng([seed, STAGE_KEYWORD, doc_id]).integers(len(shared))
            groups.setdefault(shared[place], []).append(row)
        else:
            outcomes["no_shared_keyword" if distinct else "no_keyword"] += 1
    return groups


def _in_random_order(groups: Sequence[Sequence[int]], rng: np.random.Generator) -> Iterator[_Step]:
    """The rows group by group."""
    for place in rng.permutation(len(groups)).tolist():
        for row in rng.permutation(groups[place]).tolist():
            yield row, None


def _rng(synthesis: Synthesis) -> np.random.Generator:
    return np.random.default_rng([synthesis.seed, STAGE_DRAW])
