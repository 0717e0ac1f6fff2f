"""The time line of a realtime run: what every inference process did when, above the frames of the environment."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from offbeat.errors import UserError
from offbeat.run.realtime_files import Recording

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FRAMES = 40
"""Frames in the picture, unless it is said how long it is to be."""
MOST_FRAMES = 2_000
"""With more of them nothing could be seen."""
COMPUTING, WAITING, ACTED, DEFAULT, MISSED = "#0072B2", "#D9D9D9", "#009E73", "#E69F00", "#D55E00"


def window(recording: Recording, from_s: float | None, seconds: float | None) -> tuple[float, float]:
    """The seconds [begin, end) that are shown: around the middle, or as asked for. UserError where nothing is there."""
    first, last = recording.frames[0, 0], recording.frames[-1, 0] + recording.period_s
    if seconds is not None and not 0 < seconds <= MOST_FRAMES * recording.period_s:
        raise UserError(
            f"--seconds={seconds:g} is out of range; allowed are more than 0 and at most "
            f"{MOST_FRAMES * recording.period_s:g} ({MOST_FRAMES:,} frames)"
        )
    length = FRAMES * recording.period_s if seconds is None else seconds
    begin = max(first, (first + last - length) / 2) if from_s is None else from_s
    if not first - length < begin < last:
        raise UserError(f"--from={begin:g}: nothing was kept of then; kept are {first:.3f} to {last:.3f} seconds")
    return float(begin), float(begin + length)


def frame_kinds(recording: Recording, begin: float, end: float) -> dict[str, np.ndarray]:
    """When the frames of [begin, end) began, in seconds, by what happened in them: ``acted``, ``default``, ``missed``.

    A missed frame did not begin; it is where it should have.
    """
    times, missed = recording.frames[:, 0], recording.frames[:, 2].astype(int)
    acted = np.isin(times, recording.column("acted"))
    due = times - recording.frames[:, 1]
    lost = [due[i] - recording.period_s * back for i in np.flatnonzero(missed) for back in range(1, missed[i] + 1)]
    found = {"acted": times[acted], "default": times[~acted], "missed": np.sort(np.array(lost, np.float64))}
    return {name: values[(values >= begin) & (values < end)] for name, values in found.items()}


def bars(recording: Recording, worker: int, begin: float, end: float) -> tuple[np.ndarray, np.ndarray]:
    """Of one inference process, [n, 2] (start, length) seconds within [begin, end): computing, and waiting for its slot
    with an action that is ready.
    """
    own = recording.column("worker") == worker
    read, ended, published = (recording.column(name)[own] for name in ("read", "ended", "published"))

    def cut(start: np.ndarray, stop: np.ndarray) -> np.ndarray:
        start, stop = np.maximum(start, begin), np.minimum(stop, end)
        return np.stack([start, stop - start], 1)[stop > start]

    return cut(read, ended), cut(ended, published)


def draw(recording: Recording, from_s: float | None = None, seconds: float | None = None) -> Figure:
    """A row for each inference process, and the frames below. UserError as of ``window``."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    begin, end = window(recording, from_s, seconds)
    workers = recording.workers
    figure = Figure(figsize=(11.0, 1.9 + min(0.4 * workers, 12.0)), layout="constrained")
    axes = figure.subplots()
    for worker in range(workers):
        for parts, colour in zip(bars(recording, worker, begin, end), (COMPUTING, WAITING), strict=True):
            where = (worker - 0.36, 0.72)
            axes.broken_barh(((parts - [begin, 0.0]) * 1e3).tolist(), where, facecolors=colour, linewidth=0)
    kinds = frame_kinds(recording, begin, end)
    for times, colour in zip(kinds.values(), (ACTED, DEFAULT, MISSED), strict=True):
        low, high = workers - 0.36, workers + 0.36
        axes.vlines((times - begin) * 1e3, low, high, colors=colour, linewidth=2.5)
    axes.set_yticks(range(workers + 1), [*(f"process {worker}" for worker in range(workers)), "frames"])
    axes.set_ylim(workers + 0.6, -0.6)
    axes.set_xlim(0.0, (end - begin) * 1e3)
    axes.set_xlabel(f"time since {begin:.3f} s after the environment began (ms)")
    shown = sum(map(len, kinds.values()))
    axes.set_title(f"{recording.run.name}: {shown} frames of {recording.period_s * 1e3:.2f} ms", fontsize=10)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    labels = {
        COMPUTING: "reading and inference", WAITING: "waiting for its slot", ACTED: "frame in which a decision acted",
        DEFAULT: "default behaviour", MISSED: "missed frame",
    }  # fmt: skip
    entries = [Patch(color=colour, label=label) for colour, label in labels.items()]
    figure.legend(handles=entries, loc="outside lower center", ncols=5, frameon=False, fontsize=8.5)
    return figure
