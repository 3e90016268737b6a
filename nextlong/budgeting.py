"""How many negatives each meta-chunk takes: the paper's formula (App. D.1), or an exact budget of tokens."""

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
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
_LEAST_LOOKED_UP = 8
_NO_IDS, _NO_SCORES = np.empty(0, np.int64), np.empty(0, np.float32)


class Negatives(NamedTuple):
    """The negatives of one meta-document as they enter its long document: columns, one meta-chunk's after another's."""

    chunk_ids: NDArray[np.int64]
    ranks: NDArray[np.int64]
    """Place among the candidates that the rules left, 0 the nearest."""
    scores: NDArray[np.float32]
    """Similarity to the meta-chunk; NaN for the meta-chunk itself."""
    num_tokens: NDArray[np.int64]
    """Leading tokens of the chunk that enter; fewer than it has where the budget shortened it."""
    counts: NDArray[np.int64]
    """[meta-chunks], how many each has"""

    @classmethod
    def none(cls, num_meta_chunks: int) -> "Negatives":
        """Each meta-chunk has none."""
        ids = np.empty(0, np.int64)
        return cls(ids, ids, np.empty(0, np.float32), ids, np.zeros(num_meta_chunks, np.int64))


class Allocation(NamedTuple):
    """The negatives of one meta-document, or why it becomes no long document."""

    negatives: Negatives
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
    """What is already in one long document: no chunk enters twice (App. D.1), nor a copy of one.

    expected: about how many candidates each meta-chunk tries. So many are looked up for all meta-chunks at once, since
    one look-up of many costs a tenth of many look-ups of a few; what is tried beyond is looked up when it is.
    """

    def __init__(self, candidates: Sequence[Candidates], facts: ChunkFacts, expected: int) -> None:
        self.skipped: Counter[str] = Counter()
        self._candidates = candidates
        self._facts = facts
        self._chunk_of: dict[int, int] = {}  # by hash of its text
        self._places: list[list[int]] = [[] for _ in candidates]
        self._tokens: list[list[int]] = [[] for _ in candidates]
        first = [each.ids[: max(expected, _LEAST_LOOKED_UP)] for each in candidates]
        columns = self._look_up(np.concatenate([_NO_IDS, *first]))
        ends = np.cumsum([0, *map(len, first)]).tolist()
        self._unused = [
            self._enter(number, [column[start:end] for column in columns])
            for number, (start, end) in enumerate(itertools.pairwise(ends))
        ]

    def take(self, meta_chunk: int, number: int) -> None:
        """Let a meta-chunk take so many of its candidates not in the document yet, whole; fewer where there are."""
        self._tokens[meta_chunk].extend(itertools.islice(self._unused[meta_chunk], number))

    def fill(self, meta_chunk: int, wanted: int) -> int:
        """Let it take up to `wanted` tokens of them, the last shortened; returns how many it could not find.

        A last negative that an earlier call shortened is lengthened first.
        """
        tokens = self._tokens[meta_chunk]
        if wanted and tokens:
            last = self._candidates[meta_chunk].ids[self._places[meta_chunk][-1:]]
            more = min(wanted, int(self._facts.num_tokens(last)[0]) - tokens[-1])
            tokens[-1] += more
            wanted -= more
        if wanted:
            for num_tokens in self._unused[meta_chunk]:
                tokens.append(num_tokens)
                wanted -= num_tokens
                if wanted <= 0:
                    tokens[-1] += wanted
                    return 0
        return wanted

    def negatives(self) -> Negatives:
        """All that was taken."""
        num_tried = [places[-1] + 1 if places else 0 for places in self._places]
        counts = np.array([len(places) for places in self._places], np.int64)
        flat = np.array([place for places in self._places for place in places], np.int64)
        flat += np.repeat(np.cumsum(num_tried, dtype=np.int64) - num_tried, counts)
        tried = list(zip(self._candidates, num_tried, strict=True))
        return Negatives(
            np.concatenate([_NO_IDS, *[each.ids[:n] for each, n in tried]])[flat],
            np.concatenate([_NO_IDS, *[each.ranks[:n] for each, n in tried]])[flat],
            np.concatenate([_NO_SCORES, *[each.scores[:n] for each, n in tried]])[flat],
            np.array([number for tokens in self._tokens for number in tokens], np.int64),
            counts,
        )

    def _enter(self, meta_chunk: int, block: list[list[int]]) -> Iterator[int]:
        """Tokens of a meta-chunk's candidates not in the document yet, in order; drawn, a candidate is in it."""
        chunk_of, places, may_repeat = self._chunk_of, self._places[meta_chunk], self._facts.may_repeat
        first = 0
        while block[0]:
            for place, (chunk_id, num_tokens, text_hash, is_over_used) in enumerate(zip(*block, strict=True), first):
                already = chunk_of.get(text_hash)
                if already == chunk_id:
                    self.skipped["already_used"] += 1
                elif is_over_used:
                    self.skipped["over_used"] += 1
                elif already is not None:
                    self.skipped["copy_in_document"] += 1
                elif num_tokens:
                    if not may_repeat:
                        chunk_of[text_hash] = chunk_id
                    places.append(place)
                    yield num_tokens
            first += len(block[0])
            block = self._look_up(self._candidates[meta_chunk].ids[first : 2 * first])

    def _look_up(self, chunk_ids: NDArray[np.int64]) -> list[list[int]]:
        """Columns: chunk_ids, tokens, hashes of texts, whether used too often."""
        facts = self._facts
        over_used = facts.is_over_used(chunk_ids) if facts.is_over_used else np.zeros(len(chunk_ids), np.bool_)
        columns = chunk_ids, facts.num_tokens(chunk_ids), facts.text_hashes(chunk_ids), over_used
        return [column.tolist() for column in columns]


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
    document = _LongDocument(candidates, facts, num_negatives)
    for meta_chunk in range(len(candidates)):
        document.take(meta_chunk, num_negatives)
    negatives = document.negatives()
    total = meta_tokens + int(negatives.num_tokens.sum())
    outcome: Outcome = "kept" if total >= target_length_tokens else "too_short"
    return Allocation(negatives, total, outcome, document.skipped)


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
        return Allocation(Negatives.none(len(candidates)), meta_tokens, "meta_too_long", Counter())
    share, ones = divmod(target_length_tokens - meta_tokens, len(candidates))
    mean_tokens = max(1, meta_tokens // len(candidates))
    document = _LongDocument(candidates, facts, 5 * share // (4 * mean_tokens))
    unused = 0
    for meta_chunk in range(len(candidates)):
        unused = document.fill(meta_chunk, share + (meta_chunk < ones) + unused)
    for meta_chunk in range(len(candidates)):
        if unused:
            unused = document.fill(meta_chunk, unused)
    outcome: Outcome = "too_short" if unused else "kept"
    return Allocation(document.negatives(), target_length_tokens - unused, outcome, document.skipped)
