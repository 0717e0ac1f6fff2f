"""The learner: takes batches, computes the agent's loss, steps the optimiser, publishes weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from offbeat.agents.base import Agent, learner_states
from offbeat.agents.contract import check_output
from offbeat.networks.autocast import keeps_history
from offbeat.runtime.clock import WALL, Clock
from offbeat.runtime.generators import choose_deterministic_kernels
from offbeat.runtime.host import Host
from offbeat.runtime.learner_config import LearnerConfig
from offbeat.runtime.learner_part import Published, counted_in, load_part, part_of, published_in
from offbeat.runtime.learner_report import LearnerReport
from offbeat.runtime.optimiser import FlatOptimiser
from offbeat.runtime.ports import BatchSource, FeedbackSink, MetricSink, ParamPublisher, Point, StopSignal
from offbeat.runtime.services import Loaded, Services, Write
from offbeat.storage.checkpoint import CheckpointError
from offbeat.types import Batch, LossOutput

IDLE_S = 0.5
"""Longest wait for a batch before the learner looks up. Unit: seconds."""
COUNTERS = ("updates", "agent_steps", "frames", "samples", "sample_frames", "skipped", "bad_in_a_row")
"""Counters of ``LearnerWork`` that a checkpoint holds."""


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
        waited = work.clock.now()
        batch = batches.next(IDLE_S)
        started = work.clock.now()
        work.told.wait_s += started - waited
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
            for state in work.states.values():  # target networks and the like
                state.trained(batch, work.updates)
            if feedback is not None and output.feedback:
                feedback.feedback(batch, output.feedback)
        work.count(batch, batches, trained=output is not None)
        if output is not None and work.updates % work.config.publish_every == 0:
            work.unpublished += not params.publish(work.optimiser.flat, *work.point())
        work.told.train_s += work.clock.now() - started
        work.report(metrics)
        yield "trained"
    if params.version() < work.updates:
        work.scheduled = params.newest()
        while not params.publish(work.optimiser.flat, *work.point()) and not stop.is_set():
            yield "idle"  # readers hold every slot; they let go between their blocks


Reduce = Callable[[FlatOptimiser, torch.Tensor, Any], tuple[torch.Tensor, Any]]
"""Takes a learner's gradients (in its optimiser), total [] and count, and gives it those of all shards together."""


OWN_METRICS = ("loss", "gradient_norm", *COUNTERS[:5], "learning_rate", "policy_lag", "unpublished", "bad_rewards")
"""What the learner reports itself."""


class NonFinite(RuntimeError):
    """Too many updates in a row were not finite; the text says what was seen."""


class LearnerWork:
    """What the learner carries: optimiser, counters, sums of metrics.

    Args:
        agent: owns the network that is trained.
        config: batches, optimiser, precision.
        total_frames: environment frames of the whole run.
        frame_skip: frames per environment step.
        clock: for the times that are reported.
        whole_rounds: at the end, train on every batch that is ready. With a fixed schedule a run that is made longer
            then goes on as one that was never that short.

    Attributes:
        states: what the agent keeps beside the network, by name.
        reduce: adds up what several learners have collected; None: there is one.
        scheduled: what was published last by ``publish_every``, and where it is from, once the final weights, which
            that schedule has not reached, were published for the last evaluation; None before.
    """

    def __init__(
        self,
        agent: Agent,
        config: LearnerConfig,
        *,
        total_frames: int,
        whole_rounds: bool = False,
        frame_skip: int = 1,
        clock: Clock = WALL,
    ) -> None:
        self._frame_skip = frame_skip
        self.config, self.total_frames, self.whole_rounds, self.clock = config, total_frames, whole_rounds, clock
        agent.network.train()
        self.states = learner_states(agent)
        self._reward_scale = getattr(agent.network, "reward_scale", None)
        rounded = config.precision == "bf16" and not any(state.exact for state in self.states.values())
        self.optimiser = FlatOptimiser(agent.network, config, rounded=rounded)
        self.device = self.optimiser.flat.device
        self.updates = self.agent_steps = self.frames = self.skipped = self.bad_in_a_row = 0
        self.samples = self.sample_frames = self.unpublished = self.bad_rewards = 0
        self.scheduled: tuple[torch.Tensor, Point] | None = None
        self.told = LearnerReport(clock)
        self._loss = torch.compile(agent.loss) if config.compile else agent.loss
        self.reduce: Reduce | None = None
        self._checked = False

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
        batch = self.seen(batch)
        self.optimiser.zero()
        cached = not bf16 or keeps_history(self.device.type)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16, cache_enabled=cached):
            output: LossOutput = self._loss(batch, self.progress)
        if not self._checked:
            check_output(output, batch, OWN_METRICS)
            self._checked = True
        output.total.backward()  # type: ignore[no-untyped-call]
        return output

    def seen(self, batch: Batch) -> Batch:
        """``batch`` as the loss gets it: where rewards are normalised, it takes those in and scales them."""
        return batch if self._reward_scale is None else self._reward_scale.scaled(batch)

    def apply(self, batch: Batch, output: LossOutput, total: torch.Tensor, count: torch.Tensor | float | None) -> bool:
        """Step with the gradients that are there, divided by ``count``; whether the step stands.

        ``total``, ``count``: of the whole batch, of which ``batch`` may be a shard. ``output``: for the log.
        """
        divisor = 1.0 if count is None else float(count)
        if not divisor > 0:
            raise ValueError(f"LossOutput.count: expected a number above 0, got {divisor:g}")
        loss = total if count is None else total / divisor
        norm, finite = self.optimiser.step(self.progress, loss, divisor)
        if not finite:
            self._skip(batch, loss, norm)
            return False
        self.bad_in_a_row = 0
        self.updates += 1
        self.told.add(output.metrics | {"loss": loss, "gradient_norm": norm})
        return True

    def _skip(self, batch: Batch, loss: torch.Tensor, norm: torch.Tensor) -> None:
        self.skipped += 1
        self.bad_in_a_row += 1
        self.bad_rewards += not bool(torch.isfinite(batch.reward).all())
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
        if trained:
            self.samples += batch.rows
            self.sample_frames += batch.env_steps * self._frame_skip
        self.agent_steps, self.frames = batches.steps(), batches.frames()
        self.told.seen(self.updates - float(batch.param_version.double().mean()), batches.stats())

    def report(self, metrics: MetricSink, force: bool = False) -> None:
        """Send the sums since the last report, about twice a second."""
        counted = {name: getattr(self, name) for name in (*COUNTERS[:6], "bad_rewards", "unpublished")}
        self.told.write(metrics, counted | {"learning_rate": self.optimiser.learning_rate(self.progress)}, force)

    def counters(self) -> dict[str, int]:
        """The counters that a checkpoint holds."""
        return {name: int(getattr(self, name)) for name in COUNTERS}

    def load_counters(self, counters: dict[str, int]) -> None:
        """Back to saved counters; those that are not there stay as they are."""
        for name, value in counters.items():
            setattr(self, name, value)


