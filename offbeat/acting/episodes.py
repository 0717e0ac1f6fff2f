"""Whole episodes played with frozen weights, for scores, videos and windows.

Each environment plays an equal share of the episodes. Taking whichever episodes end first would favour short ones.
Where a game has several players, each of them an environment, the game is one episode and has one score.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch

from offbeat.acting.observer import Observer
from offbeat.acting.scores import Evaluation
from offbeat.agents.base import Agent, policy_name
from offbeat.envs.base import VectorEnv
from offbeat.envs.manners import check_like
from offbeat.envs.several import PlaysList
from offbeat.types import LEGAL, ActionSpec, CoreState, EnvSpec, EnvStep, move


class Notes(Protocol):
    """What takes down an evaluation while it is played."""

    def rows(self, step: EnvStep, playing: np.ndarray) -> None:
        """Rows as they come, before they are scored. ``playing`` [n] bool: which of them count."""

    def sent(self, env_ids: np.ndarray, action: np.ndarray) -> None:
        """The actions [n, ...] that these environments are given."""


class Player:
    """Chooses actions for ``num_envs`` environments: observes their rows and keeps their recurrent states.

    Rows may come in any subset of the environments, as asynchronous ones give them.
    """

    def __init__(
        self,
        agent: Agent,
        num_envs: int,
        *,
        greedy: bool,
        generator: torch.Generator | None = None,
        explore: Callable[[int], np.ndarray] | None = None,
    ) -> None:
        """``generator`` draws sampled actions; it must be on the network's device. ``explore``: as of ``Observer``."""
        self._agent, self._greedy, self._generator = agent, greedy, generator
        self._device, spec = network_device(agent), agent.spec
        wants_last = agent.wants_last
        self._observer = Observer(spec, spec.action.array, num_envs, wants_last=wants_last, explore=explore)
        self._state: CoreState = {key: value.clone() for key, value in agent.initial_state(num_envs).items()}

    def act(self, step: EnvStep) -> np.ndarray:
        """Actions [n, ...] for the rows of ``step``."""
        inputs = move(self._observer.observe(step), self._device)
        rows = torch.as_tensor(step.env_ids, device=self._device)
        state = {key: value[rows] for key, value in self._state.items()}
        with torch.inference_mode():
            output = self._agent.act(inputs, state, self._generator, self._greedy)
        for key, value in output.state.items():
            self._state[key][rows] = value
        action: np.ndarray = output.action.cpu().numpy()
        self._observer.remember(step, action)
        return action


def play_episodes(
    env: VectorEnv,
    agent: Agent,
    *,
    episodes: int,
    greedy: bool = False,
    seed: int = 0,
    stop: Callable[[], bool] | None = None,
    on_step: Callable[[EnvStep], None] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    generator: torch.Generator | None = None,
    version: int = 0,
    longest: int = 0,
    tracer: Notes | None = None,
) -> Evaluation:
    """Play whole episodes with the agent's weights as they are, and score them by raw reward.

    Args:
        env: environments; they are reset. Of n games at a time each plays ``episodes // n``, the first ones one more; a
            game is one environment, or ``env.spec.players`` of them.
        greedy: the most probable action, else one drawn from the policy.
        seed: of the environments and, unless ``generator`` is given, of the drawn actions.
        stop: asked before every step; once True, the episodes that have ended so far are returned (``complete`` False).
        on_step: called with every row, also those that are not scored, before actions are chosen.
        on_progress: called after every step with the episodes that have ended and the frames of all so far.
        version: of the weights; only noted down.
        longest: an episode that goes on for so many agent steps is given up, and with it what its environment was still
            to play, since only an end would start it anew; 0: none is.
        tracer: takes down what is played (``offbeat.acting.tracing``).

    ``Misbehaved`` where ``env`` shows or takes other things than the agent was made for.
    """
    if episodes < 1:
        raise ValueError(f"episodes={episodes} must be at least 1")
    check_like(env.spec, agent.spec, "what is to be played", "the agent's own environment")
    started = time.perf_counter()
    generator = generator or torch.Generator(network_device(agent)).manual_seed(seed)
    player = Player(agent, env.num_envs, greedy=greedy, generator=generator)
    training, complete = agent.network.training, False
    scores = Scores(env.num_envs, episodes, env.spec, longest)
    agent.network.eval()
    env.reset(seed)
    while not (stop is not None and stop()):
        step = env.recv()
        if tracer is not None:
            tracer.rows(step, scores.playing(step.env_ids))
        scores.add(step)
        if on_step is not None:
            on_step(step)
        if on_progress is not None:
            on_progress(scores.ended, scores.frames)
        if complete := scores.complete():
            break
        playing = scores.playing(step.env_ids)
        action = idle_actions(env.spec.action, len(step.env_ids), step.observation.get(LEGAL))
        if playing.any():
            action[playing] = player.act(_rows(step, playing))
        if tracer is not None:
            tracer.sent(step.env_ids, action)
        env.send(action)
    agent.network.train(training)
    returns, lengths, frames = scores.result()
    games = tuple(env.game_of(index) for index in scores.played()) if isinstance(env, PlaysList) else ()
    return Evaluation(
        returns, lengths, scores.frames, time.perf_counter() - started, version, policy_name(agent, greedy), complete,
        scores.given_up, frames_each=frames, games=games,
    )  # fmt: skip


