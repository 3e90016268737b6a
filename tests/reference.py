"""The method once more, slow and obvious: texts, vectors and settings go in, long documents come out.

It shares no code with `nextlong` or `etl`; the tests compare the two.
"""

import itertools
import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from nextlong.config import Mining, Synthesis

STAGE_DRAW, STAGE_POSITION, STAGE_SELECTION, STAGE_LENGTH, STAGE_KEYWORD = 1, 2, 3, 4, 5
SENTENCE_END = re.compile(r"""[.!?。！？…]["'”’)\]]*\s+|[。！？]""")


class Negative(NamedTuple):
    chunk_id: int
    rank: int  # index in the meta-chunk's candidates, before they are reordered; which repeat it is
    score: float | None  # None: a repeat
    num_tokens: int  # taken, from the chunk's start


class Allocation(NamedTuple):
    outcome: str  # kept, too_short, meta_too_long
    negatives: list[list[Negative]]  # one list a meta-chunk; empty unless kept
    num_tokens: int  # meta-chunks and negatives together: what was reached
    counts: Counter[str]  # already_used, over_used, copy_in_document


class Segment(NamedTuple):
    chunk_id: int
    role: str  # meta, negative, repeat, document
    start: int
    end: int
    rank: int  # -1: meta, or a document not looked up
    score: float | None  # None: meta, repeat, or a document not looked up


class Corpus(NamedTuple):
    texts: dict[int, str]  # by chunk id, without the joiner
    num_chars: dict[int, int]  # with the joiner, as the next two
    token_ids: dict[int, list[int]]
    num_tokens: dict[int, int]


class Member(NamedTuple):
    doc_id: int
    rank: int
    score: float | None


class Gathered(NamedTuple):
    sample_id: int
    length: int  # index in synthesis.targets
    members: list[Member]


def rng_of(seed: int, stage: int, *ids: int) -> np.random.Generator:
    """The generator of one draw."""
    return np.random.default_rng([seed, stage, *ids])


def published_chunks(text: str, granularity_chars: int) -> list[str]:
    """Chunks of a text by the published rule (Sec. 3.1.1, Algorithm 1 lines 2-20)."""
    chunks: list[str] = []
    group: list[str] = []
    length = 0
    for paragraph in text.split("\n"):
        if length + len(paragraph) > granularity_chars:
            if length > 0:
                chunks.append("\n".join(group))
            group, length = [paragraph], len(paragraph)
        else:
            group.append(paragraph)
            length += len(paragraph)
    chunks.append("\n".join(group))
    return chunks


def split_chunks(text: str, granularity_chars: int) -> list[tuple[str, str]]:
    """(chunk, joiner) of a text, no chunk longer than the granularity; put together they give the text back."""
    chunks, rest = [], text
    while len(rest) > granularity_chars:
        cut, joiner = _cut(rest, granularity_chars)
        chunks.append((rest[:cut], joiner))
        rest = rest[cut + len(joiner) :]
    if rest:
        chunks.append((rest, ""))
    return chunks


def _cut(rest: str, granularity_chars: int) -> tuple[int, str]:
    """Where the first chunk of a text above the granularity ends, and the joiner that follows it."""
    window = rest[:granularity_chars]
    newline = rest[: granularity_chars + 1].rfind("\n")
    if newline < len(rest) - 1 and not rest[newline + 1 :].strip():  # blank lines alone would be left: give them a line
        earlier = rest.rstrip().rfind("\n")
        if rest[: max(0, earlier)].strip():
            newline = earlier
    if newline > 0 and (rest[:newline].strip() or not window.strip()):
        return newline, "\n"
    ends = [match.end() for match in SENTENCE_END.finditer(window)]
    if ends:
        return ends[-1], ""
    spaces = [place + 1 for place, character in enumerate(window) if character.isspace()]
    if spaces and window[: spaces[-1]].strip():
        return spaces[-1], ""
    return granularity_chars, ""


