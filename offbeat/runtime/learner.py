"""The learner: takes batches, computes the agent's loss, steps the optimiser, publishes weights."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch

from offbeat.agents.base import Agent, learner_states
from offbeat.runtime.optimiser import FlatOptimiser
from offbeat.runtime.ports import BatchSource, FeedbackSink, MetricSink, ParamPublisher, Point, StopSignal
from offbeat.types import Batch, LossOutput

IDLE_S = 0.5
"""Longest wait for a batch before the learner looks up. Unit: seconds."""
REPORT_S = 0.5
"""The learner reports about so often. Unit: seconds."""
COUNTERS = ("updates", "agent_steps", "frames", "samples", "skipped", "bad_in_a_row")
"""Counters of ``LearnerWork`` that a checkpoint holds."""


@dataclass(frozen=True)
class LearnerConfig:
    """Batches, optimiser and precision."""

    batch_size: int = 32
    """Unrolls per update, all samplers together. Source: Espeholt et al. 2018, table D.3."""
    unroll_length: int = 20
    """Rows per unroll. Unit: agent steps. Source: Espeholt et al. 2018, table D.3."""
    optimizer: Literal["rmsprop", "adam"] = "rmsprop"
    """Optimiser. IMPALA uses RMSProp."""
    learning_rate: float = 6e-4
    """Initial learning rate. Source: Espeholt et al. 2018, table D.3."""
    schedule: Literal["linear", "constant"] = "linear"
    """Learning rate over the run: straight down to ``final_learning_rate`` at ``total_frames``, or constant."""
    final_learning_rate: float = 0.0
    """Learning rate at the end of a linear schedule."""
    rmsprop_decay: float = 0.99
    """RMSProp's smoothing constant."""
    rmsprop_momentum: float = 0.0
    """RMSProp's momentum."""
    epsilon: float = 0.01
    """Added to the root of the squared gradients' mean (RMSProp, Adam). IMPALA: 0.01 for RMSProp."""
    adam_beta1: float = 0.9
    """Adam's first decay."""
    adam_beta2: float = 0.999
    """Adam's second decay."""
    clip_norm: float = 40.0
    """Gradients are scaled down to this global norm; 0: not clipped. Source: Espeholt et al. 2018, table D.3."""
    publish_every: int = 1
    """Weights are published every so many updates."""
    precision: Literal["fp32", "bf16", "auto"] = "fp32"
    """Arithmetic of forward and backward; weights and optimiser stay float32. ``auto``: bf16 where the device computes
    with it, else fp32; what it chose is written to config.toml."""
    compile: bool = False
    """Compile forward and backward with torch.compile (needs a C++ compiler; slow first step)."""
    channels_last: bool = True
    """Keep images and convolution weights in channels-last layout (faster on most CPUs and GPUs)."""
    device: str = "auto"
    """Torch device of the learner; ``auto``: the run's device."""
    threads: int = 1
    """Torch threads of the learner; 0: chosen from the cores."""
    prefetch: int = 2
    """Batches assembled ahead, off the training thread; 0: none (always so in deterministic runs)."""
    max_policy_lag: int = 0
    """Unrolls whose newest row is older than so many updates are skipped and counted; 0: none are."""
    nonfinite_limit: int = 20
    """Consecutive updates that are skipped because the loss, a gradient or a new weight is not finite, before the run
    stops with a diagnosis."""
    hang_timeout_s: float = 300.0
    """A learner that shows no life for so long, as between two updates, is reported with its stack, and the run ends.
    Loading, saving and compiling are signs of life. Unit: seconds."""


