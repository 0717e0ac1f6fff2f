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
from offbeat.runtime.learner_config import LearnerConfig
from offbeat.runtime.learner_part import Published, begin_with, counted_in, load_part, part_of, published_in
from offbeat.runtime.learner_report import COUNTERS, OWN_METRICS, LearnerReport, diagnosed
from offbeat.runtime.optimiser import FlatOptimiser, Reduce
from offbeat.runtime.ports import BatchSource, FeedbackSink, Master, MetricSink, ParamPublisher, Point, StopSignal
from offbeat.runtime.services import Loaded, Services, Write
from offbeat.runtime.share import Share
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
    published in any case, for the last evaluation. Of several learners each takes its gradient at the weights that it
    has, and then its turn to step from the newest ones, which are its own afterwards.
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
        output, loss, count = work.gradient(batch)
        with work.turn():
            trained = work.apply(batch, output, loss, count)
            if not trained:
                batches.skip(batch)
            else:
                batches.done(batch)
                for state in work.states.values():  # target networks and the like
                    state.trained(batch, work.updates)
            work.count(batch, batches, trained=trained)
            work.commit()
            if trained and work.updates % work.config.publish_every == 0:
                work.unpublished += not params.publish(work.optimiser.flat, *work.point())
        if trained and feedback is not None and output.feedback:
            feedback.feedback(batch, output.feedback)
        work.told.seen(work.lag(batch), batches.stats())
        work.told.train_s += work.clock.now() - started
        work.report(metrics)
        yield "trained"
    while not work.publish_last(params) and not stop.is_set():
        yield "idle"  # readers hold every slot; they let go between their blocks


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
        share: in what asynchronous learners have together; None: this one is alone.
        leads: it publishes the final weights; of asynchronous learners only the first does.
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
        clock: Clock = WALL,
    ) -> None:
        self._frame_skip = frame_skip
        self.config, self.total_frames, self.whole_rounds, self.clock = config, total_frames, whole_rounds, clock
        agent.network.train()
        freeze(agent.network, conv=config.freeze_conv, fc=config.freeze_fc)
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
        self.halving = Halving(self.device, carries=bool(getattr(getattr(agent, "items", None), "consecutive", False)))
        self.reduce: Reduce | None = None
        self.share: Share | None = None
        self.leads, self.made = True, 0
        self.posted: Callable[[], None] = lambda: None
        self._stale: int | None = None
        self._late = self._checked = False

    @property
    def progress(self) -> float:
        """Share of the run that is done, in [0, 1]."""
        return min(1.0, self.frames / max(1, self.total_frames))

    def point(self) -> Point:
        """Where the run is."""
        return Point(self.updates, self.agent_steps, self.frames)

    def finished(self) -> bool:
        """Whether the run has all its frames."""
        return max(self.frames, 0 if self.share is None else self.share.frames()) >= self.total_frames

    def train_step(self, agent: Agent, batch: Batch) -> LossOutput | None:
        """One update; None if it was skipped because the loss, a gradient or a new weight was not finite."""
        output, loss, count = self.gradient(batch)
        return output if self.apply(batch, output, loss, count) else None

    def gradient(self, batch: Batch) -> tuple[LossOutput, torch.Tensor, torch.Tensor | float | None]:
        """The gradient of ``batch``, at the newest weights; what the loss gave; total and count of all shards."""
        if self.share is not None:
            self.load_counters(self.share.refresh() or {})
        output = self.collect(batch)
        loss, count = output.total.detach(), output.count
        return (output, *self.reduce(self.optimiser, loss, count)) if self.reduce else (output, loss, count)

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
        raise diagnosed(self.bad_in_a_row, loss, norm, batch.reward, self.optimiser.finite())

    def count(self, batch: Batch, batches: BatchSource, *, trained: bool) -> None:
        """Count a batch; ``trained``: it led to an update."""
        if trained:
            self.samples += batch.rows
            self.sample_frames += batch.env_steps * self._frame_skip
        self.agent_steps, self.frames = batches.steps(), batches.frames()

    def lag(self, batch: Batch) -> float:
        """Updates since the rows of ``batch`` were acted, in the mean."""
        return self.updates - float(batch.param_version.double().mean())

    def publish_last(self, params: ParamPublisher) -> bool:
        """Publish the newest weights if they are not yet; False if readers hold every slot."""
        if not self.leads:
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
        own = (services.index, services.incarnation) if services.index else ()
        torch.manual_seed(services.seeds(*own)[1])  # of what a loss draws
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
        elif (initial := services.initial_part()) is not None:
            begin_with(initial, self.work.optimiser)
        master = services.master()
        if master is not None:
            self._join(master, leads=services.index == 0, loaded=loaded)
        before = self.work.agent_steps, self.work.frames
        if self.work.leads:
            self._post_counters()
        self.batches = services.batches(last=self.agent.wants_last, device=self.work.device, before=before)
        self.params = services.publisher()
        if self.work.leads:
            self._publish_first()
            if self.work.share is not None:
                self.work.share.begin(self.work.counters())
        loop = run_learner(
            self.agent, self.batches, self.params, self.batches, self.metrics, services.stop(), self.work
        )
        super().__init__(services, loop)

    @property
    def warm(self) -> bool:
        """Whether this process has made an update."""
        return self.work.made > 0

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
        return {"finished": self.work.finished(), "skipped": self.work.skipped} | self.work.point()._asdict()

    def post(self, event: Any = "") -> None:
        """Put the counters on the notice board, and how often in a row there was no batch.

        Asynchronous learners post counters in their turns, so that they never fall; of batches only the first tells.
        """
        if self.work.leads:
            self._notices.post("idle", self._notices.posted("idle") + 1 if event == "idle" else 0)
        if self.work.share is None:
            self._post_counters()

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
            published = work.scheduled or self.params.newest()
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

    def _join(self, master: Master, leads: bool, loaded: Loaded | None) -> None:
        """Share in ``master``: the first learner fills it, once it is ready; others have what is in there."""
        work = self.work
        work.share, work.leads, work.posted = Share(master, work.optimiser), leads, self._post_counters
        if not leads:
            work.load_counters(work.share.take() or {})
        elif loaded is not None:
            master.set_staleness([int(count) for count in loaded.part.get("master/staleness", ())])

    def _load(self, loaded: Loaded, frame_skip: int) -> None:
        work = self.work
        load_part(loaded.part, work.optimiser, work.states, work.device)
        work.load_counters(counted_in(loaded.counters, frame_skip))
        self._published = published_in(loaded.part, work.optimiser.flat, work.updates)

    def close(self) -> None:
        """End the assembly thread."""
        self.batches.close()