def chunk_corpus(
    texts: Mapping[int, str], granularity_chars: int, long_paragraphs: str = "split"
) -> tuple[dict[int, list[int]], dict[int, tuple[str, str]]]:
    """Chunk ids of every document, and (chunk, joiner) by chunk id; a blank document has no chunks."""
    documents: dict[int, list[int]] = {}
    chunks: dict[int, tuple[str, str]] = {}
    for doc_id in sorted(texts):
        found: list[tuple[str, str]] = []
        if texts[doc_id].strip():
            if long_paragraphs == "split":
                found = split_chunks(texts[doc_id], granularity_chars)
            else:
                published = published_chunks(texts[doc_id], granularity_chars)
                found = [(chunk, "\n") for chunk in published[:-1]] + [(published[-1], "")]
        documents[doc_id] = []
        for chunk in found:
            documents[doc_id].append(len(chunks))
            chunks[len(chunks)] = chunk
    return documents, chunks


def ranked_chunks(vectors: Any, query_id: int) -> list[tuple[int, float]]:
    """(id, score) of all rows, the query too, by (-score, id); vectors: rows, or a function: id to scores of all."""
    if callable(vectors):
        return sorted(enumerate(vectors(query_id)), key=lambda pair: (-pair[1], pair[0]))
    query = [float(number) for number in vectors[query_id]]
    scored = []
    for chunk_id, row in enumerate(vectors):
        score = round(math.fsum(a * float(b) for a, b in zip(query, row, strict=True)), 6)
        scored.append((chunk_id, float(np.float32(score))))
    return sorted(scored, key=lambda pair: (-pair[1], pair[0]))


def exact_neighbours(
    vectors: Sequence[Sequence[float]], query_id: int, top_k: int | None = None
) -> list[tuple[int, float]]:
    """(id, score) of the nearest other rows, the nearest first (Eq. 3); None: all."""
    return [(chunk_id, score) for chunk_id, score in ranked_chunks(vectors, query_id) if chunk_id != query_id][:top_k]


def candidates(
    query_id: int,
    meta_ids: Sequence[int],
    *,
    vectors: Any,
    text_of: Mapping[int, str],
    num_candidates: int,
    near_duplicate_similarity: float | None,
) -> tuple[list[tuple[int, float]], Counter[str]]:
    """(id, score) kept for one meta-chunk of a meta-document, and the counts of what was met (Sec. 5.4)."""
    walk = ranked_chunks(vectors, query_id)
    if callable(vectors):
        walk = [(chunk_id, score) for chunk_id, score in walk if score > 0]  # no shared word: no neighbour
    return _kept(walk, meta_ids, text_of, num_candidates, near_duplicate_similarity)


def random_chunks(
    query_id: int,
    meta_ids: Sequence[int],
    *,
    vectors: Any,
    text_of: Mapping[int, str],
    num_candidates: int,
    near_duplicate_similarity: float | None,
    seed: int,
) -> tuple[list[tuple[int, float]], Counter[str]]:
    """The same of chunks drawn from the whole corpus, in drawn order."""
    score_of = dict(ranked_chunks(vectors, query_id))
    size = min(len(text_of), num_candidates + len(meta_ids))
    drawn = rng_of(seed, STAGE_SELECTION, query_id).choice(len(text_of), size=size, replace=False).tolist()
    walk = [(chunk_id, score_of[chunk_id]) for chunk_id in drawn]
    return _kept(walk, meta_ids, text_of, num_candidates, near_duplicate_similarity)


def _kept(
    walk: Sequence[tuple[int, float]],
    meta_ids: Sequence[int],
    text_of: Mapping[int, str],
    num_candidates: int,
    near_duplicate_similarity: float | None,
) -> tuple[list[tuple[int, float]], Counter[str]]:
    """The first chunks of other documents on a walk, less those the rules drop, and the counts of what was met."""
    counts: Counter[str] = Counter()
    retrieved: list[tuple[int, float]] = []
    own_met = 0
    for chunk_id, score in walk:
        if len(retrieved) == num_candidates:
            break
        if chunk_id in meta_ids:
            own_met += 1
        else:
            retrieved.append((chunk_id, score))
            counts["own_document"] = own_met  # those after the last retrieved one are not counted
    counts["retrieved"] = len(retrieved)
    meta_texts = [text_of[chunk_id] for chunk_id in meta_ids]
    kept = []
    for chunk_id, score in retrieved:
        if text_of[chunk_id] in meta_texts:
            counts["exact_copy"] += 1
        elif near_duplicate_similarity is not None and score >= float(np.float32(near_duplicate_similarity)):
            counts["near_duplicate"] += 1
        else:
            kept.append((chunk_id, score))
    return kept, counts