def run_learner(
    agent: Agent,
    batches: BatchSource,
    params: ParamPublisher,
    feedback: FeedbackSink | None,
    metrics: MetricSink,
    stop: StopSignal,
    work: LearnerWork,
) -> Iterator[str]:
    """Learn until the run has all its frames. Yields ``"trained"`` after each update, ``"idle"`` without a batch.

    At every yield the weights are published if that is due, and nothing is half done. At the end the newest ones are
    published in any case, for the last evaluation.
    """
    if params.version() < 0:
        params.publish(work.optimiser.flat, *work.point())
    while not stop.is_set() and (work.whole_rounds or not work.finished()):
        waited = time.perf_counter()
        batch = batches.next(IDLE_S)
        started = time.perf_counter()
        work.wait_s += started - waited
        if batch is None:
            if work.finished():
                break
            yield "idle"
            continue
        output = work.train_step(agent, batch)
        if output is None:
            batches.skip(batch)
        else:
            batches.done(batch)
            for state in work.states.values():
                state.trained(batch, work.updates)
            if feedback is not None and output.feedback:
                feedback.feedback(batch, output.feedback)
        work.count(batch, batches, trained=output is not None)
        if output is not None and work.updates % work.config.publish_every == 0:
            params.publish(work.optimiser.flat, *work.point())
        work.train_s += time.perf_counter() - started
        work.report(metrics)
        yield "trained"
    if params.version() < work.updates:
        work.scheduled = params.newest()
        params.publish(work.optimiser.flat, *work.point())


Reduce = Callable[[FlatOptimiser, torch.Tensor, Any], tuple[torch.Tensor, Any]]
"""Takes a learner's gradients (in its optimiser), total [] and count, and gives it those of all shards together."""


class NonFinite(RuntimeError):
    """Too many updates in a row were not finite; the text says what was seen."""


