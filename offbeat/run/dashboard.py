"""What a run shows while it goes on: a live dashboard on a terminal, else plain lines of ``name=value`` pairs."""

from __future__ import annotations

import math
import os
import sys
import traceback
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol, TextIO

from offbeat.acting.scores import given_up
from offbeat.run.live import Live, live_rows
from offbeat.run.panel import clock_text, eta_s, number, panel, percent, score
from offbeat.run.status import Status


class Display(Protocol):
    """Where a run's progress is shown."""

    def show(self, status: Status, period_over: bool = False) -> None:
        """The run's numbers now; ``period_over`` once per log period."""

    def event(self, role: str, kind: str, values: Mapping[str, Any]) -> None:
        """Something that deserves a line of its own: an evaluation, a restart, a skipped update."""

    def close(self) -> None:
        """Put the terminal back."""


def make_display(run_dir: Path, total_frames: int, *, live: bool, out: TextIO | None = None) -> Display:
    """The dashboard if ``live`` and ``out`` (default: standard output) is a terminal that can move its cursor, else
    plain lines.
    """
    out = out or sys.stdout
    lines = PlainLines(total_frames, out)
    able = out.isatty() and os.environ.get("TERM", "dumb") not in ("dumb", "unknown", "")
    return LiveDashboard(run_dir, total_frames, fallback=lines, out=out) if live and able else lines


class PlainLines:
    """One line per period, always the same names in the same order, for logs and ``grep``."""

    def __init__(self, total_frames: int, out: TextIO) -> None:
        """``total_frames``: where the run ends; ``out``: where lines go."""
        self._total_frames, self._out = total_frames, out
        self._waiting_said = False

    def show(self, status: Status, period_over: bool = False) -> None:
        """A line when the period is over; before the first batch only once that it is waited for."""
        if status.updates == 0:
            if not self._waiting_said:
                self._print("progress waiting for first batch")
            self._waiting_said = True
        elif period_over:
            self._print(progress_line(status, self._total_frames))

    def event(self, role: str, kind: str, values: Mapping[str, Any]) -> None:
        """The event as one line."""
        self._print(event_line(role, kind, values))

    def close(self) -> None:
        """Nothing to put back."""

    def _print(self, line: str) -> None:
        print(line, file=self._out, flush=True)


class LiveDashboard:
    """Rows that are drawn anew about once a second. After a display error the run goes on with plain lines."""

    def __init__(self, run_dir: Path, total_frames: int, *, fallback: PlainLines, out: TextIO | None = None) -> None:
        """``run_dir`` is shown; ``fallback`` takes over if drawing fails."""
        self._run_dir, self._total_frames, self._fallback = run_dir, total_frames, fallback
        self._shown = ExitStack()
        self._live: Live | None = self._shown.enter_context(live_rows(out or sys.stdout))

    def show(self, status: Status, period_over: bool = False) -> None:
        """Draw it anew."""
        if self._live is None:
            self._fallback.show(status, period_over)
            return
        try:
            self._live.draw(lambda columns, rows: panel(status, self._run_dir, self._total_frames, columns, rows))
        except Exception:
            self._give_up()

    def event(self, role: str, kind: str, values: Mapping[str, Any]) -> None:
        """A line above."""
        if self._live is None:
            self._fallback.event(role, kind, values)
            return
        try:
            self._live.print(event_line(role, kind, values))
        except Exception:
            self._give_up()

    def close(self) -> None:
        """Leave the last rows on the screen; what is printed from now on follows them."""
        self._live = None
        self._shown.close()

    def _give_up(self) -> None:
        """A run must not die of its display: say what happened and go on with plain lines."""
        failed = traceback.format_exc()
        self.close()
        print(failed, "dashboard failed (see above); going on with plain lines", sep="", file=sys.stderr, flush=True)


def progress_line(status: Status, total_frames: int) -> str:
    """One line of ``name=value`` pairs; ``-`` where a value is not known yet."""
    pairs = {
        "frames": status.frames,
        **({"updates": status.updates} if status.updates and not status.frames else {}),  # of pretraining
        "percent": f"{100 * status.frames / max(1, total_frames):.1f}",
        "actor_frames_per_s": number(status.actor_frames_per_s, 0),
        "learner_frames_per_s": number(status.learner_frames_per_s, 0),
        "return": score(status.return_mean, 2),
        "return_max": score(status.return_max, 2),
        "eval": score(status.eval_mean, 2),
        "valid": score(status.valid_mean, 2),
        "valid_best": score(status.valid_best, 2),
        "lag": number(status.policy_lag, 1),
        "queue": number(status.queue, 1),
        "actor_wait": percent(status.actor_wait),
        "learner_wait": percent(status.learner_wait),
        "loss": number(status.loss, 4),
        "episodes": status.episodes,
        "restarts": status.restarts,
        "elapsed": clock_text(status.seconds),
        "left": clock_text(eta_s(status, total_frames)),
        **{name: score(value, 2) for name, value in status.games.items()},
    }
    return "progress " + " ".join(f"{name}={str(value).replace(',', '')}" for name, value in pairs.items())


SCORES = ("evaluation", "validation", "final")
"""Kinds of records that are scores of whole episodes."""
EVALUATION_SHOWN = ("set", "frames", "mean", "low", "high", "min", "max", "episodes", "policy", "version")
"""What of such a score is shown; the rest is in metrics.jsonl."""


def event_line(role: str, kind: str, values: Mapping[str, Any]) -> str:
    """An event as ``kind role name=value ...``."""
    more = given_up(int(values.get("given_up", 0))) if kind in SCORES else ""
    if kind in SCORES:
        shown = [*EVALUATION_SHOWN, *(name for name in values if name.startswith("return_"))]
        values = {name: values[name] for name in shown if name in values}
    return " ".join((kind, role, *(f"{name}={_plainly(value)}" for name, value in values.items()))) + more


def _plainly(value: Any) -> str:
    """Whole numbers as they are, others to six digits, which sums of float32 rewards are sure of, or to a whole one."""
    if not isinstance(value, int | float):
        return str(value)
    whole = not math.isfinite(value) or float(value).is_integer()
    return f"{value:.10g}" if whole else f"{value:.{max(6, len(str(int(abs(value)))))}g}"
