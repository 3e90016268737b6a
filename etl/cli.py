"""The command line: each verb's module is imported only when it is called, so that help is instant."""

import argparse
import contextlib
import logging
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from etl.arguments import Parser
from etl.logs import Console, file_dask_log, hush, log_to, log_with
from etl.shards.verbs import SHARD_VERBS
from etl.strategies import DEFAULT_STRATEGIES, STRATEGIES, check_names
from etl.verb import add_verb, add_where, check_where, check_workers, cores, engine_of, readers_may_leave, show
from nextlong import __version__
from nextlong.errors import UserError
from nextlong.recipes import joined

log = logging.getLogger("etl.cli")
_PLANNED = {
    "dimensions": ("embedding.dimensions", "length of an embedding"),
    "granularity": ("chunking.granularity_chars", "characters of a chunk"),
    "samples": ("synthesis.num_samples", "long documents"),
    "target": ("synthesis.target_length_tokens", "its tokens, or several: [65536,524288]"),
    "model": ("embedding.model", "folder or hub id"),
    "tokenizer": ("tokenizer", "tokenizer.json, its folder or a hub id"),
}

_METAVARS = {"model": "MODEL", "tokenizer": "TOKENIZER"}
_PLAIN_FIELDS = ("--output", "--tokenizer")  # of a recipe; the others are --section.key

_PATIENCE_SECONDS = 20  # in which a rank that fails with the others is ended by who started it

STAGE_NAMES = ("read", "chunk", "embed", "index", "mine", "interleave", "pack")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a verb. 0; 2 for a user's mistake, in one sentence; 1 for a failure, with how to go on; 130 for Ctrl-C."""
    argv = joined(sys.argv[1:] if arguments is None else arguments, _PLAIN_FIELDS)
    with readers_may_leave():
        options, rest = _parsed(argv)
    log_with(Console())
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # its retries are no news: the sentence at their end is
    os.environ["PYTHONSAFEPATH"] = "1"  # so no worker imports a module of the current folder in place of Python's own
    try:
        status: int = options.call(options, rest)
        return status
    except UserError as error:
        return _complain(2, str(error))
    except KeyboardInterrupt:
        kept = "the last checkpoint is" if options.verb == "train" else "finished parts are"
        return _complain(130, f"interrupted; {kept} kept, run the same command again to go on")
    except Exception as error:
        return _complain(1, _failure(error, options.verb))


