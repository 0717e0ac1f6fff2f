"""An engine whose roles share nothing: every role is a process that holds one pipe, and all that crosses it is bytes.

It is the local engine (supervisor, schedule, saves, evaluations, replacements) with other services: in place of shared
memory each role's process gets a ``Brief`` and a pipe, and every call of a port becomes a message of ``codec`` to its
*desk*, a thread of the main process that holds the role's real services, and one back. The streams, samplers, weights
and checkpoints lie with the desks. What passes here, an engine on remote actors can host.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from offbeat.runtime.batches import StreamBatches
from offbeat.runtime.brief import Brief, brief_of
from offbeat.runtime.codec import decode, encode
from offbeat.runtime.engines import local
from offbeat.runtime.local_services import LocalServices
from offbeat.runtime.ports import MetricSink, Point, Stopped, WeightTarget
from offbeat.runtime.services import Arrays, Loaded, Offer
from offbeat.runtime.shm import Wait, beating
from offbeat.runtime.world import World
from offbeat.storage.checkpoint import CheckpointError
from offbeat.types import Batch, Inputs, TensorDict, Transition

ERRORS = {kind.__name__: kind for kind in (Stopped, CheckpointError, RuntimeError, ValueError)}
"""What a desk may raise at the role's end; anything else is a RuntimeError with its traceback."""
BEAT_S = 0.2
"""A role that does something long says so often that it is alive. Unit: seconds."""


class Desk(threading.Thread):
    """The main process's end for one start of one role: carries out what the role asks for, one call after the other.

    It goes on until the role's process is gone, or is to be replaced.
    """

    def __init__(self, services: LocalServices) -> None:
        super().__init__(name=f"desk of {services.name}", daemon=True)
        self.services = services
        self.here, self.there = multiprocessing.Pipe()
        self.carried = 0
        """Bytes that came and went."""
        self.replaced = False
        self._ports: dict[str, Any] = {"services": services, "heart": services.heart, "notices": services.notices}

    def run(self) -> None:
        """Answer until nobody asks any more."""
        try:
            while True:
                message = self.here.recv_bytes()
                self.there.close()  # the role has its own; without ours its end shows here
                self.services.heart.beat()
                answer = self._carry_out(*decode(message))
                self.carried += len(message) + len(answer)
                self.here.send_bytes(answer)
        except (EOFError, OSError):
            self.here.close()

    def _carry_out(self, path: str, arguments: list[Any], options: dict[str, Any]) -> bytes:
        """("", what the call gave), or the name of what it raised and its text; as bytes."""
        name, _, method = path.partition(".")
        try:
            found = getattr(self._ports[name], method)
            given = found(*arguments, **options) if callable(found) else found
            if name == "services" and method in PORTS:  # it stays here: the role gets an end of its own
                self._ports[method] = given
                given = given is not None
            return encode(("", list(given) if isinstance(given, Iterator) else given))
        except BaseException as error:
            kind = type(error).__name__
            return encode((kind, str(error)) if kind in ERRORS else ("RuntimeError", traceback.format_exc()))

    def end(self) -> None:
        """The role is dead. A call that still waits is broken off; then nothing of it touches the streams any more."""
        self.replaced = True
        if (batches := self._ports.get("batches")) is not None:
            batches.close()  # its threads draw no more
        self.there.close()  # it may have died before it said anything
        self.services._world.bells[self.services.name].ring()
        self.join(30)
        assert not self.is_alive()


PORTS = ("writer", "batches", "publisher", "weights", "policy", "requests", "stop", "mirror")
"""Services that give a port."""


class Wire:
    """A role's only way out: calls go as bytes, and so do answers. Threads of the role take turns."""

    def __init__(self, pipe: Any) -> None:
        self._pipe, self._turn = pipe, threading.Lock()

    def call(self, path: str, *arguments: Any, **options: Any) -> Any:
        """Have the desk call ``port.method``; gives what that gave, and raises what it raised."""
        with self._turn:
            try:
                self._pipe.send_bytes(encode((path, list(arguments), options)))
                kind, value = decode(self._pipe.recv_bytes())
            except (EOFError, OSError) as error:
                raise Stopped("the engine is gone") from error
        if kind:
            raise ERRORS[kind](value)
        return value