def selected(
    kept: Sequence[tuple[int, float]], negatives: str, skip_top: int, seed: int, query_id: int
) -> list[tuple[int, float, int]]:
    """(id, score, rank) of one meta-chunk's candidates in the order they are tried; the rank is that before it."""
    ranked = [(chunk_id, score, rank) for rank, (chunk_id, score) in enumerate(kept)]
    left = ranked[skip_top:]
    if negatives == "tail":
        left.reverse()
    if negatives == "random_candidates":
        left = [left[place] for place in rng_of(seed, STAGE_SELECTION, query_id).permutation(len(left))]
    return left


def negatives_per_chunk(
    *,
    target_length_tokens: int,
    chars_per_token: float,
    overshoot_ratio: float,
    meta_chars: int,
    num_meta_chunks: int,
    granularity: float,
) -> int:
    """k = (T E w - S) / (p s), rounded down, at least 0 (App. D.1, Eq. 8-12)."""
    wanted_chars = target_length_tokens * chars_per_token * overshoot_ratio
    return max(0, math.floor((wanted_chars - meta_chars) / (num_meta_chunks * granularity)))


def num_candidates_auto(num_negatives: int) -> int:
    """Candidates a meta-chunk when none are asked for: 512 as in Sec. 5.4, or twice k."""
    return max(512, 2 * num_negatives)


class _Taken:
    """What one long document has taken so far: no chunk twice (App. D.1), no text twice; of repeats, anything."""

    def __init__(self, text_of: Mapping[int, str], over_used: Collection[int], repeats: bool) -> None:
        self.text_of = text_of
        self.over_used = over_used
        self.repeats = repeats
        self.ids: set[int] = set()
        self.texts: set[str] = set()
        self.counts: Counter[str] = Counter()

    def accepts(self, chunk_id: int) -> bool:
        if self.repeats:
            return True
        if chunk_id in self.ids:
            self.counts["already_used"] += 1
            return False
        if chunk_id in self.over_used:
            self.counts["over_used"] += 1
            return False
        if self.text_of[chunk_id] in self.texts:
            self.counts["copy_in_document"] += 1
            return False
        self.ids.add(chunk_id)
        self.texts.add(self.text_of[chunk_id])
        return True


def allocate_paper(
    meta: Sequence[int],
    candidates: Sequence[Sequence[tuple[int, float | None, int]]],
    num_tokens: Mapping[int, int],
    text_of: Mapping[int, str],
    k: int,
    target: int,
    *,
    over_used: Collection[int] = (),
    repeats: bool = False,
) -> Allocation:
    """Each meta-chunk's first k usable candidates, whole; too_short unless the target is reached (Algorithm 1)."""
    taken = _Taken(text_of, over_used, repeats)
    negatives: list[list[Negative]] = []
    for listed in candidates:
        mine: list[Negative] = []
        for chunk_id, score, rank in listed:
            if len(mine) == k:
                break
            if num_tokens[chunk_id] > 0 and taken.accepts(chunk_id):
                mine.append(Negative(chunk_id, rank, score, num_tokens[chunk_id]))
        negatives.append(mine)
    total = sum(num_tokens[chunk_id] for chunk_id in meta)
    total += sum(negative.num_tokens for mine in negatives for negative in mine)
    if total < target:
        return Allocation("too_short", [], total, taken.counts)
    return Allocation("kept", negatives, total, taken.counts)


def allocate_exact(
    meta: Sequence[int],
    candidates: Sequence[Sequence[tuple[int, float | None, int]]],
    num_tokens: Mapping[int, int],
    text_of: Mapping[int, str],
    target: int,
    max_meta_ratio: float,
    *,
    over_used: Collection[int] = (),
    repeats: bool = False,
) -> Allocation:
    """Share what the meta-chunks leave of the target evenly among them, to the token."""
    meta_tokens = sum(num_tokens[chunk_id] for chunk_id in meta)
    taken = _Taken(text_of, over_used, repeats)
    if meta_tokens > max_meta_ratio * target:
        return Allocation("meta_too_long", [], meta_tokens, taken.counts)
    negatives: list[list[Negative]] = [[] for _ in meta]
    next_place = [0 for _ in meta]

    def take(place: int, want: int) -> int:
        """Go on in one meta-chunk's candidates; what is left of `want`."""
        while want > 0 and next_place[place] < len(candidates[place]):
            chunk_id, score, rank = candidates[place][next_place[place]]
            next_place[place] += 1
            if num_tokens[chunk_id] > 0 and taken.accepts(chunk_id):
                tokens = min(num_tokens[chunk_id], want)
                negatives[place].append(Negative(chunk_id, rank, score, tokens))
                want -= tokens
        return want

    share, extra = divmod(target - meta_tokens, len(meta))
    left = 0
    for place in range(len(meta)):
        left = take(place, share + (1 if place < extra else 0) + left)
    for place in range(len(meta)):
        if left > 0 and negatives[place]:
            last = negatives[place][-1]
            more = min(num_tokens[last.chunk_id] - last.num_tokens, left)
            negatives[place][-1] = last._replace(num_tokens=last.num_tokens + more)
            left -= more
        left = take(place, left)
    if left > 0:
        return Allocation("too_short", [], target - left, taken.counts)
    return Allocation("kept", negatives, target, taken.counts)


