"""Figures hold the numbers that they are given, in the colours of a light and of a dark page."""

import numpy as np
import pytest

from etl.report.canvas import DARK, LIGHT
from etl.report.figures import bars_figure, histogram, histogram_figure, rows_figure
from etl.report.flows import Flow, Step
from etl.report.sankey import flow_figure

VALUES = {
    "none": [],
    "one": [7],
    "equal": [3] * 50,
    "whole": list(range(100)),
    "shares": [0.1, 0.25, 0.2, 0.9],
    "wide": [0, 1, 2, 5, 10, 100, 100_000],
}


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
def test_every_value_is_in_one_bin(values: list[float]) -> None:
    found = histogram(np.array(values, np.float64))
    assert found.counts.sum() == len(values)
    assert (np.diff(found.edges) > 0).all()
    figure = histogram_figure(np.array(values, np.float64), x_title="tokens", y_title="chunks")
    assert sum(figure.data[0].y) == len(values)


def test_only_what_spreads_widely_stands_on_a_logarithmic_axis() -> None:
    assert histogram(np.array(VALUES["wide"], np.float64)).is_logarithmic
    assert not histogram(np.array(VALUES["whole"], np.float64)).is_logarithmic


def test_a_flow_shows_every_reason_and_what_was_kept() -> None:
    steps = [
        Step("read", "distinct", 10, 8, {"empty_text": 2}),
        Step("chunk", "chunked", 8, 8, {}),
        Step("draw", "used", 8, 5, {"a": 3}),
    ]
    sankey = flow_figure(Flow("Documents", "", "read", steps)).data[0]
    assert list(sankey.node.label) == ["read  10", "distinct  8", "empty text  2", "used  5", "a  3"]
    assert list(sankey.link.value) == [8, 2, 5, 3]
    assert list(zip(sankey.link.source, sankey.link.target, strict=True)) == [(0, 1), (0, 2), (1, 3), (1, 4)]


def test_a_dark_page_has_other_colours_and_the_same_numbers() -> None:
    for draw in (
        lambda palette: bars_figure({"0": 0.5}, palette, x_title="rank", y_title="similarity"),
        lambda palette: rows_figure({"read": 2.0}, palette, x_title="seconds", number_format=".1f"),
        lambda palette: histogram_figure(np.arange(9.0), palette, x_title="tokens", y_title="chunks"),
    ):
        light, dark = draw(LIGHT), draw(DARK)
        assert light.data[0].marker.color != dark.data[0].marker.color
        assert light.layout.font.color != dark.layout.font.color
        assert list(light.data[0].y) == list(dark.data[0].y)


def test_of_many_reasons_the_smallest_are_one_and_nothing_is_lost() -> None:
    dropped = {f"contaminated by {'x' * 80} {place}": place for place in range(1, 31)}
    flow = Flow("Documents", "", "read", [Step("read", "kept", 1000, 1000 - sum(dropped.values()), dropped)])
    sankey = flow_figure(flow).data[0]
    assert len(sankey.node.label) == 15
    assert sum(sankey.link.value) == 1000
    assert "18 other reasons  171" in sankey.node.label
