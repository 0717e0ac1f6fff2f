"""The cards of the page of ``offbeat report`` about scores: at a glance, curves, evaluations, film."""

from __future__ import annotations

import base64
import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from offbeat.report.curves import AXES, Axis, Curve, resample
from offbeat.report.page_facts import Facts
from offbeat.report.page_html import Html, card, duration, folded, joined, note, number, side_by_side, table, tag
from offbeat.report.plot import axis_unit, labels, window_of
from offbeat.report.svg import Kind, Series, chart, legend, swatch

MOST_ROWS = 200
"""Evaluations of a run that are listed: the newest ones."""
FILM_BYTES, FILMS_BYTES = 8 << 20, 24 << 20
"""Films up to this size lie in the page itself, those of all runs together up to the second. Unit: bytes."""
MAGIC = {".mp4": (4, b"ftyp", "video/mp4"), ".gif": (0, b"GIF8", "image/gif")}
"""Ending of a film -> where its kind is written and how, and what browsers call it."""


@dataclass(frozen=True)
class Column:
    """A run in the company of others."""

    facts: Facts
    name: str
    """What tells it from the others: the end of its folder's path."""
    colour: int
    """Runs of one setting have one."""

    @property
    def head(self) -> Html:
        """Its colour and name."""
        return joined([swatch(self.colour), " ", self.name])


def columns(runs: Sequence[Facts]) -> list[Column]:
    """The runs with names and colours."""
    parts = [list(facts.run.absolute().parts) for facts in runs]
    depth = 1
    while len({tuple(one[-depth:]) for one in parts}) < len(parts) and depth < max(map(len, parts)):
        depth += 1
    settings: dict[object, int] = {}
    found = []
    for facts, one in zip(runs, parts, strict=True):
        setting = facts.curve.group if facts.named else facts.run
        found.append(Column(facts, "/".join(one[-depth:]), settings.setdefault(setting, len(settings))))
    return found


def glance(runs: Sequence[Column]) -> Html:
    """How far the runs are and how they score."""
    several = [one.facts for one in runs]
    rows: list[tuple[object, list[object]]] = [
        ("state", [tag("span", facts.state, class_=f"state {facts.state}") for facts in several]),
        ("environment", [facts.curve.environment for facts in several]),
        ("preset or agent", [facts.curve.name for facts in several]),
        ("seed", [number(facts.config.get("seed")) for facts in several]),
        ("frames", [_of(facts.frames, facts.total_frames) for facts in several]),
        ("updates", [number(_updates(facts)) for facts in several]),
        ("wall time", [duration(facts.seconds) for facts in several]),
        ("training return", [_trained(facts.curve) for facts in several]),
        ("last evaluation", [_score(_evaluations(facts)[-1:]) for facts in several]),
        (
            "best evaluation",
            [_score(sorted(_evaluations(facts), key=lambda one: -one["mean"])[:1]) for facts in several],
        ),
    ]
    for kind, label in (("validation", "best validation"), ("final_summary", "mean over final test sets")):
        scored = [facts.records.get(kind, []) for facts in several]
        if any(scored):
            name = "mean" if kind == "validation" else "test_mean"
            best = [max((one[name] for one in records if name in one), default=None) for records in scored]
            rows.append((label, [number(value) for value in best]))
    shown = [(label, [cell if cell is not None else number(None) for cell in cells]) for label, cells in rows]
    return card("At a glance", side_by_side([one.head for one in runs], shown, "state and scores"), id="glance")


def curves(runs: Sequence[Column]) -> Html:
    """A picture for each environment: training, evaluations and validations of all runs."""
    panels: dict[str, list[tuple[Column, Curve]]] = {}
    for one in runs:
        panels.setdefault(one.facts.curve.environment, []).append((one, one.facts.curve))
    parts = [part for environment, shown in panels.items() for part in _panel(environment, shown)]
    return card("Curves", *parts, id="curves")