def _parsed(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """The options, and what is left for the fields of a recipe. Ends where it is help that is wanted, or a mistake."""
    parser = _parser()
    if not argv:
        parser.print_help()
        parser.exit(2)
    options, rest = parser.parse_known_args(argv)
    if rest and options.verb not in ("run", "plan", "compare", "train"):
        options.parser.unknown(rest)
    return options, rest


def _parser() -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = Parser(
        prog="nextlong",
        description="Negative Document Extension: short documents become long-context training data.",
        epilog="Start with: nextlong demo",
    )
    parser.add_argument("--version", action="version", version=__version__, help="show the version and exit")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB", title="verbs", prog="nextlong")
    of_runs = (_add_demo, _add_run, _add_plan, _add_compare, _add_status, _add_peek, _add_report, _add_clean)
    for add in (*of_runs, *SHARD_VERBS, _add_train, _add_completion):
        add(verbs)
    return parser


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


def _add_peek(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = add_verb(
        verbs,
        "peek",
        "show a long document of a work folder, and its stages",
        "nextlong peek work --sample 3",
        _peek,
    )
    parser.add_argument("work", type=Path, help="a work folder")
    parser.add_argument("--sample", type=int, metavar="ID", help="its sample_id (default: one with many meta-chunks)")
    parser.add_argument("--near-duplicates", action="store_true", help="show what the thresholds drop, with examples")


def _add_status(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = add_verb(
        verbs,
        "status",
        "say where a run stands: parts done, at work, failed, since when",
        "nextlong status work",
        _status,
    )
    parser.add_argument("work", type=Path, help="a work folder, or the run folder of a training")
    parser.add_argument("--json", action="store_true", help="the same for programs")


def _add_report(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = add_verb(
        verbs, "report", "write one HTML page about a work folder", "nextlong report work --out report.html", _report
    )
    parser.add_argument("work", metavar="WORK", type=Path, help="work folder, finished or not")
    parser.add_argument("--out", type=Path, metavar="FILE", help="(default: WORK/report.html)")


def _add_clean(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = add_verb(
        verbs,
        "clean",
        "delete what interrupted runs left, or stages from one on",
        "nextlong clean work --from mine",
        _clean,
    )
    parser.add_argument("work", type=Path, help="a work folder")
    parser.add_argument(
        "--from", dest="first", choices=STAGE_NAMES, metavar="STAGE", help="delete this stage and those after it"
    )


def _add_train(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = add_verb(
        verbs,
        "train",
        "train a model on packed folders, or go on where it stopped",
        "nextlong train tiny --model.path tiny --data.folders '[shards]' --output out",
        _train,
    )
    parser.add_argument(
        "recipe", metavar="RECIPE.yaml", nargs="?", help="a file or a packaged name; fields: --section.key value"
    )
    parser.add_argument(
        "--ranks",
        "--gpus",
        type=int,
        metavar="N",
        help="processes here, one a GPU (default: 1, or torchrun's)",
    )
    parser.add_argument("--dry-run", action="store_true", help="say what memory and time it takes on so many ranks")
    parser.add_argument(
        "--length", type=int, metavar="TOKENS", help="for --dry-run without data (default: the folders')"
    )
    parser.add_argument(
        "--mfu", type=float, metavar="SHARE", default=0.4, help="of a GPU's peak, for --dry-run (default: 0.4)"
    )
    parser.add_argument("--fields", action="store_true", help="list the fields of a recipe, with defaults")


def _add_completion(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = add_verb(
        verbs,
        "completion",
        "print what completes this command in a shell, fields included",
        "nextlong completion bash > ~/.local/share/bash-completion/completions/nextlong",
        _completion,
    )
    parser.add_argument("shell", choices=("bash", "zsh", "fish"))


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
        with readers_may_leave():
            RECIPES.parser().print_help()
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


def _peek(options: argparse.Namespace, _: list[str]) -> int:
    from etl.parts import read_json
    from etl.show import show_long_document, stage_table
    from etl.work import Work

    work = Work.open(options.work)
    if options.near_duplicates:
        from etl.explain import explain_near_duplicates

        show(explain_near_duplicates(work))
        return 0
    summary = read_json(options.work / "summary.json")
    if summary is not None:
        show(stage_table(summary) + "\n")
    show(show_long_document(work, options.sample))
    return 0


def _report(options: argparse.Namespace, _: list[str]) -> int:
    from etl.report import write_report

    show(f"{write_report(options.work, options.out)}: open it in a browser; it needs no network")
    return 0


def _status(options: argparse.Namespace, _: list[str]) -> int:
    import dataclasses
    import json

    from etl.training_status import is_training_folder, training_line, training_status

    if is_training_folder(options.work):
        told = training_status(options.work)
        show(json.dumps(told, indent=1) if options.json else training_line(told))
        return 0
    from etl.status import status_of
    from etl.status_page import status_page

    status = status_of(options.work)
    show(json.dumps(dataclasses.asdict(status), indent=1) if options.json else status_page(status))
    return 0


def _clean(options: argparse.Namespace, _: list[str]) -> int:
    from etl.work import clean

    removed = clean(options.work, options.first)
    show(f"deleted {len(removed)} files and folders" + "".join(f"\n  {path}" for path in removed))
    return 0


def _train(options: argparse.Namespace, overrides: list[str]) -> int:
    from training.recipe import RECIPES

    if options.fields:
        with readers_may_leave():
            RECIPES.parser().print_help()
        return 0
    RECIPES.check_fields(overrides, options.parser.option_names())
    if options.recipe is None:
        raise UserError(f"train needs a RECIPE.yaml; these come with the package: {', '.join(RECIPES.packaged())}.")
    if options.ranks is not None and options.ranks < 1:
        raise UserError(f"--ranks is {options.ranks}, but it must be at least 1.")
    recipe = RECIPES.load(options.recipe, overrides)
    if options.dry_run:
        from training.page import page

        show(page(recipe, ranks=options.ranks, length_tokens=options.length, mfu=options.mfu))
        return 0
    from training import launch

    if options.ranks is not None and not launch.is_rank():
        return launch.start_ranks(options.ranks, [options.recipe, *overrides])
    from etl.lock import locked

    try:
        from training import command
    except ImportError as error:
        raise UserError(
            f"training needs a package that is not here ({error}): pip install 'nextlong[train]'"
        ) from error
    with contextlib.ExitStack() as stack:
        rank = stack.enter_context(command.process_group())
        if rank:
            hush()
        command.prepare(recipe, lambda folder: stack.enter_context(locked(folder)))
        if rank == 0:
            log_to(recipe.folder)
        made = command.train(recipe, progress=sys.stderr.isatty())
        if rank == 0:
            show(f"{made}: the trained model, for transformers, vLLM and lm-eval")
    return 0


def _completion(options: argparse.Namespace, _: list[str]) -> int:
    from etl.completion import script

    show(script(_parser(), options.shell))
    return 0


def _shown(override: str) -> str:
    """Without what may be a password."""
    may_be_secret = override.startswith(("--cluster=", "--cluster.options"))
    return override.partition("=")[0] + "=..." if may_be_secret else override


def _failure(error: Exception, verb: str) -> str:
    """What a failure means for the user; the log file has the traceback."""
    from etl.engine import StageFailed
    from etl.parts import DISK_FULL, describe

    logging.getLogger("etl").debug("failure", exc_info=error)
    if isinstance(error, StageFailed):
        return str(error)
    if verb in ("status", "peek", "report", "clean", "verify", "trace"):
        what = describe(error)
        return f"{what}." if what.startswith(DISK_FULL) else f"{what}. This is a defect; please report it."
    if verb == "train":
        steps = sys.modules.get("training.step")  # it may have failed before that was imported
        if steps is not None and isinstance(error, steps.DivergedError):
            return str(error)
        again = "Checkpoints are kept; run the same command again to go on from the last"
        return f"{describe(error).rstrip('.')}. {again}. Details are in run.log."
    if verb in ("export", "pack", "convert", "mix"):
        return f"{describe(error)}. Finished shards are kept aside; run the same command again to go on."
    return f"{describe(error)}. Finished parts are kept; run the same command again to go on. Details are in run.log."


def _complain(status: int, message: str) -> int:
    """Say it, once: of several ranks of a training the first does, and another only when nobody has ended it."""
    if os.environ.get("RANK", "0") != "0":
        if status == 130:
            return status
        time.sleep(_PATIENCE_SECONDS)
    log.error("nextlong: %s", message)
    return status


if __name__ == "__main__":
    sys.exit(main())
