"""What a role is given on one machine: everything lies in the shared memory of a ``World``."""

from __future__ import annotations

from contextlib import AbstractContextManager, closing, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from offbeat.envs.registry import register_again
from offbeat.replay.make import make_mixture
from offbeat.replay.mixture import Mixture
from offbeat.runtime.batches import StreamBatches
from offbeat.runtime.brief import Brief, brief_of
from offbeat.runtime.dealing import SharedDealing
from offbeat.runtime.demonstrated import demonstrated
from offbeat.runtime.encoding import Encoding
from offbeat.runtime.inbox import RemotePolicy, SharedRequests
from offbeat.runtime.master import MasterStore
from offbeat.runtime.mirror import MirrorStore
from offbeat.runtime.pacing import Drawn
from offbeat.runtime.params import ParamStore
from offbeat.runtime.ports import Batches, MetricSink
from offbeat.runtime.realtime import Realtime, make_realtime
from offbeat.runtime.reduction import ReductionStore
from offbeat.runtime.services import Arrays, Loaded, Offer
from offbeat.runtime.shared_batches import FollowingBatches, LeadingBatches
from offbeat.runtime.shm import Heart, Wait
from offbeat.runtime.spans import FOLDER, Spans, wrap_calls
from offbeat.runtime.stem import read_start, read_stem
from offbeat.runtime.turns import PacedBatches
from offbeat.runtime.world import COUNTED, World, holds_writers
from offbeat.runtime.writer import StoreWriter, writers_held
from offbeat.storage.checkpoint import WEIGHTS, find, load, write_part
from offbeat.storage.traces import FOLDER as TRACES
from offbeat.storage.traces import write_trace
from offbeat.types import ArrayDict


def offer(world: World, role: str, *, free: bool, incarnation: int, checkpoint: Path | None) -> Offer:
    """What to send to the process of a role. ``checkpoint``: the one that it goes on from, or a run, for its newest."""
    return partial(LocalServices, world, role, free=free, incarnation=incarnation, checkpoint=checkpoint)


