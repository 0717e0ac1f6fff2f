"""What a realtime run needs of a machine, from what was measured on it: processes, cores, memory, and the delay."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from offbeat.runtime.realtime_config import RealtimeConfig
from offbeat.runtime.realtime_env import kept_frames

GIB, MIB = 2**30, 2**20


@dataclass(frozen=True)
class Times:
    """Of many measurements of one thing. Unit: seconds."""

    count: int
    mean: float
    median: float
    p90: float
    p99: float
    max: float


def times_of(seconds: np.ndarray) -> Times:
    """Of measurements [n], n >= 1."""
    median, p90, p99 = (float(value) for value in np.quantile(seconds, (0.5, 0.9, 0.99)))
    return Times(len(seconds), float(seconds.mean()), median, p90, p99, float(seconds.max()))


@dataclass(frozen=True)
class Measured:
    """What was measured, and what follows from it. tau_M: one frame; T: an inference by the run's estimator."""

    fps: float
    estimator: str
    estimate_s: float
    """T."""
    inference: Times
    learning: Times
    frame: Times
    updates_per_step: float
    """u, with an action in every environment step; 0: as fast as they go."""
    updates_why: str
    learner_threads: int
    learner_on_gpu: bool
    weights: int
    weight_bytes: int
    copied_bytes_per_s: float
    """Read and written, of a large copy."""
    cores: int
    """Usable ones."""
    memory_bytes: int
    """That the run takes."""
    available_bytes: int

    @property
    def period_s(self) -> float:
        """tau_M."""
        return 1.0 / self.fps

    @property
    def inference_processes(self) -> int:
        """N = ceil(T / tau_M)."""
        return RealtimeConfig(fps=self.fps).needed(self.estimate_s)

    @property
    def learning_processes(self) -> int:
        """ceil(u tau_L / tau_M), with the mean time of an update."""
        return max(1, math.ceil(self.updates_per_step * self.learning.mean / self.period_s - 1e-9))

    @property
    def delay_frames(self) -> int:
        """d: how old the observation of an action is when it acts. With N processes in turn, each takes N frames."""
        return self.inference_processes

    @property
    def inference_cores(self) -> float:
        """Cores that are busy with one forward per frame."""
        return self.fps * self.inference.mean

    @property
    def learning_cores(self) -> float:
        """Cores that are busy with the updates."""
        threads = 1 if self.learner_on_gpu else max(1, self.learner_threads)
        return self.fps * self.updates_per_step * self.learning.mean * threads

    @property
    def frame_cores(self) -> float:
        """Cores that are busy with the environment."""
        return self.fps * self.frame.mean

    @property
    def busy_cores(self) -> float:
        """All of it."""
        return self.inference_cores + self.learning_cores + self.frame_cores

    @property
    def forwards_per_s(self) -> float:
        """Forwards per second that the cores allow which the environment and the updates leave."""
        return max(0.0, self.cores - self.learning_cores - self.frame_cores) / self.inference.mean

    @property
    def weight_bytes_per_s(self) -> float:
        """Weights that are read, if each forward reads each of them once."""
        return self.fps * self.weight_bytes


def cannot(measured: Measured) -> list[str]:
    """What cannot be met here, a sentence each; empty where everything can."""
    m, found = measured, []
    if m.frame.mean >= m.period_s:
        found.append(
            f"the environment: a frame takes {shown_s(m.frame.mean)} to play and must not take more than "
            f"{shown_s(m.period_s)}, so frames would be missed"
        )
    if m.busy_cores > m.cores:
        found.append(
            f"cores: inference, updates and the environment keep {m.busy_cores:.2f} cores busy and {m.cores} are "
            f"usable; they allow {m.forwards_per_s:.3g} forwards per second where {m.fps:g} are needed"
        )
    if m.weight_bytes_per_s > m.copied_bytes_per_s:
        found.append(
            f"memory bandwidth: {m.fps:g} forwards per second read {m.weight_bytes_per_s / 1e9:.3g} GB/s of weights, "
            f"and copying moves {m.copied_bytes_per_s / 1e9:.3g} GB/s here"
        )
    if m.memory_bytes > m.available_bytes:
        found.append(
            f"memory: the run takes {m.memory_bytes / GIB:.2f} GiB and {m.available_bytes / GIB:.2f} GiB are available"
        )
    if m.delay_frames >= kept_frames(m.fps):
        found.append(
            f"the delay: observations are kept for {kept_frames(m.fps):,} frames, so actions {m.delay_frames:,} frames "
            "old would all be lost; with a simulated delay they are not"
        )
    return found


def sentences(measured: Measured) -> list[str]:
    """What the run needs, and what cannot be met."""
    m = measured
    per_update = "updates as they come"
    if m.updates_per_step:
        many, u = m.updates_per_step > 1, m.updates_per_step
        per_update = f"{u:.3g} in each step" if many else f"one in {1 / u:.3g} steps"
    lines = [
        f"inference processes  {m.inference_processes:,} = ceil(T / frame): T is the {m.estimator} of the inferences, "
        f"{shown_s(m.estimate_s)}, and a frame lasts {shown_s(m.period_s)}",
        f"learning processes   {m.learning_processes:,} = ceil(u x update / frame): u = {m.updates_per_step:.3g} "
        f"updates per environment step, {per_update} ({m.updates_why})",
        f"delay                d = {m.delay_frames:,} frame{'s' * (m.delay_frames != 1)} between an observation and "
        "the frame in which its action acts",
        f"cores                {m.inference_cores:.2f} for inference, {m.learning_cores:.2f} for updates, "
        f"{m.frame_cores:.2f} for the environment, of {m.cores}; they allow {m.forwards_per_s:,.0f} forwards "
        "per second",
        f"memory bandwidth     {m.weight_bytes_per_s / 1e9:.3g} GB/s of weights ({m.weight_bytes / MIB:.3g} MiB in "
        f"each forward); a large copy moves {m.copied_bytes_per_s / 1e9:.3g} GB/s on one core",
        f"memory               {m.memory_bytes / GIB:.2f} GiB of {m.available_bytes / GIB:.2f} GiB available",
    ]
    found = cannot(m)
    if not found:
        return [*lines, "", "All of it can be met here."]
    return [*lines, "", "This cannot be met here:", *(f"  {line}" for line in found)]


def table(measured: Measured) -> list[str]:
    """The times as lines of a table."""
    head = f"{'':<16}{'times':>9}{'mean':>11}{'median':>11}{'p90':>11}{'p99':>11}{'max':>11}"
    lines = [head]
    for name, times in (
        ("one inference", measured.inference), ("one update", measured.learning), ("one frame", measured.frame)
    ):  # fmt: skip
        values = (times.mean, times.median, times.p90, times.p99, times.max)
        lines.append(f"{name:<16}{times.count:>9,}" + "".join(f"{shown_s(value):>11}" for value in values))
    return lines


def as_dict(measured: Measured) -> dict[str, Any]:
    """Everything, for JSON."""
    names = ["period_s", "inference_processes", "learning_processes", "delay_frames", "inference_cores"]
    names += ["learning_cores", "frame_cores", "busy_cores", "forwards_per_s", "weight_bytes_per_s"]
    return asdict(measured) | {name: getattr(measured, name) for name in names} | {"cannot": cannot(measured)}


def shown_s(seconds: float) -> str:
    """A time with its unit."""
    for factor, unit in ((1.0, "s"), (1e-3, "ms")):
        if seconds >= factor:
            return f"{seconds / factor:.4g} {unit}"
    return f"{seconds * 1e6:.3g} us"
