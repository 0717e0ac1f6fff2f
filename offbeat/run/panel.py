"""The rows of the dashboard: in as many columns as the terminal has room for, and no number is ever cut."""

from __future__ import annotations

import math
import os
from pathlib import Path

from rich.cells import cell_len

from offbeat.run.status import Status

WIDEST = 100
"""Columns; on wider terminals the rest stays empty."""
ONE_COLUMN = 32
"""Columns of names and values where there is room for one of each."""
LEAST_VALUE = 7
"""Columns that a value takes at least, so that the others stay in their places when it gets longer."""
DIM, PLAIN = "\x1b[2m", "\x1b[0m"
HINT = "Ctrl-C saves and stops"


def panel(status: Status, run_dir: Path, total_frames: int, columns: int, rows: int) -> list[str]:
    """At most ``rows`` rows, none wider than ``columns``: the first ones where all have no room."""
    width = min(columns, WIDEST)
    inner = max(1, width - 4)
    head = _progress(status, total_frames, inner)
    head = head[1:] if rows < 6 and len(head) > 1 else head  # words before the bar
    grid = _grid(status, inner)
    gap = [""] if len(head) + len(grid) + 3 <= rows else []
    body = [*head, *gap, *grid][: max(1, rows - 2)]
    lines = [f"{DIM}│{PLAIN} {row}{' ' * (inner - _width(row))} {DIM}│{PLAIN}" for row in body]
    top, bottom = _title(run_dir, clock_text(status.seconds), width - 4), HINT if width - 4 >= len(HINT) else ""
    framed = [_edge("╭", top, "╮", width), *lines, _edge("╰", bottom, "╯", width)]
    fits = len(framed) <= rows and all(_width(row) <= width for row in framed)
    return framed if fits else [_clipped(row, width) for row in body[:rows]]


def _cells(status: Status, spread: bool) -> list[tuple[str, str]]:
    """(name, value), in the order in which they fill the columns; ``spread``: that of the evaluation's returns too."""
    beside = f" ± {score(status.eval_std)}" if status.eval_std is not None and spread else ""
    validated = [("validation", score(status.valid_mean)), ("best of those", score(status.valid_best))]
    return [
        ("actor frames/s", number(status.actor_frames_per_s, 0)),
        ("learner frames/s", number(status.learner_frames_per_s, 0)),
        ("actors wait", percent(status.actor_wait)),
        ("learner waits", percent(status.learner_wait)),
        ("return", score(status.return_mean)),
        ("best of 100", score(status.return_max)),
        ("evaluation", score(status.eval_mean) + beside),
        *(validated if status.valid_mean is not None else []),
        *((name.replace("_", " "), score(value)) for name, value in status.games.items()),
        ("episodes", f"{status.episodes:,}"),
        ("updates", f"{status.updates:,}"),
        ("policy lag", number(status.policy_lag, 1)),
        ("queue", number(status.queue, 1)),
        ("restarts", f"{status.restarts:,}"),
    ]


def _grid(status: Status, inner: int) -> list[str]:
    """The cells in the most columns that fit; a name is shortened where a value needs its room."""
    for count, spread in ((3, True), (2, True), (2, False)):
        cells = _cells(status, spread)
        cells += [("", "")] * (-len(cells) % count)
        height = -(-len(cells) // count)
        columns = [_column(cells[start : start + height]) for start in range(0, len(cells), height)]
        rows = ["  ".join(row) for row in zip(*columns, strict=True)]
        if _width(rows[0]) <= inner:
            return rows
    room = min(inner, ONE_COLUMN)
    rows = []
    for name, value in _cells(status, True):
        name = name[: max(0, room - len(value) - 1)]
        rows.append(f"{DIM}{name}{PLAIN}{' ' * max(0, room - len(name) - len(value))}{value}")
    return rows


def _column(cells: list[tuple[str, str]]) -> list[str]:
    """Names and values, each of one width."""
    value_width = max(LEAST_VALUE, *(len(value) for _, value in cells))
    name_width = max(len(name) for name, _ in cells)
    return [f"{DIM}{name:<{name_width}}{PLAIN} {value:<{value_width}}" for name, value in cells]


def _progress(status: Status, total_frames: int, inner: int) -> list[str]:
    """How far the run is, in words, with a bar before them where it has room."""
    share = min(1.0, status.frames / max(1, total_frames))
    left = f"left {clock_text(eta_s(status, total_frames))}" if status.updates else "waiting for first batch"
    frames = f"{total_frames:,} frames"
    rows = [f"{status.frames:,} /"]
    for part in (frames, f"{share:.1%}", left):
        gap = " " if part is frames else "  "
        if len(rows[-1] + gap + part) <= inner:
            rows[-1] += gap + part
        else:
            rows.append(part)
    room = inner - len(rows[0]) - 2
    if len(rows) == 1 and room >= 10:
        return [f"{_bar(share, room)}  {rows[0]}"]
    return [_bar(share, inner), *rows]


def _bar(share: float, width: int) -> str:
    done = int(share * width)
    return f"{'━' * done}{DIM}{'╌' * (width - done)}{PLAIN}"


def _title(run_dir: Path, time: str, room: int) -> str:
    """Which run, and since when; of a long path its end."""
    path = min(str(run_dir), os.path.relpath(run_dir), key=len)
    for before in ("offbeat · ", ""):
        space = room - len(before) - len(time) - 3
        if cell_len(path) <= space:
            return f"{before}{path} · {time}"
    return f"…{path[len(path) - space + 1 :]} · {time}" if space >= 8 else time


def _edge(left: str, text: str, right: str, width: int) -> str:
    text = f" {text} " if text and cell_len(text) + 2 <= width - 2 else ""
    free = max(0, width - 2 - cell_len(text))
    return f"{DIM}{left}{'─' * (free // 2)}{text}{'─' * (free - free // 2)}{right}{PLAIN}"


def _width(row: str) -> int:
    return cell_len(row.replace(DIM, "").replace(PLAIN, ""))


def _clipped(row: str, width: int) -> str:
    """Without a frame, for terminals in which it has no room."""
    return row.replace(DIM, "").replace(PLAIN, "").rstrip()[:width]


def number(value: float | None, digits: int, unit: str = "") -> str:
    """``value`` with thousands separators and a unit; ``-`` where it is not known."""
    return "-" if value is None or not math.isfinite(value) else f"{value:,.{digits}f}{unit}"


def percent(value: float | None) -> str:
    """A share in [0, 1] as a percentage; ``-`` where it is not known."""
    return "-" if value is None else f"{value:.0%}"


def eta_s(status: Status, total_frames: int) -> float | None:
    """Seconds left at the run's mean speed so far; None before anything was trained on."""
    if status.frames <= 0 or status.seconds <= 0:
        return None
    return max(0.0, status.seconds * (total_frames - status.frames) / status.frames)


def clock_text(seconds: float | None) -> str:
    """Seconds as h:mm:ss; ``-`` where they are not known."""
    if seconds is None:
        return "-"
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def score(value: float | None, least: int = 0) -> str:
    """A return with as many decimals as show three digits of it, four at most: 0.0312, 0.874, 12.3, 1,234.

    ``least`` decimals are shown in any case; ``-`` where it is not known.
    """
    if value is None or not math.isfinite(value):
        return "-"
    size = abs(value)
    digits = 0 if size >= 1000 or size == 0 else 1 if size >= 10 else 2 if size >= 1 else 3 if size >= 0.1 else 4
    return f"{value:,.{max(digits, least)}f}"