class Port:
    """One port of a role: whatever method is called, the desk's end does it."""

    def __init__(self, wire: Wire, name: str) -> None:
        self._wire, self._name = wire, name

    def __getattr__(self, method: str) -> Callable[..., Any]:
        return partial(self._wire.call, f"{self._name}.{method}")


class Reader(Port):
    """The weights: a copy is made at the desk, and crosses."""

    def pull(self, flat: WeightTarget) -> Point:
        """Copy the newest weights into ``flat``."""
        newest, point = self._wire.call(f"{self._name}.newest")
        flat.copy_(newest)
        assert isinstance(point, Point)
        return point

    def pin(self) -> tuple[torch.Tensor, Point]:
        """There is no memory to share: a copy, which is the reader's own."""
        newest: tuple[torch.Tensor, Point] = self._wire.call(f"{self._name}.newest")
        return newest

    def release(self) -> None:
        """Nobody waits for the copy."""


class Policy(Port):
    """A policy elsewhere; it says which weights acted last."""

    @property
    def version(self) -> int:
        """Of the weights that acted last."""
        return int(self._wire.call(f"{self._name}.version"))


class Batches(Port):
    """Batches arrive on the processor; they go back as the names of their columns, without observations."""

    def __init__(self, wire: Wire, device: torch.device) -> None:
        super().__init__(wire, "batches")
        self._device = device

    def next(self, timeout_s: float) -> Batch | None:
        """The next one, on the learner's device."""
        batch: Batch | None = self._wire.call("batches.next", timeout_s)
        return batch if batch is None or self._device.type == "cpu" else batch.to(self._device)

    def done(self, batch: Batch) -> None:
        """It was trained on."""
        self._wire.call("batches.done", names_of(batch))

    def skip(self, batch: Batch) -> None:
        """It was not."""
        self._wire.call("batches.skip", names_of(batch))

    def feedback(self, batch: Batch, found: TensorDict) -> None:
        """What the loss found out."""
        self._wire.call("batches.feedback", names_of(batch), found)


def names_of(batch: Batch) -> Batch:
    """The batch without what it was read for: only its columns' names have to go back."""
    nothing: dict[str, Any] = {"inputs": Inputs({}, torch.zeros(0, 0, dtype=torch.bool)), "extras": {}}
    other = {"next_inputs": nothing["inputs"]} if isinstance(batch, Transition) else {"core_state": {}}
    return replace(batch, **nothing, **other)


class Heart(Port):
    """Signs of life."""

    def beating(self) -> AbstractContextManager[None]:
        """They go by themselves while something long is done."""
        return beating(self.beat, BEAT_S)


