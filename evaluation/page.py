"""A summary in, one HTML page out that loads nothing: pictures, scripts and numbers are in it."""

import json
from collections.abc import Mapping
from html import escape
from typing import Any

from plotly.offline import get_plotlyjs  # type: ignore[import-untyped]

from evaluation.charts import Chart, charts
from evaluation.summary import table

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
.figure { height: 24rem } pre { overflow-x: auto; background: #f4f4f4; padding: 1rem } .wrong { color: #a00 }
"""
_SCRIPT = """
for (const figure of document.querySelectorAll(".figure")) {
  const drawn = JSON.parse(figure.previousElementSibling.textContent);
  const layout = { ...drawn.layout, margin: { t: 10 } };
  Plotly.newPlot(figure, drawn.data, layout, { displayModeBar: false, responsive: true });
}
"""


def page(summary: Mapping[str, Any]) -> str:
    """The page as HTML; what comes from names of files is escaped, and its own policy forbids to load."""
    title = escape(f"{summary['model']} - nextlong eval")
    wrong = f'<p class="wrong">{escape(summary["too_long"])}</p>\n' if summary["too_long"] else ""
    body = "".join(map(_section, charts(summary)))
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f'<link rel="icon" href="data:,"><style>{_STYLE}</style></head>\n<body><h1>{title}</h1>\n{wrong}{body}'
        f"<h2>Numbers</h2>\n<pre>{escape(table(summary))}</pre>\n"
        f"<script>{get_plotlyjs()}</script>\n<script>{_SCRIPT}</script>\n</body></html>\n"
    )


def _section(chart: Chart) -> str:
    data = json.dumps(json.loads(chart.figure.to_json()), separators=(",", ":")).replace("<", "\\u003c")
    return (
        f"<h2>{escape(chart.title)}</h2>\n<p>{escape(chart.told)}</p>\n"
        f'<script type="application/json">{data}</script>'
        f'<div class="figure" role="img" aria-label="{escape(chart.title)}"></div>\n'
    )
