"""A recipe and names of strategies in, each one's long documents from the same corpus and one table of them all out."""

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from etl import pipeline
from etl.engine import Engine
from etl.job import Job, prepare
from etl.parts import write_json
from etl.recipe import Recipe, resolved_yaml
from etl.strategies import STRATEGIES, check_names
from etl.work import STAGES
from nextlong.errors import UserError
from nextlong.folders import refuse_links_out

log = logging.getLogger(__name__)

_MARKER = "compared.recipe.yaml"


class Compared(NamedTuple):
    """One strategy's outcome."""

    name: str
    facts: dict[str, Any] | None
    """Of the columns of the table; None: it failed."""
    error: str = ""


class _Column(NamedTuple):
    title: str
    of: Callable[[dict[str, Any]], Any]
    format: str


def _value(name: str) -> Callable[[dict[str, Any]], Any]:
    return lambda interleave: interleave["values"].get(name)


_COLUMNS = (
    _Column("long docs", lambda interleave: interleave["rows"], ",d"),
    _Column("tokens", lambda interleave: interleave["account"]["tokens"]["kept"], ",d"),
    _Column("documents", _value("distinct_documents"), ",d"),
    _Column("chunks", _value("distinct_chunks"), ",d"),
    _Column("uses a chunk", _value("uses_per_chunk"), ".2f"),
    _Column("similarity", _value("mean_similarity"), ".3f"),
    _Column("meta distance", _value("mean_meta_distance_tokens"), ",.0f"),
    _Column("meta share", _value("meta_ratio"), ".1%"),
)


def recipe_of(recipe: Recipe, name: str, out: Path) -> Recipe:
    """The recipe of one strategy; all else is as in the recipe compared. Its work folder is a folder of `out`."""
    changed = {
        section: dataclasses.replace(getattr(recipe, section), **settings)
        for section, settings in ({"synthesis": {"negatives": "top"}} | STRATEGIES[name]).items()
    }
    return dataclasses.replace(recipe, output=str(out / name), **changed)


def prepare_all(recipe: Recipe, names: Sequence[str], out: Path) -> dict[str, Job]:
    """The jobs of all strategies by name, and the folder of their comparison; a mistake is raised before any work.

    Raises UserError for names that are none, for what the recipe lacks, and for a file, another folder or a link out of
    it at `out`.
    """
    check_names(names)
    jobs = {name: prepare(recipe_of(recipe, name, out)) for name in names}
    if out.is_dir() and any(out.iterdir()) and not (out / _MARKER).is_file():
        raise UserError(f"--out {out} holds other files, and is no comparison. Give a new or an empty folder.")
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file. Give a folder that does not exist yet.")
    refuse_links_out(out)
    out.mkdir(parents=True, exist_ok=True)
    (out / _MARKER).write_text(resolved_yaml(recipe))
    return jobs


def compare(jobs: Mapping[str, Job], out: Path, engine: Engine) -> list[Compared]:
    """Run every strategy into out/<name>; a stage that several share is computed once. Writes out/compare.json.

    A strategy that the corpus cannot serve (UserError) is told in its place, and the others go on.
    """
    seconds: dict[str, float] = {}
    outcomes: list[Compared] = []
    done: list[Path] = []
    for name, job in jobs.items():
        log.info("strategy %s", name)
        pipeline.claim(job, reuse=done, remedy=f"Give another folder for this recipe: --out {out}-2")
        try:
            summary = pipeline.run(job, engine)
        except UserError as error:
            outcomes.append(Compared(name, None, str(error)))
            continue
        done.append(job.work.path)
        for stage in STAGES:
            spent = summary["stages"][stage]["seconds"]
            seconds[job.work[stage].fingerprint] = spent or seconds.get(job.work[stage].fingerprint, 0.0)
        facts = {column.title: column.of(summary["stages"]["interleave"]) for column in _COLUMNS}
        facts["seconds"] = round(sum(seconds[job.work[stage].fingerprint] for stage in STAGES), 1)
        outcomes.append(Compared(name, facts))
    write_json(out / "compare.json", {each.name: each.facts or {"error": each.error} for each in outcomes})
    return outcomes


def as_table(outcomes: Sequence[Compared]) -> str:
    """The outcomes as text; - where a strategy has no such thing."""
    columns = [*_COLUMNS, _Column("seconds", lambda _: None, ",.1f")]
    rows = [["strategy", *[column.title for column in columns]]]
    for each in outcomes:
        facts = each.facts or {}
        cells = [(facts.get(column.title), column.format) for column in columns]
        rows.append([each.name, *["-" if value is None else format(value, shape) for value, shape in cells]])
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    lines = [
        "  ".join(f"{cell:{'<' if not place else '>'}{widths[place]}}" for place, cell in enumerate(row))
        for row in rows
    ]
    errors = [f"{each.name}: {each.error}" for each in outcomes if each.error]
    return "\n".join([*lines, *errors, *_LEGEND])


_LEGEND = (
    "",
    "documents, chunks: different ones in the long documents; uses a chunk: long documents in which an inserted chunk",
    "serves; similarity: of what is inserted to what it was looked up for (cosine; BM25 score); meta distance: tokens",
    "between neighbouring meta-chunks; meta share: of the tokens; seconds: of all stages, shared ones included.",
)
