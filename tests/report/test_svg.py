"""Charts: what is drawn lies where its numbers say, whatever they are."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from offbeat.report.svg import HEIGHT, MOST_POINTS, STRETCHED, Series, Share, bar, chart, spans, swatch, ticks
from offbeat.runtime.spans import SPAN
from tests.report.page_runs import Node, read_page


def drawn(*series: Series, from_zero: bool = False) -> Node:
    """A chart, read back."""
    return read_page(chart(series, "x", "y", "about", from_zero))


def points(path: str) -> np.ndarray:
    """The corners of a path [n, 2]."""
    return np.array([pair.split() for pair in re.findall(r"[-\d.]+ [-\d.]+", path)], float)


def test_ticks_are_round_and_cover_the_range() -> None:
    assert ticks(0, 100_224, 5) == [0, 20_000, 40_000, 60_000, 80_000, 100_000]
    assert ticks(-21, 21, 5) == [-20, -10, 0, 10, 20] and ticks(0, 0.17, 5) == [0, 0.05, 0.1, 0.15]
    assert ticks(3, 3, 5) == [3]
    rng = np.random.default_rng(0)
    for _ in range(200):
        low, size = rng.normal() * 10.0 ** rng.integers(-6, 7), 10.0 ** rng.uniform(0, 7)
        found = ticks(low, low + size, 5)
        steps = np.diff(found)
        assert 2 <= len(found) <= 8 and low - 1e-6 * size <= found[0] and found[-1] <= low + size + 1e-6 * size
        assert steps == pytest.approx(steps[0], rel=1e-3) and min(found[0] - low, low + size - found[-1]) < steps[0]


def test_a_line_lies_where_its_numbers_say() -> None:
    x, y = np.array([0.0, 5.0, 20.0]), np.array([-1.0, 1.0, 3.0])
    figure = drawn(
        Series("a", 0, x, y, "line", y - 1, y + 1), Series("b", 9, x[1:], y[1:], "dots", y[1:] - 2, y[1:] + 2)
    )
    line = points(figure.one("path", class_="line").attributes["d"] or "")
    assert line[:, 0] == pytest.approx(STRETCHED * x / 20)
    # The field reaches from the lowest to the highest bound with some room; ticks say where which value lies.
    tick = {
        float(one.text.replace("−", "-")): one for one in figure.all("text") if one.attributes["text-anchor"] == "end"
    }
    heights = {value: float(one.attributes["y"] or 0) - 4 for value, one in tick.items()}
    (low, at_low), *_, (high, at_high) = heights.items()
    expected = at_low + (y - low) * (at_high - at_low) / (high - low)
    assert line[:, 1] == pytest.approx(expected, abs=0.1)
    dots = list(figure.all("circle", class_="c1"))
    assert [one.attributes["cx"] for one in dots] == ["25.00%", "100.00%"]
    assert [float(one.attributes["cy"] or 0) for one in dots] == pytest.approx(expected[1:], abs=0.1)
    bars = [[float(one.attributes[key] or 0) for key in ("y1", "y2")] for one in figure.all("line", class_="bar")]
    per_unit = (at_low - at_high) / (high - low)
    assert np.array(bars) == pytest.approx(
        np.stack([expected[1:] + 2 * per_unit, expected[1:] - 2 * per_unit], 1), abs=0.1
    )
    band = points(figure.one("path", class_="band").attributes["d"] or "")
    assert len(band) == 6 and band[0, 1] == pytest.approx(expected[0] - per_unit, abs=0.1)
    assert line[:, 1].min() > 0 and line[:, 1].max() < HEIGHT


def test_what_the_pointer_finds_is_what_is_drawn() -> None:
    x, y = np.linspace(0, 1, 5000), np.random.default_rng(0).normal(size=5000)
    figure = drawn(Series("long", 0, x, y), Series("few", 0, x[:3], y[:3], "dots", y[:3] - 1, y[:3] + 1))
    told = json.loads(figure.one("svg", class_="chart").attributes["data-hover"] or "")
    long, few = told["series"]
    assert len(long["x"]) == MOST_POINTS and long["x"][0] == 0 and long["x"][-1] == 1 and "low" not in long
    assert few["y"] == pytest.approx(y[:3], rel=1e-5) and few["high"] == pytest.approx(y[:3] + 1, rel=1e-5)


def test_numbers_that_are_not_finite_are_left_out() -> None:
    x, y = np.array([0.0, 1.0, np.nan, 3.0]), np.array([np.inf, 2.0, 3.0, 4.0])
    figure = drawn(Series("a", 0, x, y), Series("b", 0, x, y, "dots", np.full(4, np.nan), y))
    assert len(points(figure.one("path").attributes["d"] or "")) == 2 and len(list(figure.all("circle"))) == 2
    assert "nan" not in json.dumps([node.attributes for node in figure.all()]).lower()
    for none in ((), (Series("a", 0, x[:0], y[:0]),), (Series("a", 0, x, np.full(4, np.nan)),)):
        assert drawn(*none).one("p").text == "Nothing to draw yet."


@pytest.mark.parametrize("value", [0.0, 5.0, -1e9, 1e-12, 1e99])
def test_a_single_value_is_drawn(value: float) -> None:
    figure = drawn(Series("a", 0, np.zeros(1), np.full(1, value), "dots"))
    assert 0 < float(figure.one("circle").attributes["cy"] or 0) <= HEIGHT


def test_a_field_may_begin_at_zero() -> None:
    series = Series("a", 0, np.array([0.0, 1.0]), np.array([100.0, 110.0]))
    lowest = {
        zero: next(one.text for one in drawn(series, from_zero=zero).all("text", x="-8")) for zero in (False, True)
    }
    assert lowest == {False: "100", True: "0"}


def test_names_are_escaped() -> None:
    figure = drawn(Series("<script>", 0, np.arange(2.0), np.arange(2.0)))
    assert (
        json.loads(figure.one("svg", class_="chart").attributes["data-hover"] or "")["series"][0]["name"] == "<script>"
    )
    page = read_page(bar([Share("</title><b>", 0.5, "#000")], "<i>"))
    assert {node.name for node in page.all()} == {"svg", "rect", "title"}


def test_bars_and_spans_have_the_widths_of_their_shares() -> None:
    page = read_page(bar([Share("a", 0.25, "#111111"), Share("b", 0.5, "#222222")], "shares"))
    assert [(one.attributes["x"], one.attributes["width"]) for one in page.all("rect")] == [
        ("0.00%", "25.00%"),
        ("25.00%", "50.00%"),
    ]
    found = np.array([(0, 100, 150), (0, 180, 200)], SPAN)
    path = read_page(spans(100, 200, [("#333333", found)], "lane")).one("path").attributes["d"] or ""
    assert re.findall(r"M(\d+) 0h(\d+)", path) == [("0", "5000"), ("8000", "2000")]
    assert read_page(swatch("#444444")).one("rect").attributes["fill"] == "#444444"
    assert read_page(swatch(9)).one("rect").attributes["class"] == "fill c1"
