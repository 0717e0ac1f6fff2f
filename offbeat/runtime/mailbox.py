"""What a realtime environment and its inference processes exchange, in shared memory, without locks or waiting.

The mailbox holds the newest observation, in the manner of a seqlock: the environment writes into the oldest of a few
places and then says which is newest; who reads copies it and looks whether it is still there. Each inference process
has an action slot of its own, so every place has one writer, and a writer that is killed leaves nothing that others
wait for. On processors that reorder stores, and only there, all of it is done under a lock; see ``shm``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from offbeat.types import ArrayDict, ArraySpec, under

PLACES = 4
"""Places of the mailbox: a reader that takes as long as three frames is disturbed, and copies again."""
FRAME, EPISODE, STEP = 0, 1, 2
SEEN, READ, STARTED, ENDED, DUE, PUBLISHED = range(6)


@dataclass
class Seen:
    """An observation as it was read."""

    frame: int
    """Frames that the environment has played, in all episodes."""
    episode: int
    step: int
    """Frames since the episode's start."""
    time_s: float
    """When it was put there."""
    observation: ArrayDict
    """key -> [1, ...]."""


@dataclass
class Decision:
    """An action, what it was made from, and when."""

    slot: int
    """Number of the inference, of all that its process has made."""
    source: int
    """Frame of the observation, in all episodes."""
    episode: int
    step: int
    """The same, since the episode's start."""
    version: int
    """Of the weights."""
    times: np.ndarray
    """Observation put there, read, inference started, ended, action due, published: [6] float64 seconds."""
    action: np.ndarray
    """[1, ...]."""
    extras: ArrayDict = field(default_factory=dict)
    """name -> [1, ...]."""
    worker: int = 0


def mailbox_arrays(observation: Mapping[str, ArraySpec]) -> dict[str, ArraySpec]:
    """The mailbox of an environment whose networks see ``observation``: name -> spec."""
    arrays = {"newest": ArraySpec((1,), "int64")}
    arrays |= {"number": ArraySpec((PLACES,), "int64"), "ids": ArraySpec((PLACES, 3), "int64")}
    arrays["time"] = ArraySpec((PLACES,), "float64")
    arrays |= {f"observation/{key}": ArraySpec((PLACES, *spec.shape), spec.dtype) for key, spec in observation.items()}
    return arrays


