"""``offbeat realtime scaling --wall``: the same search with real processes on the wall clock.

Inference times are padded by waiting, so that what the cores carry is what the runtime itself costs; their spread is
even and as wide as the recording's. Every number of processes that is tried is a run of its own.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from offbeat.bench.scaling import Found, Wanted, smallest
from offbeat.config.run_config import RunConfig, from_dict
from offbeat.run.train import train
from offbeat.runtime.realtime_books import DECISION
from offbeat.runtime.realtime_config import RealtimeConfig

SETTLE_S = 2.0
"""So much of a run does not count, and twice the mean inference time. Unit: seconds."""
MOST_JITTER = 0.95
"""Inference times are drawn from at most so large a share below their mean to so large a share above."""


def search_wall(
    config: RealtimeConfig, recording: np.ndarray, frames: float, wanted: Wanted, *, seconds: float, start: int = 1
) -> Found:
    """The smallest number of inference processes for padded inference times of ``frames`` frames in the mean.

    ``seconds``: how long each number that is tried is measured.
    """

    def share(processes: int) -> float:
        return left_over(replace(config, inference=processes), recording, frames, seconds)

    found = smallest(share, wanted.allowed, wanted.most, start=start, precision=wanted.precision)
    return Found(config.estimator, frames, *found)


def left_over(config: RealtimeConfig, recording: np.ndarray, frames: float, seconds: float) -> float:
    """Share of frames without an action, missed ones among them, of a run on the wall clock."""
    spread = float(np.std(recording) / np.mean(recording))
    jitter = min(MOST_JITTER, spread * 3**0.5)
    padded = replace(config, inference_s=frames * config.period_s, jitter=jitter)
    settle = SETTLE_S + 2 * padded.inference_s
    with tempfile.TemporaryDirectory(prefix="offbeat-scaling-") as folder:
        run = train(_run(padded, settle + seconds, Path(folder) / "run"))
        kept = np.load(run.run / "realtime" / "decisions.npy"), np.load(run.run / "realtime" / "frames.npy")
    return share_of(*kept, settle)


def share_of(decisions: np.ndarray, ticks: np.ndarray, settle: float) -> float:
    """Share of frames from ``settle`` seconds on in which no decision acted, those that were missed included.

    ``decisions``, ``ticks``: as ``RealtimeBooks.write`` leaves them.
    """
    acted = decisions[:, DECISION.index("acted")]
    counted = ticks[ticks[:, 0] >= settle]
    frames = len(counted) + int(counted[:, 2].sum())
    if not frames:
        raise ValueError(f"no frame of {len(ticks)} began {settle:g} s after the first")
    return 1.0 - int(np.count_nonzero(acted >= settle)) / frames


def _run(realtime: RealtimeConfig, seconds: float, out: Path) -> RunConfig:
    """A run of the agent that does nothing on the counting environment, about so long."""
    frames = int(seconds * realtime.fps)
    run = from_dict({
        "out": str(out), "device": "cpu", "engine": "local", "total_frames": frames,
        "env": {"id": "toy/counting", "length": 10**6, "frame_skip": 1, "frame_stack": 1},
        "agent": {"name": "noop"},
        "actor": {"append_rows": 20},
        "learner": {"batch_size": 1, "learning_rate": 0.0, "threads": 1},
        "replay": {"capacity": 1000, "samples_per_insert": 0.1, "samplers": [{"kind": "uniform"}]},
        "evaluation": {"every_frames": 0, "at_end": False, "episodes": 2, "envs": 1},
        "log": {"tensorboard": False, "dashboard": False},
    })  # fmt: skip
    return replace(run, realtime=realtime)