class LocalServices(Brief):
    """The services of one instance of a role; see ``offbeat.runtime.services.Services``."""

    def __init__(
        self,
        world: World,
        role: str,
        metrics: MetricSink,
        *,
        free: bool,
        incarnation: int = 0,
        checkpoint: Path | None = None,
    ) -> None:
        super().__init__(**vars(brief_of(world, role, free=free, incarnation=incarnation)))
        self._world, self._checkpoint = world, checkpoint
        self.metrics, self.notices, self.heart = metrics, BoardNotices(world.board.arrays), world.heart(role)
        self.wait = world.wait(role) if free else None
        self._tallies: ArrayDict | None = None
        """Of the samplers whose place those of this learner take."""

    def beat(self) -> None:
        """A sign of life, between two environments that are made."""
        self.heart.beat()

    def stopped(self) -> bool:
        """Whether the run is over."""
        return self._world.stopped()

    def stop(self, early: bool = False) -> Stop:
        """Whether it should end."""
        return Stop(self._world.board.arrays, self.heart, early)

    def streams(self) -> np.ndarray:
        """The streams that it writes."""
        return self._world.streams_of(self.index)

    def writer(self) -> StoreWriter:
        """The writing end of those."""
        world = self._world
        readers = [world.bells[name] for name in world.topology.that("turn", "learn")]
        return StoreWriter(world.store, self.wait, world.paused, readers, self.streams())

    def batches(self, *, last: bool, device: torch.device, before: tuple[int, int]) -> Batches:
        """The reading end of all streams, with the run's mixture of samplers."""
        world, config, posted = self._world, self._world.config, self.notices.posted
        if world.dealing is not None and self.index:
            return self._shares(last, device)
        learner, master = config.learner, world.master
        mixture = self._mixture(last, device)
        streams = self._saved_streams()
        if streams is not None:
            with self.heart.beating():
                own = {name.removeprefix("mixture/"): v for name, v in streams.items() if name.startswith("mixture/")}
                mixture.load_state({name: np.asarray(value) for name, value in own.items()})
            if "steps" in streams:  # the learner's counters have those of the last update
                steps = int(streams["steps"][0])
                before = steps, int(streams["frames"][0]) if "frames" in streams else steps * self.spec.frame_skip
        # A thread that assembles ahead waits for rows; it must not look like a sign of life of the training thread.
        wait = world.wait(self.name, alive=not learner.prefetch) if self.free else None
        lag = learner.max_policy_lag
        kind = StreamBatches
        if world.dealing is not None:
            kind = partial(LeadingBatches, **self._leading(world.dealing))  # type: ignore[assignment]
        batches = kind(
            mixture,
            world.store,
            device,
            wait=wait,
            writers=[world.bells[name] for name in world.topology.that("owns_streams")] if self.free else [],
            prefetch=learner.prefetch if self.free else 0,
            assemblers=learner.assemblers,
            max_age=learner.max_batch_age,
            updates=lambda: posted("updates"),
            oldest=(lambda: max(0, posted("updates") - lag)) if lag else (lambda: 0),
            before=before,
            offset=self._offset(mixture),
            frame_skip=self.spec.frame_skip,
            hold=partial(writers_held, world.store, world.board["pause"], wait, world.ring),
            saved=world.saves_streams(),
            clock=self.clock,
        )
        if master is not None and not self.index:
            master.before[:] = batches.offset
        if world.mirror is not None:
            world.mirror.offset[:] = batches.offset
        if config.realtime.fps and self.wait is not None:
            seed = self.seeds(self.index, self.incarnation)[1]
            durations = Drawn(config.realtime.learn_s, config.realtime.jitter, seed)
            return PacedBatches(batches, self.realtime(), self.wait, self.clock, durations)
        return batches

    def _rebuilt(self) -> bool:
        """Whether this learner takes the place of one that has died, and goes on from what that one had kept."""
        mirror, row = self._world.mirror, self._world.topology.row(self.name)
        return mirror is not None and mirror.restarts > 0 and (row.keeper or bool(row.part))

    def _offset(self, mixture: Mixture) -> tuple[int, int] | None:
        """What is added to the streams' own counts to have those of the run, where others have found that before."""
        world = self._world
        found = world.mirror.offset if world.mirror is not None and self._rebuilt() and not mixture.paced else None
        if world.master is not None and (self.index or world.master.store().version()):
            found = world.master.before
        return None if found is None else (int(found[0]), int(found[1]))

    def _mixture(self, last: bool, device: torch.device) -> Mixture:
        """The run's samplers, new ones; in the place of others, if those died with the learner before this one."""
        world, config, posted = self._world, self._world.config, self.notices.posted
        total, drawn = max(1, config.total_frames), None
        if world.master is not None:
            drawn = world.master.drawn, self.index
        elif world.mirror is not None:
            drawn = world.mirror.drawn, 0
        anew = self.index or self._rebuilt()  # else as the run's seed says
        if self._rebuilt():
            world.store.settle_cursors()
        register_again(world.registered)
        rows = demonstrated(config, world.spec, lambda: self.agent("cpu").discount, world.env_factory)
        mixture = make_mixture(
            world.store,
            config.replay,
            config.learner.batch_size,
            last,
            self.seeds(*((self.index, self.incarnation) if anew else ()))[0],
            progress=lambda: min(1.0, posted("frames") / total),
            hold_writers=holds_writers(config),
            drawn=drawn,
            encode=Encoding(self.agent(device), world.params.store) if config.replay.encodes else None,
            demonstrations=config.demonstrations,
            rows=rows,
            tried=posted("updates") + posted("skipped"),
        )
        if self._tallies is not None:
            mixture.load_tallies(self._tallies)
        return mixture

    def _leading(self, dealing: SharedDealing) -> dict[str, Any]:
        """What the first of several learners deals batches with."""
        world = self._world
        others = [world.bells[name] for name in world.topology.of("learner")[1:]]
        copies = Wait(dealing.bells[0], world.stopped, None, world.clock)
        return {"dealing": dealing.end(0), "copies": copies, "others": others}

    def _shares(self, last: bool, device: torch.device) -> FollowingBatches:
        """This learner's shares of what the first one deals."""
        world, learner = self._world, self._world.config.learner
        assert world.dealing is not None, "learners that step together deal"
        return FollowingBatches(
            world.store,
            device,
            dealing=world.dealing.end(self.index),
            last=last,
            pacing=[index for index, sampler in enumerate(world.config.replay.samplers) if sampler.paces],
            wait=world.wait(self.name, alive=not learner.prefetch),
            first=world.dealing.bells[0],
            prefetch=learner.prefetch,
            assemblers=learner.assemblers,
            clock=self.clock,
        )

    def _saved_streams(self) -> dict[str, Any] | None:
        if self._checkpoint is None or self._rebuilt():
            return None
        return load(find(self._checkpoint, only=()))[0].get("streams")  # the main process has verified them

    def publisher(self) -> Publisher:
        """The learner's end of the weights."""
        return Publisher(self._world)

    def master(self) -> MasterStore | None:
        """What asynchronous learners share; it is there once the first learner has filled it."""
        shared, world = self._world.master, self._world
        if shared is None:
            return None
        wait = Wait(shared.bells[self.index], world.stopped, self.heart, world.clock) if self.wait is not None else None
        store = shared.store(self.index, wait)
        if self.index:
            assert wait is not None, "learners beside the first run freely"
            wait.until("first weights", lambda: store.version() > 0)
        return store

    def mirror(self) -> MirrorStore | None:
        """Of the first learner, where it would be rebuilt from that."""
        mirror = self._world.mirror
        return None if mirror is None or self.index else mirror.end(self.clock)

    def reduction(self) -> ReductionStore | None:
        """Where learners that step together add up gradients."""
        shared, world = self._world.reduction, self._world
        if shared is None:
            return None
        return shared.end(self.index, Wait(shared.bells[self.index], world.stopped, self.heart, world.clock))

    def weights(self) -> ParamStore:
        """The others' end of the weights."""
        world = self._world
        store = world.params.store.reader(world.topology.names().index(self.name))
        if self.wait is not None:
            self.wait.until("first weights", lambda: store.version() >= 0)
        return store

    def realtime(self) -> Realtime:
        """Over the world's memory."""
        world = self._world
        assert world.realtime is not None, "the world of a realtime run has the memory for it"
        return make_realtime(
            world.config.realtime,
            world.realtime.arrays,
            folder=world.log_path.parent / "realtime",
            ring=world.ring,
            lock=world.realtime.lock() if self.free else nullcontext(),
            guard=world.guard,
        )

    def policy(self, last: bool) -> RemotePolicy | None:
        """The server that this actor is dealt to."""
        world = self._world
        if world.inbox is None or self.wait is None:
            return None
        servers = world.topology.of("inference")
        server = world.bells[servers[self.index % len(servers)]]
        return RemotePolicy(world.inbox, self.index, self.wait, server, last, world.guard)

    def requests(self, last: bool) -> SharedRequests:
        """The server's end, of every so-many-th actor."""
        world = self._world
        assert world.inbox is not None, "the world of a run with a server has an inbox"
        assert self.wait is not None, "servers run freely"
        workers, servers = world.topology.of("actor"), world.topology.of("inference")
        own = {worker: world.bells[workers[worker]] for worker in range(self.index, len(workers), len(servers))}
        return SharedRequests(world.inbox, own, self.wait, last, world.guard)

    def loaded(self) -> Loaded | None:
        """Its part of the checkpoint, or what a learner before it had kept."""
        if self._rebuilt():
            assert self._world.mirror is not None, "it was rebuilt from there"
            kept = self._world.mirror.read()
            self._tallies = kept.tallies
            return Loaded(kept.part, kept.counters, False)
        if self._checkpoint is None:
            return None
        name = self._world.topology.row(self.name).part or self.name
        parts, meta = load(find(self._checkpoint, only=(name,)))  # the main process has verified the rest
        part = parts.get(name)
        return None if part is None else Loaded(part, meta.get("counters", {}), "streams" in parts)

    def initial_part(self) -> dict[str, torch.Tensor] | None:
        """Of the run that this one starts from, and of its stem."""
        source, learner = self._world.init_from, self._world.config.learner
        part = {} if source is None else read_start(source, optimiser=self._world.init_optimiser)
        if learner.stem:
            stem = read_stem(Path(learner.stem), fc=learner.stem_fc)
            part |= {f"{WEIGHTS}{name}": value for name, value in stem.items()}
        return part or None

    def write_part(self, folder: str, part: str, arrays: Arrays) -> None:
        """Straight into the folder."""
        write_part(Path(folder), part, arrays)

    def keep_trace(self, name: str, content: bytes) -> None:
        """Into the run's folder of traces."""
        write_trace(self._world.log_path.parent / TRACES / name, content)

    def record(self, host: Any) -> AbstractContextManager[object]:
        """Wrap the ports of the host, if the run records a time line; it is written when the role ends."""
        world, config = self._world, self._world.config.trace
        if not config.seconds:
            return nullcontext()
        row, order = world.topology.row(self.name), world.topology.names().index(self.name)
        folder = world.log_path.parent / FOLDER
        spans = Spans(self.name, folder, config, world.board, leads=row.keeper, order=order)
        wrap_calls(spans, host, row.calls)
        return closing(spans)


