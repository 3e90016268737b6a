"""The method once more, slow and obvious: texts, vectors and settings go in, long documents come out.

It shares no code with `nextlong` or `etl`; the tests compare the two.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from nextlong.config import Mining, Synthesis

SENTENCE_END = re.compile(r"""[.!?。！？…]["'”’)\]]*\s+|[。！？]""")


class Negative(NamedTuple):
    chunk_id: int
    rank: int  # index in the meta-chunk's candidates
    score: float
    num_tokens: int  # taken, from the chunk's start


class Allocation(NamedTuple):
    outcome: str  # kept, too_short, meta_too_long
    negatives: list[list[Negative]]  # one list a meta-chunk; empty unless kept
    num_tokens: int  # meta-chunks and negatives together: what was reached
    counts: Counter[str]  # already_used, copy_in_document


class Segment(NamedTuple):
    chunk_id: int
    role: str  # meta, negative
    start: int
    end: int
    rank: int  # -1: meta
    score: float | None  # None: meta


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


def ranked_chunks(vectors: Sequence[Sequence[float]], query_id: int) -> list[tuple[int, float]]:
    """(id, score) of every row, the query's own too, by (-score, id)."""
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
    vectors: Sequence[Sequence[float]],
    text_of: Mapping[int, str],
    num_candidates: int,
    near_duplicate_similarity: float | None,
) -> tuple[list[tuple[int, float]], Counter[str]]:
    """(id, score) kept for one meta-chunk of a meta-document, and the counts of what was met (Sec. 5.4)."""
    counts: Counter[str] = Counter()
    retrieved: list[tuple[int, float]] = []
    own_met = 0
    for chunk_id, score in ranked_chunks(vectors, query_id):
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
    """What one long document has taken so far: no chunk twice (App. D.1), no text twice."""

    def __init__(self, text_of: Mapping[int, str]) -> None:
        self.text_of = text_of
        self.ids: set[int] = set()
        self.texts: set[str] = set()
        self.counts: Counter[str] = Counter()

    def accepts(self, chunk_id: int) -> bool:
        if chunk_id in self.ids:
            self.counts["already_used"] += 1
            return False
        if self.text_of[chunk_id] in self.texts:
            self.counts["copy_in_document"] += 1
            return False
        self.ids.add(chunk_id)
        self.texts.add(self.text_of[chunk_id])
        return True


def allocate_paper(
    meta: Sequence[int],
    candidates: Sequence[Sequence[tuple[int, float]]],
    num_tokens: Mapping[int, int],
    text_of: Mapping[int, str],
    k: int,
    target: int,
) -> Allocation:
    """Each meta-chunk's first k usable candidates, whole; too_short unless the target is reached (Algorithm 1)."""
    taken = _Taken(text_of)
    negatives: list[list[Negative]] = []
    for listed in candidates:
        mine: list[Negative] = []
        for rank, (chunk_id, score) in enumerate(listed):
            if len(mine) == k:
                break
            if taken.accepts(chunk_id):
                mine.append(Negative(chunk_id, rank, score, num_tokens[chunk_id]))
        negatives.append(mine)
    total = sum(num_tokens[chunk_id] for chunk_id in meta)
    total += sum(negative.num_tokens for mine in negatives for negative in mine)
    if total < target:
        return Allocation("too_short", [], total, taken.counts)
    return Allocation("kept", negatives, total, taken.counts)


def allocate_exact(
    meta: Sequence[int],
    candidates: Sequence[Sequence[tuple[int, float]]],
    num_tokens: Mapping[int, int],
    text_of: Mapping[int, str],
    target: int,
    max_meta_ratio: float,
) -> Allocation:
    """Share what the meta-chunks leave of the target evenly among them, to the token."""
    meta_tokens = sum(num_tokens[chunk_id] for chunk_id in meta)
    taken = _Taken(text_of)
    if meta_tokens > max_meta_ratio * target:
        return Allocation("meta_too_long", [], meta_tokens, taken.counts)
    negatives: list[list[Negative]] = [[] for _ in meta]
    next_rank = [0 for _ in meta]

    def take(place: int, want: int) -> int:
        """Go on in one meta-chunk's candidates; what is left of `want`."""
        while want > 0 and next_rank[place] < len(candidates[place]):
            rank = next_rank[place]
            next_rank[place] += 1
            chunk_id, score = candidates[place][rank]
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
) -> list[Segment]:
    """Segments of a long document: l_i = [m_i ; n_i1 ; ...], t = [l_1 ; l_2 ; ...] (Eq. 4-5), cut at the target."""
    rng = np.random.default_rng([seed, stage_number, doc_id])
    pieces: list[tuple[int, str, int, int, float | None]] = []
    for meta_id, mine in zip(meta_ids, negatives, strict=True):
        place = {"head": 0, "tail": len(mine)}.get(position)
        if place is None:  # random
            place = int(rng.integers(0, len(mine) + 1))
        inserted = [(found.chunk_id, "negative", found.num_tokens, found.rank, found.score) for found in mine]
        pieces += inserted[:place]
        pieces.append((meta_id, "meta", num_tokens[meta_id], -1, None))
        pieces += inserted[place:]
    segments, start = [], 0
    for chunk_id, role, tokens, rank, score in pieces:
        if start < target:
            end = min(start + tokens, target)
            segments.append(Segment(chunk_id, role, start, end, rank, score))
            start = end
    return segments


