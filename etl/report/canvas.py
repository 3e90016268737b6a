"""A plotly trace and a palette in, a figure out: in one font and few colours, for a light or a dark page."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import plotly.graph_objects as go  # type: ignore[import-untyped]

from etl import strip

FONT = "system-ui, sans-serif"


class Palette(NamedTuple):
    """Colours of a page."""

    ink: str
    faint: str
    grid: str
    roles: Mapping[str, str]
    """Colours of the strip, by role."""

    @property
    def kept(self) -> str:
        """What is kept."""
        return self.roles["meta"]

    @property
    def dropped(self) -> str:
        """What is dropped, for whatever reason: nothing to be alarmed at."""
        return self.roles["special"]


LIGHT = Palette("#1d232b", "#5d6672", "#e3e6ea", strip.LIGHT)
DARK = Palette("#e7eaee", "#9aa4b0", "#2d343d", strip.DARK)


def canvas(trace: Any, palette: Palette, *, height: int = 300) -> go.Figure:
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
