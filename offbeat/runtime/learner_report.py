"""What a learner tells of itself: sums since its last record, and about twice a second a record of them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from offbeat.runtime.clock import WALL, Clock
from offbeat.runtime.ports import MetricSink, Point
from offbeat.types import Batch

COUNTERS = ("updates", "agent_steps", "frames", "samples", "sample_frames", "skipped", "bad_in_a_row")
"""Counters of the learner's work that a checkpoint holds, and that asynchronous learners share."""
PRETRAIN_ROUND = 50
"""Updates of a round of pretraining, where rounds have a fixed schedule: between two of them a run may be saved."""
REPORT_S = 0.5
"""The learner reports about so often. Unit: seconds."""


OWN_METRICS = (
    "loss", "gradient_norm", *COUNTERS[:5], "learning_rate", "policy_lag", "unpublished", "bad_rewards", "staleness",
    "staleness_largest", "own_updates", "out_of_memory", "batch_parts",
)  # fmt: skip
"""What the learner reports itself."""


class NonFinite(RuntimeError):
    """Too many updates in a row were not finite; the text says what was seen."""


def diagnosed(skipped: int, loss: Tensor, norm: Tensor, batch: Batch, finite: bool) -> NonFinite:
    """The error for so many ``skipped`` updates in a row, the last on ``batch``; ``finite``: of the weights."""
    led_to = ", but the weights that they led to were not" if bool(torch.isfinite(norm + loss)) else ""
    reward, wrong = batch.reward, _not_finite(batch)
    helps = (
        f"The environment gives {wrong} that are not finite: mend it; 'offbeat envs check' plays it and says where"
        if wrong
        else "Try a lower learner.learning_rate, env.reward_clip, or learner.precision fp32"
    )
    return NonFinite(
        f"{skipped} updates in a row were skipped because they were not finite "
        f"(loss {float(loss):.3g}, gradient norm {float(norm):.3g}{led_to}); "
        f"rewards of the last batch in [{float(reward.min()):.3g}, {float(reward.max()):.3g}], "
        f"weights finite: {finite}. "
        f"{helps}; learner.nonfinite_limit sets how many are tolerated."
    )


def _not_finite(batch: Batch) -> str:
    """What of a batch is not finite though it comes from the environment; empty: nothing."""
    seen = {"rewards": batch.reward}
    seen |= {f"observations {key!r}": value for key, value in batch.inputs.observation.items()}
    return " and ".join(name for name, value in seen.items() if not bool(torch.isfinite(value).all()))


def lag(batch: Batch, updates: int) -> float:
    """Of ``updates`` those since the rows of ``batch`` were acted, in the mean."""
    version = batch.param_version[batch.param_version >= 0]  # a demonstration's rows have none
    return updates - float(version.double().mean()) if version.numel() else 0.0


class Counted:
    """The counters of a learner's work: the attributes that ``COUNTERS`` names, all from 0 on."""

    updates: int
    agent_steps: int
    frames: int
    samples: int
    sample_frames: int
    skipped: int
    bad_in_a_row: int

    def __init__(self, pretrain_steps: int = 0) -> None:
        """``pretrain_steps``: updates on a demonstration alone that come first, skipped ones included."""
        self.pretrain_steps = pretrain_steps
        self.load_counters(dict.fromkeys(COUNTERS, 0))

    @property
    def pretraining(self) -> bool:
        """Whether more of those are to come."""
        return self.updates + self.skipped < self.pretrain_steps

    def due(self, every: int, trained: bool) -> bool:
        """Whether the weights are to be published after this batch, which led to an update if ``trained``: after
        ``every`` so many updates, and once when pretraining has ended, but not while it lasts.
        """
        ended = bool(self.pretrain_steps) and self.updates + self.skipped == self.pretrain_steps
        return not self.pretraining and ((trained and self.updates % every == 0) or ended)

    def rests(self) -> bool:
        """Whether a round of a fixed schedule ends here: in pretraining, after so many updates."""
        tried = self.updates + self.skipped
        return 0 < tried <= self.pretrain_steps and (tried % PRETRAIN_ROUND == 0 or tried == self.pretrain_steps)

    def point(self) -> Point:
        """Where the run is."""
        return Point(self.updates, self.agent_steps, self.frames)

    def counters(self) -> dict[str, int]:
        """The counters that a checkpoint holds."""
        return {name: int(getattr(self, name)) for name in COUNTERS}

    def load_counters(self, counters: Mapping[str, int]) -> None:
        """Back to saved counters; those that are not there stay as they are."""
        for name, value in counters.items():
            setattr(self, name, value)


class LearnerReport:
    """The numbers of the updates since the last record.

    Attributes:
        sums: of each metric over those updates.
        wait_s, train_s: time spent waiting for batches, and training on them. Unit: seconds.
    """

    def __init__(self, clock: Clock = WALL) -> None:
        self.sums: dict[str, Tensor] = {}
        self.wait_s = self.train_s = 0.0
        self._clock, self._reported = clock, clock.now()
        self._summed = 0
        self._lags: list[float] = []
        self._stale: list[int] = []
        self._sources: dict[str, float] = {}

    def add(self, values: Mapping[str, Tensor]) -> None:
        """One update more, and what it gave: name -> []."""
        for name, value in values.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value.clone()
        self._summed += 1

    def seen(self, lag: float, sources: dict[str, float]) -> None:
        """A batch was trained on or skipped. ``lag``: its policy lag; ``sources``: the samplers' numbers now, and
        seconds (names in ``_s``) since they were asked last.
        """
        self._lags.append(lag)
        before, self._sources = self._sources, dict(sources)
        self._sources |= {n: value + sources.get(n, 0.0) for n, value in before.items() if n.endswith("_s")}

    def stale(self, updates: int | None) -> None:
        """A step was made with a gradient of so many updates before; None: it was no step."""
        self._stale += [] if updates is None else [updates]

    def write(self, metrics: MetricSink, counted: Mapping[str, float], force: bool = False) -> None:
        """Send a record if one is due, or with ``force`` if there is anything new. ``counted``: what goes with it."""
        now = self._clock.now()
        if not (self._summed and self._lags) or (now - self._reported < REPORT_S and not force):
            return
        values = {name: float(total) / self._summed for name, total in self.sums.items()} | dict(counted)
        values |= {
            "policy_lag": sum(self._lags) / len(self._lags),
            "wait_s": self.wait_s,
            "train_s": self.train_s,
        }
        if self._stale:
            values |= {"staleness": sum(self._stale) / len(self._stale), "staleness_largest": max(self._stale)}
        metrics.write("learner", self._sources | values)
        self._stale, self._sources = [], {}
        self.sums, self._summed, self._lags, self._reported = {}, 0, [], now
        self.wait_s = self.train_s = 0.0