def _panel(environment: str, shown: list[tuple[Column, Curve]]) -> list[Html]:
    """One environment over frames and, when asked for, over wall time."""
    window = window_of([curve for _, curve in shown])
    groups: dict[int, list[Curve]] = {}
    for one, curve in shown:
        groups.setdefault(one.colour, []).append(curve)
    entries = list(zip(map(swatch, groups), labels(list(groups.values())), strict=True)) if len(groups) > 1 else []
    about = f"{environment}: return per episode of {', '.join(one.name for one, _ in shown)}"
    pictures = []
    axes: tuple[Axis, ...] = ("frames", "seconds")
    for axis in axes:
        end = max(float(curve.end[AXES.index(axis)]) for _, curve in shown)
        unit, label = axis_unit([curve for _, curve in shown], axis, end)
        series = _series(shown, AXES.index(axis), unit, window)
        pictures.append(chart(series, label, "return per episode (raw reward)", f"{about}, over {label}"))
    said = [f"Line: training, mean of the last {window} episodes."]
    if any(len(group) > 1 for group in groups.values()):
        said.append("Runs that differ in nothing but their seed: thin, with their mean and range.")
    if any(curve.eval_mean.size for _, curve in shown):
        said.append("Dots: evaluations with the 95 % interval of their mean.")
    if any(one.facts.records.get("validation") for one, _ in shown):
        said.append("Rings: validations.")
    head = tag("h3", environment)
    more = folded("The same over wall time", pictures[1], id=f"time-{shown[0][0].colour}-{len(shown)}")
    return [head, pictures[0], legend(entries), note(" ".join(said)), more]


def _series(shown: list[tuple[Column, Curve]], column: int, unit: float, window: int) -> list[Series]:
    """What is drawn, lines first."""
    seeds: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {}
    for one, curve in shown:
        at, mean = curve.training(window)
        if len(mean) > 1:
            seeds.setdefault(one.colour, []).append((at[:, column] / unit, mean))
    drawn: list[Series] = []
    for colour, found in seeds.items():
        grid, values = resample(found) if len(found) > 1 else (np.empty(0), np.empty(0))
        if grid.size:
            name = f"mean of {len(found)} seeds"
            drawn.append(Series(name, colour, grid, values.mean(0), "line", values.min(0), values.max(0)))
    for one, curve in shown:
        at, mean = curve.training(window)
        kind: Kind = "thin" if len(seeds.get(one.colour, ())) > 1 else "line"
        if len(mean) > 1:
            drawn.append(Series(one.name, one.colour, at[:, column] / unit, mean, kind))
    for one, curve in shown:
        low, high = curve.eval_interval.T
        x = curve.eval_at[:, column] / unit
        drawn.append(Series(f"{one.name}, evaluation", one.colour, x, curve.eval_mean, "dots", low, high))
        valid = one.facts.records.get("validation", [])
        if valid:
            x, y = (np.array([record[name] for record in valid], np.float64) for name in (AT[AXES[column]], "mean"))
            drawn.append(Series(f"{one.name}, validation", one.colour, x / unit, y, "rings"))
    return drawn


AT = {"frames": "frames", "agent_steps": "agent_steps", "seconds": "time"}
"""Axis -> where a record has its place on it."""


def evaluations(runs: Sequence[Column]) -> Html:
    """Every evaluation, validation and set of final environments as a number."""
    parts: list[Html] = []
    for one in runs:
        for kind, label in (("evaluation", "evaluations"), ("validation", "validations"), ("final", "final sets")):
            records = one.facts.records.get(kind, [])
            if records:
                who = [one.head, ": "] if len(runs) > 1 else []
                summary = joined([*who, f"{len(records):,} {label.removesuffix('s') if len(records) == 1 else label}"])
                opened = len(runs) == 1 and len(records) <= 30
                parts.append(folded(summary, _scores(kind, records), open=opened, id=f"{kind}-{len(parts)}"))
    return card("Evaluations", *(parts or [note("No evaluation has ended yet.")]), id="evaluations")


