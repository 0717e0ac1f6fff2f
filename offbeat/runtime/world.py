"""What the roles of one run share: configuration, streams, weights, a notice board, bells. Travels to processes at
spawn.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from offbeat.agents.base import Agent
from offbeat.agents.contract import check_agent
from offbeat.envs.base import EnvConfig
from offbeat.envs.registry import registrations
from offbeat.errors import UserError
from offbeat.replay.demonstrated import check_items
from offbeat.replay.layout import StreamLayout, layout_for
from offbeat.replay.make import check_mixture, check_replay, copies_nbytes, make_mixture
from offbeat.replay.streams import StreamStore
from offbeat.runtime.clock import WALL, Clock
from offbeat.runtime.dealing import SharedDealing
from offbeat.runtime.encoding import check_encodes
from offbeat.runtime.inbox import inbox_arrays
from offbeat.runtime.joint import check_joint
from offbeat.runtime.master import SharedMaster
from offbeat.runtime.mirror import SharedMirror
from offbeat.runtime.optimiser import slot_names
from offbeat.runtime.params import SharedParams
from offbeat.runtime.ports import Point
from offbeat.runtime.realtime import check_realtime_agent, realtime_arrays
from offbeat.runtime.reduction import SharedReduction
from offbeat.runtime.settings import Settings
from offbeat.runtime.shm import Bell, Heart, SharedArrays, Wait, make_guard
from offbeat.runtime.topology import Topology
from offbeat.types import ArraySpec, EnvSpec

COUNTED = ("updates", "agent_steps", "frames", "skipped", "idle")
"""What the learner posts for every role to see."""
POSTED = ("stop", "leaving", "pause", *COUNTED, "trace_ns")
BOARD = {name: ArraySpec((1,), "int64") for name in POSTED}
"""The notice board: whether roles should end, whether the run ends soon (and scores are no longer wanted), whether
appending is paused, the learner's counters, how often in a row it had no batch, and when the recorded time line begins
(0: not known yet)."""


@dataclass
class World:
    """Everything that roles of one run have in common. Roles never hold it: their services hand each its ports.

    ``make_agent`` and ``make_envs`` are importable functions or user objects that can be sent to processes.
    """

    config: Settings
    spec: EnvSpec
    layout: StreamLayout
    memory: SharedArrays
    params: SharedParams
    board: SharedArrays
    beats: SharedArrays
    topology: Topology
    bells: dict[str, Bell]
    log_path: Path
    env_factory: Any = None
    env_named: str | None = None
    agent_factory: Any = None
    torso: Any = None
    guard: Any = None
    inbox: SharedArrays | None = None
    master: SharedMaster | None = None
    mirror: SharedMirror | None = None
    reduction: SharedReduction | None = None
    dealing: SharedDealing | None = None
    realtime: SharedArrays | None = None
    init_from: Path | None = None
    """Another run that this one starts from."""
    init_optimiser: bool = False
    """Its optimiser's statistics too, not its weights alone."""
    clock: Clock = WALL
    registered: dict[str, Any] = field(default_factory=dict)
    _store: StreamStore | None = field(default=None, repr=False)

    @property
    def store(self) -> StreamStore:
        """The streams, over the shared memory."""
        if self._store is None:
            self._store = StreamStore(self.layout, self.memory.arrays, guard=self.guard)
        return self._store

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_store": None}

    def stopped(self) -> bool:
        """Whether the run should end."""
        return bool(self.board["stop"][0])

    def paused(self) -> bool:
        """Whether writers must hold still between two blocks."""
        return bool(self.board["pause"][0])

    def stop(self) -> None:
        """Ask every role to end, also those that sleep."""
        self.board["stop"][0] = 1
        self.ring()

    def ring(self) -> None:
        """Wake everybody."""
        for shared in (self.master, self.reduction, self.dealing):
            for bell in () if shared is None else shared.bells:
                bell.ring()
        for bell in self.bells.values():
            bell.ring()

    def wait(self, role: str, alive: bool = True) -> Wait:
        """How this role waits. ``alive``: waiting is a sign of life; not in a thread beside the role's own."""
        return Wait(self.bells[role], self.stopped, self.heart(role) if alive else None, self.clock)

    def heart(self, role: str) -> Heart:
        """This role's sign of life."""
        return Heart(self.beats, list(self.bells).index(role), self.clock)

    def learnt(self) -> Point:
        """The newest point of the run that anybody can have seen, now that no learner is at work."""
        store = self.params.store
        published = store.newest()[1] if store.version() >= 0 else Point(0)
        posted = Point(*(int(self.board[name][0]) for name in Point._fields))
        return Point(*(max(pair) for pair in zip(published, posted, strict=True)))

    def close(self) -> None:
        """Give shared memory and descriptors back, at the end of the run."""
        self._store = None
        for block in (self.memory, self.board, self.beats, self.inbox, self.realtime):
            if block is not None:
                block.close()
        self.params.close()
        for shared in (self.master, self.mirror, self.reduction, self.dealing):
            if shared is not None:
                shared.close()
        for bell in self.bells.values():
            bell.close()

    def saves_streams(self) -> bool:
        """Whether checkpoints hold the streams: they are wanted, and not too large."""
        limits = self.config.checkpoint
        return limits.replay and self.replay_nbytes() <= limits.max_replay_gb * 2**30

    def replay_nbytes(self) -> int:
        """Bytes of the streams, and of what samplers copy out of them."""
        return self.memory.nbytes + copies_nbytes(self.config.replay, self.layout)

    def streams_of(self, worker: int) -> np.ndarray:
        """The streams of an actor: one per environment, [K] int64."""
        each = self.config.actor.envs_per_worker
        return np.arange(worker * each, (worker + 1) * each)


