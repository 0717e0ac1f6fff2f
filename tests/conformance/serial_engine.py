"""An engine whose roles share nothing: every block, batch, weight vector and record crosses as bytes.

``run_actor`` and ``run_learner`` are hosted unchanged, each in a thread of its own that could as well be on another
machine: the streams and the sampler live on a third *node*, and whatever passes between two of them is an ``.npz``
(read with ``allow_pickle=False``) or JSON. What passes here, an engine on remote actors can host.
"""

from __future__ import annotations

import io
import json
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from offbeat.agents.base import Agent
from offbeat.config import RunConfig
from offbeat.envs.base import VectorEnv
from offbeat.replay.columns import columns_of, from_columns
from offbeat.replay.layout import StreamBlock, StreamLayout
from offbeat.replay.make import make_mixture
from offbeat.replay.mixture import Mixture
from offbeat.replay.streams import StreamStore
from offbeat.runtime.actor import ActorWork, run_actor
from offbeat.runtime.learner import LearnerWork, run_learner
from offbeat.runtime.policy import LocalPolicy
from offbeat.runtime.ports import Point, Stopped, WeightTarget
from offbeat.runtime.world import plan_layout
from offbeat.types import ArrayDict, Unroll

PATIENCE_S = 60.0
"""Longest wait for another node before the run counts as stuck."""


def pack(arrays: ArrayDict) -> bytes:
    """Named arrays as the bytes of an .npz file."""
    file = io.BytesIO()
    np.savez(file, **{name.replace("/", "|"): value for name, value in arrays.items()})
    return file.getvalue()


def unpack(data: bytes) -> ArrayDict:
    """What ``pack`` packed; refuses pickles."""
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        return {name.replace("|", "/"): file[name] for name in file.files}


class Channel:
    """A one-way wire for bytes."""

    def __init__(self, stop: threading.Event, size: int = 0) -> None:
        self._queue: queue.Queue[bytes] = queue.Queue(size)
        self._stop = stop
        self.carried = 0

    def put(self, data: bytes) -> None:
        """Send; waits while the wire is full."""
        assert type(data) is bytes, f"{type(data).__name__} cannot leave its node"
        self.carried += len(data)
        self._again(lambda: self._queue.put(data, timeout=0.05), queue.Full)

    def get(self) -> bytes:
        """Wait for the next message."""
        return self._again(lambda: self._queue.get(timeout=0.05), queue.Empty)

    def poll(self) -> bytes | None:
        """The next message if there is one."""
        try:
            return self._queue.get_nowait()
        except queue.Empty:
            return None

    def _again(self, attempt: Callable[[], Any], missed: type[Exception]) -> Any:
        for _ in range(int(PATIENCE_S / 0.05)):
            if self._stop.is_set():
                raise Stopped("the run ends")
            try:
                return attempt()
            except missed:
                continue
        raise TimeoutError("the other node does not answer")


@dataclass
class Wires:
    """All channels of a run; no node holds anything else of another one."""

    stop: threading.Event
    to_replay: Channel
    attached: list[Channel]
    room: list[Channel]
    batches: Channel
    weights: list[Channel]
    records: list[bytes] = field(default_factory=list)


class WireWriter:
    """``StreamWriter``: blocks go out as bytes, and each append waits for the other node's word that it was stored."""

    def __init__(self, wires: Wires, worker: int) -> None:
        self._wires, self._worker = wires, worker

    def _send(self, kind: str, arrays: ArrayDict) -> None:
        head = {"kind": np.array(kind), "worker": np.array(self._worker)}
        self._wires.to_replay.put(pack(head | arrays))

    def append(self, block: StreamBlock) -> None:
        """Send the block; wait until it is stored."""
        arrays = {f"columns/{name}": value for name, value in block.columns.items()}
        arrays |= {f"open/{name}": value for name, value in block.open_row.items()}
        arrays |= {f"core/{name}": value for name, value in block.core_state.items()}
        names = {"streams": block.streams, "core_stream": block.core_stream, "core_row": block.core_row}
        self._send("append", arrays | names)
        self._wires.room[self._worker].get()

    def produced(self, streams: np.ndarray) -> None:
        """Tell the ledger."""
        self._send("produced", {"streams": streams})

    def attach(self, streams: np.ndarray) -> ArrayDict | None:
        """Ask for the streams' open rows."""
        self._send("attach", {"streams": streams})
        return unpack(self._wires.attached[self._worker].get()) or None


