"""The verbs that look at a trained model: eval, export-check."""

import argparse
import sys
from pathlib import Path

from etl.verb import add_verb, show
from nextlong.errors import UserError


def _add_eval(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = add_verb(
        verbs,
        "eval",
        "measure whether a model uses distant context, offline",
        "nextlong eval trained/model --lengths 4096 8192 --documents shards",
        _eval,
    )
    parser.add_argument("model", metavar="MODEL_DIR", type=Path, help="a folder of transformers, as train exports it")
    parser.add_argument(
        "--tasks", nargs="*", metavar="TASK", help="(default: all that fit; none: no questions are asked)"
    )
    parser.add_argument(
        "--lengths", nargs="+", type=int, metavar="TOKENS", help="(default: three, up to 32,768 and the positions)"
    )
    parser.add_argument("--number", type=int, metavar="N", help="examples a task, length and depth (default: 10)")
    parser.add_argument(
        "--depths", nargs="+", type=float, metavar="DEPTH", help="of needles, 0 to 1 (default: 0 0.25 0.5 0.75 1)"
    )
    parser.add_argument("--hay", metavar="KIND", help="noise, needles, or a file of text (default: noise)")
    parser.add_argument(
        "--documents", type=Path, metavar="PATH", help="long texts or a packed folder, for losses by position and gain"
    )
    parser.add_argument("--num-documents", type=int, metavar="N", help="of them that are measured (default: 8)")
    parser.add_argument("--probes", type=int, metavar="N", help="prompts whose attention is measured (default: 5)")
    parser.add_argument("--seed", type=int, metavar="N", help="of the examples (default: 0)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), help="(default: auto)")
    parser.add_argument(
        "--dtype",
        choices=("auto", "float32", "bfloat16", "float16", "float64"),
        help="of weights (default: bfloat16 on a GPU, float32 on a CPU)",
    )
    parser.add_argument("--layouts", type=Path, metavar="DIR", help="write the examples as RULER and HELMET read them")
    parser.add_argument("--out", type=Path, metavar="DIR", help="results; gone on with (default: MODEL_DIR-eval)")


def _add_export_check(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = add_verb(
        verbs,
        "export-check",
        "say whether HELMET, RULER and LongBench v2 can read a model",
        "nextlong export-check trained/model --length 131072",
        _export_check,
    )
    parser.add_argument("model", metavar="MODEL_DIR", type=Path, help="a folder of transformers")
    parser.add_argument("--length", type=int, metavar="TOKENS", help="of the longest test (default: its positions)")


EVALUATION_VERBS = (_add_eval, _add_export_check)

_OPTIONS = (
    "tasks lengths number depths hay documents num_documents probes seed device dtype layouts".split()
)  # what is not given has its default in evaluation.config


def _eval(options: argparse.Namespace, _: list[str]) -> int:
    from evaluation.config import Evaluation

    out = options.out or options.model.absolute().with_name(f"{options.model.absolute().name}-eval")
    given = {name: value for name in _OPTIONS if (value := getattr(options, name)) is not None}
    asked = Evaluation(model=options.model.expanduser(), out=out.expanduser(), **given)
    if not asked.model.is_dir():
        raise UserError(f"there is no folder {asked.model}. Give the folder of a model, such as a training exports.")
    try:
        from evaluation.results import ROWS
        from evaluation.run import PAGE, evaluate
        from evaluation.summary import table
    except ImportError as error:
        raise UserError(
            f"an evaluation needs a package that is not here ({error}): pip install 'nextlong[train]'"
        ) from error
    from etl.lock import locked

    asked.out.mkdir(parents=True, exist_ok=True)
    with locked(asked.out, "--out"):
        summary = evaluate(asked, shows_progress=sys.stderr.isatty())
    pictures = f"{asked.out / PAGE}: pictures\n" if (asked.out / PAGE).is_file() else ""
    show(f"{table(summary)}\n\n{pictures}{asked.out / ROWS}: every answer")
    if summary["too_long"]:
        raise UserError(summary["too_long"])
    return 0


def _export_check(options: argparse.Namespace, _: list[str]) -> int:
    from evaluation.export_check import check_export, lines

    findings = check_export(options.model.expanduser(), length_tokens=options.length)
    show("\n".join(lines(findings)))
    return int(any(each.level == "fault" for each in findings))
