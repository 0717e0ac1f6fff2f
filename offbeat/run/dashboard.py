"""What a run shows while it goes on: a live dashboard on a terminal, else plain lines of ``name=value`` pairs."""

from __future__ import annotations

import math
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from offbeat.acting.scores import given_up

if TYPE_CHECKING:
    from rich.live import Live

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
    """The dashboard if ``live`` and ``out`` (default: standard output) is a terminal, else plain lines."""
    out = out or sys.stdout
    lines = PlainLines(total_frames, out)
    return LiveDashboard(run_dir, total_frames, fallback=lines) if live and out.isatty() else lines


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
    """A panel that is redrawn about once a second. After a display error the run goes on with plain lines."""

    def __init__(self, run_dir: Path, total_frames: int, *, fallback: PlainLines) -> None:
        """``run_dir`` is shown; ``fallback`` takes over if drawing fails."""
        from rich.live import Live

        self._run_dir, self._total_frames, self._fallback = run_dir, total_frames, fallback
        self._live: Live | None = Live(auto_refresh=False, transient=False)
        try:
            self._live.start()
        except Exception:
            self._give_up()

    def show(self, status: Status, period_over: bool = False) -> None:
        """Redraw."""
        if self._live is None:
            self._fallback.show(status, period_over)
            return
        try:
            self._live.update(panel(status, self._run_dir, self._total_frames), refresh=True)
        except Exception:
            self._give_up()

    def event(self, role: str, kind: str, values: Mapping[str, Any]) -> None:
        """A line above the panel."""
        if self._live is None:
            self._fallback.event(role, kind, values)
            return
        try:
            self._live.console.print(event_line(role, kind, values), highlight=False, markup=False)
        except Exception:
            self._give_up()

    def close(self) -> None:
        """Leave the last panel on the screen and restore the cursor."""
        live, self._live = self._live, None
        if live is not None:
            _stop(live)

    def _give_up(self) -> None:
        """A run must not die of its display: say what happened and go on with plain lines."""
        traceback.print_exc(file=sys.stderr)
        self.close()
        print("dashboard failed (see above); going on with plain lines", file=sys.stderr, flush=True)


def _stop(live: Live) -> None:
    """Put the terminal back as far as it lets us."""
    try:
        live.stop()
    except Exception:
        traceback.print_exc(file=sys.stderr)


def panel(status: Status, run_dir: Path, total_frames: int) -> Any:
    """The dashboard's content (a rich renderable)."""
    from rich.console import Group
    from rich.panel import Panel
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    bar = Table.grid(expand=True, padding=(0, 1))
    bar.add_column(ratio=1)
    bar.add_column(justify="right", no_wrap=True)
    share = min(1.0, status.frames / max(1, total_frames))
    left = f"left {clock_text(eta_s(status, total_frames))}" if status.updates else "waiting for first batch"
    bar.add_row(
        ProgressBar(total=max(1, total_frames), completed=min(status.frames, total_frames)),
        f"{status.frames:,} / {total_frames:,} frames  {share:.1%}  {left}",
    )
    grid = Table.grid(padding=(0, 2))
    for _ in range(3):
        grid.add_column(style="dim", no_wrap=True)
        grid.add_column(no_wrap=True, min_width=7)
    n = number
    spread = f" ± {status.eval_std:.1f}" if status.eval_std is not None else ""
    for cells in (
        ("actor frames/s", n(status.actor_frames_per_s, 0), "return", n(status.return_mean, 1),
         "updates", status.updates),
        ("learner frames/s", n(status.learner_frames_per_s, 0), "best of 100", n(status.return_max, 1),
         "policy lag", n(status.policy_lag, 1)),
        ("actors wait", percent(status.actor_wait), "evaluation", n(status.eval_mean, 1) + spread,
         "queue", n(status.queue, 1)),
        ("learner waits", percent(status.learner_wait), "episodes", status.episodes, "restarts", status.restarts),
    ):  # fmt: skip
        grid.add_row(*(f"{cell:,}" if isinstance(cell, int) else cell for cell in cells))
    title = f"offbeat · {run_dir} · {clock_text(status.seconds)}"
    return Panel(Group(bar, "", grid), title=title, subtitle="Ctrl-C saves and stops", border_style="dim")


def progress_line(status: Status, total_frames: int) -> str:
    """One line of ``name=value`` pairs; ``-`` where a value is not known yet."""
    pairs = {
        "frames": status.frames,
        "percent": f"{100 * status.frames / max(1, total_frames):.1f}",
        "actor_frames_per_s": number(status.actor_frames_per_s, 0),
        "learner_frames_per_s": number(status.learner_frames_per_s, 0),
        "return": number(status.return_mean, 2),
        "return_max": number(status.return_max, 2),
        "eval": number(status.eval_mean, 2),
        "lag": number(status.policy_lag, 1),
        "queue": number(status.queue, 1),
        "actor_wait": percent(status.actor_wait),
        "learner_wait": percent(status.learner_wait),
        "loss": number(status.loss, 4),
        "episodes": status.episodes,
        "restarts": status.restarts,
        "elapsed": clock_text(status.seconds),
        "left": clock_text(eta_s(status, total_frames)),
    }
    return "progress " + " ".join(f"{name}={str(value).replace(',', '')}" for name, value in pairs.items())


EVALUATION_SHOWN = ("frames", "mean", "low", "high", "min", "max", "episodes", "policy", "version")
"""What of an evaluation is shown; the rest is in metrics.jsonl."""


def event_line(role: str, kind: str, values: Mapping[str, Any]) -> str:
    """An event as ``kind role name=value ...``."""
    more = given_up(int(values.get("given_up", 0))) if kind == "evaluation" else ""
    if kind == "evaluation":
        values = {name: values[name] for name in EVALUATION_SHOWN if name in values}
    return " ".join((kind, role, *(f"{name}={_plainly(value)}" for name, value in values.items()))) + more


def _plainly(value: Any) -> str:
    """Whole numbers as they are, others to six digits, which sums of float32 rewards are sure of, or to a whole one."""
    if not isinstance(value, int | float):
        return str(value)
    whole = not math.isfinite(value) or float(value).is_integer()
    return f"{value:.10g}" if whole else f"{value:.{max(6, len(str(int(abs(value)))))}g}"


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
