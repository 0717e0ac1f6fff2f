"""HTML as values: whatever is put into an element is escaped, unless it is an element itself."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

UNSHOWABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufffe\uffff]")
"""Control characters, and those that turn the direction of what is around them."""
VOID = ("br", "img", "meta")
"""Elements without content and end tag."""
UNKNOWN = "–"
"""What stands where nothing is known."""


class Html(str):
    """Markup made here. Text of a run is never one."""


def escaped(value: object) -> Html:
    """Text as HTML shows it, in elements and in quoted attributes; bytes that are no text as ``\\xff``."""
    text = str(value).encode("utf-8", "backslashreplace").decode()
    return Html(html.escape(UNSHOWABLE.sub("\ufffd", text), quote=True))


def joined(children: Iterable[object]) -> Html:
    """Children one after the other: elements as they are, all else escaped, None left out."""
    return Html(
        "".join(child if isinstance(child, Html) else escaped(child) for child in children if child is not None)
    )


def tag(name: str, /, *children: object, **attributes: object) -> Html:
    """An element. ``class_="x"`` is the attribute ``class``, ``data_x`` is ``data-x``; True stands alone, None and
    False are left out.
    """
    shown = []
    for key, value in attributes.items():
        key = key.rstrip("_").replace("_", "-")
        if value is True:
            shown.append(f" {key}")
        elif value is not None and value is not False:
            shown.append(f' {key}="{escaped(value)}"')
    opened = f"<{name}{''.join(shown)}>"
    return Html(opened if name in VOID else f"{opened}{joined(children)}</{name}>")


def number(value: Any, digits: int = 4, unit: str = "") -> Html:
    """A number for people, with its exact value beside it for programs (``<data value>``)."""
    if value is None or isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return tag("span", UNKNOWN, class_="unknown")
    return tag("data", f"{shown(value, digits)}{unit}", value=repr(value + 0.0 if isinstance(value, float) else value))


def shown(value: float, digits: int = 4) -> str:
    """``value`` with at most so many significant digits, whole numbers with all: 12,345 and 0.1235."""
    value = float(value)
    if value.is_integer() and abs(value) < 1e15:
        return f"{value:,.0f}".replace("-", "−")
    if abs(value) >= min(1000, 10**digits):
        return f"{value:,.0f}".replace("-", "−")
    return f"{value:.{digits}g}".replace("-", "−")


def name_of(option: str) -> Html:
    """A dotted name that may be broken behind its dots and underscores."""
    parts = re.split(r"(?<=[._/])", option)
    return tag("code", *(piece for part in parts for piece in (part, Html("<wbr>")))) if option else Html("")


def share(value: float | None) -> Html:
    """A share as a percentage."""
    if value is None or not math.isfinite(value):
        return number(None)
    return tag("data", f"{value:.1%}", value=repr(float(value)))


def duration(seconds: float) -> Html:
    """Seconds as hours and minutes, with the seconds for programs."""
    whole = round(seconds)
    if seconds < 60:
        text = f"{seconds:.1f} s"
    elif whole < 3600:
        text = f"{whole // 60} min {whole % 60:02d} s"
    else:
        text = f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return tag("data", text, value=repr(float(seconds)))


def table(head: Sequence[object], rows: Iterable[Sequence[object]], caption: str = "", class_: str = "") -> Html:
    """A table in a box that scrolls sideways; the first cell of each row is its heading."""
    body = [tag("tr", tag("th", row[0], scope="row"), *(tag("td", cell) for cell in row[1:])) for row in rows]
    top = tag("thead", tag("tr", *(tag("th", cell, scope="col") for cell in head))) if head else None
    said = tag("caption", caption) if caption else None
    inner = tag("table", said, top, tag("tbody", *body), class_=class_ or None)
    return tag("div", inner, class_="scroll", tabindex=0, role="region", aria_label=caption or "table")


def side_by_side(names: Sequence[Html], rows: Iterable[tuple[object, Sequence[object]]], caption: str = "") -> Html:
    """A table with a column for each run. Rows in which runs differ stand out, those in which all agree are grey."""
    body = []
    for label, cells in rows:
        same = len(cells) > 1 and len({str(cell) for cell in cells}) == 1
        kind = "same" if same else "differs" if len(cells) > 1 else None
        body.append(tag("tr", tag("th", label, scope="row"), *(tag("td", cell) for cell in cells), class_=kind))
    top = None
    if len(names) > 1:
        top = tag("thead", tag("tr", tag("td"), *(tag("th", name, scope="col") for name in names)))
    said = tag("caption", caption) if caption else None
    inner = tag("table", said, top, tag("tbody", *body), class_="runs" if len(names) > 1 else "list")
    return tag("div", inner, class_="scroll", tabindex=0, role="region", aria_label=caption or "runs side by side")


def card(title: str, *children: object, id: str) -> Html:
    """A part of the page under a heading."""
    return tag("section", tag("h2", title), *children, class_=f"card {id}", id=id)


def folded(summary: object, *children: object, open: bool = False, id: str | None = None) -> Html:
    """What is shown when asked for."""
    return tag("details", tag("summary", summary), *children, open=open, id=id)


def note(*children: object) -> Html:
    """A line of explanation."""
    return tag("p", *children, class_="note")
