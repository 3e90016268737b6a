"""A flow in, a Sankey diagram of it out."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

import plotly.graph_objects as go  # type: ignore[import-untyped]

from etl.report.canvas import LIGHT, Palette, canvas
from etl.report.flows import Flow, Step

_NODE_PIXELS = 13
_GAP_PIXELS = 26
_MARGIN = 14
_MOST_REASONS = 12
_LABEL_CHARS = 48


def flow_figure(flow: Flow, palette: Palette = LIGHT) -> go.Figure:
    """A Sankey of a flow: what is kept runs along the top, what is dropped ends below, with its reason.

    Of many reasons the smallest are one; a stage that drops nothing is left out, unless it is the last.
    """
    steps = [step for step in flow.steps[:-1] if step.dropped] + flow.steps[-1:]
    steps = [step._replace(dropped=_largest(step.dropped)) for step in steps]
    plot_height = 140 + 34 * max(len(step.dropped) for step in steps)
    nodes, links = _sankey(flow.read_as, steps, plot_height)
    colours = [palette.kept if node.is_kept else palette.dropped for node in nodes]
    sankey = go.Sankey(
        arrangement="fixed",
        node={
            "label": [f"{escape(node.label[:_LABEL_CHARS])}  {node.number:,}" for node in nodes],
            "align": "left",
            "x": [_inside(node.x) for node in nodes],
            "y": [_inside(node.y) for node in nodes],
            "color": colours,
            "thickness": _NODE_PIXELS,
            "pad": _GAP_PIXELS,
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
    figure = canvas(sankey, palette, height=plot_height + 2 * _MARGIN)
    return figure.update_layout(margin={"l": 2, "r": 2, "t": _MARGIN, "b": _MARGIN})


class _Node(NamedTuple):
    label: str
    number: int
    is_kept: bool
    x: float
    y: float


def _sankey(read_as: str, steps: Sequence[Step], plot_height: int) -> tuple[list[_Node], list[tuple[int, int]]]:
    """Nodes with their places, and (source, target) of the links."""
    total = max(1, steps[0].read)
    most = max(len(step.dropped) for step in steps)
    gap = _GAP_PIXELS / plot_height  # plotly gives the fullest column its gaps, and the values what is left
    room = 1 - gap * most
    width = room * steps[0].read / total
    nodes = [_Node(read_as, steps[0].read, True, 0.0, width / 2)]
    links, kept = [], 0
    for column, step in enumerate(steps, 1):
        x, bottom = column / len(steps), 0.0
        source = kept
        parts = [(step.kept_as, step.kept, True)]
        parts += [(reason.replace("_", " "), number, False) for reason, number in step.dropped.items()]
        for label, number, is_kept in parts:
            height = room * number / total
            nodes.append(_Node(label, number, is_kept, x, bottom + height / 2))
            links.append((source, len(nodes) - 1))
            kept = len(nodes) - 1 if is_kept else kept
            bottom += height + gap
    return nodes, links


def _largest(dropped: Mapping[str, int]) -> dict[str, int]:
    """The largest first; those beyond _MOST_REASONS are added up."""
    ordered = sorted(dropped.items(), key=lambda each: (-each[1], each[0]))
    shown, rest = ordered[:_MOST_REASONS], ordered[_MOST_REASONS:]
    return dict(shown) | ({f"{len(rest)} other reasons": sum(number for _, number in rest)} if rest else {})


def _inside(place: float) -> float:
    """plotly takes a place of exactly 0 for none."""
    return min(0.999, max(0.001, place))


def _faded(colour: str) -> str:
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.28)"
