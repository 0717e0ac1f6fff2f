"""Metrics: what roles report becomes metrics.jsonl, progress.csv, TensorBoard events and the live dashboard.

``docs/metrics.md`` lists every name with its formula and unit.
"""

from __future__ import annotations

import json
import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from offbeat.acting.scores import game_key
from offbeat.config.log import LogConfig
from offbeat.run.dashboard import SCORES, Display, make_display
from offbeat.run.metric_files import AppendFile, EventWriter, Meter, PeriodAverage, Value, plain
from offbeat.run.records import PERIODIC, curves_of
from offbeat.run.status import Status

OWN_FRAMES = ("learner", "evaluation", "validation", "final", "status")
"""Kinds whose ``frames`` and ``agent_steps`` name a point of the run; in other kinds they belong to the record."""

WORK = ("train_s", "forward_s", "env_s")
"""Times that are not waiting, of learners and actors."""

SHOW_S = 0.5
"""The dashboard is redrawn at most so often, however often ``tick`` is called."""

RECENT_EPISODES = 100
"""Episodes behind ``return_mean``."""

FROM_LEARNER = (
    "policy_lag", "queue", "loss", "policy_loss", "baseline_loss", "entropy", "gradient_norm", "learning_rate",
)  # fmt: skip
"""Columns of progress.csv that are the period's average of the learner's value of that name, of several their mean."""

MANY_MISSED, LEAST_DUE = 0.1, 100
"""Share of frames that a realtime run says were missed, once so many were due."""