def plan_layout(config: Settings, spec: EnvSpec, agent: Agent, name: str = "") -> StreamLayout:
    """The layout of a run's streams: what is stored per row, how much of it, from whom. ``name``: the agent's.

    UserError where sizes do not fit each other, so that there could never be a batch.
    """
    core, extras = check_agent(agent, spec), agent.row_extras()
    if config.realtime.fps:
        check_realtime_agent(agent, core, name or config.agent_name)
    items, learner = agent.items, config.learner
    try:
        check_replay(items, config.replay, name or config.agent_name, holds_writers(config))
        layout = layout_for(
            spec,
            extras,
            core,
            num_streams=config.actor.workers * config.actor.envs_per_worker,
            replay=config.replay,
            unroll_length=learner.unroll_length,
            block=config.actor.append_rows,
            items=items,
        )
        check_encodes(agent, config.replay, name or config.agent_name)
        mixture = check_mixture(
            layout, config.replay, learner.batch_size, agent.wants_last, holds_writers(config), config.demonstrations
        )
        if config.demonstrations.path:
            check_items(items)
        if learner.mode == "sync" and learner.count > 1:
            check_joint(agent, mixture, learner.count)
    except ValueError as error:
        raise UserError(str(error)) from error
    return layout


def make_world(
    config: Settings, spec: EnvSpec, layout: StreamLayout, roles: Topology, weights: int, log_path: Path, **own: Any
) -> World:
    """Allocate everything. ``roles``: of the run; ``weights``: length of the flat weight vector."""
    inbox = None
    if roles.of("inference"):
        inbox = SharedArrays(inbox_arrays(spec, layout, config.actor.workers, config.actor.envs_per_worker))
    world = World(
        config=config,
        spec=spec,
        layout=layout,
        memory=SharedArrays(layout.arrays()),
        params=SharedParams(weights, make_guard(), len(roles.names())),
        board=SharedArrays(BOARD),
        beats=SharedArrays({"beat": ArraySpec((len(roles.names()),), "float64")}),
        topology=roles,
        bells={name: Bell() for name in roles.names()},
        log_path=log_path,
        guard=make_guard(),
        inbox=inbox,
        master=_make_master(config, weights),
        mirror=_make_mirror(config, roles),
        **_make_shares(config, weights),
        realtime=SharedArrays(realtime_arrays(config.realtime, layout)) if config.realtime.fps else None,
        registered=registrations(*(game for env in environments(config) for game in env.games)),
        **own,
    )
    # Fifos and rate control write down how far writers may go; writers may ask before the learner has made its own.
    held, shown = holds_writers(config), config.demonstrations
    make_mixture(
        world.store, config.replay, config.learner.batch_size, False, 0, hold_writers=held, demonstrations=shown
    )
    return world


def _make_master(config: Settings, weights: int) -> SharedMaster | None:
    """What asynchronous learners share; None where a learner is alone."""
    if config.learner.mode != "async":
        return None
    return SharedMaster(weights, 1 + len(slot_names(config.learner)), config.learner.count, make_guard())


def _make_mirror(config: Settings, roles: Topology) -> SharedMirror | None:
    """Where a learner is rebuilt from; None where it is not, or goes on from the master that others have too."""
    if config.learner.mode == "async" or not any(role.keeper and role.replaced for role in roles.roles):
        return None
    return SharedMirror(config.learner.mirror_every)


def _make_shares(config: Settings, weights: int) -> dict[str, Any]:
    """What learners that step together share; nothing where a learner is alone."""
    learner = config.learner
    if learner.mode != "sync" or learner.count == 1:
        return {}
    return {
        "reduction": SharedReduction(weights, learner.batch_size, learner.count, make_guard()),
        "dealing": SharedDealing(learner.batch_size, learner.count, make_guard()),
    }


def environments(config: Settings) -> list[EnvConfig]:
    """Options of the environments that a run makes: those of training, and those that scores are of."""
    valid = [config.valid_env] if config.validation.wanted else []
    return [config.env, config.eval_env, *valid, *([config.final_env] if config.final.wanted else [])]


def learners_nbytes(config: Settings, weights: int) -> int:
    """Memory of networks, statistics and published weights, generously; of ``weights`` floats each."""
    learner = config.learner
    each = 1 + len(slot_names(learner))
    shared = 2 * each if learner.mode == "async" else 2 * learner.count if learner.count > 1 else 0
    if learner.mode == "sync" and learner.mirror_every and not is_deterministic(config):
        shared += 2 * (each + 2)  # what the agent keeps beside the network too, if that is no larger than two of it
    return 4 * weights * (16 + shared + (learner.count - 1) * (each + 2))


def is_deterministic(config: Settings) -> bool:
    """Whether the run's schedule is fixed."""
    return config.deterministic or config.engine == "inline"


def holds_writers(config: Settings) -> bool:
    """Whether rate control may make actors wait: not where a fixed schedule has the learner keep up.

    A realtime environment waits for nobody. There is nothing to hold it with where there is no ratio to keep.
    """
    if config.realtime.fps:
        return not config.replay.samples_per_insert
    return not is_deterministic(config)
