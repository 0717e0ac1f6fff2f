"""What a realtime run measured: latencies, spacing, staleness and lost frames, as numbers and as text."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from offbeat.report.realtime_picture import draw
from offbeat.run.realtime_files import Recording, read_recording
from offbeat.run.written import written
from offbeat.runtime.realtime_books import OLDEST, overheads
from offbeat.scoring.ranking import lines_up

QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
LATENCIES = {
    "observation_age": "age of the observation when it is read",
    "inference": "inference",
    "slot_wait": "waiting for the slot",
    "overhead": "overhead of the runtime",
    "to_published": "observation to published action",
    "to_acted": "observation to the frame in which it acted",
}
"""What is measured of every decision -> what it is called."""
SHOWN = 12
"""Rows of the histogram of staleness that are printed; the file has all."""


@dataclass(frozen=True)
class Reported:
    """What ``report_run`` made."""

    numbers: dict[str, Any]
    text: str
    json: Path
    pictures: tuple[Path, ...]


def report_run(
    run: Path, from_s: float | None = None, seconds: float | None = None, out: Path | None = None
) -> Reported:
    """Write what ``run`` measured to the folder ``out``: ``realtime.json``, and its time line as PNG and as SVG.

    Args:
        run: run folder of a realtime run.
        from_s: where the time line begins, in seconds since the environment began; None: around the middle.
        seconds: how long it is; None: 40 frames.
        out: folder; None: ``run/report``.

    UserError where there is nothing to report, no frame in that time, or the files cannot be written.
    """
    recording = read_recording(run)
    figure = draw(recording, from_s, seconds)
    numbers = summarise(recording)
    folder = out or run / "report"
    with written(folder / "realtime.json") as draft:
        draft.write_text(json.dumps(numbers, indent=1) + "\n")
    pictures = tuple(folder / f"realtime.{kind}" for kind in ("png", "svg"))
    for path in pictures:
        with written(path) as draft:
            figure.savefig(draft, dpi=150, facecolor="white")
    return Reported(numbers, text(numbers), folder / "realtime.json", pictures)


def summarise(recording: Recording) -> dict[str, Any]:
    """All numbers, plain data for JSON; what is not known is None. Times in seconds, staleness in frames.

    Latencies and spacing are of the decisions that were kept, the newest; counts and staleness of the whole run (since
    it was last resumed).
    """
    published = np.sort(recording.column("published"))
    gaps, mean = np.diff(published), float("nan")
    if len(gaps):
        mean = float(gaps.mean())
    return {
        "run": recording.run.name,
        "clock": "virtual" if recording.virtual else "wall",
        "mode": recording.config["realtime"]["mode"],
        "fps": float(recording.config["realtime"]["fps"]),
        "inference_processes": recording.workers,
        "kept": {
            "decisions": len(recording.decisions),
            "frames": len(recording.frames),
            "seconds": float(recording.frames[-1, 0] - recording.frames[0, 0]),
        },
        "latency_s": {name: _spread(values) for name, values in latencies(recording).items()},
        "spacing_s": {"mean": _known(mean), "cv": _known(float(gaps.std()) / mean if mean > 0 else float("nan"))},
        "staleness": _staleness(recording.staleness),
        **_counts(recording),
        "gradients": None
        if recording.gradients is None
        else dict(zip(("staleness", "staleness_largest"), recording.gradients, strict=True)),
    }


def latencies(recording: Recording) -> dict[str, np.ndarray]:
    """Seconds [n] of each of ``LATENCIES``; ``to_acted`` only of the decisions that acted."""
    seen, read, started, ended, due, published, acted = (
        recording.column(name) for name in ("seen", "read", "started", "ended", "due", "published", "acted")
    )
    return {
        "observation_age": read - seen,
        "inference": ended - started,
        "slot_wait": np.maximum(due - ended, 0.0),
        "overhead": overheads(recording.decisions),
        "to_published": published - seen,
        "to_acted": (acted - seen)[recording.acted],
    }


def text(numbers: dict[str, Any]) -> str:
    """The numbers for people."""
    processes, kept = numbers["inference_processes"], numbers["kept"]
    head = (
        f"{numbers['run']}: {numbers['fps']:g} frames/s on the {numbers['clock']} clock, mode {numbers['mode']}, "
        f"{processes} inference process{'es' if processes > 1 else ''}"
    )
    rows = [("latency (ms)", "mean", *QUANTILES)]
    for name, called in LATENCIES.items():
        spread = numbers["latency_s"][name]
        rows.append((called, *(_shown(spread[key], 1e3) for key in ("mean", *QUANTILES))))
    parts = [head, lines_up(rows)]
    spacing = numbers["spacing_s"]
    parts.append(
        f"between published actions: mean {_shown(spacing['mean'], 1e3)} ms, CV {_shown(spacing['cv'])}\n"
        f"latencies and spacing are of the newest {kept['decisions']:,} decisions, {kept['seconds']:.1f} s"
    )
    parts += ["\n".join(_count_lines(numbers)), _histogram(numbers["staleness"])]
    return "\n\n".join(parts)


def _count_lines(numbers: dict[str, Any]) -> list[str]:
    share = numbers["inaction_share"]
    lines = [
        f"frames: {numbers['frames']:,}, missed: {numbers['missed']:,}, left to the default behaviour: {share:.2%}",
        f"actions: {numbers['decisions']:,} acted, {numbers['lost']:,} lost (a newer one was there), "
        f"{numbers['old_episode']:,} for an episode that was over",
        f"inference processes: {numbers['processes_gone']:,} lost their slots, {numbers['restarts']} were replaced",
    ]
    if numbers["gradients"] is not None:
        stale = numbers["gradients"]
        lines.append(f"gradients: {stale['staleness']:.2f} updates old, at most {stale['staleness_largest']:g}")
    return lines


def _histogram(staleness: dict[str, Any]) -> str:
    counts: dict[str, int] = staleness["counts"]
    total = sum(counts.values())
    if not total:
        return "staleness: no action acted"
    rows = [("staleness (frames)", "actions", "share")]
    most = sorted(counts, key=lambda age: -counts[age])[:SHOWN]
    rows += [(age, f"{counts[age]:,}", f"{counts[age] / total:.2%}") for age in counts if age in most]
    rest = total - sum(counts[age] for age in most)
    if rest:
        rows.append(("others", f"{rest:,}", f"{rest / total:.2%}"))
    return lines_up(rows) + f"\nmean {staleness['mean']:.2f}, p99 {staleness['p99']:g}, max {staleness['max']:g}"


def _staleness(counts: np.ndarray) -> dict[str, Any]:
    """Quantiles of a histogram [1025], and what is in it; the last is called ``1024+``."""
    total, ages = int(counts.sum()), np.arange(len(counts))
    found: dict[str, Any] = dict.fromkeys(("mean", *QUANTILES))
    if total:
        below = np.cumsum(counts)
        found["mean"] = float((counts * ages).sum() / total)
        found |= {name: int(np.searchsorted(below, share * total)) for name, share in QUANTILES.items()}
    there = np.flatnonzero(counts).tolist()
    return found | {"counts": {f"{age}+" if age == OLDEST else str(age): int(counts[age]) for age in there}}


def _counts(recording: Recording) -> dict[str, Any]:
    """Counts of the whole run, or since it was resumed."""
    totals = recording.totals
    names = ("missed", "decisions", "lost", "old_episode", "processes_gone")
    counts: dict[str, Any] = {"frames": int(totals["steps"])} | {name: int(totals[name]) for name in names}
    return counts | {"inaction_share": totals["inaction"] / totals["steps"], "restarts": recording.restarts}


def _spread(values: np.ndarray) -> dict[str, float | None]:
    if not len(values):
        return dict.fromkeys(("mean", *QUANTILES))
    spread: dict[str, float | None] = {name: float(np.quantile(values, q)) for name, q in QUANTILES.items()}
    return {"mean": float(values.mean())} | spread


def _known(value: float) -> float | None:
    return None if np.isnan(value) else value


def _shown(value: float | None, scale: float = 1.0) -> str:
    return "-" if value is None else f"{value * scale:.3f}"
