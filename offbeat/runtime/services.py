"""Services: all that an engine gives to a role. Every ``build_<role>(services)`` makes the role's parts from these.

They are the ends of the ports that lead to the other roles, this role's identity, seeds and part of a checkpoint, and
its own section of the configuration; never the whole. What stands behind them, shared memory or bytes on a wire, no
role knows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch

from offbeat.agents.base import Agent
from offbeat.envs.base import EnvConfig, VectorEnv
from offbeat.envs.registry import ALONE
from offbeat.envs.several import Place
from offbeat.replay.layout import StreamLayout
from offbeat.runtime.clock import Clock
from offbeat.runtime.ports import (
    Batches,
    Master,
    MetricSink,
    Mirror,
    Notices,
    ParamPublisher,
    ParamReader,
    Policy,
    Reduction,
    Requests,
    StopSignal,
    StreamWriter,
    Waiter,
)
from offbeat.runtime.realtime import Realtime
from offbeat.types import EnvSpec

Arrays = Mapping[str, "np.ndarray | torch.Tensor"]
"""A part of a checkpoint: name -> array or tensor."""
Write = Callable[[str, Arrays], object]
"""Takes a part of a checkpoint, by name."""


class Loaded(NamedTuple):
    """What a role goes on from."""

    part: dict[str, Any]
    """Its own part of the checkpoint: name -> tensor or array."""
    counters: dict[str, int]
    """The learner's counters."""
    with_streams: bool
    """Whether the streams were saved too, so that there are the rows that came before."""


class SignOfLife(Protocol):
    """How others see that a role is alive."""

    def beat(self) -> None:
        """It is alive now."""

    def beating(self) -> AbstractContextManager[None]:
        """It is alive as long as this lasts: something long is done in one go."""


class Services(Protocol):
    """What an engine gives to one instance of a role."""

    name: str
    """The instance, e.g. ``actor-0``."""
    index: int
    """Which instance of its row in the role table."""
    incarnation: int
    """How often it was started before, in all."""
    free: bool
    """It runs at its own pace; else in the rounds of a fixed schedule, where nobody waits and runs are repeatable."""
    run: str
    """What the run's folder is called."""
    config: Any
    """Its section of the configuration, as the role table names it."""
    total_frames: int
    """Environment frames of the whole run."""
    pretrain_steps: int
    """Updates on a demonstration alone, before anybody acts."""
    precision: str
    """Of networks that act in training: ``fp32`` or ``bf16``."""
    spec: EnvSpec
    """What environments give and take."""
    env: EnvConfig
    """The options of the environments of training."""
    layout: StreamLayout
    """What streams hold; ``layout.items`` is what the agent trains on."""
    device: torch.device
    """Where it computes."""
    metrics: MetricSink
    """Takes its records."""
    clock: Clock
    """Gives it the time."""

    @property
    def notices(self) -> Notices:
        """Counters that all roles see."""

    @property
    def heart(self) -> SignOfLife:
        """Its signs of life."""

    @property
    def wait(self) -> Waiter | None:
        """How it sleeps; None in rounds."""

    def seeds(self, *path: int) -> list[int]:
        """Two independent seeds of 63 bits, of this kind of role and ``path``: for environments and network."""

    def agent(self, device: torch.device | str) -> Agent:
        """An agent of its own; every role's copy starts from the same weights, those of the run's seed."""

    def envs(
        self,
        count: int,
        *,
        batch: int = 0,
        threads: int = 1,
        like: EnvConfig | None = None,
        bare: bool = False,
        place: Place = ALONE,
    ) -> VectorEnv:
        """Environments of its own: those of training, or ``like`` these options say. ``batch``: see ``ActorConfig``;
        ``bare``: without the simulated delay; ``place``: where they stand among all of the run.
        """

    def realtime(self) -> Realtime:
        """What the realtime roles share."""

    def stopped(self) -> bool:
        """Whether the run is over."""

    def stop(self, early: bool = False) -> StopSignal:
        """Whether it should end; with ``early`` also once the run is about to, so that scores are wanted no more."""

    def streams(self) -> np.ndarray:
        """The streams that it writes, one per environment: [K] int64."""

    def writer(self) -> StreamWriter:
        """The writing end of those."""

    def batches(self, *, last: bool, device: torch.device, before: tuple[int, int]) -> Batches:
        """The reading end of all streams, brought back to where the checkpoint had it.

        Args:
            last: items are read with last actions and rewards.
            device: where batches go.
            before: agent steps and environment frames of the run so far, where the checkpoint holds no streams.
        """

    def publisher(self) -> ParamPublisher:
        """The learner's end of the weights."""

    def master(self) -> Master | None:
        """What this learner shares with others; None: it is alone. The first one finds it empty, others wait for it."""

    def reduction(self) -> Reduction | None:
        """Where this learner adds up gradients with those that step together with it; None: it steps by itself."""

    def mirror(self) -> Mirror | None:
        """Where this learner keeps what one that takes its place would go on from; None: none would."""

    def weights(self) -> ParamReader:
        """The others' end of the weights. Waits for the first ones if it runs freely."""

    def policy(self, last: bool) -> Policy | None:
        """A server that chooses actions for this actor's environments; None: it runs the network itself.

        ``last``: requests carry last actions and rewards.
        """

    def requests(self, last: bool) -> Requests:
        """The server's end of those policies, of the actors that are dealt to it."""

    def loaded(self) -> Loaded | None:
        """What the run's checkpoint holds for it, or, if it takes the place of a learner that died, what that one had
        kept in its mirror; None: nothing, or it starts anew.
        """

    def initial_part(self) -> dict[str, torch.Tensor] | None:
        """What a new run's learner starts from, named as in its part of a checkpoint: weights, another run's or a
        stem's, and perhaps the statistics of another run's optimiser; what is not among them is that of its seed.
        None: all is.
        """

    def write_part(self, folder: str, part: str, arrays: Arrays) -> None:
        """Write a part of the checkpoint that is being made in ``folder``. CheckpointError if that cannot be done."""

    def keep_trace(self, name: str, content: bytes) -> None:
        """Write an action trace, a file of that name, among the run's. UserError if that cannot be done."""

    def record(self, host: Any) -> AbstractContextManager[object]:
        """Record what the ``host``'s ports do from now on, for as long as this lasts, if the run wants a time line."""


Offer = Callable[[MetricSink], Services]
"""What travels to where the role is to be: called there, it gives the services. ``metrics``: takes its records."""
