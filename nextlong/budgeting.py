"""How many negatives each meta-chunk takes: the paper's formula (App. D.1), or an exact budget of tokens."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nextlong.config import AUTO_CANDIDATES
from nextlong.mining import Candidates, FetchHashes

Outcome = Literal["kept", "meta_too_long", "too_short"]


CountTokens = Callable[[NDArray[np.int64]], NDArray[np.integer]]
"""chunk_ids [n] -> stored token ids of each chunk"""
IsOverUsed = Callable[[NDArray[np.int64]], NDArray[np.bool_]]
"""chunk_ids [n] -> whether each already serves in as many long documents as one chunk may"""
_LOOKED_UP_FIRST = 16  # candidates, then 32, 64, ...: one look-up of many costs a fifth of many look-ups of one


class Negative(NamedTuple):
    """A negative as it enters a long document."""

    chunk_id: int
    rank: int
    """Place among the candidates that the rules left, 0 the nearest."""
    score: float | None
    """Similarity to the meta-chunk; None for the meta-chunk itself."""
    num_tokens: int
    """Leading tokens of the chunk that enter; fewer than it has where the budget shortened it."""


class Allocation(NamedTuple):
    """The negatives of one meta-document, or why it becomes no long document."""

    negatives: list[list[Negative]]
    """For each meta-chunk in order."""
    num_tokens: int
    """Tokens of meta-chunks and negatives together: what the document can reach."""
    outcome: Outcome
    skipped: Counter[str]
    """Candidates passed over by reason: already_used, over_used, copy_in_document."""


def negatives_per_chunk(
    *,
    target_length_tokens: int,
    chars_per_token: float,
    overshoot_ratio: float,
    meta_chars: int,
    num_meta_chunks: int,
    granularity_chars: float,
) -> int:
    """k = (T E w - S) / (p s), rounded down, at least 0 (App. D.1, Eq. 8-12)."""
    missing_chars = target_length_tokens * chars_per_token * overshoot_ratio - meta_chars
    return max(0, int(missing_chars // (num_meta_chunks * granularity_chars)))


def num_candidates(wanted: int | Literal["auto"], negatives: int) -> int:
    """Candidates to retrieve a meta-chunk; auto: max(512, 2 k), of which 512 is the paper's number (Sec. 5.4)."""
    return max(AUTO_CANDIDATES, 2 * negatives) if wanted == "auto" else wanted


class ChunkFacts(NamedTuple):
    """What an allocation asks of the corpus' chunks."""

    num_tokens: CountTokens
    text_hashes: FetchHashes
    is_over_used: IsOverUsed | None = None
    """None: no chunk is used too often."""
    may_repeat: bool = False
    """Whether a chunk may enter one long document several times, as negatives=self_repeat means."""


class _LongDocument:
    """What is already in one long document: no chunk enters twice (App. D.1), nor a copy of one."""

    def __init__(self, candidates: Sequence[Candidates], facts: ChunkFacts) -> None:
        self.negatives: list[list[Negative]] = [[] for _ in candidates]
        self.skipped: Counter[str] = Counter()
        self._facts = facts
        self._ids: set[int] = set()
        self._hashes: set[int] = set()
        self.unused = [self._unused(each) for each in candidates]
        """For each meta-chunk its candidates not in the document yet, in order, whole; drawn, they are in it."""

    def num_tokens(self, chunk_id: int) -> int:
        """Stored token ids of one chunk."""
        return int(self._facts.num_tokens(np.array([chunk_id]))[0])

    def _unused(self, candidates: Candidates) -> Iterator[Negative]:
        ids, hashes, facts = self._ids, self._hashes, self._facts
        first, size = 0, _LOOKED_UP_FIRST
        while first < len(candidates.ids):
            block = slice(first, first + size)
            block_ids = candidates.ids[block]
            over_used = facts.is_over_used(block_ids) if facts.is_over_used else np.zeros(len(block_ids), np.bool_)
            columns = (block_ids, facts.num_tokens(block_ids), facts.text_hashes(block_ids), over_used)
            rows = zip(*[column.tolist() for column in columns], strict=True)
            for place, (chunk_id, num_tokens, text_hash, is_over_used) in enumerate(rows, first):
                if chunk_id in ids:
                    self.skipped["already_used"] += 1
                elif is_over_used:
                    self.skipped["over_used"] += 1
                elif text_hash in hashes:
                    self.skipped["copy_in_document"] += 1
                elif num_tokens:
                    if not facts.may_repeat:
                        ids.add(chunk_id)
                        hashes.add(text_hash)
                    score = candidates.scores.item(place)
                    rank = candidates.ranks.item(place)
                    yield Negative(chunk_id, rank, None if np.isnan(score) else score, num_tokens)
            first, size = first + size, 2 * size