class MetricLogger:
    """Takes the records of all roles, in one thread of the main process, and writes and shows them."""

    def __init__(
        self,
        run_dir: Path,
        config: LogConfig,
        *,
        total_frames: int,
        clock: Callable[[], float] = time.monotonic,
        resume_offset: Mapping[str, Any] | None = None,
        display: Display | None = None,
        say: Callable[[str], None] = print,
        listen: Callable[[Mapping[str, Any], int], None] | None = None,
        games: Sequence[str] = (),
    ) -> None:
        """Open the files in ``run_dir``; with ``resume_offset`` (an earlier ``offsets()``) cut them back to it.

        ``say`` hears what is wrong with them; nothing that goes wrong with them raises. ``listen`` hears every line of
        metrics.jsonl, with the updates done by then. ``games``: ids, where the run is of a list.
        """
        saved = dict(resume_offset or {})
        self._config, self._clock = config, clock
        self._start: float = clock() - saved.get("seconds", 0.0)
        known = asdict(Status())  # another version's checkpoint may hold other numbers
        self.status = Status(**{name: value for name, value in saved.get("status", {}).items() if name in known})
        keys = [game_key(game) for game in games]
        noted = saved.get("games", {})
        self.status.games = {name: noted.get(name) for key in keys for name in (f"return_{key}", f"eval_{key}")}
        game_returns = saved.get("game_returns", {})
        self._game_returns = {key: deque[float](game_returns.get(key, ()), maxlen=RECENT_EPISODES) for key in keys}
        self._returns: deque[float] = deque(saved.get("returns", ()), maxlen=RECENT_EPISODES)
        self._lengths: deque[float] = deque(saved.get("lengths", ()), maxlen=RECENT_EPISODES)
        before_s = saved.get("seconds", 0.0)
        names = ("acted_frames", "trained_frames")
        self._acted, self._trained = (Meter(saved.get(name), before_s) for name in names)
        self._averages: dict[tuple[str, str], PeriodAverage] = {
            (role, kind): PeriodAverage(state) for role, kind, state in saved.get("averages", ())
        }
        self._period_updates = saved.get("period_updates", 0)
        self._row_s = before_s
        self._shown_at = -math.inf
        self._say, self._told_of_missed = say, False
        self._lines = AppendFile(run_dir / "metrics.jsonl", offset=saved.get("metrics_bytes", 0), say=say)
        begun = saved.get("progress_bytes", 0)
        self._columns = _columns_of(run_dir / "progress.csv", begun, self.status)
        self._rows = AppendFile(run_dir / "progress.csv", offset=begun, header=",".join(self._columns), say=say)
        self._events: EventWriter | None = None
        if config.tensorboard:
            self._events = _open_events(run_dir, self.status.frames if saved else None, say)
        self._display = display or make_display(run_dir, total_frames, live=config.dashboard)
        self._closed = False
        self._listen = listen

    def seconds(self) -> float:
        """Wall seconds of the run, those before a resume included."""
        return self._clock() - self._start

    def record(self, role: str, kind: str, values: Mapping[str, Value]) -> None:
        """Take one record, e.g. ``record("actor-3", "episode", {"return": 21.0, "length": 1710})``."""
        self._count(role, kind, values)
        if kind in PERIODIC:
            self._averages.setdefault((role, kind), PeriodAverage()).add(values)
        else:
            self._write(role, kind, values)
        if kind in (*SCORES, "restart"):
            self._display.event(role, kind, values)
        every = self._config.every_updates
        if kind == "learner" and every and self.status.updates - self._period_updates >= every:
            self._end_period()

    def progress(self, updates: int, agent_steps: int, frames: int) -> None:
        """Say where the learner is between two of its records; records taken from now on carry these counters."""
        status = self.status
        status.updates = max(status.updates, updates)
        status.agent_steps = max(status.agent_steps, agent_steps)
        status.frames = max(status.frames, frames)

    def tick(self) -> None:
        """Call at least about once a second: ends the period when it is over and refreshes the display."""
        self._refresh()
        if not self._config.every_updates and self.seconds() >= self._row_s + self._config.every_s:
            self._end_period()
        elif self._clock() >= self._shown_at + SHOW_S:
            self._shown_at = self._clock()
            self._display.show(self.status)

    def flush(self) -> None:
        """Write what is buffered to the files."""
        self._lines.flush()
        self._rows.flush()
        if self._events is not None:
            self._events.flush()

    def close(self) -> None:
        """End the last period, write everything and put the terminal back; harmless when called twice."""
        if self._closed:
            return
        self._closed = True
        if any(average.records for average in self._averages.values()) or self.seconds() > self._row_s:
            self._end_period()
        self._display.close()
        self._lines.close()
        self._rows.close()
        if self._events is not None:
            self._events.close()

    def offsets(self) -> dict[str, Any]:
        """What a checkpoint must remember, as JSON can hold it: lengths of the files and the numbers still open."""
        return {
            "metrics_bytes": self._lines.offset(),
            "progress_bytes": self._rows.offset(),
            "seconds": self.seconds(),
            "status": {name: value for name, value in asdict(self.status).items() if name != "games"},
            "games": dict(self.status.games),
            "returns": list(self._returns),
            "lengths": list(self._lengths),
            "game_returns": {key: list(returns) for key, returns in self._game_returns.items()},
            "acted_frames": self._acted.counts(),
            "trained_frames": self._trained.counts(),
            "averages": [[role, kind, average.state()] for (role, kind), average in self._averages.items()],
            "period_updates": self._period_updates,
        }

    def _count(self, role: str, kind: str, values: Mapping[str, Any]) -> None:
        """Bring the counters and scores of the status up to date with one record."""
        status = self.status
        if kind == "learner":
            status.updates = max(status.updates, int(values.get("updates", 0)))
            status.samples = max(status.samples, int(values.get("samples", 0)))
            told = self._trained.counts().get(kind, 0)  # several learners count together, and one may tell late
            self._trained.update(kind, max(told, values.get("sample_frames", 0)), self.seconds())
            status.frames = max(status.frames, int(values.get("frames", 0)))
            status.agent_steps = max(status.agent_steps, int(values.get("agent_steps", 0)))
            if int(values.get("skipped", 0)) > status.skipped:
                status.skipped = int(values["skipped"])
                reason = "loss, gradient or result not finite"
                if values.get("bad_rewards"):
                    reason = "the environment's rewards are not finite"
                said = {"updates": status.skipped, "reason": reason}
                self._display.event(role, "skipped", said)
        elif kind == "actor" and "env_frames" in values:
            self._acted.update(role, values["env_frames"], self.seconds())
        elif kind == "episode":
            status.episodes += 1
            self._returns.append(values["return"])
            self._lengths.append(values.get("length", 0))
            status.return_mean = sum(self._returns) / len(self._returns)
            status.return_max = max(self._returns)
            status.length_mean = sum(self._lengths) / len(self._lengths)
            self._count_game(values)
        elif kind == "evaluation":
            status.eval_mean, status.eval_std = values["mean"], values.get("std")
            scores = {f"eval_{key}": values.get(f"return_{key}") for key in self._game_returns}
            status.games |= {name: score for name, score in scores.items() if score is not None}
        elif kind == "validation":
            status.valid_mean = values["mean"]
            status.valid_best = max(values["mean"], status.valid_best if status.valid_best is not None else -math.inf)
        elif kind == "restart":
            status.restarts += 1
        elif kind == "realtime":
            self._tell_of_missed(values)

    def _count_game(self, values: Mapping[str, Any]) -> None:
        """Bring the mean return of the game that an episode was of up to date."""
        key = game_key(str(values.get("game", "")))
        if (returns := self._game_returns.get(key)) is not None:
            returns.append(values["return"])
            self.status.games[f"return_{key}"] = sum(returns) / len(returns)

    def _tell_of_missed(self, values: Mapping[str, Any]) -> None:
        """Say once if a realtime environment misses many of its frames."""
        missed, due = int(values["missed"]), int(values["missed"] + values["steps"])
        if self._told_of_missed or due < LEAST_DUE or missed < MANY_MISSED * due:
            return
        self._told_of_missed = True
        self._say(
            f"{missed:,} of {due:,} frames were missed so far: the environment, or what else runs here, is too slow "
            "for realtime.fps; 'offbeat realtime probe' measures it"
        )

    def _refresh(self, least_s: float = 0.5) -> None:
        """Bring time and rates up to date; rates stay as they are until ``least_s`` of the period were measured."""
        status = self.status
        status.seconds = round(self.seconds(), 3)
        for name, meter in (("actor_frames_per_s", self._acted), ("learner_frames_per_s", self._trained)):
            rate = meter.per_s(least_s)
            if rate is not None:
                setattr(status, name, rate)

    def _end_period(self) -> None:
        """Write one line per role, one row, and start the next period."""
        self._refresh(least_s=0)
        waited: dict[str, float] = {}
        worked: dict[str, float] = {}
        learnt: list[dict[str, Any]] = []
        for (role, kind), average in self._averages.items():
            if not average.records:
                continue
            values: dict[str, Any] = average.take()
            self._write(role, kind, values)
            if "wait_s" in values:
                waited[kind] = waited.get(kind, 0.0) + values["wait_s"]
            worked[kind] = worked.get(kind, 0.0) + sum(values.get(name, 0.0) for name in WORK)
            if kind == "learner":
                learnt.append(values)
        for name in FROM_LEARNER:
            if known := [values[name] for values in learnt if name in values]:
                finite = [value for value in known if value is not None]
                setattr(self.status, name, sum(finite) / len(finite) if finite else None)
        self.status.learner_wait = _share(waited.get("learner"), worked.get("learner"))
        self.status.actor_wait = _share(waited.get("actor"), worked.get("actor"))
        row = self.status.row()
        shown = (row.get(name) for name in self._columns)
        self._rows.write(",".join("" if value is None else str(plain(value)) for value in shown))
        if self._events is not None:
            self._events.scalars(row, self.status.frames, "progress")
        self.flush()
        self._display.show(self.status, period_over=True)
        self._acted.restart()
        self._trained.restart()
        self._period_updates, self._row_s = self.status.updates, self.status.seconds

    def _write(self, role: str, kind: str, values: Mapping[str, Value]) -> None:
        """One line of metrics.jsonl, and its numbers as TensorBoard scalars."""
        line: dict[str, Value] = {
            "time": round(self.seconds(), 3),
            "role": role,
            "kind": kind,
            "frames": self.status.frames,
            "agent_steps": self.status.agent_steps,
        }
        for name, value in values.items():
            clash = name in line and kind not in OWN_FRAMES
            line[f"{kind}_{name}" if clash else name] = plain(value)
        self._lines.write(json.dumps(line, allow_nan=False))
        if self._listen is not None:
            self._listen(line, self.status.updates)
        if self._events is not None:
            numbers = {name: value for name, value in line.items() if name in values}
            self._events.scalars(numbers, int(line["frames"]), curves_of(role, kind, values))  # type: ignore[arg-type]


def _columns_of(path: Path, begun: int, status: Status) -> list[str]:
    """The columns of progress.csv: all there are, or those that a file with ``begun`` bytes has had from its start."""
    if begun and path.is_file():  # opening a named pipe would wait for its other end
        header = ""
        with suppress(OSError, UnicodeDecodeError), open(path, encoding="utf-8") as file:
            header = file.readline()
        names = header.rstrip("\n").split(",")
        if header.endswith("\n") and names[0] in status.row():  # a power cut may have left a part of it
            return names
    return list(status.row())


def _open_events(run_dir: Path, purge_from: int | None, say: Callable[[str], None]) -> EventWriter | None:
    """TensorBoard's event file; None where TensorBoard is missing or cannot be imported: no reason to end a run."""
    try:
        return EventWriter(run_dir, purge_from=purge_from, say=say)
    except Exception as error:  # imports of others raise what they like
        say(f"no TensorBoard events: {type(error).__name__}: {error}; log.tensorboard=false asks for none")
        return None


def _share(waited: float | None, worked: float | None) -> float | None:
    """Share of the time spent waiting, in [0, 1]; None where neither was reported."""
    if waited is None or worked is None or waited + worked <= 0:
        return None
    return waited / (waited + worked)
