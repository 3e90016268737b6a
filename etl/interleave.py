"""Stage interleave: candidates in, long documents of exactly the target length out.

A first pass plans: it decides for every drawn document what it becomes and needs no token ids. Once it is known which
draw completes the wanted number, a second pass reads the token ids, by position, and writes.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from etl import draw, mine
from etl.allocate import Draw, candidates_of, draws_of, plan
from etl.engine import Engine
from etl.job import Job
from etl.lookup import ChunkStore, chunk_store
from etl.mine import CorpusMeans
from etl.parts import PartResult, write_table
from etl.schemas import LONG_DOCUMENTS
from etl.work import StageFolder
from nextlong.accounting import Account
from nextlong.config import Chunking, Synthesis
from nextlong.errors import UserError

log = logging.getLogger(__name__)


def run(job: Job, engine: Engine) -> dict[str, Any]:
    """Write a job's long documents as parts; mines more documents when some fall short. Returns the manifest.

    Raises UserError when no document reaches the target.
    """
    stage, synthesis = job.work.start("interleave"), job.recipe.synthesis
    drawn = draw.draws(job.work, synthesis)
    while True:
        plans, outcomes = _plan(job, engine, stage, drawn)
        kept = np.flatnonzero(outcomes == "kept")
        more = _draws_needed(drawn, len(outcomes), len(kept), synthesis)
        if more == len(outcomes):
            break
        log.info("%d of %d long documents so far: mining more meta-documents", len(kept), synthesis.num_samples)
        mine.run(job, engine, num_draws=more)
    if not len(kept):
        raise UserError(_why_none(plans, synthesis))
    wanted = synthesis.num_samples
    if wanted is not None and len(kept) < wanted:
        log.warning(
            "the corpus gives %d long documents, not the %d asked for: all %d eligible documents were drawn",
            len(kept),
            wanted,
            len(drawn),
        )
    last_sample = len(outcomes) - 1 if wanted is None or len(kept) < wanted else int(kept[wanted - 1])
    parts = [
        stage.part(
            number,
            _fill_part,
            key=str(last_sample),
            plan=stage.path / f"{marker['part']}.parquet",
            last_sample=last_sample,
            chunks=job.work["chunk"],
            target_length_tokens=synthesis.target_length_tokens,
        )
        for number, marker in enumerate(plans)
    ]
    markers = engine.run(parts, doing="interleave", unit="part")
    account = Account.total(Account.from_dict(marker["account"]) for marker in markers)
    _account_documents(account, outcomes[: last_sample + 1], len(drawn), len(draw.all_documents(job.work["chunk"])))
    return stage.finish(markers, account=account)


def fill(plans: pa.Table, store: ChunkStore) -> pa.Table:
    """The long documents that plans describe (columns of schemas.LONG_DOCUMENTS), with their token ids."""
    kept = plans.filter(pc.equal(plans["outcome"], "kept")).combine_chunks()
    segments = pc.list_flatten(kept["segments"]).combine_chunks()
    chunk_ids, starts, ends = (segments.field(name).to_numpy() for name in ("chunk_id", "start", "end"))
    ids = store.read_tokens(chunk_ids, (ends - starts).tolist())
    last_segments = pc.list_value_length(kept["segments"]).to_numpy().cumsum() - 1
    lengths = ends[last_segments] if kept.num_rows else np.empty(0, np.int32)
    offsets = np.cumsum([0, *lengths.tolist()], dtype=np.int32)
    table = kept.append_column("input_ids", pa.ListArray.from_arrays(offsets, ids))
    return table.select(LONG_DOCUMENTS.names).cast(LONG_DOCUMENTS)


def _plan(job: Job, engine: Engine, stage: StageFolder, drawn: pd.DataFrame) -> tuple[list[dict[str, Any]], np.ndarray]:
    """Plan all documents mined so far: the parts' markers, and the outcome of every draw."""
    recipe, negatives = job.recipe, job.work["mine"]
    manifest = negatives.manifest() or {}
    num_draws = manifest["values"]["num_draws"]
    ranges = draw.draw_ranges(num_draws, len(drawn), recipe.synthesis)
    parts = [
        stage.part(
            number,
            _plan_part,
            prefix="plan",
            key=f"{first}-{last}",
            drawn=draws_of(drawn.iloc[first:last]),
            negatives=path,
            chunks=job.work["chunk"],
            means=mine.corpus_means(job.work["chunk"]),
            synthesis=recipe.synthesis,
            chunking=recipe.chunking,
        )
        for number, ((first, last), (path, _)) in enumerate(zip(ranges, negatives.tables(), strict=True))
    ]
    markers = engine.run(parts, doing="plan long documents", unit="part")
    outcomes = [outcome for marker in markers for outcome in marker["values"]["outcomes"]]
    return markers, np.array(outcomes)


def _draws_needed(drawn: pd.DataFrame, num_draws: int, num_kept: int, synthesis: Synthesis) -> int:
    """How many documents to draw in all, so that enough are kept at the rate seen so far; depends on no part size."""
    wanted = synthesis.num_samples
    if wanted is None or num_kept >= wanted or num_draws == len(drawn):
        return num_draws
    mined = len(draw.minable(drawn.iloc[:num_draws], synthesis))
    guess = int(1.1 * wanted * mined / max(1, num_kept)) + 1 if num_kept else 4 * mined
    return draw.first_draws(drawn, synthesis, max(guess, mined + 1))


