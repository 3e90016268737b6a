"""Numbers in, plotly figures out: bars by name, and distributions."""

from collections.abc import Mapping
from html import escape
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import plotly.graph_objects as go  # type: ignore[import-untyped]
from numpy.typing import NDArray

from etl.report.canvas import LIGHT, Palette, canvas

_NO_MORE_BINS = 30
_OPACITY = 0.9


def bars_figure(
    numbers: Mapping[str, float],
    palette: Palette = LIGHT,
    *,
    x_title: str,
    y_title: str,
    number_format: str = ",.3~f",
    role: str = "meta",
) -> go.Figure:
    """Upright bars by name, each with its number on it, in the colour of a role of the strip."""
    bar = go.Bar(
        x=[escape(name) for name in numbers],
        y=list(numbers.values()),
        marker={"color": palette.roles[role], "opacity": _OPACITY},
        texttemplate="%{y:" + number_format + "}",
        textposition="outside",
        cliponaxis=False,
        hovertemplate="%{x}: %{y:" + number_format + "}<extra></extra>",
    )
    figure = canvas(bar, palette)
    figure.update_xaxes(title_text=x_title, type="category", tickangle=0 if len(numbers) < 8 else -45)
    return figure.update_yaxes(title_text=y_title, rangemode="tozero", showgrid=True)


def rows_figure(
    numbers: Mapping[str, float], palette: Palette = LIGHT, *, x_title: str, number_format: str, role: str = "special"
) -> go.Figure:
    """Lying bars by name, the first on top, each with its number at its end."""
    bar = go.Bar(
        x=list(numbers.values()),
        y=[escape(name) for name in numbers],
        orientation="h",
        marker={"color": palette.roles[role], "opacity": _OPACITY},
        texttemplate="%{x:" + number_format + "}",
        textposition="outside",
        cliponaxis=False,
        hovertemplate="%{y}: %{x:" + number_format + "}<extra></extra>",
    )
    figure = canvas(bar, palette, height=110 + 26 * len(numbers))
    figure.update_xaxes(
        title_text=x_title, rangemode="tozero", showgrid=True, range=[0, 1.18 * max(numbers.values(), default=1)]
    )
    return figure.update_yaxes(autorange="reversed", type="category")


class Histogram(NamedTuple):
    """Numbers in bins: those in [edges[i], edges[i + 1]), the last edge included."""

    edges: NDArray[np.float64]
    counts: NDArray[np.int64]
    is_logarithmic: bool


def histogram(values: NDArray[np.float64]) -> Histogram:
    """Bins of one width; of one ratio where the largest value is far from the middle one."""
    values = values[np.isfinite(values)]
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    most_bins = int(np.clip(2 * np.sqrt(len(values)), 8, _NO_MORE_BINS))
    is_logarithmic = len(values) > 0 and high > 8 * max(1.0, float(np.median(values)))
    is_whole = bool((values == np.round(values)).all())
    if is_logarithmic:
        edges = np.geomspace(max(1.0, low), high * 1.0001, most_bins + 1)
        values = np.maximum(values, 1.0)
    elif is_whole:
        step = max(1, int(np.ceil((high - low + 1) / most_bins)))
        edges = np.arange(low, high + 1 + step, step) - 0.5
    else:
        edges = np.linspace(low, high if high > low else low + 1, most_bins + 1)
    counts, edges = np.histogram(values, edges)
    return Histogram(edges, counts, is_logarithmic)


def histogram_figure(
    values: NDArray[np.float64],
    palette: Palette = LIGHT,
    *,
    x_title: str,
    y_title: str,
    number_format: str = ",.0f",
    role: str = "meta",
) -> go.Figure:
    """The distribution of values, with its median marked; along a logarithmic axis where it is wide."""
    found = histogram(values)
    edges = np.log10(found.edges) if found.is_logarithmic else found.edges
    told = [f"{format(low, number_format)} to {format(high, number_format)}" for low, high in pairwise(found.edges)]
    bar = go.Bar(
        x=((edges[1:] + edges[:-1]) / 2).tolist(),
        y=found.counts.tolist(),
        width=(0.94 * np.diff(edges)).tolist(),
        customdata=told,
        marker={"color": palette.roles[role], "opacity": _OPACITY},
        hovertemplate="%{customdata}: %{y:,d}<extra></extra>",
    )
    figure = canvas(bar, palette)
    figure.update_layout(bargap=0)
    figure.update_xaxes(title_text=x_title, tickformat=number_format)
    figure.update_yaxes(title_text=y_title, rangemode="tozero", showgrid=True)
    if found.is_logarithmic:
        ticks = np.arange(np.floor(edges[0]), np.ceil(edges[-1]) + 1)
        figure.update_xaxes(tickvals=ticks.tolist(), ticktext=[f"{10**tick:,.0f}" for tick in ticks])
    if len(values):
        median = float(np.median(values))
        place = np.log10(max(1.0, median)) if found.is_logarithmic else median
        figure.add_vline(
            x=place,
            line={"color": palette.ink, "width": 1.5, "dash": "dot"},
            annotation={"text": f"median {format(median, number_format)}", "font": {"color": palette.ink, "size": 12}},
            annotation_position="top",
        )
    return figure
