"""A realtime environment and its inference processes in one thread, driven by hand on a clock that stands still."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch

from offbeat.envs.base import EnvConfig
from offbeat.envs.decisions import DecisionRows, delayed_spec
from offbeat.envs.delay_config import DelayConfig
from offbeat.envs.toy import ToyVector
from offbeat.replay.layout import StreamLayout, layout_for
from offbeat.replay.mixture import ReplayConfig
from offbeat.replay.samplers import sampler_config
from offbeat.replay.streams import StreamStore
from offbeat.runtime.clock import VirtualClock
from offbeat.runtime.mailbox import Decision
from offbeat.runtime.pacing import WAIT, Drawn, Punctual, Recorded, Timing
from offbeat.runtime.realtime import Realtime, make_realtime, realtime_arrays
from offbeat.runtime.realtime_actor import RealtimeActorWork, run_realtime_actor
from offbeat.runtime.realtime_config import RealtimeConfig
from offbeat.runtime.realtime_env import LEAD_S, RealtimeEnvWork, run_realtime_env
from offbeat.runtime.writer import StoreWriter
from offbeat.types import OBSERVATION, ActOutput, ArraySpec, Inputs
from tests.runtime.parts import Metrics, StopAfter

PERIOD, BLOCK, GAMMA = 1 / 64, 4, 0.5  # so that moments are exact
EXTRAS = {"seen": ArraySpec((3,))}


def counting(length: int) -> ToyVector:
    """The counting environment."""
    return ToyVector(EnvConfig(id="toy/counting", length=length), 1)


def make_layout() -> StreamLayout:
    """One stream of the counting environment's decisions."""
    replay = ReplayConfig(capacity=1000, samplers=(sampler_config("uniform"),))
    spec = delayed_spec(counting(3).spec, DelayConfig())
    return layout_for(spec, EXTRAS, {}, num_streams=1, replay=replay, unroll_length=BLOCK)


class Rings:
    """Counts."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


def make_shared(**options: Any) -> Realtime:
    """What realtime roles share, in this process's memory."""
    config = RealtimeConfig(**{"fps": 1 / PERIOD} | options)
    arrays = {name: spec.zeros() for name, spec in realtime_arrays(config, make_layout()).items()}
    return make_realtime(config, arrays, folder=Path("none"), ring=Rings(), lock=nullcontext(), guard=None)


def step(loop: Iterator[float], clock: VirtualClock) -> float | None:
    """Let a loop go on, and then let the time go by that it asks for; None: it has ended."""
    moment = next(loop, None)
    if moment is not None and moment != WAIT:
        clock.sleep(max(0.0, moment - clock.now()))
    return moment