def read_block(message: ArrayDict) -> StreamBlock:
    """The block in an ``append`` message."""

    def part(prefix: str) -> ArrayDict:
        return {name.removeprefix(prefix): value for name, value in message.items() if name.startswith(prefix)}

    names = ("streams", "core_stream", "core_row")
    return StreamBlock(
        columns=part("columns/"), open_row=part("open/"), core_state=part("core/"), **{n: message[n] for n in names}
    )


class WireBatches:
    """``BatchSource``: batches come in as bytes; what was trained on goes back as bytes."""

    def __init__(self, wires: Wires) -> None:
        self._wires = wires
        self._steps = 0

    def next(self, timeout_s: float) -> Unroll | None:
        """The next batch, made of nothing but what arrived."""
        data = self._wires.batches.get()
        return from_columns(Unroll, {name: torch.from_numpy(value) for name, value in unpack(data).items()})

    def done(self, batch: Unroll) -> None:
        """Send the batch's names back."""
        names = {name: getattr(batch, name).numpy() for name in ("stream", "row", "source")}
        self._wires.to_replay.put(pack({"kind": np.array("done"), **names}))
        self._steps += batch.rows

    def skip(self, batch: Unroll) -> None:
        """Never: the losses of these runs are finite."""
        raise AssertionError("an update was skipped")

    def steps(self) -> int:
        """Transitions trained on."""
        return self._steps

    def frames(self) -> int:
        """One each."""
        return self._steps

    def stats(self) -> dict[str, float]:
        """Those of the other node stay there."""
        return {}


class WirePublisher:
    """``ParamPublisher``: each version goes to every actor as bytes."""

    def __init__(self, wires: Wires) -> None:
        self._wires, self._sent = wires, b""

    def publish(self, flat: torch.Tensor, version: int, agent_steps: int = 0, frames: int = 0) -> bool:
        """Send to all."""
        self._sent = pack({"flat": flat.detach().numpy(), "point": np.array((version, agent_steps, frames))})
        for channel in self._wires.weights:
            channel.put(self._sent)
        return True

    def version(self) -> int:
        """The newest that was sent."""
        return self.newest()[1].updates if self._sent else -1

    def newest(self) -> tuple[torch.Tensor, Point]:
        """What was sent last."""
        sent = unpack(self._sent)
        return torch.from_numpy(sent["flat"]), Point(*sent["point"].tolist())