class Scores:
    """Return and length of the running episode of each environment, and of those that have ended."""

    def __init__(self, num_envs: int, episodes: int, spec: EnvSpec, longest: int = 0) -> None:
        self._players, self._longest, self._given_up = spec.players, longest, 0
        share, extra = divmod(episodes, num_envs // spec.players)
        self._left = np.full(num_envs, share) + (np.arange(num_envs) // spec.players < extra)
        self._return = np.zeros(num_envs)
        self._length = np.zeros(num_envs, np.int64)
        self._taken = np.zeros(num_envs, np.int64)  # frames of the running episode
        self._ended: list[list[tuple[float, int, int]]] = [[] for _ in range(num_envs)]
        self._frame_skip = spec.frame_skip
        self.frames = 0

    def add(self, step: EnvStep) -> None:
        """Count the rows of environments that still play; a row that is not valid ends an episode."""
        elapsed = ~step.first if step.elapsed is None else step.elapsed
        for i, env_id in enumerate(step.env_ids):
            if self._left[env_id] == 0:
                continue
            taken = int(elapsed[i]) * self._frame_skip
            self.frames += taken
            self._taken[env_id] = taken + (0 if step.first[i] else self._taken[env_id])
            if step.first[i]:  # with what there was before the first action, where actions are late
                self._return[env_id], self._length[env_id] = float(step.raw_reward[i]), 0
                continue
            self._return[env_id] += step.raw_reward[i]
            self._length[env_id] += 1
            if not step.valid[i]:
                ended = float(self._return[env_id]), int(self._length[env_id]), int(self._taken[env_id])
                self._ended[env_id].append(ended)
                self._left[env_id] -= 1
            elif 0 < self._longest <= self._length[env_id]:
                self._given_up += int(self._left[env_id])
                self._left[env_id] = 0

    @property
    def ended(self) -> int:
        """Episodes, of all players together, that have ended."""
        return sum(map(len, self._ended)) // self._players

    @property
    def given_up(self) -> int:
        """Episodes, of all players together, that were not waited for to their end."""
        return self._given_up // self._players

    def playing(self, env_ids: np.ndarray) -> np.ndarray:
        """[n] bool: which of these environments have episodes left."""
        return self._left[env_ids] > 0

    def complete(self) -> bool:
        """True once all episodes have ended."""
        return not self._left.any()

    def played(self) -> list[int]:
        """[episodes], by which environment each was played, in the order of ``result``; of games of one player."""
        return [env for env, ended in enumerate(self._ended) for _ in ended]

    def result(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns [episodes] float64, lengths and frames [episodes] int64; of a game of several, the mean over its
        players, and the longest.

        A game counts once all of its players have reached its end.
        """
        count = self._players
        games = [self._ended[first : first + count] for first in range(0, len(self._ended), count)]
        ended = [players for game in games for players in zip(*game, strict=False)]
        returns = [sum(score for score, _, _ in players) / count for players in ended]
        lengths = [max(length for _, length, _ in players) for players in ended]
        frames = [max(taken for _, _, taken in players) for players in ended]
        return np.array(returns, np.float64), np.array(lengths, np.int64), np.array(frames, np.int64)


def idle_actions(spec: ActionSpec, count: int, legal: np.ndarray | None = None) -> np.ndarray:
    """Actions [count, ...] for environments whose rows nobody looks at: 0, or the allowed number nearest to it.

    ``legal`` [count, A] bool: the first one that is legal; None: all are.
    """
    action = spec.array.zeros(count)
    if legal is not None and spec.choices:
        parts = np.split(legal, np.cumsum(spec.choices)[:-1], -1)
        first = np.stack([np.argmax(part, -1) for part in parts], -1)
        action[:] = first[:, 0] if spec.kind == "discrete" else first
    if spec.kind == "continuous" and spec.low:
        bounds = (np.asarray(bound, np.float32) for bound in (spec.low, spec.high))
        low, high = (bound.reshape(spec.shape) if bound.size > 1 else bound for bound in bounds)
        action[:] = np.clip(0.0, low, high)
    return action


def network_device(agent: Agent) -> torch.device:
    """Where the agent's weights are; the CPU for an agent without weights."""
    parameter = next(agent.network.parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device


def _rows(step: EnvStep, keep: np.ndarray) -> EnvStep:
    """The rows of ``step`` where ``keep`` [n] is True."""
    if keep.all():
        return step
    return EnvStep(
        env_ids=step.env_ids[keep],
        observation={key: value[keep] for key, value in step.observation.items()},
        reward=step.reward[keep],
        raw_reward=step.raw_reward[keep],
        terminated=step.terminated[keep],
        truncated=step.truncated[keep],
        first=step.first[keep],
        valid=step.valid[keep],
        elapsed=None if step.elapsed is None else step.elapsed[keep],
    )
