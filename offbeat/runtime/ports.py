"""The ports that roles hold. A role talks to the rest of the run through these and nothing else; engines provide them.

Ports move blocks, never single rows. Every method that may wait takes a timeout and raises ``Stopped`` when the run
ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch

from offbeat.replay.layout import StreamBlock as StreamBlock
from offbeat.types import ActOutput, ArrayDict, Batch, CoreState, Inputs, TensorDict


class Stopped(Exception):
    """Raised by a waiting port when the run is asked to stop."""


class Point(NamedTuple):
    """Where a run is. Published weights carry the point that they are from; see docs/glossary.md for the units."""

    updates: int
    """Updates made, which is the version of the weights."""
    agent_steps: int = 0
    """Agent steps."""
    frames: int = 0
    """Environment frames that those took."""


class StreamWriter(Protocol):
    """The writing end of the streams that one actor owns."""

    def append(self, block: StreamBlock) -> None:
        """Append; waits while a fifo still needs the rows that would be overwritten (back-pressure)."""

    def offer(self, block: StreamBlock) -> None:
        """Append without ever waiting; where that cannot be done now, it is done with a later block."""

    def produced(self, streams: np.ndarray) -> None:
        """Count one produced row for each of these streams, also if the block that holds it is never appended."""

    def attach(self, streams: np.ndarray) -> ArrayDict | None:
        """Take over streams. None if they are empty, else the open rows (name -> [n, ...]) that an earlier writer
        left.
        """


class BatchSource(Protocol):
    """Where a learner's batches come from."""

    def next(self, timeout_s: float) -> Batch | None:
        """The next assembled batch on the learner's device; None if there was none within the time."""

    def done(self, batch: Batch) -> None:
        """The batch was trained on (ledger)."""

    def skip(self, batch: Batch) -> None:
        """The batch was not trained on after all (ledger)."""

    def steps(self) -> int:
        """Agent steps of the run: transitions that were handed out by a fifo and trained on, each counted once; those
        that were appended to the streams where there is no fifo.
        """

    def frames(self) -> int:
        """Environment frames that those took."""

    def stats(self) -> dict[str, float]:
        """Numbers of the samplers: pending, dropped, ages."""


class FeedbackSink(Protocol):
    """The way back to the samplers."""

    def feedback(self, batch: Batch, found: TensorDict) -> None:
        """What the loss found out about each column of ``batch``, named by sampler, stream and row: name -> [B]."""


class Batches(BatchSource, FeedbackSink, Protocol):
    """The reading end of the streams: what a learner's engine offers it, the samplers' books included."""

    def missing(self) -> str:
        """What the next batch waits for, in one line."""

    def tallies(self) -> ArrayDict:
        """The few numbers of the samplers that others go on with if these are lost: see ``Mixture.tallies``."""

    def state(self) -> tuple[ArrayDict | None, str]:
        """What a checkpoint holds of the streams and their samplers, None where it holds none; and a line to say."""

    def close(self) -> None:
        """No batch is wanted any more."""


class ParamPublisher(Protocol):
    """The learner's end of the weights."""

    def publish(self, flat: torch.Tensor, version: int, agent_steps: int = 0, frames: int = 0) -> bool:
        """Copy the flat weight vector [P] float32 into a free slot; False (and counted) if none is free.

        ``version``: the learner's updates; with the other two the ``Point`` that the weights are from.
        """

    def version(self) -> int:
        """The newest published version; -1 before the first."""

    def newest(self) -> tuple[torch.Tensor, Point]:
        """A copy of what was published last: the weights [P] and where they are from."""


class Master(Protocol):
    """What learners share that do not wait for each other: weights, statistics and counters, whole at any moment."""

    def version(self) -> int:
        """How many changes there were; 0: it is empty."""

    def turn(self) -> AbstractContextManager[None]:
        """While this lasts no other learner changes it. Of one that died its turn is over, and nothing is changed."""

    def read(self, vectors: Sequence[torch.Tensor]) -> tuple[int, dict[str, int]]:
        """Copy its first vectors [P] into these; the version, and the numbers ``steps`` (of the optimiser) and counters
        that are of the same moment.
        """

    def commit(self, vectors: Sequence[torch.Tensor], numbers: Mapping[str, int], stale: int | None) -> int:
        """In a turn: make all of this the newest at once; the version. ``stale``: how many updates old the gradient of
        this step is; None: it is no step.
        """

    def staleness(self) -> list[int]:
        """How many steps were made with a gradient that was 0, 1, 2, ... updates old; the last: or more."""

    def set_staleness(self, counts: Sequence[int]) -> None:
        """Go on from these counts, before the first change."""


class Mirror(Protocol):
    """What a learner has learnt, a second time, where it outlives the learner's process."""

    def tell(self, counters: Mapping[str, int]) -> bool:
        """After each batch: the learner's counters are these now; whether its state is to be kept now."""

    def keep(self, part: Mapping[str, Any], tallies: Mapping[str, np.ndarray]) -> None:
        """Keep its state, of the counters that were told last: what it has to itself of its part of a checkpoint, and
        the tallies of its samplers. All of it is there at once, or what was kept before.
        """


