"""What the verbs of the command line share: how they are declared, where they run, and how they print."""

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from etl.logs import file_dask_log
from etl.terminal import printable_lines
from nextlong.errors import UserError

if TYPE_CHECKING:
    from etl.cluster import Cluster
    from etl.engine import Engine
    from nextlong.recipes import Recipes


STAGE_NAMES = ("read", "chunk", "embed", "index", "mine", "interleave", "pack")


def add_verb(
    verbs: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    help_: str,
    example: str,
    call: Callable[..., int],
) -> argparse.ArgumentParser:
    """Declare a verb that `call(options, rest)` does, returning its exit status."""
    parser: argparse.ArgumentParser = verbs.add_parser(
        name, help=help_, description=help_, epilog=f"Example: {example}"
    )
    parser.set_defaults(call=call, parser=parser)
    return parser


def add_where(parser: argparse.ArgumentParser, *, can_report: bool = False) -> None:
    """Let a verb run on local workers or on a running scheduler; can_report: and have Dask report on it."""
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="local processes, 0 for none (default: one a core)",
    )
    where.add_argument("--scheduler", metavar="ADDRESS", help="a running Dask scheduler: tcp://host:8786")
    if can_report:
        parser.add_argument("--report-dask", type=Path, metavar="FILE", help="write Dask's performance report (HTML)")


def check_where(options: argparse.Namespace) -> None:
    """Raise UserError for a place that cannot be, or a report that cannot be written, before any work."""
    check_workers(options.workers)
    if options.report_dask is not None:
        from etl.dashboard import check_report

        check_report(options.report_dask, has_workers=options.workers != 0)


@contextlib.contextmanager
def engine_of(options: argparse.Namespace, cluster: "Cluster | None" = None) -> "Iterator[Engine]":
    """Where the command line says, else where the recipe says, else a worker a core."""
    report = getattr(options, "report_dask", None)
    with _engine(options, cluster) as engine, contextlib.ExitStack() as stack:
        if report is not None:
            from etl.dashboard import reported

            stack.enter_context(reported(engine.client, report))
        yield engine


def _engine(options: argparse.Namespace, cluster: "Cluster | None") -> "contextlib.AbstractContextManager[Engine]":
    from etl.connect import local_engine, scheduler_engine, started_engine

    if options.workers != 0:
        file_dask_log()
    if options.scheduler:
        return scheduler_engine(options.scheduler)
    if options.workers is None and cluster is not None:
        return started_engine(cluster)
    return local_engine(cores() if options.workers is None else options.workers)


def show(text: str) -> None:
    """Print what a verb gives, whatever text of documents, names or other people's folders is in it."""
    with readers_may_leave():
        print(printable_lines(text))


def list_fields(recipes: "Recipes[Any]") -> None:
    """Print the fields of a kind of recipe, with their documentation."""
    with readers_may_leave():
        recipes.parser().print_help()


@contextlib.contextmanager
def readers_may_leave() -> Iterator[None]:
    """What the block prints is printed when it ends; where nobody reads on, as after `| head`, it goes nowhere."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0))


def check_workers(workers: int | None) -> None:
    """Raise UserError for a number of workers that cannot be."""
    if workers is not None and workers < 0:
        raise UserError(f"--workers is {workers}, but it must be at least 0 (0: run in this process).")
