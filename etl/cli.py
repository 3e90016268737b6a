"""The command line: all verbs, and what their ends mean; what a verb does is imported when it is called."""

import argparse
import logging
import os
import sys
import time
from collections.abc import Sequence

from etl.arguments import Parser
from etl.logs import logged_to_screen
from etl.shards.verbs import SHARD_VERBS
from etl.verb import add_verb, readers_may_leave, show
from etl.verbs.evaluation import EVALUATION_VERBS
from etl.verbs.folders import FOLDER_VERBS
from etl.verbs.runs import RUN_VERBS
from etl.verbs.training import add_train
from nextlong import __version__
from nextlong.errors import UserError
from nextlong.recipes import joined

log = logging.getLogger("etl.cli")

_PLAIN_FIELDS = ("--output", "--tokenizer")  # of a recipe; the others are --section.key

_PATIENCE_SECONDS = 20  # in which a rank that fails with the others is ended by who started it


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a verb. 0; 2 for a user's mistake, in one sentence; 1 for a failure, with how to go on; 130 for Ctrl-C."""
    argv = joined(sys.argv[1:] if arguments is None else arguments, _PLAIN_FIELDS)
    with readers_may_leave():
        options, rest = _parsed(argv)
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # its retries are no news: the sentence at their end is
    os.environ["PYTHONSAFEPATH"] = "1"  # so no worker imports a module of the current folder in place of Python's own
    with logged_to_screen():
        return _called(options, rest)


def _called(options: argparse.Namespace, rest: list[str]) -> int:
    try:
        status: int = options.call(options, rest)
        return status
    except UserError as error:
        return _complain(2, str(error))
    except KeyboardInterrupt:
        kept = {"train": "the last checkpoint is", "eval": "answers are"}.get(options.verb, "finished parts are")
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
    for add in (*RUN_VERBS, *FOLDER_VERBS, *SHARD_VERBS, add_train, *EVALUATION_VERBS, _add_completion):
        add(verbs)
    return parser


def _add_completion(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = add_verb(
        verbs,
        "completion",
        "print what completes this command in a shell, fields included",
        "nextlong completion bash > ~/.local/share/bash-completion/completions/nextlong",
        _completion,
    )
    parser.add_argument("shell", choices=("bash", "zsh", "fish"))


def _completion(options: argparse.Namespace, _: list[str]) -> int:
    from etl.completion import script

    show(script(_parser(), options.shell))
    return 0


def _failure(error: Exception, verb: str) -> str:
    """What a failure means for the user; the log file has the traceback."""
    from etl.engine import StageFailed
    from etl.parts import DISK_FULL, describe

    logging.getLogger("etl").debug("failure", exc_info=error)
    if isinstance(error, StageFailed):
        return str(error)
    if verb in ("status", "peek", "report", "clean", "verify", "trace", "export-check"):
        what = describe(error)
        return f"{what}." if what.startswith(DISK_FULL) else f"{what}. This is a defect; please report it."
    if verb == "train":
        steps = sys.modules.get("training.step")  # it may have failed before that was imported
        if steps is not None and isinstance(error, steps.DivergedError):
            return str(error)
        again = "Checkpoints are kept; run the same command again to go on from the last"
        return f"{describe(error).rstrip('.')}. {again}. Details are in run.log."
    if verb == "eval":
        return f"{describe(error).rstrip('.')}. Answers are kept; run the same command again to go on."
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
