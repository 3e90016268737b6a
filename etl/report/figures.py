"""Numbers in, plotly figures out: in one font and few colours, for a light or a dark page."""

from collections.abc import Mapping, Sequence
from html import escape
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go  # type: ignore[import-untyped]
from numpy.typing import NDArray

from etl import strip
from etl.report.flows import Flow, Step

FONT = "system-ui, sans-serif"


class Palette(NamedTuple):
    """Colours of a page."""

    ink: str
    faint: str
    grid: str
    kept: str
    dropped: str
    bar: str


LIGHT = Palette("#1d232b", "#5d6672", "#e3e6ea", strip.LIGHT["meta"], strip.LIGHT["negative"], strip.LIGHT["meta"])
DARK = Palette("#e7eaee", "#9aa4b0", "#2d343d", strip.DARK["meta"], strip.DARK["negative"], strip.DARK["meta"])
_NODE_PIXELS = 13
_GAP = 0.13
_COLUMN_PIXELS = 62
_NO_MORE_BINS = 30


def flow_figure(flow: Flow, palette: Palette = LIGHT) -> go.Figure:
    """A Sankey of a flow: what is kept runs along the top, what is dropped ends below, with its reason."""
    steps = [step for step in flow.steps[:-1] if step.dropped] + flow.steps[-1:]
    nodes, links = _sankey(flow.read_as, steps)
    colours = [palette.kept if node.is_kept else palette.dropped for node in nodes]
    sankey = go.Sankey(
        arrangement="fixed",
        node={
            "label": [f"{escape(node.label)}<br>{node.number:,}" for node in nodes],
            "x": [_inside(node.x) for node in nodes],
            "y": [_inside(node.y) for node in nodes],
            "color": colours,
            "thickness": _NODE_PIXELS,
            "pad": 8,
            "line": {"width": 0},
            "hovertemplate": "%{label}<extra></extra>",
        },
        link={
            "source": [link[0] for link in links],
            "target": [link[1] for link in links],
            "value": [nodes[link[1]].number for link in links],
            "color": [_faded(colours[link[1]]) for link in links],
            "hovertemplate": "%{target.label}<extra></extra>",
        },
        valueformat=",d",
    )
    most = max(1 + sum(node.column == column for node in nodes) for column in range(len(steps) + 1))
    figure = _figure(sankey, palette, height=90 + _COLUMN_PIXELS * most)
    return figure.update_layout(margin={"l": 4, "r": 4, "t": 12, "b": 16})


def bars_figure(
    numbers: Mapping[str, float],
    palette: Palette = LIGHT,
    *,
    x_title: str,
    y_title: str,
    number_format: str = ",.3~f",
) -> go.Figure:
    """Upright bars by name, each with its number on it."""
    bar = go.Bar(
        x=[escape(name) for name in numbers],
        y=list(numbers.values()),
        marker={"color": palette.bar},
        texttemplate="%{y:" + number_format + "}",
        textposition="outside",
        cliponaxis=False,
        hovertemplate="%{x}: %{y:" + number_format + "}<extra></extra>",
    )
    figure = _figure(bar, palette)
    figure.update_xaxes(title=x_title, type="category", tickangle=0 if len(numbers) < 8 else -45)
    return figure.update_yaxes(title=y_title, rangemode="tozero", showgrid=True)


