"""What is counted and measured of a realtime run: frames missed, staleness, spacing, latencies."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np

from offbeat.envs.decisions import DecisionRows
from offbeat.runtime.cpu_waits import RunQueue, steal_s
from offbeat.runtime.mailbox import DUE, ENDED, PUBLISHED, READ, SEEN, STARTED, Decision
from offbeat.runtime.ports import MetricSink
from offbeat.runtime.realtime import Realtime
from offbeat.runtime.realtime_config import RealtimeConfig
from offbeat.types import ArrayDict, EnvStep

REPORT_S = 1.0
"""Numbers are sent about so often. Unit: seconds."""
OLDEST = 1024
"""Staleness is counted frame by frame below this; what is older is counted there. Unit: frames."""
NEWEST = 65_536
"""Decisions and frames of which everything is kept for the report."""
DECISION = (
    "worker",
    "slot",
    "version",
    "source",
    "frame",
    "seen",
    "read",
    "started",
    "ended",
    "due",
    "published",
    "acted",
    "episode",
    "step",
)
"""Columns of a decision that is kept; times in seconds since the environment began. ``source`` and ``frame``, in which
it was found, count the frames of all episodes; ``step`` is the source since its episode's start."""
FRAME = ("began", "late", "missed", "played_s", "queue_s", "steal_s")
"""Columns of a frame that is kept: when it began, how late, frames missed before it, how long the one before took to
play, and since then: seconds that this process waited for a processor, and that were stolen from this machine (read
only where frames were missed: since the last report)."""


class Newest:
    """The newest rows [n, columns] of numbers that come one by one."""

    def __init__(self, columns: int, most: int = NEWEST) -> None:
        self._rows, self.count = np.zeros((1024, columns)), 0
        self._most = most

    def add(self, row: Sequence[float]) -> None:
        """One more."""
        if self.count == len(self._rows) < self._most:
            self._rows = np.concatenate([self._rows, np.zeros_like(self._rows)])
        self._rows[self.count % len(self._rows)] = row
        self.count += 1

    def rows(self) -> np.ndarray:
        """Those that are kept, oldest first."""
        kept = len(self._rows)
        if self.count <= kept:
            return self._rows[: self.count]
        return np.roll(self._rows, -(self.count % kept), axis=0)

    def since(self, count: int) -> np.ndarray:
        """Those that came after the first ``count``."""
        rows = self.rows()
        return rows[len(rows) - min(len(rows), self.count - count) :]


