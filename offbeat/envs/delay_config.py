"""The options of a simulated delay: how long decisions take, and what acts meanwhile."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np


@dataclass(frozen=True)
class DelayConfig:
    """A simulated delay around any environment; the default asks for none."""

    mode: Literal["async", "sequential", "learn_first", "background"] = "async"
    """``async``: a decision starts at every frame. ``sequential``: infer, act, learn, in turn; ``learn_first``: learn,
    infer, act; ``background``: one inference after the other, learning costs nothing."""
    inference_frames: int = 0
    """How old the observation of a decision is when its action takes effect. Unit: environment steps."""
    learn_frames: int = 0
    """What learning costs between two decisions where the two take turns. Unit: environment steps."""
    period: float = 1.0
    """In ``async`` a decision starts every so many frames, evenly, as with too few inference processes; 1: at every
    frame. Unit: environment steps."""
    distribution: Literal["constant", "uniform", "recorded"] = "constant"
    """Delays are all ``inference_frames``, uniform from ``low`` to ``high``, or drawn from the file ``recorded``."""
    low: int = 0
    """Shortest delay of ``uniform``. Unit: environment steps."""
    high: int = 0
    """Longest delay of ``uniform``, included. Unit: environment steps."""
    recorded: str = ""
    """File of measured delays, ``.npy`` or ``.csv`` (numbers, one a line or separated by commas)."""
    fps: float = 0.0
    """Environment steps per second, where ``recorded`` holds seconds: rounded up to whole steps. 0: it holds steps.
    Unit: 1/s."""
    draw: Literal["run", "episode", "step"] = "step"
    """How often each environment draws its delay: once in a run, for each episode, or for each decision."""
    default: Literal["noop", "repeat", "random"] = "noop"
    """What acts where no decision is ready: ``noop_action``, the last decision's action again, or a random one."""
    noop_action: int = 0
    """The action that does nothing (of each component); continuous actions: zeros."""
    history: int = 0
    """So many of the newest actions that were applied are shown to the network as ``action_history``. Unit: environment
    steps."""
    history_until: Literal["start", "publish"] = "start"
    """The history ends where the inference started, or where its action takes effect."""
    stack: int = 1
    """So many of the newest observations up to the source are shown to the network, joined along their first axis as a
    stack of frames is: the oldest first, zeros in place of those before the episode. What is privileged stays as it
    is. Unit: environment steps."""
    semantics: Literal["exact", "published"] = "exact"
    """``exact``: every frame is accounted for. ``published``: as the simulators published with Riemer et al. 2025, a
    queue of ``inference_frames`` macro steps, of which the newest is no delay."""
    privileged: bool = False
    """Rows also hold the observation of the moment at which the action takes effect, as ``now_KEY``: for agents that
    learn from it, such as ``delayed_dqn``. No policy reads it."""
    joined: bool = False
    """Show networks joined frame stacks, one row per decision, though nothing is late: set in realtime runs, whose
    evaluations are then played under this section's delay, or none."""
    noops: int = 0
    """Frames of the default behaviour after each action, of ``published`` only. Unit: environment steps."""

    @property
    def active(self) -> bool:
        """Whether an environment is to be wrapped at all."""
        return self != DelayConfig()

    @property
    def longest(self) -> int:
        """The oldest that an observation can be when its decision acts. Unit: environment steps."""
        if self.semantics == "published":
            return (max(self.inference_frames, 1) - 1) * (self.noops + 1)
        if self.distribution == "recorded":
            return int(recorded_frames(self.recorded, self.fps).max())
        return self.high if self.distribution == "uniform" else self.inference_frames

    def check(self) -> None:
        """ValueError that names the first option which is out of range or does not go with the others."""
        for name in ("inference_frames", "learn_frames", "low", "high", "fps", "noop_action", "history", "noops"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise ValueError(f"delay.{name}={value} is out of range; allowed are 0 and above")
        if self.stack < 1:
            raise ValueError(f"delay.stack={self.stack} is out of range; allowed are 1 and above")
        if self.distribution == "uniform" and self.low > self.high:
            raise ValueError(f"delay.low={self.low} is above delay.high={self.high}; the range is low to high")
        if self.distribution != "uniform" and (self.low or self.high):
            raise ValueError(f"delay.low and high mean nothing with delay.distribution={self.distribution}; leave them")
        if (self.distribution == "recorded") != bool(self.recorded):
            raise ValueError("delay.distribution=recorded and delay.recorded (the file) go together; set both or none")
        if self.distribution != "constant" and self.inference_frames:
            raise ValueError(
                f"delay.inference_frames={self.inference_frames} means nothing with delay.distribution="
                f"{self.distribution}, which has delays of its own; leave it at 0"
            )
        if self.learn_frames and self.mode not in ("sequential", "learn_first"):
            raise ValueError(
                f"delay.learn_frames={self.learn_frames} means nothing with delay.mode={self.mode}, where learning "
                "costs no frames; allowed with sequential and learn_first"
            )
        if not 1 <= self.period < math.inf:
            raise ValueError(f"delay.period={self.period} is out of range; allowed are 1 and above")
        if self.period > 1 and (self.mode != "async" or self.semantics != "exact"):
            raise ValueError(
                f"delay.period={self.period} goes with delay.mode=async and delay.semantics=exact only; in the other "
                "modes it follows from inference_frames and learn_frames"
            )
        if self.semantics == "published":
            if self.distribution != "constant" or self.mode != "async" or self.learn_frames:
                raise ValueError("delay.semantics=published knows inference_frames and noops; leave mode, learn_frames "
                                 "and distribution alone")  # fmt: skip
        elif self.noops:
            raise ValueError(f"delay.noops={self.noops} goes with delay.semantics=published only; here it is 0")
        if self.distribution == "recorded":
            recorded_frames(self.recorded, self.fps)


@functools.cache
def recorded_frames(path: str, fps: float) -> np.ndarray:
    """The delays in a file as int64 [n] environment steps; seconds are rounded up. ValueError where it is not one."""
    file = Path(path)
    try:
        if file.suffix == ".npy":
            found = np.load(file, allow_pickle=False)
        elif file.suffix == ".csv":
            text = file.read_text(encoding="utf-8").replace(",", "\n")
            found = np.array([float(item) for item in text.split()])
        else:
            raise ValueError("files of delays end in .npy or .csv")
        values = np.asarray(found, np.float64).reshape(-1)
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"delay.recorded={path!r} cannot be read: {error}") from error
    if not len(values) or not np.isfinite(values).all() or (values < 0).any():
        raise ValueError(f"delay.recorded={path!r} must hold at least one delay, all finite and 0 or above")
    if fps > 0:  # 0.1 s at 60 Hz are 6 steps, however that rounds
        return np.ceil(np.round(values * fps, 9)).astype(np.int64)
    if (values != np.round(values)).any():
        raise ValueError(f"delay.recorded={path!r} holds parts of a step; for seconds set delay.fps")
    return values.astype(np.int64)