def assemble(
    meta_ids: Sequence[int],
    negatives: Sequence[Sequence[Negative]],
    position: str,
    seed: int,
    stage_number: int,
    doc_id: int,
    *,
    num_tokens: Mapping[int, int],
    target: int,
    role: str = "negative",
) -> list[Segment]:
    """Segments of a long document: l_i = [m_i ; n_i1 ; ...], t = [l_1 ; l_2 ; ...] (Eq. 4-5), cut at the target."""
    rng = rng_of(seed, stage_number, doc_id)
    pieces: list[tuple[int, str, int, int, float | None]] = []
    for meta_id, mine in zip(meta_ids, negatives, strict=True):
        place = {"head": 0, "tail": len(mine)}.get(position)
        if place is None:  # random
            place = int(rng.integers(0, len(mine) + 1))
        inserted = [(found.chunk_id, role, found.num_tokens, found.rank, found.score) for found in mine]
        pieces += inserted[:place]
        pieces.append((meta_id, "meta", num_tokens[meta_id], -1, None))
        pieces += inserted[place:]
    return _cut_at(pieces, target)


def _cut_at(pieces: Sequence[tuple[int, str, int, int, float | None]], target: int) -> list[Segment]:
    """Segments of (chunk id, role, tokens, rank, score), one after the other, cut at the target."""
    segments: list[Segment] = []
    start = 0
    for chunk_id, role, tokens, rank, score in pieces:
        if start < target:
            end = min(start + tokens, target)
            segments.append(Segment(chunk_id, role, start, end, rank, score))
            start = end
    return segments


def measured(chunks: Mapping[int, tuple[str, str]], encode: Callable[[str], Sequence[int]]) -> Corpus:
    """Texts, characters and tokens of all chunks."""
    whole = {chunk_id: text + joiner for chunk_id, (text, joiner) in chunks.items()}
    token_ids = {chunk_id: list(encode(text)) for chunk_id, text in whole.items()}
    return Corpus(
        texts={chunk_id: text for chunk_id, (text, _) in chunks.items()},
        num_chars={chunk_id: len(text) for chunk_id, text in whole.items()},
        token_ids=token_ids,
        num_tokens={chunk_id: len(ids) for chunk_id, ids in token_ids.items()},
    )


def drawn_lengths(synthesis: Synthesis, size: int) -> list[int]:
    """For every draw (or window) the index of its target length; the first ones are the same for any size."""
    if len(synthesis.targets) == 1:
        return [0] * size
    wanted = [1 for _ in synthesis.targets] if None in synthesis.wanted else synthesis.wanted
    weights = [number / sum(wanted) for number in wanted]
    return rng_of(synthesis.seed, STAGE_LENGTH).choice(len(wanted), size=size, p=weights).tolist()


