"""Manifests of stages in, their accounts out: as a pandas frame, and as a table for a notebook."""

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from etl.explore.tables import html_table

_COLUMNS = ["stage", "unit", "read", "kept", "reason", "dropped"]


def account_frame(manifests: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """A row for each stage, unit and reason (one with an empty reason where nothing was dropped)."""
    rows = [
        (stage, unit, count["read"], count["kept"], reason, number)
        for stage, unit, count in _counts(manifests)
        for reason, number in (count["dropped"] or {"": 0}).items()
    ]
    return pd.DataFrame(rows, columns=_COLUMNS)


def stage_html(manifests: Mapping[str, Mapping[str, Any]], summaries: Mapping[str, Mapping[str, Any]]) -> str:
    """A table of the stages: seconds, and for every unit read = kept + dropped by reason."""
    rows, before = [], ""
    for stage, unit, count in _counts(manifests):
        seconds = summaries.get(stage, {}).get("seconds")
        head = ("", "") if stage == before else (stage, "" if seconds is None else f"{seconds:,.1f}")
        dropped = ", ".join(f"{number:,} {reason.replace('_', ' ')}" for reason, number in count["dropped"].items())
        rows.append((*head, unit.replace("_", " "), f"{count['read']:,}", f"{count['kept']:,}", dropped))
        before = stage
    return html_table(["stage", "seconds", "unit", "read", "kept", "dropped"], rows)


def _counts(manifests: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    for stage, manifest in manifests.items():
        for unit, count in manifest["account"].items():
            if unit != "notes":
                yield stage, unit, count
