"""Frames and runs in, plotly figures out, for notebooks: in the report's colours, legible on light and dark pages.

It needs the extra `notebook`.
"""

from typing import Any

import numpy as np
import pandas as pd
import plotly.express as px  # type: ignore[import-untyped]
import plotly.graph_objects as go  # type: ignore[import-untyped]

from etl.explore.run import Run
from etl.report.canvas import FONT, Palette
from etl.report.facts import read_facts
from etl.report.figures import histogram_figure
from etl.report.flows import flows
from etl.report.sankey import flow_figure
from etl.strip import LIGHT, ROLES
from etl.work import Work
from nextlong.errors import UserError
from nextlong.indexing import Vectors

_INK, _GRID = "#7d838c", "rgba(128,132,140,0.25)"
_PALETTE = Palette(_INK, _INK, _GRID, LIGHT)
_SERIES = [LIGHT[role] for role in ROLES]


def flow(run: Run, unit: str) -> go.Figure:
    """A Sankey of what every stage kept and dropped; unit: documents, chunks, candidates or tokens."""
    found = {each.title.lower(): each for each in flows(read_facts(Work.open(run.path)))}
    if unit not in found:
        raise UserError(f"unit is {unit!r}, but this run tells the flow of {', '.join(found)}.")
    return _titled(flow_figure(found[unit], _PALETTE), found[unit].told)


def histogram(values: pd.Series, *, title: str, unit: str, of: str = "number") -> go.Figure:
    """How many values (numbers) lie where, with the median marked; logarithmic where they reach far."""
    return _titled(histogram_figure(values.to_numpy(np.float64), _PALETTE, x_title=unit, y_title=of), title)


def bars(frame: pd.DataFrame, *, x: str, y: str, title: str, color: str | None = None) -> go.Figure:
    """A bar for each row, x as a name; color: a column that tells series apart, side by side."""
    named = frame.assign(**{x: frame[x].astype(str)})
    figure = px.bar(named, x=x, y=y, color=color, barmode="group", color_discrete_sequence=_SERIES)
    return _titled(figure.update_xaxes(type="category"), title)


def lines(
    frame: pd.DataFrame, *, x: str, y: str | list[str], title: str, unit: str | None = None, log_x: bool = False
) -> go.Figure:
    """A line through the rows, in their order, for each column y; unit: what these are, where there are several."""
    figure = px.line(frame, x=x, y=y, log_x=log_x, markers=True, color_discrete_sequence=_SERIES)
    if unit is not None:
        figure.update_yaxes(title=unit)
    if log_x:
        values = sorted(frame[x].unique().tolist())
        figure.update_xaxes(tickvals=values, ticktext=[f"{each:,}" for each in values])
    return _titled(figure, title)


def similarities(vectors: Vectors, *, title: str) -> go.Figure:
    """The similarity of every pair of vectors [n, d], as a square of n x n."""
    wide = vectors.astype(np.float32)
    scale = ["rgb(240,243,248)", LIGHT["meta"]]
    figure = px.imshow(wide @ wide.T, zmin=0, zmax=1, color_continuous_scale=scale, text_auto=".2f")
    ticks: dict[str, Any] = {"title": "chunk", "dtick": max(1, len(wide) // 12)}
    return _titled(figure.update_xaxes(**ticks).update_yaxes(**ticks), title)


def _titled(figure: go.Figure, title: str) -> go.Figure:
    figure.update_layout(
        title={"text": title, "font": {"size": 15}, "x": 0.01, "y": 1, "yanchor": "top", "pad": {"t": 14}},
        height=max(340, figure.layout.height or 0),
        margin={"l": 60, "r": 24, "t": 56, "b": 48},
        font={"family": FONT, "size": 12, "color": _INK},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        legend={"title": {"text": ""}},
    )
    axis = {"gridcolor": _GRID, "zeroline": False, "automargin": True}
    return figure.update_xaxes(**axis).update_yaxes(**axis)