class Waiter:
    """Sleeps a little at a time: conditions are looked at where the role is."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def until(self, name: str, ready: Callable[[], bool], timeout_s: float = float("inf")) -> bool:
        """Sleep until ``ready()``; False after ``timeout_s``."""
        while not ready():
            if timeout_s <= 0:
                return False
            self._wire.call("services.nap", min(timeout_s, BEAT_S))
            timeout_s -= BEAT_S
        return True


class SerialServices(Brief):
    """The services of one role, of which nothing is here but the wire."""

    def __init__(self, brief: Brief, pipe: Any, metrics: MetricSink) -> None:
        super().__init__(**vars(brief))
        self._wire, self.metrics = Wire(pipe), metrics
        self.notices, self.heart = Port(self._wire, "notices"), Heart(self._wire, "heart")
        self.wait = Waiter(self._wire) if self.free else None

    def _open(self, name: str, *arguments: Any, **options: Any) -> bool:
        """Have the desk make a port; whether there is one."""
        return bool(self._wire.call(f"services.{name}", *arguments, **options))

    def stopped(self) -> bool:
        """Whether the run is over."""
        return bool(self._wire.call("services.stopped"))

    def stop(self, early: bool = False) -> Any:
        """Whether it should end."""
        self._open("stop", early)
        return Port(self._wire, "stop")

    def streams(self) -> np.ndarray:
        """The streams that it writes."""
        streams: np.ndarray = self._wire.call("services.streams")
        return streams

    def writer(self) -> Any:
        """Their writing end."""
        self._open("writer")
        return Port(self._wire, "writer")

    def batches(self, *, last: bool, device: torch.device, before: tuple[int, int]) -> Any:
        """The reading end of all streams."""
        self._open("batches", last=last, device="cpu", before=before)
        return Batches(self._wire, device)

    def publisher(self) -> Any:
        """The learner's end of the weights."""
        self._open("publisher")
        return Port(self._wire, "publisher")

    def master(self) -> None:
        """A learner is alone."""

    def reduction(self) -> None:
        """A learner is alone."""

    def mirror(self) -> Any:
        """Where the learner is rebuilt from."""
        return Port(self._wire, "mirror") if self._open("mirror") else None

    def weights(self) -> Any:
        """The others' end."""
        self._open("weights")
        return Reader(self._wire, "weights")

    def policy(self, last: bool) -> Any:
        """The server that this actor is dealt to."""
        return Policy(self._wire, "policy") if self._open("policy", last) else None

    def requests(self, last: bool) -> Any:
        """The server's end."""
        self._open("requests", last)
        return Port(self._wire, "requests")

    def loaded(self) -> Loaded | None:
        """Its part of the checkpoint."""
        loaded: Loaded | None = self._wire.call("services.loaded")
        return loaded

    def initial_part(self) -> dict[str, torch.Tensor] | None:
        """That of another run."""
        part: dict[str, torch.Tensor] | None = self._wire.call("services.initial_part")
        return part

    def write_part(self, folder: str, part: str, arrays: Arrays) -> None:
        """Send it to where the checkpoint is made."""
        self._wire.call("services.write_part", folder, part, dict(arrays))

    def record(self, host: Any) -> Any:
        """No time line."""
        return nullcontext()


class AtDesk(LocalServices):
    """The real services of a role whose process is elsewhere."""

    desk: Desk

    def batches(self, *, last: bool, device: Any, before: tuple[int, int]) -> StreamBatches:
        """They leave the processor's memory only where the role is."""
        return super().batches(last=last, device=torch.device(device), before=before)

    def nap(self, seconds: float) -> None:
        """Sleep for so long, or until rung; ``Stopped`` once the run is over."""
        assert isinstance(self.wait, Wait)
        self.wait.until("nap", lambda: False, seconds)


class SerialEngine:
    """Makes what is sent to roles, and knows their desks."""

    def __init__(self) -> None:
        self.desks: list[Desk] = []

    def offer(self, world: World, role: str, *, free: bool, incarnation: int, checkpoint: Path | None) -> Offer:
        """A brief and one end of a pipe; a desk sits at the other. The desk of the one before is left first."""
        for desk in self.desks:
            if desk.services.name == role and desk.services._world is world and not desk.replaced:
                desk.end()
        services = AtDesk(world, role, None, free=free, incarnation=incarnation, checkpoint=checkpoint)  # type: ignore[arg-type]
        desk = Desk(services)
        if free:
            stopped = lambda: world.stopped() or desk.replaced  # noqa: E731
            services.wait = Wait(world.bells[role], stopped, world.heart(role))
        self.desks.append(desk)
        desk.start()
        return partial(connect, brief_of(world, role, free=free, incarnation=incarnation), desk.there, os.getpid())

    def run(self, world: World, conductor: Any, checkpoint: Path | None) -> bool:
        """Where ``train`` would run the local engine."""
        try:
            return local_run(world, conductor, checkpoint, self.offer)
        finally:
            for desk in self.desks:
                desk.there.close()
                desk.join(30)  # its role's process has ended


local_run = local.run


@contextmanager
def serialising() -> Iterator[SerialEngine]:
    """Runs of the local engine become runs of this one."""
    engine = SerialEngine()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "run", engine.run)
        yield engine


def connect(brief: Brief, pipe: Any, engine: int, metrics: MetricSink) -> SerialServices:
    """What a role's process does first."""
    assert os.getpid() != engine, "a role of this engine is another process"
    return SerialServices(brief, pipe, metrics)
