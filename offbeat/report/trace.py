"""The time line of a run's roles: for Perfetto and chrome://tracing, as a picture, and as a table of shares.

``offbeat.runtime.spans`` records what this module reads.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from offbeat.errors import UserError
from offbeat.run.written import written
from offbeat.runtime.spans import FOLDER, SPAN

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.table import Table

DRAWN_NS = 150_000_000
"""Length of what the picture shows, from the middle of the recording: some steps of an actor, some updates."""

SPAN_COLOURS = {
    "environment": "#0072B2", "observe": "#56B4E9", "act": "#D55E00", "append": "#009E73", "take weights": "#F0E442",
    "forward, backward": "#CC79A7", "optimiser": "#882255", "publish": "#E69F00", "report": "#332288",
    "sample": "#44AA99", "assemble": "#999933", "forward": "#661100", "evaluate": "#8C6D31",
}  # fmt: skip
"""Name of a span -> its colour in the picture, in the order of the legend."""
WAITING = "#D9D9D9"
"""Colour of every wait."""

OTHER = "other"
"""What a thread did between its spans."""


@dataclass(frozen=True)
class Lane:
    """The recorded spans of one thread of one role."""

    role: str
    order: int
    """Place of the role among those of the run."""
    thread: str
    begin: int
    """Since when it was recorded. Unit: ns of the machine's monotonic clock, as all times here."""
    end: int
    dropped: int
    """Spans that found no room after ``end``."""
    names: tuple[str, ...]
    spans: np.ndarray
    """[n] SPAN; one span may lie within another."""

    @property
    def label(self) -> str:
        """What stands beside it: the role, and the thread unless it is the role's own."""
        return self.role if self.thread == "main" else f"{self.role} ({self.thread})"


@dataclass(frozen=True)
class Share:
    """How much of a thread's time went into the spans of one name."""

    name: str
    calls: int
    """Calls that ended within the recorded time or went on at its end."""
    seconds: float
    """Without the spans within them."""
    share: float
    """Of the recorded time; those of a lane sum to 1."""


@dataclass(frozen=True)
class Traced:
    """What ``trace_run`` made."""

    lanes: list[Lane]
    json: Path
    picture: Path


def trace_run(run: Path, out: Path | None = None) -> Traced:
    """Join the recorded spans of ``run`` into one file for trace viewers and draw them.

    Args:
        run: run folder.
        out: JSON file, beside which the picture gets the ending png; default: ``run/trace/trace.json``, and the picture
            is ``run/report/trace.png``.

    UserError if the run has recorded nothing, or the files cannot be written.
    """
    lanes = read_lanes(run)
    picture = Path(out).with_suffix(".png") if out is not None else run / "report" / "trace.png"
    out = Path(out) if out is not None else run / FOLDER / "trace.json"
    if out == picture:
        raise UserError(f"--out {out}: expected a JSON file; the picture is written beside it, with the ending png")
    with written(out) as draft:
        draft.write_text(json.dumps(events(lanes), separators=(",", ":")))
    figure = draw(lanes, title=run.name)
    with written(picture) as draft:
        figure.savefig(draft, dpi=150, facecolor="white")
    return Traced(lanes, out, picture)


def read_lanes(run: Path) -> list[Lane]:
    """The recorded lanes of a run: the learner's first, the actors' last. UserError if there is none."""
    lanes = []
    for file in (run / FOLDER).glob("[!.]*.npy"):
        said = json.loads(file.with_suffix(".json").read_text())
        said["names"] = tuple(said["names"])
        lanes.append(Lane(**said, spans=np.load(file, allow_pickle=False)))
    if not lanes:
        raise UserError(
            f"{run} has no recorded time line; record one with 'offbeat train PRESET --trace.seconds 2' "
            "(it begins trace.start_s=1 seconds after the first update: the run must last longer than that)"
        )
    return sorted(lanes, key=lambda lane: (lane.order, lane.thread != "main", lane.thread))


def segments(lane: Lane, begin: int, end: int) -> np.ndarray:
    """What the thread was in at each moment of [begin, end): spans [m] that lie one after the other.

    A span within another one cuts it in two; moments outside of all spans are in no segment.
    """
    seen = lane.spans[(lane.spans["end"] > begin) & (lane.spans["start"] < end)]
    order = np.lexsort((-np.arange(len(seen)), -seen["end"], seen["start"]))  # outer before inner, which ended first
    found: list[tuple[int, int, int]] = []
    open_: list[tuple[int, int]] = []  # name and end of the spans around this moment
    at = begin

    def go(to: int) -> None:
        nonlocal at
        if open_ and to > at:
            found.append((open_[-1][0], at, to))
        at = max(at, to)

    for name, starts, ends in seen[order].tolist():
        while open_ and open_[-1][1] <= starts:
            go(min(open_[-1][1], end))
            open_.pop()
        go(starts)
        open_.append((name, ends))
    while open_:
        go(min(open_[-1][1], end))
        open_.pop()
    return np.array(found, SPAN)


