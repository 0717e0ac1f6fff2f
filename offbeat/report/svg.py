"""Charts as SVG that fits any width: lines stretch, text and dots keep their size (no script, no network).

Positions to the right are percentages of the picture's width; lines lie in an inner picture that is stretched.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from offbeat.report.page_html import Html, joined, tag
from offbeat.report.plot import short

HEIGHT = 240
"""Height of a chart's field. Unit: pixels."""
STRETCHED = 1000
"""Width of the inner picture, in its own units."""
MOST_POINTS = 400
"""Points of a drawn line: more are not seen."""
LARGEST = 1e100
"""Numbers from here on are not drawn."""
BAR = 18
"""Height of a bar. Unit: pixels."""
COLOURS = 8
"""Classes ``c0`` to ``c7`` of the style sheet."""

Kind = Literal["line", "thin", "dots", "rings"]


@dataclass(frozen=True)
class Series:
    """Numbers of one name and colour in a chart."""

    name: str
    colour: int
    """Place of its colour in the style sheet; counted anew behind the last one."""
    x: np.ndarray  # [n]
    y: np.ndarray  # [n], NaN where nothing is known
    kind: Kind = "line"
    low: np.ndarray | None = None  # [n], of a band around a line or of the bars of dots
    high: np.ndarray | None = None  # [n]


@dataclass(frozen=True)
class Share:
    """A part of a bar."""

    name: str
    share: float  # of the whole, in [0, 1]
    fill: str


def chart(series: Sequence[Series], x_label: str, y_label: str, about: str, from_zero: bool = False) -> Html:
    """A figure with axes, and below it a line that names the values under the pointer.

    Args:
        series: what is drawn, the first at the bottom; those without a finite value are left out.
        x_label, y_label: what the axes are.
        about: what the picture shows, for those who do not see it.
        from_zero: the field begins at 0.
    """
    drawn = [_finite(one) for one in series]
    drawn = [one for one in drawn if len(one.x)]
    if not drawn:
        return tag("p", "Nothing to draw yet.", class_="note")
    right = max(float(one.x.max()) for one in drawn)
    right = right if right > 0 else 1.0
    bounds = [bound for one in drawn for bound in (one.y, one.low, one.high) if bound is not None]
    bottom, top = _range([float(bound.min()) for bound in bounds], [float(bound.max()) for bound in bounds])
    field = Field(right, min(0.0, bottom) if from_zero else bottom, top)
    parts = [*field.axes()]
    lines = [part for one in drawn if one.kind in ("line", "thin") for part in field.line(one)]
    inner = {"viewBox": f"0 0 {STRETCHED} {HEIGHT}", "preserveAspectRatio": "none"}
    parts.append(tag("svg", *lines, width="100%", height=HEIGHT, **inner))
    parts += [part for one in drawn if one.kind in ("dots", "rings") for part in field.dots(one)]
    parts.append(tag("line", class_="cursor", x1="0", x2="0", y1=0, y2=HEIGHT, visibility="hidden"))
    told = {"right": right, "series": [_told(one) for one in drawn]}
    picture = tag(
        "svg", *parts, class_="chart", role="img", aria_label=about, width="100%", height=HEIGHT + 24,
        data_hover=json.dumps(told, separators=(",", ":")), data_x=x_label,
    )  # fmt: skip
    under = tag("p", "Point at the picture for its values.", class_="readout", aria_live="polite")
    return tag(
        "figure", tag("div", y_label, class_="axis"), tag("div", picture, class_="plot"),
        tag("div", x_label, class_="axis right"), under,
    )  # fmt: skip


@dataclass(frozen=True)
class Field:
    """Where the numbers of a chart lie: x from 0 to ``right``, y from ``bottom`` to ``top``."""

    right: float
    bottom: float
    top: float

    def axes(self) -> list[Html]:
        """Lines across, and the numbers of both axes."""
        parts = []
        for value in ticks(self.bottom, self.top, 5):
            y = self._y(value)
            parts.append(tag("line", class_="grid", x1="0", x2="100%", y1=y, y2=y))
            parts.append(tag("text", _tick(value), class_="tick", x=-8, y=y + 4, text_anchor="end"))
        parts.append(tag("line", class_="base", x1="0", x2="100%", y1=HEIGHT, y2=HEIGHT))
        for value in ticks(0.0, self.right, 5):
            x = self._percent(value)
            parts.append(tag("line", class_="base", x1=x, x2=x, y1=HEIGHT, y2=HEIGHT + 4))
            parts.append(tag("text", _tick(value), class_="tick", x=x, y=HEIGHT + 18, text_anchor="middle"))
        return parts

    def line(self, one: Series) -> list[Html]:
        """A line with its band, in the units of the stretched picture."""
        thin = _thinned(one)
        x = [STRETCHED * value / self.right for value in thin.x]
        points = list(zip(x, (self._y(value) for value in thin.y)))
        parts = []
        if thin.low is not None and thin.high is not None:
            below = [(at, self._y(value)) for at, value in zip(x, thin.low)]
            above = [(at, self._y(value)) for at, value in zip(x, thin.high)]
            parts.append(tag("path", class_=f"band c{one.colour % COLOURS}", d=f"{_path([*above, *below[::-1]])}Z"))
        parts.append(tag("path", class_=f"{one.kind} c{one.colour % COLOURS}", d=_path(points)))
        return parts

    def dots(self, one: Series) -> list[Html]:
        """Dots with their bars."""
        parts = []
        for place in range(len(one.x)):
            x, y = self._percent(float(one.x[place])), self._y(float(one.y[place]))
            if one.low is not None and one.high is not None:
                reach = {"y1": self._y(float(one.low[place])), "y2": self._y(float(one.high[place]))}
                parts.append(tag("line", class_=f"bar c{one.colour % COLOURS}", x1=x, x2=x, **reach))
            parts.append(tag("circle", class_=f"{one.kind} c{one.colour % COLOURS}", cx=x, cy=y, r=4))
        return parts

    def _y(self, value: float) -> float:
        return round(HEIGHT * (self.top - value) / (self.top - self.bottom), 2)

    def _percent(self, value: float) -> str:
        return f"{100 * value / self.right:.2f}%"