def long_documents(
    documents: Mapping[int, Sequence[int]],
    *,
    chunks: Mapping[int, tuple[str, str]],
    vectors: Any = None,
    encode: Callable[[str], Sequence[int]],
    mining: Mining,
    synthesis: Synthesis,
    granularity: float,
    sampling_stage: int = STAGE_DRAW,
    interleaving_stage: int = STAGE_POSITION,
    chars_per_token: float | None = None,
) -> tuple[list[dict[str, Any]], Counter[str], Counter[str]]:
    """Long documents target by target in drawn order, outcomes of the draws, counts of the rules over the same draws.

    documents: chunk ids by doc_id; chunks: (text, joiner) by chunk id; vectors: one row a chunk, or a function from a
    chunk id to the scores of all chunks; None for self_repeat;
    chars_per_token None: measured on all chunks.
    """
    corpus = measured(chunks, encode)
    rows = [] if vectors is None else vectors
    if not callable(rows):
        rows = [[float(number) for number in row] for row in rows]
    if chars_per_token is None:
        chars_per_token = sum(corpus.num_chars.values()) / sum(corpus.num_tokens.values())
    eligible = [doc_id for doc_id in sorted(documents) if len(documents[doc_id]) >= synthesis.min_meta_chunks]
    order = rng_of(synthesis.seed, sampling_stage).permutation(eligible).tolist()
    lengths = drawn_lengths(synthesis, len(order))
    long_docs: list[dict[str, Any]] = []
    outcomes: Counter[str] = Counter()
    rules: Counter[str] = Counter()
    uses: Counter[int] = Counter()  # long documents so far in which a chunk is a negative
    for length, (target, wanted) in enumerate(zip(synthesis.targets, synthesis.wanted, strict=True)):
        num_kept = 0
        for sample_id, doc_id in enumerate(order):
            if num_kept == wanted:
                break
            if lengths[sample_id] != length:
                continue
            meta_ids = documents[doc_id]
            k = negatives_per_chunk(
                target_length_tokens=target,
                chars_per_token=chars_per_token,
                overshoot_ratio=synthesis.overshoot_ratio,
                meta_chars=sum(corpus.num_chars[chunk_id] for chunk_id in meta_ids),
                num_meta_chunks=len(meta_ids),
                granularity=granularity,
            )
            found, mined = _found(meta_ids, k, target, rows, corpus, mining, synthesis)
            allocation = _allocate(meta_ids, found, k, target, uses, corpus, synthesis)
            outcomes[allocation.outcome] += 1
            rules += mined + allocation.counts
            if allocation.outcome == "kept":
                num_kept += 1
                segments = _assemble(doc_id, meta_ids, allocation, target, interleaving_stage, corpus, synthesis)
                uses.update({segment.chunk_id for segment in segments if segment.role == "negative"})
                long_doc = {"sample_id": sample_id, "doc_id": doc_id}
                long_docs.append(long_doc | {"input_ids": _input_ids(segments, corpus), "segments": segments})
    return long_docs, outcomes, rules


def _found(
    meta_ids: Sequence[int],
    k: int,
    target: int,
    rows: Any,
    corpus: Corpus,
    mining: Mining,
    synthesis: Synthesis,
) -> tuple[list[list[tuple[int, float | None, int]]], Counter[str]]:
    """(id, score, rank) that each meta-chunk may take, in the order they are tried, and the counts of the rules."""
    found: list[list[tuple[int, float | None, int]]] = []
    rules: Counter[str] = Counter()
    if synthesis.negatives == "self_repeat":
        enough = max(k, target)  # a repeat that counts has a token at least
        return [[(query_id, None, rank) for rank in range(enough)] for query_id in meta_ids], rules
    for query_id in meta_ids:
        settings: dict[str, Any] = {
            "vectors": rows,
            "text_of": corpus.texts,
            "num_candidates": num_candidates_auto(k) if mining.num_candidates == "auto" else mining.num_candidates,
            "near_duplicate_similarity": mining.near_duplicate_similarity,
        }
        if synthesis.negatives == "random":
            kept, counts = random_chunks(query_id, meta_ids, seed=synthesis.seed, **settings)
        else:
            kept, counts = candidates(query_id, meta_ids, **settings)
        found.append(selected(kept, synthesis.negatives, synthesis.skip_top, synthesis.seed, query_id))
        rules += counts
    return found, rules


def _allocate(
    meta_ids: Sequence[int],
    found: Sequence[Sequence[tuple[int, float | None, int]]],
    k: int,
    target: int,
    uses: Mapping[int, int],
    corpus: Corpus,
    synthesis: Synthesis,
) -> Allocation:
    """One long document's negatives, by the budget."""
    cap = synthesis.max_uses_per_chunk
    limits: dict[str, Any] = {
        "over_used": set() if cap is None else {chunk_id for chunk_id, number in uses.items() if number >= cap},
        "repeats": synthesis.negatives == "self_repeat",
    }
    if synthesis.budget == "paper":
        return allocate_paper(meta_ids, found, corpus.num_tokens, corpus.texts, k, target, **limits)
    ratio = synthesis.max_meta_ratio
    return allocate_exact(meta_ids, found, corpus.num_tokens, corpus.texts, target, ratio, **limits)