def shares(lane: Lane) -> list[Share]:
    """Where the time of a lane went, the largest share first and what lies between spans (``other``) last."""
    cut, whole = segments(lane, lane.begin, lane.end), lane.end - lane.begin
    calls = Counter(lane.spans["name"][lane.spans["start"] < lane.end].tolist())
    took = np.bincount(cut["name"], weights=cut["end"] - cut["start"], minlength=len(lane.names))
    rows = [Share(name, calls[number], ns / 1e9, ns / whole) for number, (name, ns) in enumerate(zip(lane.names, took))]
    rows.sort(key=lambda row: -row.seconds)
    rest = whole - float(took.sum())
    return [*rows, Share(OTHER, 0, rest / 1e9, rest / whole)]


def events(lanes: list[Lane]) -> dict[str, Any]:
    """The lanes in Chrome's trace event format: a process per role, a thread per thread; times in microseconds."""
    roles = list(dict.fromkeys(lane.role for lane in lanes))
    origin = min(min(lane.begin, int(lane.spans["start"].min(initial=lane.begin))) for lane in lanes)
    found: list[dict[str, Any]] = []
    for number, lane in enumerate(lanes, 1):
        where = {"pid": roles.index(lane.role) + 1, "tid": number}
        found.append({"ph": "M", "name": "process_name", **where, "args": {"name": lane.role}})
        found.append({"ph": "M", "name": "process_sort_index", **where, "args": {"sort_index": where["pid"]}})
        found.append({"ph": "M", "name": "thread_name", **where, "args": {"name": lane.thread}})
        for name, start, end in np.sort(lane.spans, order="start").tolist():
            kind = "wait" if lane.names[name].startswith("wait") else "work"
            times = {"ts": (start - origin) / 1000, "dur": (end - start) / 1000}
            found.append({"ph": "X", "name": lane.names[name], "cat": kind, **where, **times})
    return {"traceEvents": found, "displayTimeUnit": "ms"}


def draw(lanes: list[Lane], title: str = "") -> Figure:
    """The middle of the recording: a row for each lane, a colour for each span."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    first, last = min(lane.begin for lane in lanes), max(lane.end for lane in lanes)
    begin = max(first, (first + last - DRAWN_NS) // 2)
    end = min(last, begin + DRAWN_NS)
    figure = Figure(figsize=(11.0, 1.5 + 0.42 * len(lanes)), layout="constrained")
    axes = figure.subplots()
    shown: set[str] = set()
    for row, lane in enumerate(lanes):
        cut = segments(lane, begin, end)
        for number in np.unique(cut["name"]):
            name, parts = lane.names[number], cut[cut["name"] == number]
            bars = np.stack([parts["start"] - first, parts["end"] - parts["start"]], 1) / 1e6
            axes.broken_barh(bars.tolist(), (row - 0.38, 0.76), facecolors=SPAN_COLOURS.get(name, WAITING), linewidth=0)
            shown.add(name)
    axes.set_yticks(range(len(lanes)), [lane.label for lane in lanes])
    axes.set_ylim(len(lanes) - 0.4, -0.6)
    axes.set_xlim((begin - first) / 1e6, (end - first) / 1e6)
    axes.set_xlabel("time since recording began (ms)")
    axes.set_title(f"{title}: {(end - begin) / 1e6:.0f} of the {(last - first) / 1e6:.0f} ms recorded", fontsize=10)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    entries = [Patch(color=colour, label=name) for name, colour in SPAN_COLOURS.items() if name in shown]
    entries += [Patch(color=WAITING, label="waiting")] if shown - SPAN_COLOURS.keys() else []
    figure.legend(handles=entries, loc="outside lower center", ncols=6, frameon=False, fontsize=8.5)
    return figure


def table(lanes: list[Lane]) -> Table:
    """The shares of every lane as a table for the terminal."""
    from rich.table import Table

    shown = Table("role", "thread", "span", box=None, pad_edge=False, header_style="bold")
    for column in ("calls", "ms/call", "share"):
        shown.add_column(column, justify="right")
    for lane in lanes:
        who = (lane.role, lane.thread)
        for row in shares(lane):
            calls = (f"{row.calls:,}", f"{row.seconds / row.calls * 1e3:.3f}") if row.calls else ("", "")
            shown.add_row(*who, row.name, *calls, f"{row.share:.1%}")
            who = ("", "")
        shown.add_section()
        if lane.dropped:
            shown.add_row("", "", f"{lane.dropped:,} later spans found no room", "", "", "")
    return shown