class LearnerWork:
    """What the learner carries: optimiser, counters, sums of metrics.

    Args:
        agent: owns the network that is trained.
        config: batches, optimiser, precision.
        total_frames: environment frames of the whole run.
        whole_rounds: at the end, train on every batch that is ready. With a fixed schedule a run that is made longer
            then goes on as one that was never that short.

    Attributes:
        states: what the agent keeps beside the network, by name.
        reduce: adds up what several learners have collected; None: there is one.
        scheduled: what was published last by ``publish_every``, and where it is from, once the final weights, which
            that schedule has not reached, were published for the last evaluation; None before.
    """

    def __init__(self, agent: Agent, config: LearnerConfig, *, total_frames: int, whole_rounds: bool = False) -> None:
        self.config, self.total_frames, self.whole_rounds = config, total_frames, whole_rounds
        agent.network.train()
        self.states = learner_states(agent)
        rounded = config.precision == "bf16" and not any(state.exact for state in self.states.values())
        self.optimiser = FlatOptimiser(agent.network, config, rounded=rounded)
        self.device = self.optimiser.flat.device
        self.updates = self.agent_steps = self.frames = self.samples = self.skipped = self.bad_in_a_row = 0
        self.scheduled: tuple[torch.Tensor, Point] | None = None
        self.wait_s = self.train_s = 0.0
        self._loss = torch.compile(agent.loss) if config.compile else agent.loss
        self.reduce: Reduce | None = None
        self._sums: dict[str, torch.Tensor] = {}
        self._summed = 0
        self._lags: list[float] = []
        self._reported = time.perf_counter()
        self._sources: dict[str, float] = {}

    @property
    def progress(self) -> float:
        """Share of the run that is done, in [0, 1]."""
        return min(1.0, self.frames / max(1, self.total_frames))

    def point(self) -> Point:
        """Where the run is."""
        return Point(self.updates, self.agent_steps, self.frames)

    def finished(self) -> bool:
        """Whether the run has all its frames."""
        return self.frames >= self.total_frames

    def train_step(self, agent: Agent, batch: Batch) -> LossOutput | None:
        """One update; None if it was skipped because the loss, a gradient or a new weight was not finite."""
        output = self.collect(batch)
        loss, count = output.total.detach(), output.count
        if self.reduce is not None:
            loss, count = self.reduce(self.optimiser, loss, count)
        return output if self.apply(batch, output, loss, count) else None

    def collect(self, batch: Batch) -> LossOutput:
        """The gradients of the sum over ``batch``, which may be a shard of a larger one: they lie in the optimiser."""
        # The optimiser's averages of a gradient that has become zero shrink for ever. As subnormal numbers they would
        # slow it down twentyfold, so processors take them as zero; a setting of this thread.
        torch.set_flush_denormal(True)
        bf16 = self.config.precision == "bf16"
        self.optimiser.zero()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
            output: LossOutput = self._loss(batch, self.progress)
        output.total.backward()  # type: ignore[no-untyped-call]
        return output

    def apply(self, batch: Batch, output: LossOutput, total: torch.Tensor, count: torch.Tensor | float | None) -> bool:
        """Step with the gradients that are there, divided by ``count``; whether the step stands.

        ``total``, ``count``: of the whole batch, of which ``batch`` may be a shard. ``output``: for the log.
        """
        divisor = 1.0 if count is None else float(count)
        loss = total if count is None else total / divisor
        norm, finite = self.optimiser.step(self.progress, loss, divisor)
        if not finite:
            self._skip(batch, loss, norm)
            return False
        self.bad_in_a_row = 0
        self.updates += 1
        for name, value in (*output.metrics.items(), ("loss", loss), ("gradient_norm", norm)):
            self._sums[name] = self._sums[name] + value if name in self._sums else value.clone()
        self._summed += 1
        return True

    def _skip(self, batch: Batch, loss: torch.Tensor, norm: torch.Tensor) -> None:
        self.skipped += 1
        self.bad_in_a_row += 1
        if self.bad_in_a_row < self.config.nonfinite_limit:
            return
        reward = batch.reward
        led_to = ", but the weights that they led to were not" if bool(torch.isfinite(norm + loss)) else ""
        raise NonFinite(
            f"{self.bad_in_a_row} updates in a row were skipped because they were not finite "
            f"(loss {float(loss):.3g}, gradient norm {float(norm):.3g}{led_to}); "
            f"rewards of the last batch in [{float(reward.min()):.3g}, {float(reward.max()):.3g}], "
            f"weights finite: {self.optimiser.finite()}. "
            "Try a lower learner.learning_rate, env.reward_clip, or learner.precision fp32; "
            "learner.nonfinite_limit sets how many are tolerated."
        )

    def count(self, batch: Batch, batches: BatchSource, *, trained: bool) -> None:
        """Count a batch; ``trained``: it led to an update."""
        self.samples += batch.rows if trained else 0
        self.agent_steps, self.frames = batches.steps(), batches.frames()
        self._lags.append(self.updates - float(batch.param_version.double().mean()))
        self._sources = batches.stats()

    def report(self, metrics: MetricSink, force: bool = False) -> None:
        """Send the sums since the last report, about once a second."""
        now = time.perf_counter()
        if not self._summed or (now - self._reported < REPORT_S and not force):
            return
        values = {name: float(total) / self._summed for name, total in self._sums.items()}
        values |= {
            "updates": self.updates,
            "samples": self.samples,
            "agent_steps": self.agent_steps,
            "frames": self.frames,
            "learning_rate": self.optimiser.learning_rate(self.progress),
            "policy_lag": sum(self._lags) / len(self._lags),
            "wait_s": self.wait_s,
            "train_s": self.train_s,
            "skipped": self.skipped,
        }
        metrics.write("learner", values | self._sources)
        self._sums, self._summed, self._lags, self._reported = {}, 0, [], now
        self.wait_s = self.train_s = 0.0

    def counters(self) -> dict[str, int]:
        """The counters that a checkpoint holds."""
        return {name: int(getattr(self, name)) for name in COUNTERS}

    def load_state(self, optimiser: dict[str, torch.Tensor], counters: dict[str, int]) -> None:
        """Back to saved statistics and counters; empty ones leave theirs as they are. The weights are the network's."""
        if optimiser:
            self.optimiser.load_state(optimiser)
        for name, value in counters.items():
            setattr(self, name, value)