def _assemble(
    doc_id: int,
    meta_ids: Sequence[int],
    allocation: Allocation,
    target: int,
    stage_number: int,
    corpus: Corpus,
    synthesis: Synthesis,
) -> list[Segment]:
    """One long document's segments, by the settings."""
    return assemble(
        meta_ids,
        allocation.negatives,
        synthesis.position,
        synthesis.seed,
        stage_number,
        doc_id,
        num_tokens=corpus.num_tokens,
        target=target,
        role="repeat" if synthesis.negatives == "self_repeat" else "negative",
    )


def _input_ids(segments: Sequence[Segment], corpus: Corpus) -> list[int]:
    """The tokens of the segments, each from its chunk's start."""
    input_ids: list[int] = []
    for segment in segments:
        input_ids += corpus.token_ids[segment.chunk_id][: segment.end - segment.start]
    return input_ids


def concatenated(
    documents: Mapping[int, Sequence[int]],
    *,
    chunks: Mapping[int, tuple[str, str]],
    encode: Callable[[str], Sequence[int]],
    synthesis: Synthesis,
    vectors: Any = None,
    num_candidates: int | None = None,
    keywords: Mapping[int, Sequence[str]] | None = None,
    neighbours: Mapping[int, Sequence[tuple[int, float]]] | None = None,
) -> list[dict[str, Any]]:
    """Long documents of whole documents (standard, knn, iclm, quest), by sample_id.

    documents, chunks: as in long_documents; vectors (one row a chunk) and num_candidates: knn, iclm;
    keywords by doc_id: quest. neighbours: (doc_id, score) by doc_id, in place of those by vectors.
    """
    corpus = measured(chunks, encode)
    sizes = {doc_id: sum(corpus.num_tokens[chunk_id] for chunk_id in documents[doc_id]) for doc_id in sorted(documents)}
    sizes = {doc_id: tokens for doc_id, tokens in sizes.items() if tokens > 0}
    if synthesis.strategy == "standard":
        gathered = windows(standard_stream(sizes, synthesis.seed), sizes, synthesis)
    elif synthesis.strategy == "quest":
        kept_keywords = {doc_id: keywords.get(doc_id, []) for doc_id in sizes}
        gathered = windows(quest_stream(kept_keywords, synthesis), sizes, synthesis)
    else:
        if neighbours is None:
            mean_of = document_vectors({doc_id: documents[doc_id] for doc_id in sizes}, vectors)
            neighbours = document_neighbours(mean_of, num_candidates)
        if synthesis.strategy == "iclm":
            gathered = shuffled(windows(iclm_path(neighbours), sizes, synthesis), synthesis.seed)
        else:
            gathered = knn_groups(neighbours, sizes, synthesis)
    long_docs = []
    for one in first_wanted(gathered, synthesis.wanted):
        pieces = [
            (chunk_id, "document", corpus.num_tokens[chunk_id], rank, score)
            for doc_id, rank, score in one.members
            for chunk_id in documents[doc_id]
        ]
        segments = _cut_at(pieces, synthesis.targets[one.length])
        doc_ids = [member.doc_id for member in one.members]
        long_doc = {"sample_id": one.sample_id, "doc_id": doc_ids[0], "documents": doc_ids}
        long_docs.append(long_doc | {"input_ids": _input_ids(segments, corpus), "segments": segments})
    return long_docs


def windows(stream: Sequence[Member], sizes: Mapping[int, int], synthesis: Synthesis) -> list[Gathered]:
    """Consecutive documents of a stream until their tokens reach the target; the last incomplete window is dropped."""
    lengths = drawn_lengths(synthesis, len(stream))
    complete: list[Gathered] = []
    members: list[Member] = []
    for member in stream:
        if member.doc_id in [other.doc_id for other in members]:
            continue
        members.append(member if members else member._replace(score=None))
        length = lengths[len(complete)]
        if sum(sizes[other.doc_id] for other in members) >= synthesis.targets[length]:
            complete.append(Gathered(len(complete), length, members))
            members = []
    return complete


def first_wanted(gathered: Sequence[Gathered], wanted: Sequence[int | None]) -> list[Gathered]:
    """The first ones, until each target has its wanted number; None: all."""
    kept: list[Gathered] = []
    for one in gathered:
        number = len([other for other in kept if other.length == one.length])
        if number != wanted[one.length]:
            kept.append(one)
    return kept


