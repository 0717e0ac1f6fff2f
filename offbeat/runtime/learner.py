"""The learner: takes batches, computes the agent's loss, steps the optimiser, publishes weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from offbeat.agents.base import Agent, learner_states
from offbeat.agents.contract import check_output
from offbeat.networks.autocast import keeps_history
from offbeat.networks.stem import freeze
from offbeat.runtime.clock import WALL, Clock
from offbeat.runtime.generators import choose_deterministic_kernels
from offbeat.runtime.halving import Halving
from offbeat.runtime.host import Host
from offbeat.runtime.joint import Joint, Trained, Whole, alone
from offbeat.runtime.learner_config import LearnerConfig
from offbeat.runtime.learner_part import begun, kept_of, part_of
from offbeat.runtime.learner_report import COUNTERS, OWN_METRICS, Counted, LearnerReport, diagnosed, lag
from offbeat.runtime.optimiser import FlatOptimiser
from offbeat.runtime.ports import BatchSource, FeedbackSink, MetricSink, ParamPublisher, Point, StopSignal
from offbeat.runtime.services import Loaded, Services, Write
from offbeat.runtime.share import Share, joined
from offbeat.storage.checkpoint import CheckpointError
from offbeat.types import Batch, LossOutput

IDLE_S = 0.5
"""Longest wait for a batch before the learner looks up. Unit: seconds."""


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
    published in any case, for the last evaluation. Of learners that step together each waits for the sum of all
    gradients (``"waiting"``). Of asynchronous ones each takes its gradient at the weights that it has, and then its
    turn to step from the newest ones, which are its own afterwards.
    """
    if work.publishes and params.version() < 0 and not work.pretraining:
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
        output = work.gradient(batch)
        while (whole := work.whole(batch, output)) is None:
            yield "waiting"
        with work.turn():
            trained = work.apply(batch, output, whole.total, whole.divisor)
            if not trained:
                batches.skip(batch)
            else:
                batches.done(batch)
                for state in work.states.values():  # target networks and the like
                    state.trained(batch, work.updates)
            work.count(whole.trained, batches, trained=trained)
            work.commit()
            if work.publishes and work.due(work.config.publish_every, trained):
                work.unpublished += not params.publish(work.optimiser.flat, *work.point())
        if trained and feedback is not None and whole.feedback:
            feedback.feedback(batch, whole.feedback)
        work.told.seen(lag(batch, work.updates), batches.stats())
        work.told.train_s += work.clock.now() - started
        work.report(metrics)
        yield "trained"
    while not work.publish_last(params) and not stop.is_set():
        yield "idle"  # readers hold every slot; they let go between their blocks