def bar(parts: Sequence[Share], about: str) -> Html:
    """Shares of a whole side by side."""
    drawn, at = [], 0.0
    for part in parts:
        title = tag("title", f"{part.name}: {part.share:.1%}")
        size = {"x": f"{100 * at:.2f}%", "y": 0, "width": f"{100 * part.share:.2f}%", "height": BAR}
        drawn.append(tag("rect", title, fill=part.fill, **size))
        at += part.share
    return tag("svg", *drawn, class_="bars", role="img", aria_label=about, width="100%", height=BAR)


def spans(begin: int, end: int, parts: Sequence[tuple[str, np.ndarray]], about: str) -> Html:
    """One lane of a time line: for each fill the spans (``start``, ``end``) that have it."""
    paths = []
    for fill, found in parts:
        x = np.round((np.stack([found["start"], found["end"]]) - begin) / (end - begin) * 10 * STRETCHED)
        starts, widths = x[0].astype(int), np.maximum(1, x[1] - x[0]).astype(int)
        text = "".join(f"M{start} 0h{width}v{BAR}h-{width}z" for start, width in zip(starts, widths))
        paths.append(tag("path", fill=fill, d=text))
    inner = {"viewBox": f"0 0 {10 * STRETCHED} {BAR}", "preserveAspectRatio": "none"}
    return tag("svg", *paths, class_="bars", role="img", aria_label=about, width="100%", height=BAR, **inner)


def swatch(colour: int | str) -> Html:
    """A square of a colour of the style sheet, or of any other."""
    given = {"fill": colour} if isinstance(colour, str) else {"class_": f"fill c{colour % COLOURS}"}
    return tag(
        "svg", tag("rect", width=12, height=12, rx=3, **given), class_="swatch", width=12, height=12, aria_hidden="true"
    )


def ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers in [low, high], about so many: steps of 1, 2 or 5 times a power of ten."""
    if not high > low:
        return [low]
    rough = (high - low) / about
    size = 10.0 ** math.floor(math.log10(rough))
    step = size * next((factor for factor in (1, 2, 5) if factor * size >= rough * 0.8), 10)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{place * step:.12g}") for place in range(first, last + 1)]


def _tick(value: float) -> str:
    return short(float(f"{value:.6g}")).replace("-", "−")


def _range(lows: list[float], highs: list[float]) -> tuple[float, float]:
    """Bottom and top of the field, with some room around the values."""
    bottom, top = min(lows), max(highs)
    room = 0.06 * (top - bottom)
    if room < 1e-7 * max(abs(top), abs(bottom)) or not room:
        room = max(abs(top), 1.0) * 0.1
    return (0.0 if 0 <= bottom < room else bottom - room), top + room


def _finite(one: Series) -> Series:
    """Only where x and y are finite and can be drawn; bounds that are not are the value itself."""
    at = (np.abs(one.x) < LARGEST) & (np.abs(one.y) < LARGEST)
    y = one.y[at]
    low, high = (
        None if bound is None else np.where(np.abs(bound[at]) < LARGEST, bound[at], y) for bound in (one.low, one.high)
    )
    return Series(one.name, one.colour, one.x[at], y, one.kind, low, high)


def _thinned(one: Series) -> Series:
    """At most ``MOST_POINTS`` of it, its ends included."""
    keep = np.unique(np.linspace(0, len(one.x) - 1, min(len(one.x), MOST_POINTS)).astype(int))
    low, high = (None if bound is None else bound[keep] for bound in (one.low, one.high))
    return Series(one.name, one.colour, one.x[keep], one.y[keep], one.kind, low, high)


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def _told(one: Series) -> dict[str, object]:
    """What the pointer finds: the points that are drawn, with six digits."""
    thin = _thinned(one) if one.kind in ("line", "thin") else one
    columns = {"x": thin.x, "y": thin.y, "low": thin.low, "high": thin.high}
    known = {
        name: [float(f"{value:.6g}") for value in values] for name, values in columns.items() if values is not None
    }
    return {"name": one.name, "kind": one.kind, **known}


def legend(entries: Sequence[tuple[Html, object]]) -> Html:
    """What the colours are."""
    return tag("ul", *(tag("li", joined([mark, " ", text])) for mark, text in entries), class_="legend")
