"""The realtime environment: its world goes on at its own rate, with the newest action or with the default behaviour."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from offbeat.envs.base import Misbehaved, StateUnsupported
from offbeat.envs.closing import close_env
from offbeat.envs.decisions import DecisionRows
from offbeat.replay.layout import StreamLayout
from offbeat.runtime.clock import Clock
from offbeat.runtime.mailbox import Decision
from offbeat.runtime.pacing import WAIT, Punctual, Timing
from offbeat.runtime.ports import MetricSink, StopSignal, StreamWriter
from offbeat.runtime.realtime import Realtime
from offbeat.runtime.realtime_books import RealtimeBooks
from offbeat.runtime.realtime_config import RealtimeConfig
from offbeat.runtime.realtime_host import RealtimeHost
from offbeat.runtime.services import Services, Write
from offbeat.runtime.staging import Staging
from offbeat.types import ArrayDict, EnvStep, under

LEAD_S = 0.05
"""From the moment that everybody is ready to the first frame. Unit: seconds."""
KEPT_S = 20.0
"""Decisions that were made from older observations are lost. Unit: seconds."""
MOST_KEPT = 4096


def run_realtime_env(
    rows: DecisionRows,
    realtime: Realtime,
    streams: StreamWriter,
    metrics: MetricSink,
    stop: StopSignal,
    work: RealtimeEnvWork,
) -> Iterator[float]:
    """Play for ever, one frame every ``period_s``, and wait for nobody. Yields moments of the clock, see ``pacing``.

    A frame begins when it is due: the newest action that has come acts in it, else the default behaviour. Its
    observation is in the mailbox when the environment has played it. Frames that cannot begin before the next one is
    due are missed and counted; they are not made up for.
    """
    while not (realtime.ready or realtime.begun):
        yield WAIT
    if not realtime.begun:
        work.begin(rows, realtime, streams)
    while not stop.is_set():
        if work.ends is None:
            yield from work.punctual.until(work.due)
            now = work.clock.now()
            decision = realtime.slots.take(work.episode, now)
            row = None if decision is None else work.row(rows, decision)
            work.tick(now, decision if row is not None else None, realtime.slots.fresh)
            if decision is not None and row is not None:
                work.open(row, streams)
                work.act(decision)
                streams.produced(work.staging.streams)
                rows.step(decision.action)
            else:
                rows.step(None)
            work.ends = work.timing.ends(now)
        yield work.ends  # it has been played when it is seen
        work.ends = None
        if rows.over:
            work.end_episode(rows, streams, metrics)
            rows.restart()
        work.show(rows, realtime)
        work.played()
        work.report(rows, realtime, metrics)


def build_realtime_env(services: Services) -> RealtimeEnv:
    """The environment from what its engine offers."""
    return RealtimeEnv(services)


def kept_frames(fps: float) -> int:
    """Frames whose observations are kept; decisions that were made from older ones are lost."""
    return int(min(MOST_KEPT, max(64, KEPT_S * fps)))


class RealtimeEnv(RealtimeHost):
    """The environment with its stream."""

    def __init__(self, services: Services) -> None:
        config: RealtimeConfig = services.config
        env_seed, own_seed = services.seeds(services.index, services.incarnation)
        self.envs = services.envs(1, bare=True)
        self.rows = DecisionRows(self.envs, services.env.delay, own_seed, keep=kept_frames(config.fps))
        agent = services.agent("cpu")
        self.realtime, self.metrics = services.realtime(), services.metrics
        self.work = RealtimeEnvWork(
            services.layout,
            services.streams(),
            config,
            discount=agent.discount,
            seed=env_seed,
            clock=services.clock,
            frame_skip=services.spec.frame_skip,
            timing=self.timing_of(services, 0.0),
        )
        self.writer = services.writer()
        if not services.free and (loaded := services.loaded()) is not None:
            self._load(loaded.part)
        loop = run_realtime_env(self.rows, self.realtime, self.writer, self.metrics, services.stop(), self.work)
        super().__init__(services, loop)

    def save(self, write: Write) -> dict[str, Any]:
        """The environment, its rows and what the realtime roles share."""
        try:
            saved = {f"rows/{name}": value for name, value in self.rows.state().items()}
        except StateUnsupported as error:
            raise StateUnsupported(
                f"{error}; a deterministic run needs environments that can be saved exactly"
            ) from error
        saved |= {f"work/{name}": value for name, value in self.work.state().items()}
        saved |= {f"realtime/{name}": value for name, value in self.realtime.state().items()}
        write(self.name, saved)
        return {}

    def _load(self, part: dict[str, Any]) -> None:
        arrays: ArrayDict = {name: np.asarray(value) for name, value in part.items()}
        self.rows.load_state(under(arrays, "rows/"))
        self.work.load_state(under(arrays, "work/"))
        self.realtime.load_state(under(arrays, "realtime/"))

    def close(self) -> None:
        """Write down what was measured, and close the environment."""
        self.work.books.write(self.rows, self.realtime)
        super().close()
        if line := close_env(self.envs, self.envs.spec.id):
            raise Misbehaved(line)


class RealtimeEnvWork:
    """What the environment carries from frame to frame: when the next is due, rows in hand, what is counted.

    Args:
        layout: of the stream.
        streams: its one stream, [1] int64.
        config: how fast it goes.
        discount: gamma per environment step.
        seed: of the first reset.
        clock: the run's.
        frame_skip: frames per environment step.
        timing: how long a frame takes to play, at least, and how late one begins.
    """

    def __init__(
        self,
        layout: StreamLayout,
        streams: np.ndarray,
        config: RealtimeConfig,
        *,
        discount: float,
        seed: int,
        clock: Clock,
        frame_skip: int,
        timing: tuple[Timing, Punctual],
    ) -> None:
        self.config, self.clock, self._seed = config, clock, seed
        self.timing, self.punctual = timing
        self.staging = Staging(layout, streams, layout.block, discount)
        self.books = RealtimeBooks(config, frame_skip)
        self.begin_s = self._began_s = 0.0
        self.ends: float | None = None
        """When the frame that is being played is over; None: the next one has not begun."""
        self.ticks = 0
        """Frames that are over, missed ones included: the next one is due at ``begin_s + ticks * period_s``."""
        self.frame = self.episode = 0
        """Frames that were played, and episodes that have ended."""

    def due(self) -> float:
        """When the next frame begins."""
        return self.begin_s + self.ticks * self.config.period_s

    def begin(self, rows: DecisionRows, realtime: Realtime, streams: StreamWriter) -> None:
        """Start the first episode, and everybody's time with it."""
        left_over = streams.attach(self.staging.streams)
        if left_over is not None:
            self.staging.adopt(left_over)
        rows.reset(self._seed)
        self.begin_s = self.clock.now() + LEAD_S
        self.show(rows, realtime)
        realtime.begin(self.begin_s)

    def tick(self, now: float, decision: Decision | None, fresh: list[Decision]) -> None:
        """A frame begins, with this action of all that came. Frames that should have begun before are missed."""
        self.punctual.done(self.due(), now)
        self._began_s = now
        late = now - self.due()
        missed = int(late / self.config.period_s) if late > 0 else 0
        self.ticks += 1 + missed
        self.books.tick(now, late, missed, decision, fresh, self.frame)
        self.frame += 1

    def row(self, rows: DecisionRows, decision: Decision) -> EnvStep | None:
        """The row of a decision; None if what it was made from is not kept any more."""
        if decision.step <= rows.frame - rows.keep:
            self.books.too_old += 1
            return None
        return rows.decide(decision.step)

    def open(self, row: EnvStep, streams: StreamWriter) -> None:
        """Finish the row in hand, append the block if it is full now, and begin this row."""
        full = self.staging.complete(row)
        if len(full):
            streams.offer(self.staging.take(full, row))  # now or, where streams are being saved, with the next one
        self.staging.open(row)
        self.books.account(row)

    def act(self, decision: Decision) -> None:
        """Note down what acts in the open row."""
        self.staging.act(np.zeros(1, np.int64), decision.action, decision.extras, decision.version)

    def end_episode(self, rows: DecisionRows, streams: StreamWriter, metrics: MetricSink) -> None:
        """Note down how an episode ended. One in which no decision acted leaves no rows, only its score."""
        if rows.asked:
            self.open(rows.end(self.books.next_source(rows.frame)), streams)
            extras = {name: spec.zeros(1) for name, spec in self.staging.layout.extras.items()}
            self.staging.act(np.zeros(1, np.int64), self.staging.layout.action.zeros(1), extras, 0)
            streams.produced(self.staging.streams)
        else:
            self.books.unseen(*rows.span)
        self.books.end_episode(metrics)
        self.episode += 1

    def show(self, rows: DecisionRows, realtime: Realtime) -> None:
        """Put the newest observation into the mailbox."""
        seen = rows.observation(rows.frame)
        realtime.mailbox.put(self.frame, self.episode, rows.frame, self.clock.now, seen)

    def played(self) -> None:
        """A frame is over, and its observation is there: note how long that took."""
        self.books.played_s = self.clock.now() - self._began_s

    def report(self, rows: DecisionRows, realtime: Realtime, metrics: MetricSink) -> None:
        """Send what was counted, once a second."""
        self.books.report(self.clock.now(), rows, realtime, metrics)

    def state(self) -> ArrayDict:
        """All of it. Rows in hand are saved as they are: between two frames no block is ever whole."""
        saved = {f"staging/{name}": value for name, value in self.staging.state(open_rows=True).items()}
        saved |= {f"books/{name}": value for name, value in self.books.state().items()}
        saved |= {f"timing/{name}": value for name, value in self.timing.durations.state().items()}
        saved |= {f"punctual/{name}": value for name, value in self.punctual.state().items()}
        saved["counts"] = np.array([self.ticks, self.frame, self.episode])
        saved["begin_s"] = np.array([self.begin_s, np.nan if self.ends is None else self.ends])
        return saved

    def load_state(self, state: ArrayDict) -> None:
        """Back to a saved state."""

        self.staging.load_state(under(state, "staging/"))
        self.books.load_state(under(state, "books/"))
        self.timing.durations.load_state(under(state, "timing/"))
        self.punctual.load_state(under(state, "punctual/"))
        self.ticks, self.frame, self.episode = (int(value) for value in state["counts"])
        self.begin_s, ends = (float(value) for value in state["begin_s"])
        self.ends = None if np.isnan(ends) else ends
