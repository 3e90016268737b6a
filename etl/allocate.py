"""First pass of interleaving: candidates in, what each drawn document becomes out; token counts are enough for it."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from etl.lookup import ChunkStore
from etl.mine import CorpusMeans, paper_negatives
from etl.schemas import PLANS
from nextlong.budgeting import Allocation, ChunkFacts, allocate_exact, allocate_paper
from nextlong.config import Chunking, Synthesis
from nextlong.interleaving import ROLES, Segments, interleave
from nextlong.mining import Candidates
from nextlong.sampling import STAGE_POSITION
from nextlong.selection import repeats, select

_SKIPPED = ("already_used", "over_used", "copy_in_document")


class Draw(NamedTuple):
    """A drawn meta-document."""

    sample_id: int
    doc_id: int
    source_id: str
    source: str
    first_chunk_id: int
    num_chunks: int
    num_chars: int
    num_tokens: int


def draws_of(drawn: pd.DataFrame) -> list[Draw]:
    """Rows of a strand's drawn documents."""
    return [Draw(*row) for row in zip(*[drawn[name].tolist() for name in Draw._fields], strict=True)]


class Uses:
    """In how many long documents each chunk serves as a negative so far, and how many are allowed."""

    def __init__(self, counts: NDArray[np.int32], most: int) -> None:
        self.counts = counts
        self.most = most

    @classmethod
    def none(cls, num_chunks: int, most: int) -> "Uses":
        """Nothing is used yet."""
        return cls(np.zeros(num_chunks, np.int32), most)

    def copy(self) -> "Uses":
        """The same counts, to go on from on trial."""
        return Uses(self.counts.copy(), self.most)

    def are_over(self, chunk_ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether each chunk serves in as many as are allowed."""
        over: NDArray[np.bool_] = self.counts[chunk_ids] >= self.most
        return over

    def add(self, chunk_ids: NDArray[np.int64]) -> None:
        """Count the negatives of one long document, each once."""
        self.counts[chunk_ids] += 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Planner:
    """All that decides what a drawn document becomes, its candidates apart."""

    store: ChunkStore
    means: CorpusMeans
    synthesis: Synthesis
    chunking: Chunking
    target_length_tokens: int
    uses: Uses | None = None
    """Counted from document to document; None: there is no cap."""

    def plan(self, drawn: Sequence[Draw], candidates: Mapping[int, Candidates] | None) -> pa.Table:
        """What each drawn document becomes, in order (columns of schemas.PLANS).

        candidates: by meta-chunk's chunk_id, as mined; None: each meta-chunk is its own (negatives=self_repeat).
        """
        return plans_table([self._plan_document(draw, candidates) for draw in drawn])

    def _plan_document(self, draw: Draw, mined: Mapping[int, Candidates] | None) -> dict[str, Any]:
        meta_chunks = np.arange(draw.first_chunk_id, draw.first_chunk_id + draw.num_chunks)
        meta_tokens = self.store.num_tokens(meta_chunks)
        if mined is None:
            own = [
                repeats(*pair) for pair in zip(meta_chunks.tolist(), self._num_repeats(draw, meta_tokens), strict=True)
            ]
            num_mined = None
        else:
            found = [mined[chunk] for chunk in meta_chunks.tolist() if chunk in mined]
            own = [select(each, self.synthesis) for each in found]
            num_mined = sum(len(each.ids) for each in found)
        allocation = self._allocate(draw, own)
        num_negatives = len(allocation.negatives.chunk_ids)
        is_kept = allocation.outcome == "kept"
        segments = self._interleave(draw, meta_chunks, meta_tokens, allocation) if is_kept else Segments.none()
        if self.uses is not None:
            self.uses.add(segments.chunk_ids[segments.roles == ROLES.index("negative")])
        return {
            "sample_id": draw.sample_id,
            "doc_id": draw.doc_id,
            "source_id": draw.source_id,
            "source": draw.source,
            "outcome": allocation.outcome,
            "num_tokens": allocation.num_tokens,
            "num_candidates": num_negatives if num_mined is None else num_mined,
            "skipped_top": 0 if num_mined is None else num_mined - sum(len(each.ids) for each in own),
            **{reason: allocation.skipped[reason] for reason in _SKIPPED},
            "num_negatives": num_negatives,
            "num_meta_chunks": draw.num_chunks,
            "segments": segments,
        }

    def _interleave(
        self, draw: Draw, meta_chunks: NDArray[np.int64], meta_tokens: NDArray[np.int64], allocation: Allocation
    ) -> Segments:
        return interleave(
            meta_chunks,
            meta_tokens,
            allocation,
            target_length_tokens=self.target_length_tokens,
            position=self.synthesis.position,
            seed=[self.synthesis.seed, STAGE_POSITION, draw.doc_id],
            role="repeat" if self.synthesis.negatives == "self_repeat" else "negative",
        )

    def _allocate(self, draw: Draw, candidates: list[Candidates]) -> Allocation:
        facts = ChunkFacts(
            self.store.num_tokens,
            self.store.hashes,
            is_over_used=self.uses.are_over if self.uses is not None else None,
            may_repeat=self.synthesis.negatives == "self_repeat",
        )
        shared: dict[str, Any] = {"facts": facts, "target_length_tokens": self.target_length_tokens}
        if self.synthesis.budget == "exact":
            ratio = self.synthesis.max_meta_ratio
            return allocate_exact(draw.num_tokens, candidates, max_meta_ratio=ratio, **shared)
        return allocate_paper(draw.num_tokens, candidates, self._paper_negatives(draw), **shared)

    def _paper_negatives(self, draw: Draw) -> int:
        target = self.target_length_tokens
        return paper_negatives(draw.num_chunks, draw.num_chars, self.means, target, self.synthesis, self.chunking)

    def _num_repeats(self, draw: Draw, meta_tokens: NDArray[np.int64]) -> list[int]:
        """Enough repeats of each meta-chunk for any budget."""
        if self.synthesis.budget == "paper":
            return [self._paper_negatives(draw)] * draw.num_chunks
        return [self.target_length_tokens // max(1, number) + 1 for number in meta_tokens.tolist()]


def plans_table(rows: list[dict[str, Any]]) -> pa.Table:
    """Plans, whose segments are a Segments, as a table (columns of schemas.PLANS)."""
    segments: list[Segments] = [row.pop("segments") for row in rows]
    offsets = np.cumsum([0, *[len(each.chunk_ids) for each in segments]], dtype=np.int32)
    columns = [np.concatenate(column) for column in zip(Segments.none(), *segments, strict=True)]
    flat = Segments(*columns)
    roles = pa.DictionaryArray.from_arrays(pa.array(flat.roles), pa.array(ROLES))
    fields = list(PLANS.field("segments").type.value_type)
    values = pa.StructArray.from_arrays(
        [
            pa.array(column, from_pandas=True).cast(field.type)  # NaN is null
            for column, field in zip(flat._replace(roles=roles), fields, strict=True)
        ],
        fields=fields,
    )
    plain = pa.Table.from_pylist(rows, schema=pa.schema([field for field in PLANS if field.name != "segments"]))
    return plain.append_column(PLANS.field("segments"), pa.ListArray.from_arrays(offsets, values))


def candidates_of(negatives: pa.Table) -> dict[int, Candidates]:
    """The rows of schemas.NEGATIVES by meta-chunk; arrays are views."""
    table = negatives.combine_chunks()
    if not table.num_rows:
        return {}
    ids, scores = (table[name].chunk(0) for name in ("ids", "scores"))
    offsets, id_values, score_values = ids.offsets.to_numpy(), ids.values.to_numpy(), scores.values.to_numpy()
    return {
        chunk_id: Candidates(chunk_id, id_values[first:last], score_values[first:last], np.arange(last - first))
        for chunk_id, first, last in zip(
            table["chunk_id"].to_pylist(), offsets[:-1].tolist(), offsets[1:].tolist(), strict=True
        )
    }