def rows_figure(
    numbers: Mapping[str, float], palette: Palette = LIGHT, *, x_title: str, number_format: str
) -> go.Figure:
    """Lying bars by name, the first on top, each with its number at its end."""
    bar = go.Bar(
        x=list(numbers.values()),
        y=[escape(name) for name in numbers],
        orientation="h",
        marker={"color": palette.bar},
        texttemplate="%{x:" + number_format + "}",
        textposition="outside",
        cliponaxis=False,
        hovertemplate="%{y}: %{x:" + number_format + "}<extra></extra>",
    )
    figure = _figure(bar, palette, height=110 + 26 * len(numbers))
    figure.update_xaxes(
        title=x_title, rangemode="tozero", showgrid=True, range=[0, 1.18 * max(numbers.values(), default=1)]
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
    is_logarithmic = len(values) > 0 and high > 8 * max(1.0, float(np.median(values)))
    is_whole = bool((values == np.round(values)).all())
    if is_logarithmic:
        edges = np.geomspace(max(1.0, low), high * 1.0001, _NO_MORE_BINS + 1)
        values = np.maximum(values, 1.0)
    elif is_whole:
        step = max(1, int(np.ceil((high - low + 1) / _NO_MORE_BINS)))
        edges = np.arange(low, high + 1 + step, step) - 0.5
    else:
        edges = np.linspace(low, high if high > low else low + 1, _NO_MORE_BINS + 1)
    counts, edges = np.histogram(values, edges)
    return Histogram(edges, counts, is_logarithmic)


def histogram_figure(
    values: NDArray[np.float64], palette: Palette = LIGHT, *, x_title: str, y_title: str, number_format: str = ",.0f"
) -> go.Figure:
    """The distribution of values, with its median marked; along a logarithmic axis where it is wide."""
    found = histogram(values)
    edges = np.log10(found.edges) if found.is_logarithmic else found.edges
    told = [f"{format(low, number_format)} to {format(high, number_format)}" for low, high in pairwise(found.edges)]
    bar = go.Bar(
        x=((edges[1:] + edges[:-1]) / 2).tolist(),
        y=found.counts.tolist(),
        width=np.diff(edges).tolist(),
        customdata=told,
        marker={"color": palette.bar, "line": {"width": 0}},
        hovertemplate="%{customdata}: %{y:,d}<extra></extra>",
    )
    figure = _figure(bar, palette)
    figure.update_layout(bargap=0)
    figure.update_xaxes(title=x_title, tickformat=number_format)
    figure.update_yaxes(title=y_title, rangemode="tozero", showgrid=True)
    if found.is_logarithmic:
        ticks = np.arange(np.floor(edges[0]), np.ceil(edges[-1]) + 1)
        figure.update_xaxes(tickvals=ticks.tolist(), ticktext=[f"{10**tick:,.0f}" for tick in ticks])
    if len(values):
        median = float(np.median(values))
        place = np.log10(max(1.0, median)) if found.is_logarithmic else median
        figure.add_vline(
            x=place,
            line={"color": palette.dropped, "width": 2},
            annotation={"text": f"median {format(median, number_format)}", "font": {"color": palette.ink, "size": 12}},
            annotation_position="top",
        )
    return figure


class _Node(NamedTuple):
    label: str
    number: int
    is_kept: bool
    column: int
    x: float
    y: float


def _sankey(read_as: str, steps: Sequence[Step]) -> tuple[list[_Node], list[tuple[int, int]]]:
    """Nodes with their places, and (source, target) of the links."""
    total = max(1, steps[0].read)
    most = max(len(step.dropped) for step in steps)
    room = 1 - _GAP * most
    width = room * steps[0].read / total
    nodes = [_Node(read_as, steps[0].read, True, 0, 0.0, width / 2)]
    links, kept = [], 0
    for column, step in enumerate(steps, 1):
        x, bottom = column / len(steps), 0.0
        source = kept
        parts = [(step.kept_as, step.kept, True)]
        parts += [(reason.replace("_", " "), number, False) for reason, number in _largest_first(step.dropped)]
        for label, number, is_kept in parts:
            height = room * number / total
            nodes.append(_Node(label, number, is_kept, column, x, bottom + height / 2))
            links.append((source, len(nodes) - 1))
            kept = len(nodes) - 1 if is_kept else kept
            bottom += height + _GAP
    return nodes, links


def _largest_first(dropped: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(dropped.items(), key=lambda each: (-each[1], each[0]))


def _inside(place: float) -> float:
    """plotly takes a place of exactly 0 for none."""
    return min(0.999, max(0.001, place))


def _faded(colour: str) -> str:
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.28)"


def _figure(trace: Any, palette: Palette, *, height: int = 300) -> go.Figure:
    """A figure of one trace on the page's own ground, with lines no stronger than they need be."""
    figure = go.Figure(trace)
    figure.update_layout(
        template="none",
        height=height,
        font={"family": FONT, "size": 12, "color": palette.ink},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        margin={"l": 8, "r": 16, "t": 28, "b": 8},
        hoverlabel={"font": {"family": FONT}},
        showlegend=False,
        dragmode=False,
    )
    axis = {
        "automargin": True,
        "fixedrange": True,
        "showgrid": False,
        "zeroline": False,
        "gridcolor": palette.grid,
        "tickfont": {"color": palette.faint},
        "title": {"font": {"color": palette.faint, "size": 12}, "standoff": 8},
    }
    return figure.update_xaxes(**axis).update_yaxes(**axis)