def build_learner(services: Services) -> Learner:
    """The learner from what its engine offers."""
    return Learner(services)


class Learner(Host):
    """The learner with its sampler."""

    def __init__(self, services: Services) -> None:
        config: LearnerConfig = services.config
        self.metrics, self._notices, self._threads = services.metrics, services.notices, config.threads
        torch.set_num_threads(self._threads)
        if not services.free:
            choose_deterministic_kernels(services.device)
        self.agent = services.agent(services.device)
        torch.manual_seed(services.seeds()[1])  # of what a loss draws
        self.work = LearnerWork(
            self.agent,
            config,
            total_frames=services.total_frames,
            whole_rounds=not services.free,
            frame_skip=services.spec.frame_skip,
            clock=services.clock,
        )
        self._published: Published | None = None
        if (loaded := services.loaded()) is not None:
            with services.heart.beating():
                self._load(loaded, services.spec.frame_skip)
        elif (weights := services.initial_weights()) is not None:
            self.work.optimiser.load_weights(weights)
        before = self.work.agent_steps, self.work.frames
        self._loaded = self.work.updates
        self.post()
        self.batches = services.batches(last=self.agent.wants_last, device=self.work.device, before=before)
        self.params = services.publisher()
        self._publish_first()
        loop = run_learner(
            self.agent, self.batches, self.params, self.batches, self.metrics, services.stop(), self.work
        )
        super().__init__(services, loop)

    @property
    def warm(self) -> bool:
        """Whether this process has made an update."""
        return self.work.updates > self._loaded

    def _publish_first(self) -> None:
        """Publish what actors had when the run was saved; the final weights if nothing is left to do but score them."""
        work = self.work
        flat, point = self._published or (work.optimiser.flat, work.point())
        if work.finished():
            work.scheduled = self._published
            flat, point = work.optimiser.flat, work.point()
        self.params.publish(flat, *point)

    def advance(self) -> dict[str, Any]:
        """Train on every batch that is ready."""
        torch.set_num_threads(self._threads)
        for event in self.steps():
            self.post(event)
            if event == "idle":
                break
        counters = {"skipped": self.work.skipped} | self.work.point()._asdict()
        return {"finished": self.work.finished()} | counters

    def post(self, event: Any = "") -> None:
        """Put the counters on the notice board, and how often in a row there was no batch."""
        post, work = self._notices.post, self.work
        post("idle", self._notices.posted("idle") + 1 if event == "idle" else 0)
        post("skipped", work.skipped)
        post("updates", work.updates)
        post("agent_steps", work.agent_steps)
        post("frames", work.frames)

    def missing(self) -> str:
        """What the next batch waits for, in one line."""
        return self.batches.missing()

    def save(self, write: Write) -> dict[str, Any]:
        """Weights, optimiser, generators; and (if wanted) the streams with their samplers."""
        if not self.work.optimiser.finite():
            raise CheckpointError("the weights or the optimiser's statistics are not finite; such a state is not saved")
        write(self.name, self._state())
        parts = [self.name]
        streams, note = self.batches.state()
        if streams is not None:
            write("streams", streams)
            parts.append("streams")
        self.work.report(self.metrics, force=True)
        return {"counters": self.work.counters(), "parts": parts, "note": note}

    def _state(self) -> dict[str, Any]:
        """The learner's part: weights, statistics, generators, and the weights that others have."""
        work = self.work
        published = work.scheduled or self.params.newest()
        return part_of(work.optimiser, work.states, published, work.updates, work.device)

    def _load(self, loaded: Loaded, frame_skip: int) -> None:
        work = self.work
        load_part(loaded.part, work.optimiser, work.states, work.device)
        work.load_counters(counted_in(loaded.counters, frame_skip))
        self._published = published_in(loaded.part, work.optimiser.flat, work.updates)

    def close(self) -> None:
        """End the assembly thread."""
        self.batches.close()