GIVEN = ("loss", "count", "rows", "env_steps", "fresh_rows", "fresh_env_steps")
"""Numbers that learners which step together give beside their gradients: of the loss its sum, and what that is to be
divided by (NaN: by nothing, or there was nothing); of the rows what was trained on, and what a fifo handed out."""


class Together(NamedTuple):
    """What all learners have given in one round."""

    gradient: torch.Tensor
    """The sum [P], added up in the order of the learners: the same bits for each of them."""
    numbers: dict[str, list[float]]
    """All of ``GIVEN``, of each learner."""
    found: dict[str, torch.Tensor]
    """Feedback for samplers, name -> [B] float64, one learner's columns after the other's."""


class Reduction(Protocol):
    """Where learners that step together add up what each has collected from its share of a batch, round by round."""

    def give(self, gradient: torch.Tensor, numbers: Mapping[str, float], found: Mapping[str, torch.Tensor]) -> None:
        """This learner's gradient [P], all of ``GIVEN``, and its feedback, name -> [b]. Once in each round."""

    def together(self, names: Sequence[str], timeout_s: float) -> Together | None:
        """What all have given in this round, which is over for this learner then; None if one has not within the time.
        ``names``: of the feedback, the same for each.
        """

    def count(self, steps: int, frames: int) -> None:
        """By the first learner, after each round: the agent steps and frames of the run."""

    def counts(self) -> tuple[int, int]:
        """By the others: those, of the round that was over last, once they are there."""


class WeightTarget(Protocol):
    """Where weights are copied to: a flat vector [P] itself, or what takes them over in another form."""

    def copy_(self, flat: torch.Tensor, /) -> Any:
        """Take over the flat vector [P] float32, which may change afterwards."""


class ParamReader(Protocol):
    """A reader's end of the weights."""

    def version(self) -> int:
        """The newest published version: the learner's updates; -1 before the first weights."""

    def pull(self, flat: WeightTarget) -> Point:
        """Copy the newest weights into ``flat`` [P]; where they are from, which is never torn from them. There must be
        some.
        """

    def pin(self) -> tuple[torch.Tensor, Point]:
        """The newest weights [P] to be used where they lie, and where they are from. They stay as they are until the
        next ``pin`` or ``release``; nobody may write to them. There must be some.
        """

    def release(self) -> None:
        """Give back what is pinned, before anything that may wait: the learner can publish into one slot more."""


class Policy(Protocol):
    """Who chooses actions for an actor: its own network, or an inference server."""

    @property
    def version(self) -> int:
        """Of the weights that acted last."""

    def act(self, env_ids: np.ndarray, inputs: Inputs) -> ActOutput:
        """Actions for these environments (T = 1). The recurrent state lives behind this port, one per environment."""

    def core_state(self, env_ids: np.ndarray) -> CoreState:
        """The state *before* the next ``act``, of these environments: name -> [n, ...]."""

    def refresh(self) -> int:
        """Take newer weights if there are any; the version that acts from now on."""

    def release(self) -> None:
        """``act`` is not called again before the next ``refresh``: whatever was held of the weights can go."""


class Asked(NamedTuple):
    """Requests of some actors that share one forward."""

    workers: list[int]
    """Whose they are."""
    inputs: Inputs
    """What the network reads, [1, n, ...]: the environments of one worker after the other."""
    state: CoreState
    """The states before: name -> [n, ...]."""

    @property
    def rows(self) -> int:
        """n."""
        return self.inputs.shape[1]


class Requests(Protocol):
    """The inference server's end of the policies that ask it. Recurrent states lie behind this port."""

    def wait(self, rows: int, wait_s: float, idle_s: float) -> bool:
        """Sleep until somebody asks, at most ``idle_s`` (False then), and on until ``rows`` environments or all actors
        do, at most ``wait_s``.
        """

    def take(self, most: int) -> Iterable[Asked]:
        """All that wait, in groups of at most ``most`` rows; more only where one actor alone has more."""

    def answer(self, asked: Asked, output: ActOutput, version: int) -> None:
        """Send back what the network gave for ``asked``, acting with the weights of ``version``."""


class MetricSink(Protocol):
    """Where numbers go."""

    def write(self, kind: str, values: dict[str, float]) -> None:
        """One record, e.g. kind ``episode`` with return and length."""


class StopSignal(Protocol):
    """Whether the run is over. Looking at it is a sign of life."""

    def is_set(self) -> bool:
        """True once the run should end at the next boundary."""


class Notices(Protocol):
    """The notice board: counters of the learner that every role can look at, such as ``updates`` or ``frames``."""

    def posted(self, name: str) -> int:
        """What was posted last; 0 before."""

    def post(self, name: str, value: int) -> None:
        """Let everybody see it."""


class Waiter(Protocol):
    """How a role that runs freely sleeps. Waiting is a sign of life."""

    def until(self, name: str, ready: Callable[[], bool], timeout_s: float = float("inf")) -> bool:
        """Sleep until ``ready()``; False after ``timeout_s``. ``name``: of what is waited for."""