class Counts(dict[str, np.ndarray]):
    """Counters by name."""

    def __missing__(self, name: str) -> np.ndarray:
        raise ValueError(f"notices: there is no {name!r} on the board; allowed: {', '.join(self)}")


class BoardNotices:
    """The notice board in shared memory: name -> [1] int64. Only its counters: the rest of it is the engine's."""

    def __init__(self, arrays: dict[str, np.ndarray]) -> None:
        self._arrays = Counts({name: arrays[name] for name in COUNTED})

    def posted(self, name: str) -> int:
        """What was posted last."""
        return int(self._arrays[name][0])

    def post(self, name: str, value: int) -> None:
        """Let everybody see it."""
        self._arrays[name][0] = value


class Publisher:
    """The learner's end of the weights, which wakes those who wait for the first ones."""

    def __init__(self, world: World) -> None:
        self._world, self._store, self._rung = world, world.params.store, False

    def publish(self, flat: torch.Tensor, version: int, agent_steps: int = 0, frames: int = 0) -> bool:
        """Copy the flat weights into a free slot."""
        done = self._store.publish(flat, version, agent_steps, frames)
        if not self._rung:
            self._rung = True
            self._world.ring()
        return done

    def version(self) -> int:
        """The newest published version."""
        return self._store.version()

    def newest(self) -> Any:
        """A copy of what was published last, and where it is from."""
        return self._store.newest()


class Stop:
    """A stop signal that also counts as a sign of life: roles look at it in every step."""

    def __init__(self, board: dict[str, np.ndarray], heart: Heart, early: bool = False) -> None:
        self._stop, self._leaving, self._heart, self._early = board["stop"], board["leaving"], heart, early

    def is_set(self) -> bool:
        """True once the role should end, or (``early``) once the run is about to."""
        self._heart.beat()
        return bool(self._stop[0]) or (self._early and bool(self._leaving[0]))