def _why_none(plans: Sequence[dict[str, Any]], synthesis: Synthesis) -> str:
    outcomes = [outcome for plan in plans for outcome in plan["values"]["outcomes"]]
    too_short, too_long = outcomes.count("too_short"), outcomes.count("meta_too_long")
    reach = max(plan["values"]["most_tokens"] for plan in plans)
    remedy = "Raise the target or the ratio." if not too_short else "Lower the target, or give more documents."
    return (
        f"no long document can be made of {len(outcomes):,} meta-documents: {too_short:,} fall short of "
        f"synthesis.target_length_tokens = {synthesis.target_length_tokens:,} (the best could reach {reach:,} tokens), "
        f"{too_long:,} are longer than synthesis.max_meta_ratio = {synthesis.max_meta_ratio} of it. {remedy}"
    )


def _account_documents(account: Account, outcomes: np.ndarray, num_eligible: int, num_documents: int) -> None:
    """read = all documents of the corpus; those beyond the last draw needed are not drawn."""
    account.add(
        "documents",
        read=num_documents,
        kept=int((outcomes == "kept").sum()),
        dropped={
            "too_few_chunks": num_documents - num_eligible,
            "not_drawn": num_eligible - len(outcomes),
            "meta_too_long": int((outcomes == "meta_too_long").sum()),
            "too_short": int((outcomes == "too_short").sum()),
        },
    )


def _plan_part(
    folder: Path,
    name: str,
    *,
    drawn: list[Draw],
    negatives: Path,
    chunks: StageFolder,
    means: CorpusMeans,
    synthesis: Synthesis,
    chunking: Chunking,
) -> PartResult:
    plans = plan(drawn, candidates_of(pq.read_table(negatives)), chunk_store(chunks), means, synthesis, chunking)
    write_table(folder / f"{name}.parquet", plans)
    short = plans.filter(pc.equal(plans["outcome"], "too_short"))
    values = {"outcomes": plans["outcome"].to_pylist(), "most_tokens": pc.max(short["num_tokens"]).as_py() or 0}
    return PartResult(files=[f"{name}.parquet"], rows=plans.num_rows, values=values)


def _fill_part(
    folder: Path, name: str, *, plan: Path, last_sample: int, chunks: StageFolder, target_length_tokens: int
) -> PartResult:
    plans = pq.read_table(plan)
    plans = plans.filter(pc.less_equal(plans["sample_id"], last_sample))
    store = chunk_store(chunks)
    table = fill(plans, store)
    write_table(folder / f"{name}.parquet", table, rows_per_group=max(1, 1_000_000 // target_length_tokens))
    account = _account_segments(plans, store, target_length_tokens)
    values = {"sample_ids": table["sample_id"].to_pylist()}
    return PartResult(files=[f"{name}.parquet"], rows=table.num_rows, account=account, values=values)


def _account_segments(plans: pa.Table, store: ChunkStore, target_length_tokens: int) -> Account:
    """Where the candidates, chunks and tokens of the drawn documents went."""
    is_kept = pc.equal(plans["outcome"], "kept")
    kept, dropped = plans.filter(is_kept), plans.filter(pc.invert(is_kept))

    def total(table: pa.Table, column: str) -> int:
        return pc.sum(table[column]).as_py() or 0

    segments = pc.list_flatten(kept["segments"])
    is_meta = pc.equal(pc.struct_field(segments, "role"), "meta").to_numpy()
    num_meta, num_negatives = int(is_meta.sum()), int((~is_meta).sum())
    placed = (pc.struct_field(segments, "end").to_numpy() - pc.struct_field(segments, "start").to_numpy()).sum()
    whole = store.num_tokens(pc.struct_field(segments, "chunk_id").to_numpy()).sum()
    beyond = total(kept, "num_tokens") - kept.num_rows * target_length_tokens
    account = Account()
    passed = {name: total(kept, name) for name in ("already_used", "copy_in_document")}
    taken = total(kept, "num_negatives")
    account.add(
        "candidates",
        read=total(plans, "num_candidates"),
        kept=num_negatives,
        dropped=passed
        | {
            "truncated": taken - num_negatives,
            "not_needed": total(kept, "num_candidates") - sum(passed.values()) - taken,
            "document_dropped": total(dropped, "num_candidates"),
        },
    )
    lost_meta = total(kept, "num_meta_chunks") - num_meta
    account.add(
        "chunks",
        read=taken + num_meta + lost_meta,
        kept=num_meta + num_negatives,
        dropped={"truncated": taken - num_negatives + lost_meta},
    )
    shortened = int(whole - placed)
    truncated = max(0, beyond - shortened)
    account.add(
        "tokens",
        read=int(placed) + shortened + truncated,
        kept=int(placed),
        dropped={"shortened": shortened, "truncated": truncated},
    )
    account.note("meta_chunks", num_meta)
    account.note("meta_chunks_lost_to_truncation", lost_meta)
    return account
