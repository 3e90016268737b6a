"""How many negatives each meta-chunk takes: the paper's formula (App. D.1), or an exact budget of tokens."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple

from nextlong.mining import Candidates

Outcome = Literal["kept", "meta_too_long", "too_short"]


class Negative(NamedTuple):
    """A negative as it enters a long document."""

    chunk_id: int
    rank: int
    """Place among the candidates that the rules left, 0 the nearest."""
    score: float
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
    """Candidates passed over by reason: already_used, copy_in_document."""


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
    return max(512, 2 * negatives) if wanted == "auto" else wanted


class _LongDocument:
    """What is already in one long document: no chunk enters twice (App. D.1), nor a copy of one."""

    def __init__(
        self, candidates: Sequence[Candidates], num_tokens: Callable[[int], int], text_hash: Callable[[int], int]
    ) -> None:
        self.num_tokens = num_tokens
        self.text_hash = text_hash
        self.negatives: list[list[Negative]] = [[] for _ in candidates]
        self.skipped: Counter[str] = Counter()
        self._ids: set[int] = set()
        self._hashes: set[int] = set()
        self._rest = [self._unused(each) for each in candidates]

    def next_of(self, meta_chunk: int) -> Negative | None:
        """The nearest candidate of this meta-chunk that is not in the document yet, whole; None: no more."""
        return next(self._rest[meta_chunk], None)

    def put(self, meta_chunk: int, negative: Negative) -> None:
        self._ids.add(negative.chunk_id)
        self._hashes.add(self.text_hash(negative.chunk_id))
        self.negatives[meta_chunk].append(negative)

    def _unused(self, candidates: Candidates) -> Iterator[Negative]:
        pairs = zip(candidates.ids.tolist(), candidates.scores.tolist(), strict=True)
        for rank, (chunk_id, score) in enumerate(pairs):
            if chunk_id in self._ids:
                self.skipped["already_used"] += 1
            elif self.text_hash(chunk_id) in self._hashes:
                self.skipped["copy_in_document"] += 1
            elif num_tokens := self.num_tokens(chunk_id):
                yield Negative(chunk_id, rank, score, num_tokens)


def allocate_paper(
    meta_tokens: int,
    candidates: Sequence[Candidates],
    num_negatives: int,
    *,
    num_tokens: Callable[[int], int],
    text_hash: Callable[[int], int],
    target_length_tokens: int,
) -> Allocation:
    """The first k unused candidates of each meta-chunk (App. D.1); too_short below the target (Algorithm 1, line 34).

    What stands beyond the target is cut by the caller, the last meta-chunks with it.
    """
    document = _LongDocument(candidates, num_tokens, text_hash)
    total = meta_tokens
    for meta_chunk in range(len(candidates)):
        while len(document.negatives[meta_chunk]) < num_negatives:
            negative = document.next_of(meta_chunk)
            if negative is None:
                break
            document.put(meta_chunk, negative)
            total += negative.num_tokens
    outcome: Outcome = "kept" if total >= target_length_tokens else "too_short"
    return Allocation(document.negatives, total, outcome, document.skipped)


def allocate_exact(
    meta_tokens: int,
    candidates: Sequence[Candidates],
    *,
    num_tokens: Callable[[int], int],
    text_hash: Callable[[int], int],
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
    document = _LongDocument(candidates, num_tokens, text_hash)
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
    while wanted and (negative := document.next_of(meta_chunk)):
        document.put(meta_chunk, negative._replace(num_tokens=min(wanted, negative.num_tokens)))
        wanted -= negatives[-1].num_tokens
    return wanted