def _scores(kind: str, records: list[dict[str, Any]]) -> Html:
    first = "set" if kind == "final" else "frames"
    head = (first, "mean", "95 % interval", "lowest to highest", "episodes", "policy", "at")
    rows = []
    for record in records[-MOST_ROWS:]:
        place = record.get("set", "?") if kind == "final" else number(record["frames"])
        reach = [_between(record, *names) for names in (("low", "high"), ("min", "max"))]
        played = (number(record.get("episodes")), record.get("policy", ""), duration(record["time"]))
        rows.append((place, number(record["mean"]), *reach, *played))
    left_out = len(records) - len(rows)
    said = note(f"The {left_out:,} before these are in metrics.jsonl.") if left_out > 0 else None
    return joined([table(head, rows, class_="numbers"), said])


def films(runs: Sequence[Column], out: Path) -> Html:
    """The newest film of each run, or how to make one. ``out``: the page, which links are relative to."""
    shown = [part for one in runs for part in _film(one, len(runs), out)]
    without = [one for one in runs if one.facts.film is None]
    if without:
        lines = "\n".join(f"offbeat record {shlex.quote(str(one.facts.run))}" for one in without)
        shown.append(
            note("No film yet; this makes one:" if not shown else "The others have none yet; this makes them:")
        )
        shown.append(tag("pre", lines))
    return card("Film", tag("div", *shown, class_="films"), id="film")


def _film(one: Column, of: int, out: Path) -> list[Html]:
    film = one.facts.film
    if film is None:
        return []
    link = quote(os.path.relpath(film.absolute(), out.absolute().parent).encode("utf-8", "surrogateescape"))
    caption = tag("figcaption", *([one.head, ": "] if of > 1 else []), tag("a", film.name, href=link))
    try:
        size, most = film.stat().st_size, min(FILM_BYTES, FILMS_BYTES // of)
        data = film.read_bytes() if size <= most else b""
    except OSError as error:  # it was removed meanwhile
        return [tag("figure", caption, note(f"cannot be read: {error.strerror}"))]
    if not data:
        said = f"{size / 2**20:.1f} MiB do not fit into this page ({most / 2**20:.0f} MiB do): the link leads to it."
        return [tag("figure", caption, note(said))]
    at, magic, kind = MAGIC[film.suffix.lower()]
    if data[at : at + len(magic)] != magic:
        return [tag("figure", caption, note(f"This is no {film.suffix[1:]} file, or a torn one."))]
    source = f"data:{kind};base64,{base64.b64encode(data).decode()}"
    if kind.startswith("image/"):
        return [tag("figure", tag("img", src=source, alt=f"film of {one.name}"), caption)]
    return [
        tag(
            "figure",
            tag("video", controls=True, loop=True, muted=True, playsinline=True, preload="auto", src=source),
            caption,
        )
    ]


def _evaluations(facts: Facts) -> list[dict[str, Any]]:
    return facts.records.get("evaluation", [])


def _updates(facts: Facts) -> float | None:
    updates = [record["updates"] for record in facts.newest.values() if "updates" in record]
    return max(updates, default=facts.last("updates"))


def _trained(curve: Curve) -> object:
    """Mean return of the last 100 training episodes, as progress.csv and ``curves.summarise`` have it."""
    if not curve.episode_return.size:
        return None
    last = curve.episode_return[-100:]
    return joined([number(round(float(last.mean()), 4)), tag("small", f" mean of {len(last)} episodes")])


def _of(frames: int, total: int) -> Html:
    if not total:
        return number(frames)
    done = None
    if frames < total:
        done = tag("progress", max=total, value=frames, aria_label="share of the run's length")
    return joined([number(frames), tag("small", " of ", number(total)), done])


def _score(records: list[dict[str, Any]]) -> Html | None:
    """An evaluation in one cell."""
    if not records:
        return None
    record = records[0]
    where = tag("small", " at ", number(record["frames"]), " frames")
    return joined([number(record["mean"]), " ", tag("small", _between(record, "low", "high")), where])


def _between(record: dict[str, Any], low: str, high: str) -> Html:
    if low not in record or high not in record:
        return number(None)
    return tag("span", "[", number(record[low]), ", ", number(record[high]), "]", class_="range")
