"""The options of the realtime runtime: an environment that never waits, and inference processes around it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

MOST = 16
"""At most so many inference processes are chosen for ``inference=0``."""


@dataclass(frozen=True)
class RealtimeConfig:
    """How fast the environment's world goes, and who thinks about it. See docs/realtime.md."""

    fps: float = 0.0
    """Steps of the environment per second, which wait for nobody: the realtime runtime; 0: environments wait for their
    actions as usual. Engine ``local`` runs it on the wall clock, ``inline`` on a virtual one. Unit: 1/s."""
    inference: int = 1
    """Inference processes, N; they share one copy of the weights and take turns. 0: as many as a warm-up finds are
    needed for an action in every frame, at most 16."""
    mode: Literal["async", "sequential", "learn_first", "background"] = "async"
    """``async``: inference processes and learners at their own pace. ``sequential``: one process that infers, then
    learns; ``learn_first``: learns, then infers; ``background``: one process infers, and learning costs it nothing."""
    estimator: Literal["max", "mean", "quantile"] = "max"
    """What slots are spaced by: the largest inference time so far, the mean, or a quantile of the newest 512. Source:
    Riemer et al. 2025, algorithms 1 (max) and 2 (mean)."""
    quantile: float = 0.95
    """Of estimator ``quantile``."""
    first_estimate_s: float = 0.0
    """An inference's time before any was measured; 0: measured by a warm-up, or ``inference_s`` on a virtual clock.
    Source: the original's ``--t_theta_max``. Unit: seconds."""
    inference_s: float = 0.0
    """An inference takes at least so long: shorter ones wait, as if the network were larger. On a virtual clock, where
    computing takes no time, it takes just as long. Unit: seconds."""
    learn_s: float = 0.0
    """The same of an update. Unit: seconds."""
    jitter: float = 0.0
    """Both are drawn anew each time, evenly from so large a share below to so large a share above, in [0, 1)."""
    pad: bool = True
    """Inference takes at least N frames, so that there is not more than one action per frame."""
    record: bool = False
    """Write down every latency of the run, in ``RUN/realtime``, for runs that replay them."""
    replay: str = ""
    """A folder with recorded latencies, ``RUN/realtime``: on the virtual clock inferences take these times, and not
    ``inference_s`` with ``jitter``; updates take ``learn_s`` as ever."""
    patience_s: float = 0.5
    """An inference process that is so late and is gone, or ten times so late, loses its slots until it is back. Unit:
    seconds."""
    hang_timeout_s: float = 60.0
    """A realtime role that shows no life for so long is reported with its stack, killed and replaced; of the
    environment, the run ends. Unit: seconds."""
    max_restarts: int = 5
    """Replacements of dead or hung inference processes in a run; one more ends it."""

    @property
    def period_s(self) -> float:
        """One frame. Unit: seconds."""
        return 1.0 / self.fps

    @property
    def takes_turns(self) -> bool:
        """Whether learning and inference do."""
        return self.mode in ("sequential", "learn_first")

    @property
    def workers(self) -> int:
        """Inference processes, once chosen: the sequential modes have one."""
        return self.inference if self.mode == "async" else 1

    def needed(self, estimate_s: float) -> int:
        """N = ceil(T / frame): so many inference processes give an action in every frame, if each takes T seconds."""
        return max(1, math.ceil(estimate_s / self.period_s - 1e-9))

    @property
    def virtual_s(self) -> float:
        """T of the estimator on a virtual clock, where inferences take what is asked for. Unit: seconds."""
        share = {"max": 1.0, "mean": 0.5, "quantile": self.quantile}[self.estimator]
        return self.inference_s * (1.0 + self.jitter * (2.0 * share - 1.0))