class WireReader:
    """``ParamReader``: holds the newest weights that have arrived."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._newest = unpack(channel.get())

    def version(self) -> int:
        """The newest version that has arrived."""
        while (data := self._channel.poll()) is not None:
            self._newest = unpack(data)
        return int(self._newest["point"][0])

    def pull(self, flat: WeightTarget) -> Point:
        """Copy the newest."""
        self.version()
        flat.copy_(torch.from_numpy(self._newest["flat"]))
        return Point(*self._newest["point"].tolist())


class WireMetrics:
    """``MetricSink``: records leave as JSON."""

    def __init__(self, wires: Wires, role: str) -> None:
        self._wires, self._role = wires, role

    def write(self, kind: str, values: dict[str, float]) -> None:
        """One record."""
        self._wires.records.append(json.dumps({"role": self._role, "kind": kind} | values).encode())


class ReplayNode:
    """Owns the streams and the sampler; serves blocks, batches and the ledger."""

    def __init__(self, wires: Wires, layout: StreamLayout, config: RunConfig) -> None:
        self._wires = wires
        self.store = StreamStore.allocate(layout)
        learner = config.learner
        self.mixture: Mixture = make_mixture(self.store, config.replay, learner.batch_size, True, config.seed)
        self._held: list[ArrayDict] = []  # blocks that wait for room

    def run(self) -> None:
        """Serve until the run ends."""
        while True:
            self._take(unpack(self._wires.to_replay.get()))
            self._store_what_fits()
            while (batch := self.mixture.sample()) is not None:
                self._wires.batches.put(pack({n: v.numpy() for n, v in columns_of(batch).items()}))
                self._store_what_fits()

    def drain(self) -> None:
        """Count what arrived after the end."""
        while (data := self._wires.to_replay.poll()) is not None:
            self._take(unpack(data))

    def _take(self, message: ArrayDict) -> None:
        match str(message["kind"]):
            case "append":
                self._held.append(message)
            case "produced":
                self.store.add_produced(message["streams"])
            case "attach":
                left = self.store.attach(message["streams"])
                self._wires.attached[int(message["worker"])].put(pack(left or {}))
            case "done":
                names = {name: torch.from_numpy(message[name]) for name in ("stream", "row", "source")}
                self.mixture.done(_Named(**names))  # type: ignore[arg-type]

    def _store_what_fits(self) -> None:
        for message in list(self._held):
            block = read_block(message)
            if (self.store.room(block.streams) >= block.columns["reward"].shape[1]).all():
                self.store.append(block)
                self._held = [other for other in self._held if other is not message]
                self._wires.room[int(message["worker"])].put(b"stored")


@dataclass
class _Named:
    """The part of a batch that names its columns."""

    stream: torch.Tensor
    row: torch.Tensor
    source: torch.Tensor


def act(wires: Wires, worker: int, config: RunConfig, layout: StreamLayout, agent: Agent, envs: VectorEnv) -> None:
    """The actor's node."""
    count = config.actor.envs_per_worker
    streams = np.arange(worker * count, (worker + 1) * count)
    policy = LocalPolicy(agent, WireReader(wires.weights[worker]), count, seed=worker)
    work = ActorWork(
        layout,
        streams,
        block=config.learner.unroll_length,
        discount=agent.discount,
        wants_last=agent.wants_last,
        seed=worker,
    )
    sink = WireMetrics(wires, f"actor-{worker}")
    for _ in run_actor(envs, policy, WireWriter(wires, worker), sink, wires.stop, work):
        pass


def learn(wires: Wires, config: RunConfig, agent: Agent) -> LearnerWork:
    """The learner's node."""
    work = LearnerWork(agent, config.learner, total_frames=config.total_frames)
    publisher = WirePublisher(wires)
    sink = WireMetrics(wires, "learner")
    for _ in run_learner(agent, WireBatches(wires), publisher, None, sink, wires.stop, work):
        pass
    return work


def run(config: RunConfig, make_agent: Callable[[], Agent], make_envs: Callable[[int], VectorEnv]) -> tuple[Any, ...]:
    """Run to the end: (the learner's work, the replay node's store, records). Raises what a node raised."""
    stop = threading.Event()
    workers = config.actor.workers
    wires = Wires(
        stop,
        Channel(stop),
        [Channel(stop) for _ in range(workers)],
        [Channel(stop) for _ in range(workers)],
        Channel(stop, size=2),
        [Channel(stop) for _ in range(workers)],
    )
    all_envs = [make_envs(config.actor.envs_per_worker) for _ in range(workers)]
    layout = plan_layout(config, all_envs[0].spec, make_agent())
    replay = ReplayNode(wires, layout, config)
    failures: list[BaseException] = []

    def node(work: Callable[[], object]) -> None:
        try:
            work()
        except Stopped:
            return
        except BaseException as error:
            failures.append(error)
            stop.set()

    def act_as(worker: int) -> Callable[[], None]:
        return lambda: act(wires, worker, config, layout, make_agent(), all_envs[worker])

    threads = [threading.Thread(target=node, args=(work,)) for work in (replay.run, *map(act_as, range(workers)))]
    for thread in threads:
        thread.start()
    result: list[LearnerWork] = []
    node(lambda: result.append(learn(wires, config, make_agent())))
    stop.set()
    for thread in threads:
        thread.join(PATIENCE_S)
    if failures:
        raise failures[0]
    replay.drain()
    return result[0], replay.store, [json.loads(record) for record in wires.records], wires
