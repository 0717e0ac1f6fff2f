"""The realtime actor: one of N inference processes that take turns, so that an action comes whenever one is needed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from offbeat.acting.observer import Observer
from offbeat.agents.base import Agent, Explores
from offbeat.algorithms.stagger import Stagger
from offbeat.runtime.clock import Clock
from offbeat.runtime.cpu_waits import run_queue_s
from offbeat.runtime.mailbox import DUE, ENDED, READ, SEEN, STARTED, Decision
from offbeat.runtime.pacing import WAIT, Punctual, Timing
from offbeat.runtime.policy import LocalPolicy
from offbeat.runtime.ports import MetricSink, StopSignal
from offbeat.runtime.realtime import Realtime
from offbeat.runtime.realtime_config import RealtimeConfig
from offbeat.runtime.realtime_host import RealtimeHost
from offbeat.runtime.services import Services, Write
from offbeat.types import ArrayDict, EnvSpec, EnvStep, under

WARM_UP = 8
"""Inferences before the environment begins; the first ones, in which libraries get ready, are not counted."""
REPORT_S = 1.0
"""Numbers are sent about so often. Unit: seconds."""


def run_realtime_actor(
    policy: LocalPolicy, realtime: Realtime, metrics: MetricSink, stop: StopSignal, work: RealtimeActorWork
) -> Iterator[float]:
    """Infer for ever, each time from the newest observation. Yields moments of the clock, see ``pacing``.

    When an inference starts and when its action is published says the stagger; both may move while this one sleeps.
    """
    while not realtime.begun:
        yield WAIT
    stagger, worker = work.join(realtime), work.worker
    while not stop.is_set():
        if work.config.takes_turns and not work.asked:  # learning comes between two inferences
            work.ask(realtime)
        while work.config.takes_turns and not work.answered(realtime):
            yield WAIT
        if work.pending is None:
            yield from work.punctual.until(work.start_at)
            work.infer(policy, realtime)
        if not work.finished:
            yield work.ends
            work.finish()
        yield from work.punctual.until(work.publish_at)
        stagger.published(worker, work.publish(realtime))
        work.look_around(realtime, metrics)


def build_realtime_actor(services: Services) -> RealtimeActor:
    """An inference process from what its engine offers."""
    return RealtimeActor(services)


class RealtimeActor(RealtimeHost):
    """An inference process with its network."""

    def __init__(self, services: Services) -> None:
        config: RealtimeConfig = services.config
        torch.set_num_threads(1)
        agent = services.agent(services.device)
        self.policy = LocalPolicy(
            agent,
            services.weights(),
            1,
            seed=services.seeds(services.index, services.incarnation)[1],
            precision=services.precision,
            shared=True,
        )
        realtime = services.realtime()
        self.work = RealtimeActorWork(
            services.index,
            config,
            services.spec,
            agent,
            clock=services.clock,
            timing=self.timing_of(services, config.inference_s),
            played=self._played(services) if services.free else None,
        )
        realtime.shared["process"][services.index] = os.getpid()
        if services.free or not (loaded := services.loaded()):
            self.work.warm_up(self.policy, realtime, real=services.free)
        else:
            self._load(loaded.part)
        loop = run_realtime_actor(self.policy, realtime, services.metrics, services.stop(), self.work)
        super().__init__(services, loop)

    @staticmethod
    def _played(services: Services) -> Callable[[], int]:
        """Steps of the environment in the whole run: that of a resumed run starts to count anew."""
        posted, skip = services.notices.posted, services.spec.frame_skip
        return lambda: posted("frames") // skip

    def save(self, write: Write) -> dict[str, Any]:
        """What it is at, and its generator."""
        saved = {f"work/{name}": value for name, value in self.work.state().items()}
        write(self.name, saved | {f"policy/{name}": value for name, value in self.policy.state().items()})
        return {}

    def _load(self, part: dict[str, Any]) -> None:
        arrays: ArrayDict = {name: np.asarray(value) for name, value in part.items()}
        self.work.load_state(under(arrays, "work/"))
        self.policy.load_state(under(arrays, "policy/"))

    def close(self) -> None:
        """Let go of the weights."""
        self.policy.release()
        super().close()


class RealtimeActorWork:
    """What an inference process carries: the inference that it is at, and when that is over.

    Args:
        worker: which one it is.
        config: of the realtime runtime.
        spec: what networks see.
        agent: its own, for what it explores.
        clock: the run's.
        timing: how long an inference takes, at least, and how late it starts and is published.
        played: gives the environment steps that the run has at least; None: the mailbox counts them all.
    """

    def __init__(
        self,
        worker: int,
        config: RealtimeConfig,
        spec: EnvSpec,
        agent: Agent,
        *,
        clock: Clock,
        timing: tuple[Timing, Punctual],
        played: Callable[[], int] | None = None,
    ) -> None:
        self._played = played or (lambda: 0)
        self.worker, self.config, self.clock = worker, config, clock
        self.timing, self.punctual = timing
        self._spec, self._agent = spec, agent
        self.pending: Decision | None = None
        """The inference that it is at."""
        self.ends = 0.0
        """When that is over."""
        self.asked = config.mode == "sequential"  # inference comes first: there is nothing to wait for
        self._answer = 0
        self.finished = False
        """Whether that is over."""
        self._slot = 0
        self._frame = 0
        self._observer = Observer(spec, spec.action.array, 1, wants_last=False, explore=self._explore())
        self._only = np.zeros(1, np.int64)
        self._buffers = {key: part.zeros(1) for key, part in spec.observation.items()}
        self._inputs = self._observer.observe(_as_row(self._only, self._buffers))
        self._stagger: Stagger | None = None
        self._reported = 0.0
        self._gone = 0

    def _explore(self) -> Any:
        if not isinstance(self._agent, Explores):
            return None
        explorer, stream = self._agent, np.zeros(1, np.int64)
        return lambda steps: explorer.exploration(stream, 1, max(self._frame, self._played()))

    def join(self, realtime: Realtime) -> Stagger:
        """Take its place among the others."""
        self._stagger = realtime.stagger()
        self._stagger.add(self.worker)
        return self._stagger

    def start_at(self) -> float:
        """When its next inference starts; a place that was taken from it is asked for again."""
        assert self._stagger is not None, "join() comes first"
        self._stagger.add(self.worker)
        return self._stagger.start_at(self.worker)

    def infer(self, policy: LocalPolicy, realtime: Realtime) -> None:
        """Infer from the newest observation."""
        clock, times = self.clock, np.zeros(6)
        due, version = self.start_at(), policy.refresh()
        times[READ] = clock.now()
        seen = realtime.mailbox.read(self._buffers)  # which the inputs are views of
        self._frame = seen.frame
        self._observer.explore(self._inputs)
        times[SEEN], times[STARTED] = seen.time_s, clock.now()
        output = policy.act(self._only, self._inputs)
        action = output.action.cpu().numpy()
        extras = {name: value.cpu().numpy() for name, value in output.extras.items()}
        self.ends = self.timing.ends(times[READ])
        self.punctual.done(due, times[READ])
        policy.release()
        self._slot += 1
        self.pending = Decision(
            self._slot, seen.frame, seen.episode, seen.step, version, times, action, extras, self.worker
        )
        self.finished = False

    def finish(self) -> None:
        """The inference is over: tell the stagger, once."""
        assert self.pending is not None and self._stagger is not None, "infer() comes first"
        self.finished = True
        times = self.pending.times
        times[ENDED] = self.ends
        self._stagger.add(self.worker)
        times[DUE] = self._stagger.finished(self.worker, times[READ], times[ENDED])

    def publish_at(self) -> float:
        """When the action is to be published."""
        assert self.pending is not None and self._stagger is not None, "infer() comes first"
        self._stagger.add(self.worker)
        at = self._stagger.publish_at(self.worker, self.pending.times[ENDED])
        self.pending.times[DUE] = at
        return at

    def publish(self, realtime: Realtime) -> float:
        """Publish the action that is ready; when it was there."""
        assert self.pending is not None, "infer() comes first"
        decision, self.pending = self.pending, None
        published = realtime.slots.put(self.worker, decision, self.clock.now)
        self.punctual.done(float(decision.times[DUE]), published)
        return published

    def ask(self, realtime: Realtime) -> None:
        """Have the learner make an update."""
        realtime.shared["turns"][0] += 1
        self._answer = int(realtime.shared["turns"][0])
        self.asked = True
        realtime.ring()

    def answered(self, realtime: Realtime) -> bool:
        """Whether the learner has made it, or cannot."""
        return bool(realtime.shared["turns"][1] >= self._answer)

    def look_around(self, realtime: Realtime, metrics: MetricSink) -> None:
        """After an action: what comes next, and whether somebody who is late is gone."""
        self.asked = False
        assert self._stagger is not None, "join() comes first"
        now = self.clock.now()
        self._gone += len(realtime.forget_the_dead(self._stagger, now)) if self._stagger.count > 1 else 0
        if now - self._reported < REPORT_S:
            return
        self._reported = now
        values = {"inferences": self._slot, "period_s": self._stagger.period_s, "processes": self._stagger.count}
        values |= {"retries": realtime.mailbox.retries, "slots_skipped": self._stagger.skipped, "gone": self._gone}
        values["run_queue_s"] = run_queue_s()
        metrics.write("realtime_actor", {name: float(value) for name, value in values.items()})

    def warm_up(self, policy: LocalPolicy, realtime: Realtime, *, real: bool) -> None:
        """Infer from an empty observation, and say how long that took. ``real``: as it was measured."""
        policy.refresh()
        state = policy.state()
        took = []
        for _ in range(WARM_UP if real else 1):
            started = self.clock.now()
            policy.act(self._only, self._inputs)
            took.append(self.clock.now() - started)
        policy.load_state({name: np.asarray(value) for name, value in state.items()})
        policy.release()
        longest = max(took[WARM_UP // 2 :]) if real else 0.0
        realtime.shared["warm"][self.worker] = max(longest, self.config.inference_s, 1e-6)
        realtime.ring()

    def state(self) -> ArrayDict:
        """All of it; the stagger is the environment's to save."""
        saved = {f"timing/{name}": value for name, value in self.timing.durations.state().items()}
        saved |= {f"punctual/{name}": value for name, value in self.punctual.state().items()}
        pending = self.pending
        flags = [pending is not None, self.finished, self.asked, self._answer, self._slot, self._frame]
        saved |= {"flags": np.array(flags, np.int64), "ends": np.array([self.ends])}
        if pending is not None:
            ids = [pending.slot, pending.source, pending.episode, pending.step, pending.version]
            saved |= {"pending/ids": np.array(ids), "pending/times": pending.times, "pending/action": pending.action}
            saved |= {f"pending/extras/{name}": value for name, value in pending.extras.items()}
        return saved

    def load_state(self, state: ArrayDict) -> None:
        """Back to a saved state."""
        for prefix, kept in (("timing/", self.timing.durations), ("punctual/", self.punctual)):
            kept.load_state(under(state, prefix))
        there, finished, asked, self._answer, self._slot, self._frame = (int(value) for value in state["flags"])
        self.finished, self.asked, self.ends = bool(finished), bool(asked), float(state["ends"][0])
        if there:
            extras = under(state, "pending/extras/")
            slot, source, episode, step, version = (int(value) for value in state["pending/ids"])
            times, action = np.array(state["pending/times"]), state["pending/action"]
            self.pending = Decision(slot, source, episode, step, version, times, action, extras, self.worker)


def _as_row(ids: np.ndarray, observation: ArrayDict) -> EnvStep:
    """An observation as the row of an environment, for the observer."""
    none, zero = np.zeros(1, bool), np.zeros(1, np.float32)
    return EnvStep(ids, observation, zero, zero, none, none, none, ~none)
