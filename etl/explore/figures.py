"""Frames in, plotly figures out, in the colours of the strip; they read on a light and on a dark page."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from etl.strip import LIGHT
from nextlong.errors import UserError

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_SERIES = (LIGHT["meta"], LIGHT["negative"], LIGHT["document"], LIGHT["repeat"], LIGHT["special"])


def histogram(values: pd.Series, *, title: str, unit: str, bins: int = 40) -> "Figure":
    """How many values (numbers) lie where."""
    numbers = values.to_numpy(np.float64)
    counts, edges = np.histogram(numbers, bins=bins) if len(numbers) else (np.zeros(1), np.zeros(2))
    middles = (edges[1:] + edges[:-1]) / 2
    return bars(pd.DataFrame({unit: middles, "number": counts}), x=unit, y="number", title=title, gap=0.02)


def bars(frame: pd.DataFrame, *, x: str, y: str, title: str, color: str | None = None, gap: float = 0.3) -> "Figure":
    """A bar for each row; color: a column that tells series apart, side by side."""
    figure = _express().bar(frame, x=x, y=y, color=color, title=title, barmode="group", color_discrete_sequence=_SERIES)
    return _styled(figure.update_layout(bargap=gap))


def lines(
    frame: pd.DataFrame, *, x: str, y: str, title: str, color: str | None = None, log_x: bool = False
) -> "Figure":
    """A line through the rows, in their order, with their points; color: a column that tells lines apart."""
    figure = _express().line(
        frame, x=x, y=y, color=color, title=title, log_x=log_x, markers=True, color_discrete_sequence=_SERIES
    )
    return _styled(figure)


def similarities(vectors: np.ndarray, *, title: str) -> "Figure":
    """The inner product of every pair of vectors [n, d], as a square of n x n."""
    wide = vectors.astype(np.float32)
    figure = _express().imshow(
        wide @ wide.T, title=title, zmin=0, zmax=1, color_continuous_scale=["#f4f6fa", LIGHT["meta"]], text_auto=".2f"
    )
    return _styled(figure.update_layout(xaxis_title="chunk", yaxis_title="chunk"))


def _styled(figure: "Figure") -> "Figure":
    grid = {"gridcolor": "rgba(128,128,128,0.25)", "zerolinecolor": "rgba(128,128,128,0.4)"}
    figure.update_layout(
        template="plotly",
        height=360,
        margin={"l": 60, "r": 20, "t": 50, "b": 50},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": "#7a7f87", "size": 13},
        legend={"title": {"text": ""}},
    )
    return figure.update_xaxes(**grid).update_yaxes(**grid)


def _express() -> Any:
    try:
        import plotly.express as express
    except ImportError as error:
        raise UserError("figures need plotly. Run: pip install 'nextlong[notebook]'") from error
    return express
