"""Stage interleave: candidates (or related documents) in, long documents of exactly the target length out.

A first pass plans: it decides for every drawn document what it becomes (`plan`), or gathers windows of whole documents
(`concatenate`), and needs no token ids. A second pass reads the token ids, by position, and writes.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from etl import quarantine
from etl.concatenate import gather_windows, plan_windows
from etl.draw import empty_strands, usable_documents
from etl.engine import Engine
from etl.job import Job
from etl.lookup import ChunkStore, chunk_store
from etl.measure import count_uses, total_hardness, with_hardness
from etl.parts import Part, PartResult, write_table
from etl.plan import PlannedStrand, plan_strands
from etl.recipe import Recipe
from etl.schemas import LONG_DOCUMENTS
from etl.work import StageFolder
from nextlong.accounting import Account
from nextlong.config import Synthesis
from nextlong.errors import UserError

log = logging.getLogger(__name__)


def run(job: Job, engine: Engine) -> dict[str, Any]:
    """Write a job's long documents as parts; mines more documents when some fall short. Returns the manifest.

    Raises UserError when no document reaches the target.
    """
    stage = job.work.start("interleave")
    num_documents = Account.from_dict((job.work["chunk"].manifest() or {})["account"]).counts["documents"].kept
    num_usable = len(usable_documents(job.work))
    if job.recipe.synthesis.strategy == "nextlong":
        planned = plan_strands(job, engine, stage)
        if not any((each.outcomes == "kept").any() for each in planned):
            raise UserError(_why_none(planned, job.recipe))
        parts = [part for each in planned for part in _strand_parts(job, stage, each)]
        outcomes = _outcomes(planned, num_usable)
    else:
        gathered = gather_windows(job, engine, stage)
        outcomes = gathered["outcomes"]
        if not any(gathered["windows"].values()):
            raise UserError(_why_no_window(outcomes, job.recipe.synthesis))
        parts = _window_parts(job, stage, gathered["windows"])
    markers = engine.run(parts, doing="interleave", unit="part")
    _warn_of_few(job.recipe.synthesis, markers)
    account = Account.total(Account.from_dict(marker["account"]) for marker in markers)
    kept = outcomes.pop("kept", 0)
    outcomes[quarantine.REASON] = num_documents - num_usable
    account.add("documents", read=num_documents, kept=kept, dropped=outcomes)
    uses = count_uses([stage.path / f"{marker['part']}.parquet" for marker in markers], job.work["chunk"])
    values = total_hardness([marker["values"]["hardness"] for marker in markers]) | uses
    return stage.finish(markers, account=account, values=values | _meta_chunks_lost(account))


def fill(plans: pa.Table, store: ChunkStore) -> tuple[pa.Table, dict[str, Any]]:
    """The long documents that plans describe (columns of schemas.LONG_DOCUMENTS), and sums of their hardness."""
    kept = plans.filter(pc.equal(plans["outcome"], "kept")).combine_chunks()
    segments = pc.list_flatten(kept["segments"]).combine_chunks()
    chunk_ids, starts, ends = (segments.field(name).to_numpy() for name in ("chunk_id", "start", "end"))
    ids = store.read_tokens(chunk_ids, (ends - starts).tolist())
    last_segments = pc.list_value_length(kept["segments"]).to_numpy().cumsum() - 1
    lengths = ends[last_segments] if kept.num_rows else np.empty(0, np.int32)
    offsets = np.cumsum([0, *lengths.tolist()], dtype=np.int32)
    kept, hardness = with_hardness(kept)
    table = kept.append_column("input_ids", pa.ListArray.from_arrays(offsets, ids))
    return table.select(LONG_DOCUMENTS.names).cast(LONG_DOCUMENTS), hardness


def _strand_parts(job: Job, stage: StageFolder, planned: PlannedStrand) -> list[Part]:
    return [
        stage.part(
            number,
            _fill_part,
            prefix=planned.strand.prefix,
            key=str(planned.last_sample),
            plan=path,
            last_sample=planned.last_sample,
            chunks=job.work["chunk"],
            target_length_tokens=planned.strand.target_length_tokens,
        )
        for number, path in enumerate(planned.plans)
    ]


def _window_parts(job: Job, stage: StageFolder, windows: dict[str, list[str]]) -> list[Part]:
    return [
        stage.part(
            number,
            _fill_windows_part,
            prefix=strand.prefix,
            windows=stage.path / name,
            chunks=job.work["chunk"],
            target_length_tokens=strand.target_length_tokens,
        )
        for strand in empty_strands(job.recipe.synthesis)
        for number, name in enumerate(windows[strand.prefix])
    ]


def _outcomes(planned: Sequence[PlannedStrand], num_documents: int) -> dict[str, int]:
    """What became of all documents of the corpus; those beyond the last draw needed are not drawn."""
    needed = np.concatenate([each.outcomes[: each.num_needed] for each in planned])
    num_eligible = sum(len(each.strand.places) for each in planned)
    counts = {name: int((needed == name).sum()) for name in ("kept", "meta_too_long", "too_short")}
    return counts | {"too_few_chunks": num_documents - num_eligible, "not_drawn": num_eligible - len(needed)}


def _warn_of_few(synthesis: Synthesis, markers: Sequence[dict[str, Any]]) -> None:
    for strand in empty_strands(synthesis):
        rows = sum(marker["rows"] for marker in markers if marker["part"].startswith(f"{strand.prefix}-"))
        if strand.num_samples is not None and rows < strand.num_samples:
            log.warning(
                "the corpus gives %s long documents of %s tokens, not the %s of synthesis.num_samples%s",
                f"{rows:,}",
                f"{strand.target_length_tokens:,}",
                f"{strand.num_samples:,}",
                "; each document is drawn for one of the target lengths, in proportion to their numbers"
                if len(synthesis.targets) > 1
                else "",
            )


def _why_none(planned: Sequence[PlannedStrand], recipe: Recipe) -> str:
    synthesis, outcomes = recipe.synthesis, np.concatenate([each.outcomes for each in planned])
    too_short, too_long = int((outcomes == "too_short").sum()), int((outcomes == "meta_too_long").sum())
    reasons, remedies = [], []
    if too_short:
        reach = max(each.most_tokens for each in planned)
        reasons.append(f"{too_short:,} fall short of it (the best could reach {reach:,} tokens)")
        remedies += ["lower the target", "give more documents", *_limits(recipe)]
    if too_long:
        reasons.append(f"{too_long:,} are longer than synthesis.max_meta_ratio = {synthesis.max_meta_ratio} of it")
        remedies += ["raise the target or the ratio"]
    return (
        f"no long document of synthesis.target_length_tokens = {_targets(synthesis)} can be made of "
        f"{len(outcomes):,} meta-documents: {', '.join(reasons)}. To have some, {' or '.join(remedies)}."
    )


def _limits(recipe: Recipe) -> list[str]:
    """The settings that keep meta-chunks from more negatives, as remedies."""
    synthesis, mining = recipe.synthesis, recipe.mining
    return [
        *(["lower synthesis.skip_top"] if synthesis.skip_top else []),
        *(["raise mining.num_candidates"] if mining.num_candidates != "auto" else []),
        *(["raise synthesis.max_uses_per_chunk"] if synthesis.max_uses_per_chunk is not None else []),
    ]


def _why_no_window(outcomes: dict[str, int], synthesis: Synthesis) -> str:
    reasons = ", ".join(f"{number:,} {reason}" for reason, number in sorted(outcomes.items()))
    remedy = "Lower synthesis.target_length_tokens, or give more documents."
    if synthesis.strategy == "quest" and outcomes.get("too_short", 0) < outcomes.get("no_keyword", 0):
        remedy = (
            "Lower synthesis.keyword_min_score, or give a synthesis.query_model: RAKE finds few keywords in text "
            "without spaces between words, and in code."
        )
    return (
        f"synthesis.strategy={synthesis.strategy} gives no long document of {_targets(synthesis)} tokens: of the "
        f"documents are {reasons}. {remedy}"
    )


def _targets(synthesis: Synthesis) -> str:
    return ", ".join(f"{target:,}" for target in synthesis.targets)


def _fill_part(
    folder: Path, name: str, *, plan: Path, last_sample: int, chunks: StageFolder, target_length_tokens: int
) -> PartResult:
    plans = pq.read_table(plan)
    plans = plans.filter(pc.less_equal(plans["sample_id"], last_sample))
    account = _account_segments(plans, chunk_store(chunks), target_length_tokens)
    return _write(folder, name, plans, chunks, target_length_tokens, account)


def _fill_windows_part(
    folder: Path, name: str, *, windows: Path, chunks: StageFolder, target_length_tokens: int
) -> PartResult:
    plans = plan_windows(pq.read_table(windows), chunk_store(chunks), target_length_tokens)
    account = Account()
    for unit, read, kept in (
        ("chunks", pc.sum(plans["num_negatives"]).as_py(), len(pc.list_flatten(plans["segments"]))),
        ("tokens", pc.sum(plans["num_tokens"]).as_py(), plans.num_rows * target_length_tokens),
    ):
        account.add(unit, read=read, kept=kept, dropped={"truncated": read - kept})
    return _write(folder, name, plans, chunks, target_length_tokens, account)


def _write(
    folder: Path, name: str, plans: pa.Table, chunks: StageFolder, target_length_tokens: int, account: Account
) -> PartResult:
    table, hardness = fill(plans, chunk_store(chunks))
    write_table(folder / f"{name}.parquet", table, rows_per_group=max(1, 1_000_000 // target_length_tokens))
    values = {"sample_ids": table["sample_id"].to_pylist(), "hardness": hardness}
    return PartResult(files=[f"{name}.parquet"], rows=table.num_rows, account=account, values=values)


def _meta_chunks_lost(account: Account) -> dict[str, float]:
    """The share of the meta-chunks that truncation cuts off: with budget=paper up to a third, none with exact."""
    placed, lost = account.notes["meta_chunks"], account.notes["meta_chunks_lost_to_truncation"]
    return {"meta_chunks_lost_ratio": round(lost / (placed + lost), 6)} if placed else {}


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
    reasons = ("skipped_top", "already_used", "over_used", "copy_in_document")
    passed = {name: total(kept, name) for name in reasons}
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