class Mailbox:
    """The newest observation. ``arrays``: as ``mailbox_arrays`` describes them, shared or private."""

    def __init__(self, arrays: ArrayDict, guard: AbstractContextManager[Any] | None = None) -> None:
        self._newest, self._number, self._ids, self._time = (
            arrays[name] for name in ("newest", "number", "ids", "time")
        )
        self._observation = under(arrays, "observation/")
        self._guard = guard if guard is not None else nullcontext()
        self._arrays = arrays
        self.retries = 0
        """How often this reader had to copy again."""

    @property
    def number(self) -> int:
        """How many observations there were; 0: none yet."""
        return int(self._newest[0])

    def put(self, frame: int, episode: int, step: int, now: Callable[[], float], observation: ArrayDict) -> None:
        """A new observation, key -> [1, ...], which is there from ``now`` on."""
        number = int(self._newest[0]) + 1
        place = number % PLACES
        with self._guard:
            self._number[place] = 0  # who copies the old one sees that it goes
        self._ids[place] = frame, episode, step
        for key, value in observation.items():
            self._observation[key][place] = value[0]
        self._time[place] = now()
        with self._guard:
            self._number[place] = number
            self._newest[0] = number

    def read(self, into: ArrayDict | None = None) -> Seen:
        """A copy of the newest observation, in the arrays ``into`` (key -> [1, ...]) where they are given.

        There must be one.
        """
        while True:
            with self._guard:
                number = int(self._newest[0])
                place = number % PLACES
                whole = number > 0 and self._number[place] == number
            if whole:
                frame, episode, step = self._ids[place].tolist()
                time_s = float(self._time[place])
                observation = into or {
                    key: np.empty((1, *a.shape[1:]), a.dtype) for key, a in self._observation.items()
                }
                for key, values in self._observation.items():
                    observation[key][0] = values[place]
                with self._guard:
                    whole = bool(self._number[place] == number)
                if whole:
                    return Seen(frame, episode, step, time_s, observation)
            if not number:
                raise RuntimeError("the mailbox is empty: the environment has not begun")
            self.retries += 1

    def state(self) -> ArrayDict:
        """All of it."""
        return {name: array.copy() for name, array in self._arrays.items()}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Back to a saved state."""
        for name, array in self._arrays.items():
            array[...] = state[name]


def slot_arrays(workers: int, action: ArraySpec, extras: Mapping[str, ArraySpec]) -> dict[str, ArraySpec]:
    """The action slots of so many inference processes: name -> spec."""
    arrays = {"stamp": ArraySpec((workers,), "int64"), "ids": ArraySpec((workers, 4), "int64")}
    arrays |= {"episode": ArraySpec((workers,), "int64"), "times": ArraySpec((workers, 6), "float64")}
    arrays["action"] = ArraySpec((workers, *action.shape), action.dtype)
    arrays |= {f"extras/{name}": ArraySpec((workers, *spec.shape), spec.dtype) for name, spec in extras.items()}
    return arrays


class ActionSlots:
    """The newest action of each inference process. ``arrays``: as ``slot_arrays`` describes them.

    The environment takes the newest of all, by the frame that it was made from; the others are lost and counted. An
    action is a row of its own, so one that means to do nothing is an action like any other.
    """

    def __init__(self, arrays: ArrayDict, guard: AbstractContextManager[Any] | None = None) -> None:
        self._arrays, self._stamp, self._ids, self._times = arrays, arrays["stamp"], arrays["ids"], arrays["times"]
        self._episode, self._action = arrays["episode"], arrays["action"]
        self._extras = under(arrays, "extras/")
        self._guard = guard if guard is not None else nullcontext()
        self._taken = np.zeros(len(self._stamp), np.int64)
        self._newest_source = -1
        self.fresh: list[Decision] = []
        """All actions that the last ``take`` found, by when they were published."""
        self.lost = 0
        """Actions that never act because a newer one was there, those that were written over unseen included."""
        self.old_episode = 0
        """Actions that were made from an observation of an earlier episode."""

    def put(self, worker: int, decision: Decision, now: Callable[[], float]) -> float:
        """Publish an action: the environment may take it in frames that begin after ``now``, which is returned."""
        stamp = int(self._stamp[worker]) | 1  # odd while it is written, also after one that was killed there
        with self._guard:
            self._stamp[worker] = stamp
        self._ids[worker] = decision.slot, decision.source, decision.step, decision.version
        self._episode[worker], self._times[worker] = decision.episode, decision.times
        self._action[worker] = decision.action[0]
        for name, values in decision.extras.items():
            self._extras[name][worker] = values[0]
        published = self._times[worker, PUBLISHED] = decision.times[PUBLISHED] = now()
        with self._guard:
            self._stamp[worker] = stamp + 1
        return published

    def take(self, episode: int, now_s: float) -> Decision | None:
        """The newest action that was published before ``now_s``, was not taken yet and belongs to ``episode``; None if
        there is none.
        """
        with self._guard:
            stamps = self._stamp.copy()
        fresh = np.flatnonzero((stamps != self._taken) & (stamps & 1 == 0))
        self.fresh = []
        if not len(fresh):
            return None
        found: Decision | None = None
        for worker in fresh.tolist():
            decision = self._read(worker)
            with self._guard:
                whole = bool(self._stamp[worker] == stamps[worker])
            if not whole or decision.times[PUBLISHED] > now_s:
                continue  # a newer one is being written, or it came after the frame began: the next frame's
            self.lost += (int(stamps[worker]) - int(self._taken[worker])) // 2 - 1  # stamps go up by two per action
            self._taken[worker] = stamps[worker]
            self.fresh.append(decision)
            if decision.episode != episode:
                self.old_episode += 1
            elif decision.source < self._newest_source or (found is not None and decision.source <= found.source):
                self.lost += 1
            else:
                self.lost += found is not None
                found = decision
        self.fresh.sort(key=lambda decision: float(decision.times[PUBLISHED]))
        if found is not None:
            self._newest_source = found.source
        return found

    def _read(self, worker: int) -> Decision:
        slot, source, step, version = self._ids[worker].tolist()
        return Decision(
            slot=slot,
            source=source,
            episode=int(self._episode[worker]),
            step=step,
            version=version,
            times=self._times[worker].copy(),
            action=self._action[worker : worker + 1].copy(),
            extras={name: values[worker : worker + 1].copy() for name, values in self._extras.items()},
            worker=worker,
        )

    def state(self) -> ArrayDict:
        """All of it, with what the environment has taken."""
        saved = {f"slots/{name}": array.copy() for name, array in self._arrays.items()}
        counts = np.array([self._newest_source, self.lost, self.old_episode])
        return saved | {"taken": self._taken.copy(), "counts": counts}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Back to a saved state."""
        for name, array in self._arrays.items():
            array[...] = state[f"slots/{name}"]
        self._taken[:] = state["taken"]
        self._newest_source, self.lost, self.old_episode = (int(value) for value in state["counts"])
