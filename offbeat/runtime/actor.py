"""The actor: steps a batch of environments with the policy and appends their rows to the streams."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import torch

from offbeat.acting.observer import Observer
from offbeat.agents.base import Agent, Explores
from offbeat.envs.base import Misbehaved, StateUnsupported, VectorEnv
from offbeat.envs.closing import close_env
from offbeat.envs.rows import in_order, ordered
from offbeat.envs.several import Place, PlaysList
from offbeat.replay.layout import StreamBlock, StreamLayout
from offbeat.runtime.clock import WALL, Clock
from offbeat.runtime.host import Host
from offbeat.runtime.learner_config import LearnerConfig
from offbeat.runtime.policy import LocalPolicy
from offbeat.runtime.ports import MetricSink, Policy, StopSignal, StreamWriter
from offbeat.runtime.services import Services, Write
from offbeat.runtime.staging import Staging
from offbeat.types import ArrayDict, EnvStep, under

REPORT_S = 1.0
"""An actor reports its counters about so often. Unit: seconds."""


@dataclass(frozen=True)
class ActorConfig:
    """How many environments there are and where their actions come from."""

    workers: int = 1
    """Actor processes; 0: chosen from the cores. Each owns ``envs_per_worker`` environments and one stream for each."""
    envs_per_worker: int = 32
    """Environments per actor, stepped together; one batched forward serves them all. 0: chosen from what a step costs
    with 8 to 256 of them, measured as the run begins; 32 in runs with a fixed schedule."""
    batch: int = 0
    """Environments per forward where the library can step part of them while others act; 0: all of them."""
    append_rows: int = 0
    """Rows of each stream that an actor appends at once, after which it looks for newer weights; 0: as many as
    ``learner.unroll_length``. Unit: agent steps."""
    inference: Literal["actor", "server", "auto"] = "actor"
    """Who runs the network: each actor its own copy, or one server that batches requests of all actors (for GPUs).
    ``auto``: the server where its device is a GPU."""
    weights: Literal["copy", "shared"] = "copy"
    """``copy``: each actor acts with weights of its own; ``shared``: on the published ones where they lie, for networks
    of which a machine has no room for many. A copy is made all the same in bfloat16 and where a server acts."""
    precision: Literal["fp32", "bf16", "auto"] = "auto"
    """Arithmetic of actors that run the network themselves; servers act in float32. ``auto``: ``learner.precision``,
    but fp32 where the learner has a GPU and the processor does not multiply bfloat16 itself."""
    threads: int = 1
    """Torch threads of each actor."""
    env_threads: int = 1
    """Native threads of the environment library of each actor; 0: chosen from the cores."""
    hang_timeout_s: float = 60.0
    """An actor that shows no life for so long is reported with its stack, killed and replaced. Unit: seconds."""
    max_restarts: int = 5
    """Replacements of dead or hung actors in a run; one more ends it."""


def acting_precision(actor: ActorConfig, learner: LearnerConfig) -> str:
    """What actors that run the network themselves compute in: ``fp32`` or ``bf16``."""
    return learner.precision if actor.precision == "auto" else actor.precision


def run_actor(
    envs: VectorEnv,
    policy: Policy,
    streams: StreamWriter,
    metrics: MetricSink,
    stop: StopSignal,
    work: ActorWork,
) -> Iterator[None]:
    """Act for ever. Yields after each appended round of blocks: between two yields weights are taken over once at most.

    The order at a yield is fixed: blocks appended, newest rows received but not acted on. That is where an engine may
    save ``work`` and ``envs``, or stop.
    """
    staging, observer, now = work.staging, work.observer, work.clock.now
    if work.rows is None:
        left_over = streams.attach(staging.streams)
        if left_over is not None:
            work.adopt(left_over)  # a dead actor's episodes are cut at the rows that it left
        envs.reset(work.seed)
        work.rows = work.received(envs.recv())
    policy.refresh()
    while not stop.is_set():
        rows = work.rows
        full = staging.complete(rows)  # environments whose block has all of its rows now
        if len(full):
            block = staging.take(full, rows)  # and the rows in hand, which a reader bootstraps from
            policy.release()  # appending may wait, for long: nobody is to wait for the weights meanwhile
            work.waiting(streams.append, block)
            yield  # everything that was acted on is in the streams; the rows in hand belong to ``work``
            policy.refresh()
        staging.open(rows)
        inputs = observer.observe(rows)
        due = staging.due(rows.env_ids)  # rows at which an unroll or a burn-in may start
        if len(due):
            staging.keep(due, policy.core_state(due))  # the state *before* this row: ``act`` moves it on
        started = now()
        output = policy.act(rows.env_ids, inputs)
        action = output.action.cpu().numpy()
        extras = {name: value.cpu().numpy() for name, value in output.extras.items()}
        acted = now()
        envs.send(action)
        staging.act(rows.env_ids, action, extras, policy.version)
        observer.remember(rows, action)
        streams.produced(work.streams_of(rows))  # now: rows that die with this process count as lost
        work.rows = work.received(envs.recv())
        work.account(metrics, acted - started, now() - acted)


def build_actor(services: Services) -> Actor:
    """An actor from what its engine offers."""
    return Actor(services)


class Actor(Host):
    """An actor with its environments and policy."""

    def __init__(self, services: Services) -> None:
        config: ActorConfig = services.config
        self._threads = config.threads
        torch.set_num_threads(self._threads)
        env_seed, act_seed = services.seeds(services.index, services.incarnation)
        streams = services.streams()
        place = Place(int(streams[0]), services.layout.num_streams, partial(services.notices.posted, "frames"))
        self.envs = services.envs(len(streams), batch=config.batch, threads=config.env_threads, place=place)
        self.wait, weights = services.wait, services.weights()
        agent = services.agent("cpu")
        self.policy = services.policy(agent.wants_last) or LocalPolicy(
            agent,
            weights,
            len(streams),
            seed=act_seed,
            precision=services.precision,
            shared=config.weights == "shared",
        )
        self.work = ActorWork(
            services.layout,
            streams,
            block=services.layout.block,
            discount=agent.discount,
            wants_last=agent.wants_last,
            seed=env_seed,
            frame_skip=services.spec.frame_skip,
            players=services.spec.players,
            explore=exploration(services, agent, streams),
            clock=services.clock,
            game_of=self.envs.game_of if isinstance(self.envs, PlaysList) else None,
        )
        if not services.free and (loaded := services.loaded()) is not None:
            with services.heart.beating():  # games are played again from their snapshots
                self._load(loaded.part, anew=not loaded.with_streams)
        self.writer = services.writer()
        super().__init__(
            services, run_actor(self.envs, self.policy, self.writer, services.metrics, services.stop(), self.work)
        )

    def advance(self) -> dict[str, Any]:
        """One block of every stream."""
        torch.set_num_threads(self._threads)
        return super().advance()

    def save(self, write: Write) -> dict[str, Any]:
        """Environments, policy and work; only between rounds."""
        assert isinstance(self.policy, LocalPolicy), "runs whose actors are saved have no servers"
        try:
            envs = self.envs.state() if self.work.rows is not None else {}  # nothing was played yet
        except StateUnsupported as error:
            raise StateUnsupported(
                f"{error}; a deterministic run needs environments that can be saved exactly"
            ) from error
        arrays = {f"envs/{name}": value for name, value in envs.items()}
        arrays |= {f"work/{name}": value for name, value in self.work.state().items()}
        arrays |= {f"policy/{name}": value for name, value in self.policy.state().items()}
        write(self.name, arrays)
        return {}

    def _load(self, part: dict[str, Any], anew: bool) -> None:
        """Go on with saved games. ``anew``: their earlier rows are gone, so only the count of steps goes on."""
        if anew:
            self.work.count_from({name.removeprefix("work/"): np.asarray(value) for name, value in part.items()})
            return
        groups: dict[str, dict[str, np.ndarray]] = {"envs": {}, "work": {}, "policy": {}}
        for name, value in part.items():
            group, rest = name.split("/", 1)
            groups[group][rest] = np.asarray(value)
        assert isinstance(self.policy, LocalPolicy), "runs whose actors are saved have no servers"
        self.work.load_state(groups["work"])
        self.policy.load_state(groups["policy"])
        if groups["envs"]:
            self.envs.load_state(groups["envs"])

    def close(self) -> None:
        """Close the environments."""
        if line := close_env(self.envs, self.envs.spec.id):
            raise Misbehaved(line)


def exploration(services: Services, agent: Agent, streams: np.ndarray) -> Callable[[int], np.ndarray] | None:
    """Gives the epsilon of an actor's environments [K] from the actions that it took; None if the agent needs none.

    A free-running actor of a resumed run starts to count anew: there the learner's counter says how far the run is.
    """
    if not isinstance(agent, Explores):
        return None
    everybody, posted = services.layout.num_streams, services.notices.posted
    share, free = everybody / len(streams), services.free

    def epsilon(made: int) -> np.ndarray:
        steps = round(made * share)
        if free:
            steps = max(steps, posted("agent_steps"))
        return agent.exploration(streams, everybody, steps)

    return epsilon


class ActorWork:
    """What an actor carries from step to step: rows in hand, unfinished blocks, what it observes, scores.

    Args:
        layout: of the streams.
        streams: stream of each environment, [K] int64.
        block: rows per appended block.
        discount: gamma.
        wants_last: whether inputs carry the last action and reward.
        seed: of the environments' first reset.
        frame_skip: frames per agent step.
        players: environments that make one game, which is one episode.
        clock: for the times that are reported.
        explore: gives each environment's epsilon [K] from the actions that this actor has taken; None: not needed.
        game_of: name of the game that an environment plays now; None: all play the same.
    """

    def __init__(
        self,
        layout: StreamLayout,
        streams: np.ndarray,
        *,
        block: int,
        discount: float,
        wants_last: bool,
        seed: int,
        frame_skip: int = 1,
        players: int = 1,
        explore: Callable[[int], np.ndarray] | None = None,
        clock: Clock = WALL,
        game_of: Callable[[int], str] | None = None,
    ) -> None:
        self._game_of = game_of
        count, self.clock = len(streams), clock
        self._everyone = in_order(count)
        self._players, self.seed, self.frame_skip = players, seed, frame_skip
        self.staging = Staging(layout, streams, block, discount)
        self.observer = Observer(layout, layout.action, count, wants_last=wants_last, explore=explore)
        self.rows: EnvStep | None = None
        self.returns = np.zeros(count, np.float64)
        self.lengths = np.zeros(count, np.int64)
        self.taken = np.zeros(count, np.int64)  # environment steps of the episode so far
        self.frames = 0  # of all episodes
        self.over = np.zeros(count, bool)  # ended, while the game's other players have not
        self._act_s = self._env_s = self._wait_s = 0.0
        self._reported = self.clock.now()

    def received(self, rows: EnvStep) -> EnvStep:
        """``rows`` as they are; of all environments in order their ``env_ids`` are ``in_order`` itself then."""
        return ordered(rows, len(self._everyone))

    def streams_of(self, rows: EnvStep) -> np.ndarray:
        """The streams that ``rows`` belong to, [n] int64."""
        streams = self.staging.streams
        return streams if rows.env_ids is self._everyone else streams[rows.env_ids]

    def adopt(self, open_rows: ArrayDict) -> None:
        """Go on with streams that a dead actor left."""
        self.staging.adopt(open_rows)

    def waiting(self, append: Callable[[StreamBlock], None], block: StreamBlock) -> None:
        """Append a block and measure how long that took: nearly all of it is waiting for room."""
        started = self.clock.now()
        append(block)
        self._wait_s += self.clock.now() - started

    def account(self, metrics: MetricSink, act_s: float, env_s: float) -> None:
        """Add up scores of the rows in hand, report ended episodes, and the counters once in a while."""
        rows = self.rows
        assert rows is not None
        everyone, going = rows.env_ids is self._everyone, ~rows.first
        at = slice(None) if everyone else rows.env_ids
        self._act_s += act_s
        self._env_s += env_s
        self.returns[at] += rows.raw_reward
        self.lengths[at] += going
        taken = going if rows.elapsed is None else rows.elapsed
        self.taken[at] += taken
        self.frames += int(taken.sum()) * self.frame_skip
        ended = rows.env_ids[going & ~rows.valid]  # both: a row without an episode, see EnvStep
        if len(ended):
            self._end(metrics, ended)
        now = self.clock.now()
        if now - self._reported >= REPORT_S:
            self._reported = now
            times = {"forward_s": self._act_s, "env_s": self._env_s, "wait_s": self._wait_s}
            metrics.write("actor", {"steps": self.observer.steps, "env_frames": self.frames} | times)
            self._act_s = self._env_s = self._wait_s = 0.0

    def _end(self, metrics: MetricSink, ended: np.ndarray) -> None:
        """Episodes of these environments [n] have ended: report each game of which all players have."""
        if self._players == 1:
            frames = self.taken[ended] * self.frame_skip
            self._tell(metrics, ended, self.returns[ended], self.lengths[ended], frames)
            self.returns[ended], self.lengths[ended], self.taken[ended] = 0.0, 0, 0
            return
        self.over[ended] = True
        games = np.array(list(dict.fromkeys((ended // self._players).tolist())), np.int64)
        returns, lengths, taken, over = (
            values.reshape(-1, self._players) for values in (self.returns, self.lengths, self.taken, self.over)
        )
        games = games[over[games].all(1)]
        frames = taken[games].sum(1) * self.frame_skip
        self._tell(metrics, games, returns[games].mean(1), lengths[games].max(1), frames)
        returns[games], lengths[games], taken[games], over[games] = 0.0, 0, 0, False

    def _tell(self, metrics: MetricSink, games: np.ndarray, *numbers: np.ndarray) -> None:
        """A record of each of these games [n]: their returns, lengths and frames."""
        for game, value, length, frames in zip(games.tolist(), *(one.tolist() for one in numbers), strict=True):
            record: dict[str, Any] = {"return": value, "length": length, "episode_frames": frames}
            if self._game_of is not None:
                record["game"] = self._game_of(game * self._players)
            metrics.write("episode", record)

    def state(self) -> ArrayDict:
        """Everything needed to go on exactly, at a yield of ``run_actor``."""
        rows = self.rows
        saved = {f"staging/{name}": value for name, value in self.staging.state().items()}
        if rows is None:  # it has not begun, and will begin as this one would have
            saved["seed"] = np.array([self.seed])
        else:
            saved |= {f"rows/observation/{key}": value for key, value in rows.observation.items()}
            names = ("env_ids", "reward", "raw_reward", "terminated", "truncated", "first", "valid", "elapsed")
            held = {name: getattr(rows, name) for name in names}
            saved |= {f"rows/{name}": value for name, value in held.items() if value is not None}
        saved |= self.observer.state()
        saved |= {"returns": self.returns, "lengths": self.lengths, "over": self.over, "taken": self.taken}
        saved["frames"] = np.array([self.frames])
        return {name: np.array(value) for name, value in saved.items()}

    def count_from(self, state: ArrayDict) -> None:
        """Go on counting steps and frames where a saved state did; checkpoints of before hold no frames."""
        self.observer.steps = int(state["steps"][0])
        self.frames = int(state.get("frames", [self.observer.steps * self.frame_skip])[0])

    def load_state(self, state: ArrayDict) -> None:
        """Back to a saved state; ``run_actor`` then goes on where it yielded."""

        self.staging.load_state(under(state, "staging/"))
        self.observer.load_state(state)
        self.count_from(state)
        rows = under(state, "rows/")
        observation = {name[len("observation/") :]: rows.pop(name) for name in list(rows) if name.startswith("obs")}
        self.rows = self.received(EnvStep(observation=observation, **rows)) if rows else None
        self.seed = int(state["seed"][0]) if "seed" in state else self.seed
        self.returns, self.lengths = state["returns"], state["lengths"]
        self.over = state.get("over", np.zeros_like(self.returns, bool))  # checkpoints of before have none
        self.taken = state.get("taken", self.lengths.copy())
