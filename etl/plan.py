"""First pass of interleaving, over all strands: mined documents in, which of them become long documents out.

Parts are planned in parallel; with `max_uses_per_chunk` in drawn order, one after the other in this process, with a
count of uses (4 bytes a chunk) that goes from part to part: so nothing depends on who plans, or on how many do.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from etl import mine
from etl.allocate import Planner, Uses, candidates_of, draws_of
from etl.draw import Strand, strands, with_names
from etl.engine import Engine
from etl.job import Job
from etl.lookup import chunk_store
from etl.mine import CorpusMeans
from etl.parts import Part, PartResult, with_arguments, write_table
from etl.work import StageFolder
from nextlong.config import Chunking, Synthesis

log = logging.getLogger(__name__)


class PlannedStrand(NamedTuple):
    """A strand, and what each of its draws becomes."""

    strand: Strand
    plans: list[Path]
    """Tables of schemas.PLANS."""
    outcomes: NDArray[np.str_]
    """[num_draws]"""
    most_tokens: int
    """What the best of those that fall short could reach."""

    @property
    def num_needed(self) -> int:
        """Draws up to the one that completes the wanted number; all where too few are kept."""
        kept, wanted = np.flatnonzero(self.outcomes == "kept"), self.strand.num_samples
        return len(self.outcomes) if wanted is None or len(kept) < wanted else int(kept[wanted - 1]) + 1

    @property
    def last_sample(self) -> int:
        """The sample_id of the last draw needed; -1 where there is none."""
        return int(self.strand.sample_ids[self.num_needed - 1]) if self.num_needed else -1


def plan_strands(job: Job, engine: Engine, stage: StageFolder) -> list[PlannedStrand]:
    """Plan every strand of a job; mines more documents when some fall short of what is wanted."""
    most, num_chunks = job.recipe.synthesis.max_uses_per_chunk, (job.work["chunk"].manifest() or {})["rows"]
    uses = None if most is None else Uses.none(num_chunks, most)
    all_strands = strands(job.work, job.recipe.synthesis)
    return [_plan_strand(job, engine, stage, number, strand, uses) for number, strand in enumerate(all_strands)]


def _plan_strand(
    job: Job, engine: Engine, stage: StageFolder, number: int, strand: Strand, uses: Uses | None
) -> PlannedStrand:
    before = uses and uses.copy()
    while True:
        num_draws = list((job.work["mine"].manifest() or {})["values"]["num_draws"])
        parts = _parts(job, stage, strand, num_draws[number])
        if uses is None or before is None:
            markers = engine.run(parts, doing="plan long documents", unit="part")
        else:
            uses.counts[:] = before.counts
            markers = _plan_in_order(parts, uses, strand.num_samples)
        outcomes = np.array([each for marker in markers for each in marker["values"]["outcomes"]], np.str_)
        planned = PlannedStrand(
            strand,
            [stage.path / f"{part.name}.parquet" for part in parts],
            outcomes,
            max((marker["values"]["most_tokens"] for marker in markers), default=0),
        )
        num_kept = int((outcomes == "kept").sum())
        num_draws[number] = _draws_needed(strand, len(outcomes), num_kept)
        if num_draws[number] == len(outcomes):
            return planned
        log.info("%d of %d long documents so far: mining more meta-documents", num_kept, strand.num_samples)
        mine.run(job, engine, num_draws=num_draws)


def _parts(job: Job, stage: StageFolder, strand: Strand, num_draws: int) -> list[Part]:
    recipe, mined = job.recipe, job.work["mine"]
    has_candidates = recipe.synthesis.retrieves is not None
    arguments: dict[str, Any] = {
        "chunks": job.work["chunk"],
        "means": mine.corpus_means(job.work["chunk"]),
        "synthesis": recipe.synthesis,
        "chunking": recipe.chunking,
        "target_length_tokens": strand.target_length_tokens,
    }
    return [
        stage.part(
            number,
            _plan_part,
            prefix=f"plan-{strand.prefix}",
            key=f"{first}-{last}",
            drawn=strand.drawn(first, last),
            negatives=mined.path / f"{strand.prefix}-{number:05d}.parquet" if has_candidates else None,
            **arguments,
        )
        for number, (first, last) in enumerate(strand.ranges(num_draws))
    ]


def _plan_in_order(parts: Sequence[Part], uses: Uses, num_wanted: int | None) -> list[dict[str, Any]]:
    """Plan part after part, each knowing what those before it used; adds what the wanted long documents use."""
    markers, num_kept = [], 0
    for part in parts:
        known = with_arguments(part, uses=uses.copy())
        markers += Engine().run([known], doing="plan long documents", unit="part")
        plans = pq.read_table(part.folder / f"{part.name}.parquet", columns=["outcome", "segments"])
        kept = plans.filter(pc.equal(plans["outcome"], "kept"))
        if num_wanted is not None:
            kept = kept.slice(0, max(0, num_wanted - num_kept))
        num_kept += kept.num_rows
        segments = pc.list_flatten(kept["segments"])
        negatives = segments.filter(pc.equal(pc.struct_field(segments, "role"), "negative"))
        np.add.at(uses.counts, pc.struct_field(negatives, "chunk_id").to_numpy(), 1)
    return markers


def _plan_part(
    folder: Path,
    name: str,
    *,
    drawn: pd.DataFrame,
    negatives: Path | None,
    chunks: StageFolder,
    means: CorpusMeans,
    synthesis: Synthesis,
    chunking: Chunking,
    target_length_tokens: int,
    uses: Uses | None = None,
) -> PartResult:
    planner = Planner(
        store=chunk_store(chunks),
        means=means,
        synthesis=synthesis,
        chunking=chunking,
        target_length_tokens=target_length_tokens,
        uses=uses,
    )
    draws = draws_of(with_names(drawn, chunks))
    plans = planner.plan(draws, candidates_of(pq.read_table(negatives)) if negatives else None)
    write_table(folder / f"{name}.parquet", plans)
    return PartResult(files=[f"{name}.parquet"], rows=plans.num_rows, values=_outcomes(plans))


def _outcomes(plans: pa.Table) -> dict[str, Any]:
    short = plans.filter(pc.equal(plans["outcome"], "too_short"))
    return {"outcomes": plans["outcome"].to_pylist(), "most_tokens": pc.max(short["num_tokens"]).as_py() or 0}


def _draws_needed(strand: Strand, num_draws: int, num_kept: int) -> int:
    """How many documents to draw in all, so that enough are kept at the rate seen so far; depends on no part size."""
    wanted = strand.num_samples
    if wanted is None or num_kept >= wanted or num_draws == len(strand.places):
        return num_draws
    mined = len(strand.minable_draws(num_draws))
    guess = int(1.1 * wanted * mined / max(1, num_kept)) + 1 if num_kept else 4 * mined
    return strand.first_draws(max(guess, mined + 1))
