"""The verbs that look into a work folder, or delete from it: status, peek, report, clean."""

import argparse
from pathlib import Path

from etl.verb import STAGE_NAMES, add_verb, show


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


def _add_report(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parser = add_verb(
        verbs, "report", "write one HTML page about a work folder", "nextlong report work --out report.html", _report
    )
    parser.add_argument("work", type=Path, help="a work folder, finished or not")
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


FOLDER_VERBS = (_add_status, _add_peek, _add_report, _add_clean)


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


def _clean(options: argparse.Namespace, _: list[str]) -> int:
    from etl.work import clean

    removed = clean(options.work, options.first)
    show(f"deleted {len(removed)} files and folders" + "".join(f"\n  {path}" for path in removed))
    return 0
