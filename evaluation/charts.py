"""A summary in, pictures of it out."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import plotly.graph_objects as go  # type: ignore[import-untyped]

from evaluation.attention_probe import PARTS

Summary = Mapping[str, Any]


class Chart(NamedTuple):
    """A picture and what it shows."""

    title: str
    told: str
    figure: Any


def charts(summary: Summary) -> Iterator[Chart]:
    """Those of what was measured."""
    if summary["needles"]:
        yield Chart("Needle in a haystack", "Score of 100 by length and depth of the needle.", _needles(summary))
    if summary["scores"]:
        told = "Score of 100 by task and length; bars are Wilson's 95 % intervals."
        yield Chart("Tasks", told, _tasks(summary))
    if summary["positions"]:
        told = f"Nats a token by place, of {summary['positions'][0]['documents']} documents, with 95 % intervals."
        yield Chart("Loss by position", told, _positions(summary))
    if summary["gain"]:
        told = (
            "By how many nats a token the earlier meta-chunks, and all up to the end of the last of them, lower the "
            "loss on a meta-chunk, by where it starts; 95 % intervals over documents."
        )
        yield Chart("Gain from distant context", told, _gain(summary))
    for each in summary["attention"]:
        told = f"Share of the last token's attention, mean of {each['texts']} needle prompts; needles stand at 1/6."
        yield Chart(f"Attention by layer, {each['length_tokens']:,} tokens", told, _attention(each))


def _needles(summary: Summary) -> Any:
    lengths = list(dict.fromkeys(each["length_tokens"] for each in summary["needles"]))
    depths = sorted({each["depth"] for each in summary["needles"]})
    means = {(each["depth"], each["length_tokens"]): 100 * each["mean"] for each in summary["needles"]}
    cells = [[means.get((depth, length)) for length in lengths] for depth in depths]
    heat = go.Heatmap(
        z=cells,
        x=[f"{length:,}" for length in lengths],
        y=[f"{depth:.0%}" for depth in depths],
        zmin=0,
        zmax=100,
        colorscale="RdYlGn",
        texttemplate="%{z:.0f}",
        colorbar={"title": "score"},
    )
    layout = {"xaxis": {"title": "tokens", "type": "category"}, "yaxis": {"title": "depth", "autorange": "reversed"}}
    return go.Figure(heat, layout)


def _tasks(summary: Summary) -> Any:
    figure = go.Figure(layout={"yaxis": {"title": "score", "range": [0, 105]}, "xaxis": {"type": "category"}})
    for length in dict.fromkeys(each["length_tokens"] for each in summary["scores"]):
        here = [each for each in summary["scores"] if each["length_tokens"] == length]
        figure.add_bar(
            x=[each["task"] for each in here],
            y=[100 * each["mean"] for each in here],
            error_y=_errors(here, 100),
            name=f"{length:,}",
        )
    return figure


def _positions(summary: Summary) -> Any:
    here = summary["positions"]
    places = [f"{each['first']:,} - {each['last']:,}" for each in here]
    line = go.Scatter(x=places, y=[each["mean"] for each in here], error_y=_errors(here), mode="lines+markers")
    return go.Figure(line, {"xaxis": {"title": "token", "type": "category"}, "yaxis": {"title": "nats a token"}})


def _gain(summary: Summary) -> Any:
    here = summary["gain"]["by_start"]
    places = [f"{each['first']:,} - {each['last']:,}" for each in here]
    bars = go.Bar(x=places, y=[each["mean"] for each in here], error_y=_errors(here))
    axes = {"xaxis": {"title": "start of the meta-chunk", "type": "category"}, "yaxis": {"title": "nats a token"}}
    return go.Figure(bars, axes)


def _attention(each: Summary) -> Any:
    figure = go.Figure(
        layout={
            "xaxis": {"title": "layer", "tickformat": "d", "nticks": 20},
            "yaxis": {"title": "%", "rangemode": "tozero"},
        }
    )
    for part in PARTS:
        shares = [100 * share for share in each["by_layer"][part]]
        figure.add_scatter(y=shares, name=part.replace("_", " "), mode="lines+markers")
    return figure


def _errors(here: list[Summary], scale: float = 1) -> dict[str, Any] | None:
    """Bars from low to high; None where a mean has no interval."""
    if any(each["low"] is None for each in here):
        return None
    above = [scale * (each["high"] - each["mean"]) for each in here]
    below = [scale * (each["mean"] - each["low"]) for each in here]
    return {"type": "data", "symmetric": False, "array": above, "arrayminus": below}
