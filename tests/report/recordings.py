"""Recordings of realtime runs that are written out by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from offbeat.run.realtime_files import Recording
from offbeat.runtime.realtime_books import DECISION, FRAME, OLDEST

CONFIG: dict[str, Any] = {"engine": "local", "realtime": {"fps": 10.0, "inference": 2, "mode": "async"}}


def recording_of(rows: Sequence[tuple[int, int, int, int]], **said: Any) -> Recording:
    """Decisions (source, frame, episode, step) of two processes in turn, 0.1 s a frame: each is read as soon as its
    observation is there, computes until 20 ms before its frame, is due 10 ms before it, and published 2 ms later.
    """
    decisions = np.zeros((len(rows), len(DECISION)))
    for number, (source, frame, episode, step) in enumerate(rows):
        seen, acts = source / 10, frame / 10
        decisions[number] = (
            number % 2, number // 2, 0, source, frame, seen, seen + 0.005, seen + 0.006, acts - 0.02, acts - 0.01,
            acts - 0.008, acts, episode, step,
        )  # fmt: skip
    last = max((frame for _, frame, _, _ in rows), default=0)
    frames = np.zeros((last + 2, len(FRAME)))
    frames[:, 0] = np.arange(last + 2) / 10
    staleness = np.zeros(OLDEST + 1, np.int64)
    for source, frame, _, _ in rows:
        staleness[frame - source] += 1
    totals = dict.fromkeys(("missed", "lost", "old_episode", "processes_gone"), 0.0)
    totals |= {"steps": len(frames), "decisions": len(rows), "inaction": len(frames) - len(rows)}
    usual: dict[str, Any] = {
        "frames": frames, "staleness": staleness, "totals": totals, "gradients": None, "restarts": 0
    }  # fmt: skip
    return Recording(Path("some-run"), CONFIG, decisions, **(usual | said))


def write_files(recording: Recording, run: Path) -> None:
    """As a run would have written them."""
    (run / "realtime").mkdir(parents=True)
    for name in ("decisions", "frames", "staleness"):
        np.save(run / "realtime" / f"{name}.npy", getattr(recording, name))
    (run / "realtime" / "totals.json").write_text(json.dumps(recording.totals))
    (run / "config.toml").write_text(
        'engine = "local"\n[realtime]\nfps = 10.0\ninference = 2\nmode = "async"\n[agent]\nname = "noop"\n'
    )