class PlayedEnv:
    """An environment with everything around it. ``durations``, ``lateness``: of its frames, repeated; in seconds."""

    def __init__(
        self,
        durations: tuple[float, ...] = (0.0,),
        lateness: tuple[float, ...] = (0.0,),
        *,
        length: int = 4,
        keep: int = 16,
        clock: VirtualClock | None = None,
        looks: int = 10**9,
    ) -> None:
        self.clock, self.layout, self.realtime = clock or VirtualClock(1 - LEAD_S), make_layout(), make_shared()
        self.store, self.metrics = StreamStore.allocate(self.layout), Metrics()
        self.rows = DecisionRows(counting(length), DelayConfig(), 3, keep=keep)
        timing = (
            Timing(self.clock, Recorded(np.array(durations))),
            Punctual(self.clock, Recorded(np.array(lateness)), record=True),
        )
        self.work = RealtimeEnvWork(
            self.layout, np.zeros(1, np.int64), self.realtime.config, discount=GAMMA, seed=5, clock=self.clock,
            frame_skip=1, timing=timing,
        )  # fmt: skip
        self.writer = StoreWriter(self.store, None)
        self.loop = run_realtime_env(self.rows, self.realtime, self.writer, self.metrics, StopAfter(looks), self.work)

    def begin(self) -> None:
        """Everybody is ready, and it is time for the first frame."""
        self.realtime.shared["warm"][:] = 0.01
        moment = step(self.loop, self.clock)
        assert moment is not None
        assert moment >= self.work.begin_s

    def decide(self, slot: int, back: int = 0, episode: int | None = None, action: int = 1) -> None:
        """Publish an action that was made from the newest observation, or from one so many frames before."""
        seen = self.realtime.mailbox.read()
        times, extras = np.full(6, self.clock.now()), {"seen": seen.observation[OBSERVATION]}
        of = seen.episode if episode is None else episode
        made = Decision(slot, seen.frame - back, of, seen.step - back, slot, times, np.array([action]), extras)
        self.realtime.slots.put(0, made, self.clock.now)

    def frames(self, count: int) -> None:
        """So many frames are played."""
        until = self.work.frame + count
        while self.work.frame < until or self.work.ends is not None:
            assert step(self.loop, self.clock) is not None

    def state(self) -> dict[str, dict[str, Any]]:
        """All that there is of it, the streams included."""
        parts = {"rows": self.rows.state(), "work": self.work.state(), "realtime": self.realtime.state()}
        return {name: {key: np.array(value) for key, value in part.items()} for name, part in parts.items()} | {
            "store": {name: array.copy() for name, array in self.store.arrays.items()}
        }

    def load_state(self, state: dict[str, dict[str, Any]]) -> None:
        """Back to a saved state."""
        for name, array in self.store.arrays.items():
            array[...] = state["store"][name]
        self.rows.load_state(state["rows"])
        self.work.load_state(state["work"])
        self.realtime.load_state(state["realtime"])


class Counter:
    """A policy whose n-th action is n mod 4, and whose version is what the learner has made."""

    def __init__(self) -> None:
        self.made, self.version, self.holds = 0, 0, False
        self.seen: list[list[float]] = []

    def refresh(self) -> int:
        """The newest version."""
        self.holds = True
        return self.version

    def release(self) -> None:
        """The weights may change."""
        self.holds = False

    def act(self, env_ids: np.ndarray, inputs: Inputs) -> ActOutput:
        """The next number."""
        assert self.holds, "weights that may be written over meanwhile"
        seen = inputs.observation[OBSERVATION][0]
        self.seen.append(seen[0].tolist())
        self.made += 1
        return ActOutput(torch.tensor([self.made % 4]), {"seen": seen.clone()}, {})

    def state(self) -> dict[str, np.ndarray]:
        """How many it made."""
        return {"made": np.array([self.made])}

    def load_state(self, state: dict[str, np.ndarray]) -> None:
        """Back to there."""
        self.made = int(state["made"][0])


class PlayedActor:
    """One of the inference processes, with its loop."""

    def __init__(
        self, realtime: Realtime, clock: VirtualClock, worker: int = 0, *, lateness: tuple[float, ...] = (0.0,),
        looks: int = 10**9, agent: Any = None, played: Any = None,
    ) -> None:  # fmt: skip
        config, self.policy, self.metrics, self.clock = realtime.config, Counter(), Metrics(), clock
        self.realtime = realtime
        timing = (
            Timing(clock, Drawn(config.inference_s, config.jitter, worker)),
            Punctual(clock, Recorded(np.array(lateness)), record=True),
        )
        spec = delayed_spec(counting(3).spec, DelayConfig())
        self.work = RealtimeActorWork(worker, config, spec, agent, clock=clock, timing=timing, played=played)
        self.loop = run_realtime_actor(self.policy, realtime, self.metrics, StopAfter(looks), self.work)  # type: ignore[arg-type]


def show(realtime: Realtime, frame: int, clock: VirtualClock, episode: int = 0) -> None:
    """A new observation."""
    seen = {OBSERVATION: np.array([[frame, episode, frame]], np.float32)}
    realtime.mailbox.put(frame, episode, frame, clock.now, seen)
