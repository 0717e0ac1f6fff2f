"""Where a learner's batches come from: a mixture of samplers over the streams, assembled ahead of need in threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import fields, replace
from typing import Any, Literal

import numpy as np
import torch

from offbeat.replay.mixture import Mixture
from offbeat.replay.readers import prepare
from offbeat.replay.streams import StreamStore
from offbeat.runtime.assembly import Assembly, Drawn
from offbeat.runtime.clock import WALL, Clock
from offbeat.runtime.prefetching import make_prefetching
from offbeat.runtime.shm import Bell, Wait
from offbeat.types import ArrayDict, Batch, TensorDict, Unroll


class StreamBatches:
    """Batches of a mixture, moved to the learner's device.

    Args:
        mixture: draws and assembles.
        store: the streams.
        device: where batches go.
        wait: how to wait for rows; None: never (``next`` then answers at once).
        writers: rung when a batch has made room.
        prefetch: batches assembled ahead, see ``LearnerConfig``; 0: assembled in ``next``.
        assemblers: threads that do so.
        max_age: updates between drawing a batch and training on it; 0: any number.
        updates: of the run, now.
        oldest: gives the lowest version of weights that fifo unrolls may have been acted with.
        before: agent steps and environment frames of the run so far (a resumed run).
        offset: what is added to the streams' own counts to have those of the run, in place of ``before``; None: found.
        frame_skip: frames per environment step.
        hold: lets no writer begin a block while the streams are saved; gives a line to say, or "".
        saved: whether checkpoints hold the streams.
        clock: for the times that are measured.

    Attributes:
        ahead: what assembles ahead of need; None: nothing does.
    """

    def __init__(
        self,
        mixture: Mixture,
        store: StreamStore,
        device: torch.device,
        *,
        wait: Wait | None = None,
        writers: list[Bell] | None = None,
        prefetch: int | Literal["auto"] = 0,
        assemblers: int | Literal["auto"] = 1,
        max_age: int = 0,
        updates: Callable[[], int] = lambda: 0,
        oldest: Callable[[], int] = lambda: 0,
        before: tuple[int, int] = (0, 0),
        offset: tuple[int, int] | None = None,
        frame_skip: int = 1,
        hold: Callable[[], AbstractContextManager[str]] = lambda: nullcontext(""),
        saved: bool = True,
        clock: Clock = WALL,
    ) -> None:
        self.mixture, self._store, self._device = mixture, store, device
        self.wait, self._writers = wait, writers or []
        self._oldest, self._hold, self._saved = oldest, hold, saved
        self._skip, self._counted = frame_skip, (0, 0)
        appended = self._counts()
        self._counted = offset or (before[0] - appended[0], before[1] - appended[1])
        self._lock = threading.Lock()
        self._updates, self._clock = updates, clock
        self._pretrained = updates() + mixture.pretrain  # updates at which no batch of pretraining is ahead any more
        control = make_prefetching(prefetch, assemblers, max_age)
        self.ahead: Assembly | None = None
        if control is not None:
            self.ahead = Assembly(self, control, updates=updates, max_age=max_age, clock=clock)

    @property
    def offset(self) -> tuple[int, int]:
        """What is added to the streams' own counts, of agent steps and of frames, without a fifo."""
        return self._counted

    def next(self, timeout_s: float) -> Batch | None:
        """The next batch; None if there was none within the time."""
        if self.ahead is not None:
            return self.ahead.next(timeout_s)
        drawn = self.draw(timeout_s)
        batch = None if drawn is None else self.copy(drawn)
        if drawn is None or batch is None:
            return None
        self.release(drawn)
        return self.move(batch)

    def prepare(self) -> None:
        """Load what reading needs."""
        prepare(self._store)

    def draw(self, timeout_s: float) -> Drawn | None:
        """Choose the items of the next batch; None if there were too few within the time."""
        found: list[Drawn] = []

        def choose() -> bool:
            begun_s, updates = self._clock.now(), self._updates()
            draw = self.mixture.draw if self.mixture.splittable else self.mixture.sample
            with self._lock:
                parts = draw(self._oldest())
            if parts is not None:
                found.append(Drawn(parts, begun_s, updates))
            return bool(found)

        ready = choose() if self.wait is None else self.wait.until("batch", choose, timeout_s)
        return found[0] if ready else None

    def copy(self, drawn: Drawn) -> Batch | None:
        """Copy them; None where they were overwritten meanwhile and there are no others."""
        if not self.mixture.splittable:
            done: Batch = drawn.parts
            return done
        return self.mixture.copy(drawn.parts, self._lock)

    def release(self, drawn: Drawn) -> None:
        """Writers may overwrite what was copied; in the order of draws."""
        if self.mixture.splittable:
            with self._lock:
                self.mixture.release(drawn.parts)
        for bell in self._writers:
            bell.ring()

    def move(self, batch: Batch) -> Batch:
        """The batch on the learner's device."""
        return moved(batch, self._device)

    def drop(self) -> bool:
        """A batch is too old; whether it may be forgotten: not where the fifo hands out each row once, nor in
        pretraining, where batches are counted."""
        if self.mixture.paced or self._updates() < self._pretrained:
            return False
        with self._lock:
            self.mixture.give_back()
        return True

    def done(self, batch: Batch) -> None:
        """The batch was trained on."""
        if self.mixture.paced and isinstance(batch, Unroll):
            with self._lock:
                self.mixture.done(batch)
            steps, frames = self._counted
            self._counted = steps + batch.fresh[0], frames + batch.fresh[1] * self._skip

    def skip(self, batch: Batch) -> None:
        """The batch was not trained on after all."""
        if self.mixture.paced:
            with self._lock:
                self.mixture.skip(batch)

    def feedback(self, batch: Batch, found: TensorDict) -> None:
        """What the loss found out about each column of ``batch``: name -> [B]; waits for the device."""
        values = {}
        for name, value in found.items():
            values[name] = (value.float() if value.dtype == torch.bfloat16 else value).cpu().numpy()
        stream, row = batch.stream.cpu().numpy(), batch.row.cpu().numpy()
        with self._lock:
            self.mixture.feedback(batch.source.cpu().numpy(), stream, row, values)

    def missing(self) -> str:
        """What the next batch waits for, in one line."""
        return self.mixture.missing()

    def tallies(self) -> ArrayDict:
        """The few numbers of the samplers that others would go on with."""
        with self._lock:
            return self.mixture.tallies()

    def state(self) -> tuple[ArrayDict | None, str]:
        """The streams and the books of the samplers over them, and a line to say; None where they are not saved."""
        if not self._saved:
            return None, ""
        with self.at_rest(), self._hold() as note:
            state = {f"streams/{name}": value for name, value in self._store.state().items()}
            state |= {f"mixture/{name}": value for name, value in self.mixture.state().items()}
            state["steps"] = np.array([self.steps()])  # counters have those of the last update
            state["frames"] = np.array([self.frames()])
        return state, note

    @contextmanager
    def at_rest(self) -> Iterator[None]:
        """Nothing is drawn meanwhile, so that samplers and cursors can be saved."""
        with self._lock:
            yield

    def steps(self) -> int:
        """Transitions that the first fifo handed out and that were trained on; appended ones where there is no fifo."""
        return self._counts()[0]

    def frames(self) -> int:
        """Environment frames that those took: the run's own count, which every other one is read from."""
        return self._counts()[1]

    def _counts(self) -> tuple[int, int]:
        if self.mixture.paced:
            return self._counted
        transitions, env_steps = self._store.counted()  # those that were appended to the streams
        return self._counted[0] + int(transitions.sum()), self._counted[1] + int(env_steps.sum()) * self._skip

    def stats(self) -> dict[str, float]:
        """Numbers of the samplers."""
        with self._lock:
            numbers = self.mixture.stats()
        return numbers | ({"queue": 0.0} if self.ahead is None else self.ahead.stats())

    def close(self) -> None:
        """End the threads."""
        if self.ahead is not None:
            self.ahead.close()


def moved(batch: Batch, device: torch.device) -> Batch:
    """``batch`` on ``device``; to a GPU by way of page-locked memory."""
    if device.type != "cuda":
        return batch
    there: Batch = _pinned(batch).to(device)
    return there


def _pinned(value: Any) -> Any:
    """The same dataclass, dict or tensor in page-locked memory, so that the copy to the device runs beside other
    work.
    """
    if isinstance(value, torch.Tensor):
        return value.pin_memory()
    if isinstance(value, dict):
        return {key: _pinned(item) for key, item in value.items()}
    if hasattr(value, "__dataclass_fields__"):
        return replace(value, **{f.name: _pinned(getattr(value, f.name)) for f in fields(value)})
    return value