def standard_stream(doc_ids: Collection[int], seed: int) -> list[Member]:
    """All documents in random order."""
    order = rng_of(seed, STAGE_DRAW).permutation(sorted(doc_ids)).tolist()
    return [Member(doc_id, -1, None) for doc_id in order]


def document_vectors(documents: Mapping[int, Sequence[int]], vectors: Any) -> dict[int, list[float]]:
    """Mean of each document's chunks' vectors at length 1, in float32; a zero mean stays zero."""
    found: dict[int, list[float]] = {}
    for doc_id in sorted(documents):
        rows = [[float(number) for number in vectors[chunk_id]] for chunk_id in documents[doc_id]]
        mean = [math.fsum(column) / len(rows) for column in zip(*rows, strict=True)]
        norm = math.sqrt(math.fsum(number * number for number in mean))
        found[doc_id] = [float(np.float32(number / norm if norm > 0 else 0.0)) for number in mean]
    return found


def document_neighbours(
    vector_of: Mapping[int, Sequence[float]], num_candidates: int | None
) -> dict[int, list[tuple[int, float]]]:
    """(doc_id, score) of each document's nearest others, by (-score, doc_id)."""
    doc_ids = sorted(vector_of)
    rows = [vector_of[doc_id] for doc_id in doc_ids]
    neighbours: dict[int, list[tuple[int, float]]] = {}
    for row, doc_id in enumerate(doc_ids):
        nearest = exact_neighbours(rows, row, num_candidates)
        neighbours[doc_id] = [(doc_ids[other], score) for other, score in nearest]
    return neighbours


def iclm_path(neighbours: Mapping[int, Sequence[tuple[int, float]]]) -> list[Member]:
    """Every document once, each step to the nearest unvisited graph neighbour; the score is that of the step."""
    graph: dict[int, dict[int, float]] = {doc_id: {} for doc_id in neighbours}
    for doc_id, nearest in neighbours.items():
        for other, score in nearest:
            score = max(score, graph[doc_id].get(other, score))  # by words they may differ
            graph[doc_id][other] = score
            graph[other][doc_id] = score
    unvisited = set(graph)
    path: list[Member] = []
    while unvisited:
        reachable = [other for other in graph[path[-1].doc_id] if other in unvisited] if path else []
        if reachable:
            here = path[-1].doc_id
            doc_id = min(reachable, key=lambda other: (-graph[here][other], other))
            path.append(Member(doc_id, -1, graph[here][doc_id]))
        else:
            doc_id = min(unvisited, key=lambda other: (len(graph[other]), other))
            path.append(Member(doc_id, -1, None))
        unvisited.remove(doc_id)
    return path


def shuffled(gathered: Sequence[Gathered], seed: int) -> list[Gathered]:
    """The windows in random order, numbered by it."""
    order = rng_of(seed, STAGE_DRAW).permutation(len(gathered)).tolist()
    return [gathered[number]._replace(sample_id=sample_id) for sample_id, number in enumerate(order)]


def knn_groups(
    neighbours: Mapping[int, Sequence[tuple[int, float]]], sizes: Mapping[int, int], synthesis: Synthesis
) -> list[Gathered]:
    """Random documents, each with its nearest unused ones until their tokens reach the target; no document twice."""
    order = rng_of(synthesis.seed, STAGE_DRAW).permutation(sorted(sizes)).tolist()
    lengths = drawn_lengths(synthesis, len(order))
    used: set[int] = set()
    groups: list[Gathered] = []
    for sample_id, doc_id in enumerate(order):
        length = lengths[sample_id]
        number = len([group for group in groups if group.length == length])
        if doc_id in used or number == synthesis.wanted[length]:
            continue
        members = [Member(doc_id, -1, None)]
        tokens = sizes[doc_id]
        for rank, (other, score) in enumerate(neighbours[doc_id]):
            if tokens < synthesis.targets[length] and other not in used:
                members.append(Member(other, rank, score))
                tokens += sizes[other]
        if tokens >= synthesis.targets[length]:
            used.update(member.doc_id for member in members)
            groups.append(Gathered(sample_id, length, members))
    return groups


