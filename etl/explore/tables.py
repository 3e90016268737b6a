"""Rows in, a plain HTML table out: numbers to the right, texts to the left on one line each, all of it escaped."""

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

import pandas as pd

from etl.show import first_words

_RIGHT, _LEFT = "text-align:right", "text-align:left;white-space:pre-wrap"


class Preview:
    """A frame to look at in a notebook: `Preview(run.neighbours("any text"))`; texts are cut to `chars` characters."""

    def __init__(self, frame: pd.DataFrame, *, chars: int = 80) -> None:
        self._frame = frame
        self._chars = chars

    def __repr__(self) -> str:
        return self._frame.map(self._shown).to_string(index=False)

    def _repr_html_(self) -> str:
        rows = self._frame.itertuples(index=False)
        return html_table(self._frame.columns.tolist(), ([self._shown(each) for each in row] for row in rows))

    def _shown(self, value: Any) -> str:
        if isinstance(value, str):
            return first_words(value, self._chars)
        if pd.api.types.is_scalar(value) and pd.isna(value):
            return ""
        is_whole = float(value).is_integer() and not isinstance(value, float)
        return f"{int(value):,}" if is_whole else f"{value:,.3f}"


def html_table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of texts; a column of numbers alone, as they are written here, stands to the right."""
    body = [list(row) for row in rows]
    styles = [_RIGHT if all(_is_number(row[place]) for row in body) and body else _LEFT for place in range(len(names))]
    head = _row([name.replace("_", " ") for name in names], styles, "th")
    return f"<table><thead>{head}</thead><tbody>{''.join(_row(row, styles, 'td') for row in body)}</tbody></table>"


def _is_number(text: str) -> bool:
    return not text.strip("0123456789,.-")


def _row(cells: Sequence[str], styles: Sequence[str], tag: str) -> str:
    found = [f'<{tag} style="{style}">{escape(each)}</{tag}>' for each, style in zip(cells, styles, strict=True)]
    return f"<tr>{''.join(found)}</tr>"