def long_documents(
    documents: Mapping[int, Sequence[int]],
    *,
    chunks: Mapping[int, tuple[str, str]],
    vectors: Any,
    encode: Callable[[str], Sequence[int]],
    mining: Mining,
    synthesis: Synthesis,
    granularity: float,
    sampling_stage: int,
    interleaving_stage: int,
    chars_per_token: float | None = None,
) -> tuple[list[dict[str, Any]], Counter[str], Counter[str]]:
    """Long documents in drawn order, outcomes of the draws, and counts of the rules over the same draws.

    documents: chunk ids by doc_id; chunks: (text, joiner) by chunk id; vectors: one row a chunk;
    chars_per_token None: measured on all chunks.
    """
    texts = {chunk_id: text for chunk_id, (text, _) in chunks.items()}
    num_chars = {chunk_id: len(text + joiner) for chunk_id, (text, joiner) in chunks.items()}
    token_ids = {chunk_id: list(encode(text + joiner)) for chunk_id, (text, joiner) in chunks.items()}
    num_tokens = {chunk_id: len(ids) for chunk_id, ids in token_ids.items()}
    rows = [[float(number) for number in row] for row in vectors]
    if chars_per_token is None:
        chars_per_token = sum(num_chars.values()) / sum(num_tokens.values())
    target = synthesis.target_length_tokens
    eligible = [doc_id for doc_id in sorted(documents) if len(documents[doc_id]) >= synthesis.min_meta_chunks]
    order = np.random.default_rng([synthesis.seed, sampling_stage]).permutation(eligible).tolist()
    long_docs: list[dict[str, Any]] = []
    outcomes: Counter[str] = Counter()
    rules: Counter[str] = Counter()
    for sample_id, doc_id in enumerate(order):
        if len(long_docs) == synthesis.num_samples:
            break
        meta_ids = documents[doc_id]
        k = negatives_per_chunk(
            target_length_tokens=target,
            chars_per_token=chars_per_token,
            overshoot_ratio=synthesis.overshoot_ratio,
            meta_chars=sum(num_chars[chunk_id] for chunk_id in meta_ids),
            num_meta_chunks=len(meta_ids),
            granularity=granularity,
        )
        found = []
        for query_id in meta_ids:
            kept, counts = candidates(
                query_id,
                meta_ids,
                vectors=rows,
                text_of=texts,
                num_candidates=num_candidates_auto(k) if mining.num_candidates == "auto" else mining.num_candidates,
                near_duplicate_similarity=mining.near_duplicate_similarity,
            )
            found.append(kept)
            rules += counts
        if synthesis.budget == "paper":
            allocation = allocate_paper(meta_ids, found, num_tokens, texts, k, target)
        else:
            allocation = allocate_exact(meta_ids, found, num_tokens, texts, target, synthesis.max_meta_ratio)
        outcomes[allocation.outcome] += 1
        rules += allocation.counts
        if allocation.outcome == "kept":
            segments = assemble(
                meta_ids,
                allocation.negatives,
                synthesis.position,
                synthesis.seed,
                interleaving_stage,
                doc_id,
                num_tokens=num_tokens,
                target=target,
            )
            input_ids: list[int] = []
            for segment in segments:
                input_ids += token_ids[segment.chunk_id][: segment.end - segment.start]
            long_docs.append({"sample_id": sample_id, "doc_id": doc_id, "input_ids": input_ids, "segments": segments})
    return long_docs, outcomes, rules