def quest_stream(keywords: Mapping[int, Sequence[str]], synthesis: Synthesis) -> list[Member]:
    """Documents group by group, a group being those that drew the same keyword; rare ones several times."""
    groups = quest_groups(keywords, synthesis.seed)
    keys = sorted(groups, key=lambda key: (len(groups[key]), key))
    rare = keys[: len(keys) // 2]
    occurrences: list[str] = []
    for key in keys:
        occurrences += [key] * (synthesis.keyword_oversampling if key in rare else 1)
    rng = rng_of(synthesis.seed, STAGE_DRAW)
    stream: list[Member] = []
    for place in rng.permutation(len(occurrences)):
        stream += [Member(doc_id, -1, None) for doc_id in rng.permutation(groups[occurrences[place]]).tolist()]
    return stream


def quest_groups(keywords: Mapping[int, Sequence[str]], seed: int) -> dict[str, list[int]]:
    """doc_ids by key, in ascending order; a document's key is one of its keywords that another document has too."""
    num_documents: Counter[str] = Counter()
    for listed in keywords.values():
        num_documents.update(set(listed))
    groups: dict[str, list[int]] = {}
    for doc_id in sorted(keywords):
        shared = sorted(keyword for keyword in set(keywords[doc_id]) if num_documents[keyword] >= 2)
        if shared:
            key = shared[rng_of(seed, STAGE_KEYWORD, doc_id).integers(len(shared))]
            groups.setdefault(key, []).append(doc_id)
    return groups


def hardness(segments: Sequence[Segment]) -> tuple[list[float | None], list[int]]:
    """Mean score of the negatives of ranks 0, 1, 2-3, 4-7, ...; tokens from each meta segment's end to the next one."""
    scores: dict[int, list[float]] = {}
    for segment in segments:
        if segment.role == "negative":
            scores.setdefault(segment.rank.bit_length(), []).append(segment.score)
    mean = {bucket: sum(found) / len(found) for bucket, found in scores.items()}
    by_rank = [mean.get(bucket) for bucket in range(max(scores, default=-1) + 1)]
    metas = [segment for segment in segments if segment.role == "meta"]
    distances = [after.start - before.end for before, after in itertools.pairwise(metas)]
    return by_rank, distances


class Piece(NamedTuple):
    document: int
    start: int
    length: int


def best_fit(lengths: Sequence[int], length_tokens: int, seed: int) -> list[list[Piece]]:
    """Best-fit-decreasing, every sequence looked at for every piece: what leaves the least room, if it fits.

    One token alone is no piece. Among sequences of the same room it is the one that came to it last.
    """
    pieces = []
    for document, length in enumerate(lengths):
        start = 0
        while length - start >= 2:
            end = min(start + length_tokens, length)
            if length - end == 1:
                end -= 1
            pieces.append(Piece(document, start, end - start))
            start = end
    rows: list[list[Piece]] = []
    touched: list[int] = []  # when each sequence got its last piece
    for turn, piece in enumerate(sorted(pieces, key=lambda piece: -piece.length)):
        rooms = [length_tokens - sum(each.length for each in row) for row in rows]
        fitting = [row for row, room in enumerate(rooms) if room >= piece.length]
        if fitting:
            best = min(fitting, key=lambda row: (rooms[row], -touched[row]))
        else:
            best = len(rows)
            rows.append([])
            touched.append(turn)
        rows[best].append(piece)
        touched[best] = turn
    return [sorted(rows[row]) for row in np.random.default_rng([seed]).permutation(len(rows))]


def first_fit(lengths: Sequence[int], length_tokens: int) -> int:
    """How many sequences documents no longer than one take, each put into the first where it fits."""
    rooms: list[int] = []
    for length in lengths:
        for row, room in enumerate(rooms):
            if room >= length:
                rooms[row] -= length
                break
        else:
            rooms.append(length_tokens - length)
    return len(rooms)


def mixed(shares: Sequence[Fraction], num_rows: int) -> list[int]:
    """The folder of each row by Tijdeman's rule, in fractions: what each folder is owed, and how long it can wait."""
    if len(shares) == 1:
        return [0] * num_rows
    bound = 1 - Fraction(1, 2 * len(shares) - 2)
    owed = [Fraction(0) for _ in shares]
    chosen = []
    for _ in range(num_rows):
        owed = [each + share for each, share in zip(owed, shares, strict=True)]
        may = [folder for folder, each in enumerate(owed) if each >= 1 - bound]
        best = min(may, key=lambda folder: ((bound - owed[folder]) / shares[folder], folder))
        owed[best] -= 1
        chosen.append(best)
    return chosen