class LearnerWork(Counted):
    """What the learner carries: optimiser, counters, sums of metrics.

    Args:
        agent: owns the network that is trained.
        config: batches, optimiser, precision.
        total_frames: environment frames of the whole run.
        frame_skip: frames per environment step.
        clock: for the times that are reported.
        pretrain_steps: updates on a demonstration alone, before there is anything else and anybody acts.
        whole_rounds: at the end, train on every batch that is ready. With a fixed schedule a run that is made longer
            then goes on as one that was never that short.

    Attributes:
        states: what the agent keeps beside the network, by name.
        joint: adds up what learners that step together have collected; None: this one steps by itself.
        share: in what asynchronous learners have together; None: there is no such thing.
        leads: it publishes the final weights, and counts for all: of several learners the first.
        publishes: it publishes weights at all; of learners that step together only the first does.
        made: updates that this learner has made itself, since it was started.
        posted: called in a turn, when what others see of the learners has changed.
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
        pretrain_steps: int = 0,
        clock: Clock = WALL,
    ) -> None:
        super().__init__(pretrain_steps)
        self._frame_skip = frame_skip
        self.config, self.total_frames, self.whole_rounds, self.clock = config, total_frames, whole_rounds, clock
        agent.network.train()
        freeze(agent.network, conv=config.freeze_conv, fc=config.freeze_fc)
        self.states = learner_states(agent)
        self._reward_scale = getattr(agent.network, "reward_scale", None)
        rounded = config.precision == "bf16" and not any(state.exact for state in self.states.values())
        self.optimiser = FlatOptimiser(agent.network, config, rounded=rounded)
        self.device = self.optimiser.flat.device
        self.unpublished = self.bad_rewards = 0
        self.scheduled: tuple[torch.Tensor, Point] | None = None
        self.told = LearnerReport(clock)
        self._loss = torch.compile(agent.loss) if config.compile else agent.loss
        self.halving = Halving(self.device, carries=bool(getattr(getattr(agent, "items", None), "consecutive", False)))
        self.joint: Joint | None = None
        self.share: Share | None = None
        self.leads, self.publishes, self.made = True, True, 0
        self.posted: Callable[[], None] = lambda: None
        self._stale: int | None = None
        self._late = self._checked = False

    @property
    def progress(self) -> float:
        """Share of the run that is done, in [0, 1]."""
        return min(1.0, self.frames / max(1, self.total_frames))

    def finished(self) -> bool:
        """Whether the run has all its frames."""
        return max(self.frames, 0 if self.share is None else self.share.frames()) >= self.total_frames

    def train_step(self, agent: Agent, batch: Batch) -> LossOutput | None:
        """One update; None if it was skipped because the loss, a gradient or a new weight was not finite."""
        output = self.gradient(batch)
        return output if self.apply(batch, output, output.total.detach(), output.count) else None

    def gradient(self, batch: Batch) -> LossOutput:
        """Have the gradient of ``batch``, at the newest weights, in the optimiser; what the loss gave."""
        if self.share is not None:
            self.load_counters(self.share.refresh() or {})
        return self.collect(batch)

    def whole(self, batch: Batch, output: LossOutput) -> Whole | None:
        """What the batch led to with all its shares, of which this was one; None while others are at theirs."""
        return alone(batch, output) if self.joint is None else self.joint.whole(batch, output)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """This learner's turn to step; of several, one at a time has it, and begins from what all have learnt."""
        if self.share is None:
            yield
            return
        with self.share.master.turn():
            before = self.updates
            self.load_counters(self.share.take() or {})
            self._stale = self.updates - before
            self._late = self.finished() and not self.whole_rounds  # then the weights are final
            yield

    def commit(self) -> None:
        """In a turn: what this learner has now is what all have, at once."""
        if self.share is not None and not self._late:
            self.share.commit(self.counters(), self._stale)
            self.told.stale(self._stale)
            self.posted()

    def collect(self, batch: Batch) -> LossOutput:
        """The gradients of the sum over ``batch``, which may be a shard of a larger one: they lie in the optimiser."""
        if not len(batch.stream):  # a share may hold nothing
            self.optimiser.zero()
            return LossOutput(torch.zeros((), device=self.device), {})
        batch = self.seen(batch)
        while True:
            self.optimiser.zero()
            try:
                return self.halving.together([self._add_gradient(part) for part in self.halving.cut(batch)])
            except torch.OutOfMemoryError as error:
                failed = str(error)  # not the error: its traceback holds what has to be given back
            self.halving.again(batch, failed)

    def _add_gradient(self, batch: Batch) -> LossOutput:
        """Add the gradients of the sum over ``batch`` to those that lie in the optimiser."""
        bf16 = self.config.precision == "bf16"
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
        if self._late:
            return False
        divisor = 1.0 if count is None else float(count)
        if not divisor > 0:
            raise ValueError(f"LossOutput.count: expected a number above 0, got {divisor:g}")
        loss = total if count is None else total / divisor
        norm, finite = self.optimiser.step(self.progress, loss, divisor)
        if not finite:
            self._skip(batch, loss, norm)
            return False
        self.bad_in_a_row = 0
        self.updates, self.made = self.updates + 1, self.made + 1
        self.told.add(output.metrics | {"loss": loss, "gradient_norm": norm})
        return True

    def _skip(self, batch: Batch, loss: torch.Tensor, norm: torch.Tensor) -> None:
        self._stale = None
        self.skipped, self.bad_in_a_row = self.skipped + 1, self.bad_in_a_row + 1
        self.bad_rewards += not bool(torch.isfinite(batch.reward).all())
        if self.bad_in_a_row < self.config.nonfinite_limit:
            return
        raise diagnosed(self.bad_in_a_row, loss, norm, batch, self.optimiser.finite())

    def count(self, what: Trained, batches: BatchSource, *, trained: bool) -> None:
        """Count a batch with all its shares; ``trained``: it led to an update."""
        if trained:
            self.samples += what.rows
            self.sample_frames += what.env_steps * self._frame_skip
        counted = (batches.steps(), batches.frames()) if self.joint is None else self.joint.counted(batches)
        self.agent_steps, self.frames = counted

    def publish_last(self, params: ParamPublisher) -> bool:
        """Publish the newest weights if they are not yet; False if readers hold every slot."""
        if not self.leads or self.pretraining:
            return True
        with self.turn():
            if params.version() >= self.updates:
                return True
            self.scheduled = self.scheduled or params.newest()
            return params.publish(self.optimiser.flat, *self.point())

    def report(self, metrics: MetricSink, force: bool = False) -> None:
        """Send the sums since the last report, about twice a second."""
        counted = {n: getattr(self, n) for n in (*COUNTERS[:6], "bad_rewards", "unpublished")} | self.halving.counted()
        if self.share is not None:
            counted["own_updates"] = self.made
        self.told.write(metrics, counted | {"learning_rate": self.optimiser.learning_rate(self.progress)}, force)


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
        own = (services.index, services.incarnation) if services.index else ()
        torch.manual_seed(services.seeds(*own)[1])  # of what a loss draws
        self.work = LearnerWork(
            self.agent,
            config,
            total_frames=services.total_frames,
            whole_rounds=not services.free,
            frame_skip=services.spec.frame_skip,
            pretrain_steps=services.pretrain_steps,
            clock=services.clock,
        )
        if (reduction := services.reduction()) is not None:
            work = self.work
            work.leads = work.publishes = services.index == 0
            work.joint = Joint(reduction, work.optimiser, work.leads)
        loaded, self._published = begun(services, self.work.optimiser, self.work.states, self.work)
        rejoins = self._join(services, loaded)
        before = self.work.agent_steps, self.work.frames
        if self.work.leads and not rejoins:
            self._post_counters()
        self.batches = services.batches(last=self.agent.wants_last, device=self.work.device, before=before)
        self.params = services.publisher()
        if self.work.leads and not rejoins:
            if not (self.work.pretraining and services.free):  # who acts freely waits for the first weights
                self._publish_first()
            if self.work.share is not None:
                self.work.share.begin(self.work.counters())
        self._mirror = services.mirror()
        self._keep(force=True)
        ports = self.batches, self.params, self.batches, self.metrics, services.stop()
        super().__init__(services, run_learner(self.agent, *ports, self.work))

    @property
    def warm(self) -> bool:
        """Whether this process has made an update."""
        return self.work.made > 0

    def _publish_first(self) -> None:
        """Publish what actors had when the run was saved; the final weights if nothing is left to do but score them."""
        work = self.work
        if work.finished():
            work.scheduled, self._published = self._published, None
        flat, point = self._published or (work.optimiser.flat, work.point())
        self.params.publish(flat, *point)

    def advance(self) -> dict[str, Any]:
        """Train on every batch that is ready."""
        torch.set_num_threads(self._threads)
        for event in self.steps():
            self.post(event)
            if event == "idle" or self.work.rests():
                break
        told = {"finished": self.work.finished(), "pretraining": self.work.pretraining, "skipped": self.work.skipped}
        return told | self.work.point()._asdict()

    def post(self, event: Any = "") -> None:
        """Put the counters on the notice board, and how often in a row there was no batch.

        Asynchronous learners post counters in their turns, so that they never fall; of all else only the first tells.
        """
        if self.work.leads:
            self._notices.post("idle", self._notices.posted("idle") + 1 if event == "idle" else 0)
        if self.work.share is None and self.work.leads:
            self._post_counters()
            if event == "trained":
                self._keep()

    def _keep(self, force: bool = False) -> None:
        """Keep what one that takes this learner's place would go on from, if it is due."""
        work, mirror = self.work, self._mirror
        if mirror is not None and (mirror.tell(work.counters()) or force):
            mirror.keep(kept_of(work.optimiser, work.states, work.device), self.batches.tallies())

    def _post_counters(self) -> None:
        for name in ("skipped", "updates", "agent_steps", "frames"):
            self._notices.post(name, getattr(self.work, name))

    def missing(self) -> str:
        """What the next batch waits for, in one line."""
        return self.batches.missing()

    def save(self, write: Write) -> dict[str, Any]:
        """Weights, optimiser, generators; and (if wanted) the streams with their samplers."""
        work = self.work
        with work.turn():
            own = (work.optimiser.flat, work.point())
            published = work.scheduled or (self.params.newest() if self.params.version() >= 0 else own)
        if not work.optimiser.finite():
            raise CheckpointError("the weights or the optimiser's statistics are not finite; such a state is not saved")
        stale = work.share.master.staleness() if work.share is not None else ()
        write(self.name, part_of(work.optimiser, work.states, published, work.updates, work.device, stale))
        parts = [self.name]
        streams, note = self.batches.state()
        if streams is not None:
            write("streams", streams)
            parts.append("streams")
        work.report(self.metrics, force=True)
        return {"counters": work.counters(), "parts": parts, "note": note}

    def _join(self, services: Services, loaded: Loaded | None) -> bool:
        """Share with others, where learners do; whether it comes to what they have learnt already."""
        work, master = self.work, services.master()
        if master is None:
            return False
        work.leads, work.posted = services.index == 0, self._post_counters
        work.share, counters = joined(master, work.optimiser, work.leads, loaded and loaded.part)
        work.load_counters(counters)
        return bool(counters)

    def close(self) -> None:
        """End the assembly thread."""
        self.batches.close()