def allocate_paper(
    meta_tokens: int,
    candidates: Sequence[Candidates],
    num_negatives: int,
    *,
    facts: ChunkFacts,
    target_length_tokens: int,
) -> Allocation:
    """The first k unused candidates of each meta-chunk (App. D.1); too_short below the target (Algorithm 1, line 34).

    What stands beyond the target is cut by the caller, the last meta-chunks with it.
    """
    document = _LongDocument(candidates, facts)
    for negatives, unused in zip(document.negatives, document.unused, strict=True):
        negatives.extend(islice(unused, num_negatives))
    total = meta_tokens + sum(each.num_tokens for negatives in document.negatives for each in negatives)
    outcome: Outcome = "kept" if total >= target_length_tokens else "too_short"
    return Allocation(document.negatives, total, outcome, document.skipped)


def allocate_exact(
    meta_tokens: int,
    candidates: Sequence[Candidates],
    *,
    facts: ChunkFacts,
    target_length_tokens: int,
    max_meta_ratio: float,
) -> Allocation:
    """Negatives for exactly the target length, with every meta-chunk inside it.

    What the meta-chunks leave of the target is shared equally among them; each fills its share with its nearest unused
    candidates and shortens only the last. What one cannot use passes to the next, and from the last back to the first.
    Example, target 100, meta-chunks of 20 + 20 tokens: each has a share of 30; with negatives of 25 tokens the first
    takes 25 + 5, the second likewise.

    Ours: the paper's k overshoots by w = 1.5 and truncation then loses the last third of the meta-chunks.
    """
    if meta_tokens > max_meta_ratio * target_length_tokens:
        return Allocation([[] for _ in candidates], meta_tokens, "meta_too_long", Counter())
    document = _LongDocument(candidates, facts)
    share, ones = divmod(target_length_tokens - meta_tokens, len(candidates))
    unused = 0
    for meta_chunk in range(len(candidates)):
        unused = _fill(document, meta_chunk, share + (meta_chunk < ones) + unused)
    for meta_chunk in range(len(candidates)):
        if unused:
            unused = _fill(document, meta_chunk, unused)
    outcome: Outcome = "too_short" if unused else "kept"
    return Allocation(document.negatives, target_length_tokens - unused, outcome, document.skipped)


def _fill(document: _LongDocument, meta_chunk: int, wanted: int) -> int:
    """Let a meta-chunk take up to `wanted` tokens of negatives; returns how many it could not find.

    A last negative that an earlier call shortened is lengthened first.
    """
    negatives = document.negatives[meta_chunk]
    if negatives:
        last = negatives[-1]
        more = min(wanted, document.num_tokens(last.chunk_id) - last.num_tokens)
        negatives[-1] = last._replace(num_tokens=last.num_tokens + more)
        wanted -= more
    while wanted and (negative := next(document.unused[meta_chunk], None)):
        if negative.num_tokens > wanted:
            negative = negative._replace(num_tokens=wanted)
        negatives.append(negative)
        wanted -= negative.num_tokens
    return wanted