class RealtimeBooks:
    """The books of a realtime environment. ``frame_skip``: frames per environment step."""

    def __init__(self, config: RealtimeConfig, frame_skip: int) -> None:
        self._config, self._skip = config, frame_skip
        self.missed = self.decisions = self.too_old = 0
        self.staleness = np.zeros(OLDEST + 1, np.int64)
        self.returned, self.length, self.taken = 0.0, 0, 0  # of the episode
        self._last_staleness = 0
        self.kept, self.ticks = Newest(len(DECISION)), Newest(len(FRAME))
        self.played_s = 0.0
        self._queue, self._queued, self._stolen = RunQueue(), 0.0, steal_s()
        self._begin_s = 0.0
        self._reported, self._before = 0.0, [0, 0]

    def tick(
        self, now: float, late: float, missed: int, decision: Decision | None, fresh: list[Decision], frame: int
    ) -> None:
        """A frame begins at ``now``, ``late`` seconds after it was due. ``decision`` acts, of ``fresh``."""
        if not self.ticks.count:
            self._begin_s, self._queued = now - late, self._queue.seconds()
        self.missed += missed
        queued = self._queue.seconds()
        stolen = steal_s() - self._stolen if missed else 0.0
        self.ticks.add((now - self._begin_s, late, missed, self.played_s, queued - self._queued, stolen))
        self._queued = queued
        for each in fresh:
            acted = now - self._begin_s if each is decision else np.nan
            times = (each.times - self._begin_s).tolist()
            ids = (each.worker, each.slot, each.version, each.source, frame)
            self.kept.add((*ids, *times, acted, each.episode, each.step))
        if decision is not None:
            self.decisions += 1
            self._last_staleness = frame - decision.source
            self.staleness[min(self._last_staleness, OLDEST)] += 1

    def next_source(self, frame: int) -> int:
        """What the decision after the last one would have been made from: as old an observation as the last was."""
        return max(0, frame - self._last_staleness)

    def account(self, row: EnvStep) -> None:
        """Add up the scores of a row."""
        self.returned += float(row.raw_reward[0])
        self.length += int(not row.first[0])
        self.taken += 0 if row.elapsed is None else int(row.elapsed[0])

    def unseen(self, raw_reward: float, elapsed: int) -> None:
        """An episode ended before any decision acted in it."""
        self.returned, self.taken = raw_reward, elapsed

    def end_episode(self, metrics: MetricSink) -> None:
        """Report the episode that has ended."""
        values = {"return": self.returned, "length": self.length, "episode_frames": self.taken * self._skip}
        metrics.write("episode", {name: float(value) for name, value in values.items()})
        self.returned, self.length, self.taken = 0.0, 0, 0

    def report(self, now: float, rows: DecisionRows, realtime: Realtime, metrics: MetricSink) -> None:
        """Send what was counted and measured since the last time, once a second."""
        if now - self._reported < REPORT_S:
            return
        self._reported, self._stolen = now, steal_s()
        decisions, ticks = self.kept.since(self._before[0]), self.ticks.since(self._before[1])
        self._before = [self.kept.count, self.ticks.count]
        counts = self.totals(rows, realtime) | {
            "late_p99_s": _quantile(ticks[:, 1], 0.99),
            "run_queue_s": self._queue.seconds(),
            "steal_s": self._stolen,
        }
        metrics.write("realtime", counts | measured(decisions))
        played = float(ticks[:, FRAME.index("played_s")].sum())
        metrics.write("actor", {"steps": self.decisions, "env_frames": rows.frames * self._skip, "env_s": played})

    def totals(self, rows: DecisionRows, realtime: Realtime) -> dict[str, int]:
        """What was counted so far, of the whole run or since it was resumed."""
        return {
            "frames": rows.frames * self._skip,
            "steps": rows.frames,
            "missed": self.missed,
            "inaction": rows.inaction,
            "decisions": self.decisions,
            "lost": int(realtime.slots.lost),
            "old_episode": int(realtime.slots.old_episode),
            "too_old": self.too_old,
            "processes_gone": int(realtime.shared["gone"][0]),
        }

    def write(self, rows: DecisionRows, realtime: Realtime) -> None:
        """What is kept, as arrays in the run's folder for it: ``decisions.npy`` [n, 14] (columns: ``DECISION``);
        ``frames.npy`` [n, 6] (columns: ``FRAME``); ``staleness.npy`` [1025]: how many decisions were so old. What was
        counted: ``totals.json``.
        """
        if not self.ticks.count:
            return
        folder = realtime.folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "totals.json").write_text(json.dumps(self.totals(rows, realtime)) + "\n")
        for name, array in (
            ("decisions", self.kept.rows()), ("frames", self.ticks.rows()), ("staleness", self.staleness)
        ):  # fmt: skip
            np.save(folder / f"{name}.npy", array, allow_pickle=False)

    def state(self) -> ArrayDict:
        """The counters; what is kept for the report begins anew."""
        counts = [self.missed, self.decisions, self.too_old, self.length, self.taken, self._last_staleness]
        return {"counts": np.array(counts), "returned": np.array([self.returned]), "staleness": self.staleness.copy()}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Back to saved counters."""
        counts = [int(value) for value in state["counts"]]
        self.missed, self.decisions, self.too_old, self.length, self.taken, self._last_staleness = counts
        self.returned, self.staleness = float(state["returned"][0]), np.array(state["staleness"])


def measured(decisions: np.ndarray) -> dict[str, float]:
    """Numbers of decisions [n, 14] (columns: ``DECISION``): times in seconds, staleness in frames.

    ``overhead``: from waking to read the observation to the published action, without the forward and without waiting
    for the slot. ``spacing_cv``: standard deviation over mean of the times between two published actions.
    """
    if not len(decisions):
        return {}
    times = {name: decisions[:, index] for index, name in enumerate(DECISION)}
    acted = ~np.isnan(times["acted"])
    stale = (times["frame"] - times["source"])[acted]
    overhead = overheads(decisions)
    gaps = np.diff(np.sort(times["published"]))
    forward = times["ended"] - times["started"]
    return {
        "staleness": float(stale.mean()) if len(stale) else float("nan"),
        "staleness_max": float(stale.max()) if len(stale) else float("nan"),
        "inference_s": float(forward.mean()),
        "inference_p99_s": _quantile(forward, 0.99),
        "overhead_p50_s": _quantile(overhead, 0.5),
        "overhead_p99_s": _quantile(overhead, 0.99),
        "spacing_s": float(gaps.mean()) if len(gaps) else float("nan"),
        "spacing_cv": float(gaps.std() / gaps.mean()) if len(gaps) and gaps.mean() > 0 else float("nan"),
    }


def unexplained(frames: np.ndarray) -> np.ndarray:
    """The frames [m, 6] of [n, 6] (columns: ``FRAME``) before which some were missed, although playing the one before,
    waiting for a processor and what was stolen from the machine make up less than half of being late.
    """
    columns = {name: frames[:, index] for index, name in enumerate(FRAME)}
    accounted = columns["played_s"] + np.nan_to_num(columns["queue_s"]) + np.nan_to_num(columns["steal_s"])
    found: np.ndarray = frames[(columns["missed"] > 0) & (accounted < columns["late"] / 2)]
    return found


def overheads(decisions: np.ndarray) -> np.ndarray:
    """[n] seconds from the reading of each observation to its published action, beyond forward and slot."""
    base = DECISION.index("seen")
    times = decisions[:, base : base + 6]
    late = times[:, PUBLISHED] - np.maximum(times[:, ENDED], times[:, DUE])
    assert SEEN == 0, "the first of the six times"
    found: np.ndarray = times[:, STARTED] - times[:, READ] + np.maximum(late, 0.0)
    return found


def _quantile(values: np.ndarray, share: float) -> float:
    return float(np.quantile(values, share)) if len(values) else float("nan")
