"""Scores: whole episodes played with frozen weights, and what they say about the agent.

Each environment plays an equal share of the episodes. Taking whichever episodes end first would favour short ones.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from offbeat.agents.base import Agent
from offbeat.envs.base import VectorEnv
from offbeat.replay.stacking import FrameStacker
from offbeat.types import ActionSpec, CoreState, EnvStep, Inputs


@dataclass(frozen=True)
class Evaluation:
    """Raw returns and lengths of whole episodes, in order of environment, then of play."""

    returns: np.ndarray  # [episodes] float64, sums of raw rewards
    lengths: np.ndarray  # [episodes] int64, agent steps
    frames: int = 0
    """Environment frames played."""
    seconds: float = 0.0
    """Wall time of the games."""
    version: int = 0
    """Version (learner updates) of the weights."""
    policy: str = "sampled"
    """``greedy`` or ``sampled``."""
    complete: bool = True
    """False where it was stopped before all episodes had ended."""
    at: dict[str, float] = field(default_factory=dict)
    """The point of the run that the weights are from: frames, agent_steps, updates."""

    @property
    def mean(self) -> float:
        """Mean return; NaN without episodes."""
        return float(self.returns.mean()) if self.returns.size else float("nan")

    @property
    def std(self) -> float:
        """Standard deviation of the returns (of the episodes, not of their mean)."""
        return float(self.returns.std()) if self.returns.size else float("nan")

    @property
    def min(self) -> float:
        """Lowest return."""
        return float(self.returns.min()) if self.returns.size else float("nan")

    @property
    def max(self) -> float:
        """Highest return."""
        return float(self.returns.max()) if self.returns.size else float("nan")

    @property
    def iqm(self) -> float:
        """Interquartile mean: the lowest and highest ``floor(n / 4)`` returns are left out."""
        return interquartile_mean(self.returns)

    def interval(self, confidence: float = 0.95, resamples: int = 2000) -> tuple[float, float]:
        """Percentile bootstrap interval of the mean return; always the same for the same returns."""
        return bootstrap_interval(self.returns, confidence, resamples)

    def record(self) -> dict[str, Any]:
        """The evaluation as one record of metrics.jsonl."""
        low, high = self.interval()
        return {
            "mean": self.mean, "std": self.std, "min": self.min, "max": self.max, "iqm": self.iqm,
            "low": low, "high": high, "episodes": len(self.returns), "length": _mean(self.lengths),
            "version": self.version, "seconds": self.seconds, "played_frames": self.frames, "policy": self.policy,
            **self.at, "returns": [float(value) for value in self.returns],
        }  # fmt: skip

    def summary(self) -> str:
        """One line for people."""
        low, high = self.interval()
        return (
            f"{len(self.returns)} episodes ({self.policy}): mean {self.mean:.2f} [{low:.2f}, {high:.2f}], "
            f"std {self.std:.2f}, IQM {self.iqm:.2f}, min {self.min:.2f}, max {self.max:.2f}, "
            f"{_mean(self.lengths):.0f} steps each"
        )


def interquartile_mean(values: np.ndarray) -> float:
    """Mean of ``values`` [n] without the lowest and highest ``floor(n / 4)``; NaN for none."""
    ordered = np.sort(np.asarray(values, np.float64))
    cut = len(ordered) // 4
    return _mean(ordered[cut : len(ordered) - cut])


def bootstrap_interval(values: np.ndarray, confidence: float = 0.95, resamples: int = 2000) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of ``values`` [n], with a fixed seed; (NaN, NaN) for none."""
    values = np.asarray(values, np.float64)
    if not values.size:
        return float("nan"), float("nan")
    picks = np.random.default_rng(0).integers(len(values), size=(resamples, len(values)))
    low, high = np.quantile(values[picks].mean(1), [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


class Player:
    """Chooses actions for ``num_envs`` environments: keeps their frame stacks, recurrent states and last actions.

    Rows may come in any subset of the environments, as asynchronous ones give them.
    """

    def __init__(self, agent: Agent, num_envs: int, *, greedy: bool, generator: torch.Generator | None = None) -> None:
        """``generator`` draws sampled actions; it must be on the network's device."""
        self._agent, self._greedy, self._generator = agent, greedy, generator
        self._device = network_device(agent)
        self._stacker = FrameStacker(agent.spec, num_envs)
        self._state: CoreState = {key: value.clone() for key, value in agent.initial_state(num_envs).items()}
        self._last_action = agent.spec.action.array.zeros(num_envs)

    def act(self, step: EnvStep) -> np.ndarray:
        """Actions [n, ...] for the rows of ``step``."""
        ids, first = step.env_ids, step.first
        stacked = self._stacker.push(ids, step.observation, first)
        last_action = last_reward = None
        if self._agent.wants_last:
            fresh = first.reshape(-1, *([1] * (self._last_action.ndim - 1)))
            last_action = self._tensor(np.where(fresh, 0, self._last_action[ids]).astype(self._last_action.dtype))
            last_reward = self._tensor(np.where(first, 0, step.reward).astype(np.float32))
        inputs = Inputs(
            observation={key: self._tensor(value) for key, value in stacked.items()},
            first=self._tensor(first),
            last_action=last_action,
            last_reward=last_reward,
        )
        rows = torch.as_tensor(ids, device=self._device)
        state = {key: value[rows] for key, value in self._state.items()}
        with torch.inference_mode():
            output = self._agent.act(inputs, state, self._generator, self._greedy)
        for key, value in output.state.items():
            self._state[key][rows] = value
        action = output.action.cpu().numpy()
        self._last_action[ids] = action
        return action

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        """``array`` [n, ...] as a tensor [1, n, ...] on the network's device."""
        return torch.as_tensor(np.ascontiguousarray(array), device=self._device)[None]


def play_episodes(
    env: VectorEnv,
    agent: Agent,
    *,
    episodes: int,
    greedy: bool = False,
    seed: int = 0,
    stop: Callable[[], bool] | None = None,
    on_step: Callable[[EnvStep], None] | None = None,
    generator: torch.Generator | None = None,
    version: int = 0,
) -> Evaluation:
    """Play whole episodes with the agent's weights as they are, and score them by raw reward.

    Args:
        env: environments; they are reset. Each plays ``episodes // num_envs`` episodes, the first ones one more.
        greedy: the most probable action, else one drawn from the policy.
        seed: of the environments and, unless ``generator`` is given, of the drawn actions.
        stop: asked before every step; once True, the episodes that have ended so far are returned (``complete`` False).
        on_step: called with every row, also those that are not scored, before actions are chosen.
        version: of the weights; only noted down.
    """
    if episodes < 1:
        raise ValueError(f"episodes={episodes} must be at least 1")
    started = time.perf_counter()
    if generator is None:
        generator = torch.Generator(network_device(agent)).manual_seed(seed)
    player = Player(agent, env.num_envs, greedy=greedy, generator=generator)
    scores = _Scores(env.num_envs, episodes, env.spec.frame_skip)
    training = agent.network.training
    agent.network.eval()
    env.reset(seed)
    complete = False
    while not (stop is not None and stop()):
        step = env.recv()
        scores.add(step)
        if on_step is not None:
            on_step(step)
        complete = scores.complete()
        if complete:
            break
        playing = scores.playing(step.env_ids)
        action = idle_actions(env.spec.action, len(step.env_ids))
        if playing.any():
            action[playing] = player.act(_rows(step, playing))
        env.send(action)
    agent.network.train(training)
    returns, lengths = scores.result()
    seconds = time.perf_counter() - started
    policy = "greedy" if greedy else "sampled"
    return Evaluation(returns, lengths, scores.frames, seconds, version, policy, complete)


class _Scores:
    """Return and length of the running episode of each environment, and of those that have ended."""

    def __init__(self, num_envs: int, episodes: int, frame_skip: int) -> None:
        share, extra = divmod(episodes, num_envs)
        self._left = np.full(num_envs, share) + (np.arange(num_envs) < extra)
        self._return = np.zeros(num_envs)
        self._length = np.zeros(num_envs, np.int64)
        self._ended: list[list[tuple[float, int]]] = [[] for _ in range(num_envs)]
        self._frame_skip = frame_skip
        self.frames = 0

    def add(self, step: EnvStep) -> None:
        """Count the rows of environments that still play; a row that is not valid ends an episode."""
        elapsed = np.ones(len(step.env_ids), np.int64) if step.elapsed is None else step.elapsed
        for i, env_id in enumerate(step.env_ids):
            if self._left[env_id] == 0:
                continue
            if step.first[i]:
                self._return[env_id], self._length[env_id] = 0.0, 0
                continue
            self._return[env_id] += step.raw_reward[i]
            self._length[env_id] += 1
            self.frames += int(elapsed[i]) * self._frame_skip
            if not step.valid[i]:
                self._ended[env_id].append((float(self._return[env_id]), int(self._length[env_id])))
                self._left[env_id] -= 1

    def playing(self, env_ids: np.ndarray) -> np.ndarray:
        """[n] bool: which of these environments have episodes left."""
        return self._left[env_ids] > 0

    def complete(self) -> bool:
        """True once all episodes have ended."""
        return not self._left.any()

    def result(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns [episodes] float64 and lengths [episodes] int64."""
        ended = [episode for one in self._ended for episode in one]
        return np.array([r for r, _ in ended], np.float64), np.array([n for _, n in ended], np.int64)


def idle_actions(spec: ActionSpec, count: int) -> np.ndarray:
    """Actions [count, ...] for environments whose rows nobody looks at: 0, or the allowed number nearest to it."""
    action = spec.array.zeros(count)
    if spec.kind == "continuous" and spec.low:
        low, high = np.reshape(spec.low, spec.shape), np.reshape(spec.high, spec.shape)
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


def _mean(values: np.ndarray) -> float:
    """Mean, NaN for none."""
    return float(np.mean(values)) if len(values) else float("nan")
