"""The verbs that make data, or say what that takes: demo, run, plan, compare."""

import argparse
from pathlib import Path

from etl.logs import file_dask_log, log_to
from etl.strategies import DEFAULT_STRATEGIES, STRATEGIES, check_names
from etl.verb import STAGE_NAMES, add_verb, add_where, check_where, check_workers, cores, engine_of, list_fields, show
from nextlong.errors import UserError

_PLANNED = {
    "dimensions": ("embedding.dimensions", "length of an embedding"),
    "granularity": ("chunking.granularity_chars", "characters of a chunk"),
    "samples": ("synthesis.num_samples", "long documents"),
    "target": ("synthesis.target_length_tokens", "its tokens, or several: [65536,524288]"),
    "model": ("embedding.model", "folder or hub id"),
    "tokenizer": ("tokenizer", "tokenizer.json, its folder or a hub id"),
}
_METAVARS = {"model": "MODEL", "tokenizer": "TOKENIZER"}


def _add_demo(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = add_verb(
        verbs,
        "demo",
        "the whole chain on docstrings of installed packages, in minutes",
        "nextlong demo --documents 500 --workers 2",
        _demo,
    )
    parser.add_argument(
        "--out", type=Path, default=Path("demo"), metavar="DIR", help="folder for everything it makes (default: demo)"
    )
    parser.add_argument("--documents", type=int, metavar="N", help="of the corpus (default: what 4,000 chunks need)")
    parser.add_argument("--workers", type=int, metavar="N", default=cores(), help="processes (default: one a core)")


def _add_run(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = add_verb(
        verbs,
        "run",
        "run a recipe, or go on where it was interrupted",
        "nextlong run recipe.yaml --workers 2 --synthesis.seed 1",
        _run,
    )
    parser.add_argument(
        "recipe", metavar="RECIPE.yaml", nargs="?", help="a file or a packaged name; fields: --section.key value"
    )
    add_where(parser, can_report=True)
    parser.add_argument(
        "--only", choices=STAGE_NAMES, metavar="STAGE", help="read, chunk, embed, index, mine, interleave or pack"
    )
    parser.add_argument("--dry-run", action="store_true", help="say what a run would take, as plan does")
    parser.add_argument("--reuse", type=Path, metavar="OLD", help="take unchanged stages from another work folder")
    parser.add_argument("--fields", action="store_true", help="list the fields of a recipe, with defaults")


def _add_plan(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = add_verb(
        verbs,
        "plan",
        "say what a run takes: disk, memory, hours of workers and GPUs",
        "nextlong plan --chars 1.3e12 --target 131072 --workers 64 --gpus 8",
        _plan,
    )
    parser.add_argument(
        "recipe", metavar="RECIPE.yaml", nargs="?", help="a file or a packaged name; fields: --section.key value"
    )
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--chars", type=float, metavar="N", help="characters of the corpus (default: the recipe's input)")
    size.add_argument("--chunks", type=float, metavar="N", help="its chunks, in place of --chars")
    for name, (field, help_) in _PLANNED.items():
        parser.add_argument(f"--{name}", dest=field, metavar=_METAVARS.get(name, "N"), help=help_)
    parser.add_argument("--workers", type=int, metavar="N", default=cores(), help="(default: one a core)")
    parser.add_argument("--gpus", type=int, metavar="N", help="that embed, beside workers (default: 1 if there is)")
    parser.add_argument("--rates", type=Path, metavar="FILE", help="of another machine, by its --write-rates")
    parser.add_argument("--write-rates", type=Path, metavar="FILE", help="keep what was measured here")


def _add_compare(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = add_verb(
        verbs,
        "compare",
        "make long documents by several strategies, in one table",
        "nextlong compare recipe.yaml --strategies nextlong standard --out both",
        _compare,
    )
    parser.add_argument("recipe", metavar="RECIPE.yaml", help="a file or a packaged name; fields: --section.key value")
    parser.add_argument(
        "--strategies",
        nargs="+",
        metavar="NAME",
        default=list(DEFAULT_STRATEGIES),
        help=f"among {', '.join(STRATEGIES)} (default: {', '.join(DEFAULT_STRATEGIES)})",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="new folder (default: the recipe's output-compare)")
    add_where(parser, can_report=True)


RUN_VERBS = (_add_demo, _add_run, _add_plan, _add_compare)


def _demo(options: argparse.Namespace, _: list[str]) -> int:
    from etl import demo
    from etl.connect import local_engine

    check_workers(options.workers)
    recipe, about = demo.make_recipe(options.out, options.documents)
    log_to(options.out)
    show(about)
    if options.workers:
        file_dask_log()
    with local_engine(options.workers) as engine:
        show(demo.run(recipe, engine))
    show(demo.what_next(options.out))
    return 0


def _run(options: argparse.Namespace, overrides: list[str]) -> int:
    from etl.recipe import RECIPES, load_recipe

    if options.fields:
        list_fields(RECIPES)
        return 0
    RECIPES.check_fields(overrides, options.parser.option_names())
    if options.recipe is None:
        raise UserError("run needs a RECIPE.yaml; 'nextlong demo' writes one to start from.")
    check_where(options)
    recipe = load_recipe(options.recipe, overrides)
    if options.dry_run:
        from etl.capacity.plan import plan_page

        show(plan_page(recipe, workers=cores() if options.workers is None else options.workers))
        return 0
    from etl import pipeline
    from etl.show import show_long_document, stage_table
    from etl.work import Work

    command = " ".join(["nextlong run", options.recipe, *map(_shown, overrides)])
    job = pipeline.start(recipe, reuse=options.reuse, command=command)
    log_to(job.work.path)
    with engine_of(options, recipe.cluster) as running:
        summary = pipeline.run(job, running, only=options.only)
    show(stage_table(summary))
    if job.work["pack"].manifest() is not None:
        show("\n" + show_long_document(Work.open(job.work.path)))
    return 0


def _shown(override: str) -> str:
    """Without what may be a password."""
    may_be_secret = override.startswith(("--cluster=", "--cluster.options"))
    return override.partition("=")[0] + "=..." if may_be_secret else override


def _plan(options: argparse.Namespace, overrides: list[str]) -> int:
    from etl.recipe import RECIPES, load_recipe

    RECIPES.check_fields(overrides, options.parser.option_names())
    check_workers(options.workers)
    for name in ("chars", "chunks", "gpus"):
        value, least = getattr(options, name), int(name != "gpus")
        if value is not None and not least <= value < 1e18:
            raise UserError(f"--{name} is {value:g}, but it must be at least {least}, and below 1e18.")
    short = {field: getattr(options, field) for field, _ in _PLANNED.values()}
    fields = [f"--{field}={value}" for field, value in short.items() if value is not None] + overrides
    has_target = any(field.startswith("--synthesis.target_length_tokens=") for field in fields)
    if options.recipe is None and not ((options.chars or options.chunks) and has_target):
        raise UserError("plan needs a RECIPE.yaml, or --chars and --target; see nextlong plan --help.")
    from etl.capacity.plan import plan_page, recipe_without_corpus

    recipe = load_recipe(options.recipe, fields) if options.recipe else recipe_without_corpus(fields)
    show(
        plan_page(
            recipe,
            workers=options.workers,
            gpus=options.gpus,
            num_chars=options.chars,
            num_chunks=options.chunks,
            rates_file=options.rates,
            write_rates=options.write_rates,
        )
    )
    return 0


def _compare(options: argparse.Namespace, overrides: list[str]) -> int:
    from etl.recipe import RECIPES, load_recipe

    RECIPES.check_fields(overrides, options.parser.option_names())
    check_names(options.strategies)
    check_where(options)
    from etl import compare

    recipe = load_recipe(options.recipe, overrides)
    out = (options.out or Path(recipe.output.rstrip("/") + "-compare")).expanduser().absolute()
    jobs = compare.prepare_all(recipe, options.strategies, out)
    log_to(out)
    with engine_of(options, recipe.cluster) as running:
        outcomes = compare.compare(jobs, out, running)
    show(compare.as_table(outcomes))
    return 0 if all(each.facts for each in outcomes) else 2
