"""What a realtime run wrote down about itself, read back from its folder."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from offbeat.config.presets import read_toml
from offbeat.errors import UserError
from offbeat.run.folders import CONFIG
from offbeat.run.records import read_records
from offbeat.runtime.realtime_books import DECISION, FRAME, OLDEST

FOLDER = "realtime"
"""Where they lie in a run folder."""


@dataclass(frozen=True)
class Recording:
    """The newest decisions and frames of a realtime run, and the counts of all of it."""

    run: Path
    config: dict[str, Any]
    """config.toml as it is."""
    decisions: np.ndarray
    """[n, 14] float64, columns ``DECISION``: those that the environment found, in the order in which it did."""
    frames: np.ndarray
    """[m, 6] float64, columns ``FRAME``."""
    staleness: np.ndarray
    """[1025] int64: how many decisions acted when their observation was so many frames old; the last: or older."""
    totals: dict[str, float]
    """What the environment had counted when it ended."""
    gradients: tuple[float, float] | None
    """Mean and largest staleness of the gradients of asynchronous learners, in updates; None without any."""
    restarts: int
    """Inference processes that were replaced."""

    @property
    def period_s(self) -> float:
        """One frame. Unit: seconds."""
        return 1.0 / float(self.config["realtime"]["fps"])

    @property
    def workers(self) -> int:
        """Inference processes."""
        configured = self.config["realtime"]
        return int(configured["inference"]) if configured["mode"] == "async" else 1

    @property
    def virtual(self) -> bool:
        """Whether its clock was a virtual one, on which computing takes as long as was configured."""
        return bool(self.config["engine"] == "inline")

    def column(self, name: str) -> np.ndarray:
        """[n] of the decisions, one of ``DECISION``."""
        return self.decisions[:, DECISION.index(name)]

    @property
    def acted(self) -> np.ndarray:
        """[n] bool: which of the decisions acted."""
        return ~np.isnan(self.column("acted"))


def read_recording(run: Path) -> Recording:
    """What ``run`` wrote down. UserError where it is no realtime run, or has written nothing (yet)."""
    config = read_toml(run / CONFIG)
    if not config.get("realtime", {}).get("fps"):
        raise UserError(
            f"{run} is no realtime run: its realtime.fps is 0; 'offbeat train PRESET --realtime.fps 60' makes one"
        )
    decisions = _array(run, "decisions", (len(DECISION),))
    stale: list[float] = []
    largest, restarts = 0.0, 0
    for record in read_records(run / "metrics.jsonl"):
        kind = record.get("kind")
        if kind == "learner" and record.get("staleness") is not None:
            stale.append(float(record["staleness"]))
            largest = max(largest, float(record.get("staleness_largest") or 0.0))
        restarts += kind == "restart" and "realtime_actor" in record
    gradients = (float(np.mean(stale)), largest) if stale else None
    totals = _totals(run)
    frames, staleness = _array(run, "frames", (len(FRAME),)), _array(run, "staleness", ()).astype(np.int64)
    if len(staleness) != OLDEST + 1 or not len(frames):
        raise UserError(f"{run / FOLDER} holds no whole record of a realtime run; make the run anew")
    return Recording(run, config, decisions, frames, staleness, totals, gradients, restarts)


def _totals(run: Path) -> dict[str, float]:
    """``RUN/realtime/totals.json``."""
    path = run / FOLDER / "totals.json"
    try:
        return {name: float(value) for name, value in json.loads(path.read_text()).items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{path} cannot be read: {error}; make the run anew") from error


def _array(run: Path, name: str, columns: tuple[int, ...]) -> np.ndarray:
    """``RUN/realtime/NAME.npy``, float64 [n, *columns]."""
    path = run / FOLDER / f"{name}.npy"
    try:
        found = np.asarray(np.load(path, allow_pickle=False), np.float64)
    except FileNotFoundError:
        raise UserError(
            f"{path} is not there: a realtime run writes it when it ends, also after Ctrl-C, and not when it is killed"
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    if found.shape[1:] != columns:
        raise UserError(
            f"{path} has shape {list(found.shape)}, expected [n{''.join(f', {n}' for n in columns)}]: "
            "another version of offbeat wrote it; make the run anew"
        )
    return found
