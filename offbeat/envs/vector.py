"""Vector environments of Gymnasium (``make_vec``, ``SyncVectorEnv``, ``AsyncVectorEnv``, custom ones) as they are."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode

from offbeat.envs.base import EnvConfig, Misbehaved, StateUnsupported
from offbeat.envs.rows import check_actions, reject_unused, transform_reward
from offbeat.envs.spaces import MASK, Translator, action_spec, actions_decoder, flatten_space, with_mask
from offbeat.types import LEGAL, ArrayDict, ArraySpec, EnvSpec, EnvStep

USED = ("channels",)
"""Switches that mean something to them."""


class GymnasiumVectorEnv:
    """A ``gymnasium.vector.VectorEnv`` as a ``VectorEnv``: whole batches, without a copy that a view would do.

    It must reset environments at the step after their end (``AutoresetMode.NEXT_STEP``, Gymnasium's default): in the
    other modes an episode's final observation and the first of the next one fall into one step. Later episodes follow
    from the first seed alone if the environment's generators do, so nothing can be played again: ``state`` refuses.
    """

    def __init__(self, config: EnvConfig, env: gymnasium.vector.VectorEnv[Any, Any, Any]) -> None:
        """Take over ``env``. ValueError where its spaces are not supported, ``Misbehaved`` for another mode."""
        reject_unused(config, USED)
        mode = env.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP)
        if mode not in (AutoresetMode.NEXT_STEP, AutoresetMode.NEXT_STEP.value):
            raise Misbehaved(
                f"{config.id} resets its environments in mode {getattr(mode, 'name', mode)}; make it with "
                "autoreset_mode=gymnasium.vector.AutoresetMode.NEXT_STEP"
            )
        self._env, self._config = env, config
        self.num_envs = self.batch_size = env.num_envs
        self._ids = np.arange(self.num_envs)
        action = action_spec(env.single_action_space, config.id)
        self._leaves = with_mask(flatten_space(env.single_observation_space, config.id, config.channels), action)
        self._decode = actions_decoder(env.single_action_space)
        self._over = np.zeros(self.num_envs, bool)
        self._told = False
        self._rows: EnvStep | None = None
        _, info = env.reset(seed=0)
        choices = sum(action.choices)
        self._told = (
            LEGAL not in self._leaves and choices > 0 and np.shape(info.get(MASK, ())) == (self.num_envs, choices)
        )
        observation = {key: leaf.spec for key, leaf in self._leaves.items()}
        registered = getattr(env.spec, "max_episode_steps", None)
        self.spec = EnvSpec(
            id=config.id,
            observation=observation | ({LEGAL: ArraySpec((choices,), "bool")} if self._told else {}),
            action=action,
            max_episode_steps=registered,
        )

    def translator(self) -> Translator:
        """Between the spaces of one of its environments and what ``spec`` says."""
        return Translator(self._leaves, self._env.single_action_space)

    def reset(self, seed: int) -> None:
        """Start all episodes."""
        observation, info = self._env.reset(seed=seed % 2**31)
        self._over[:] = False
        zeros = np.zeros(self.num_envs)
        self._take(observation, info, zeros, zeros > 0, zeros > 0, np.ones(self.num_envs, bool))

    def recv(self) -> EnvStep:
        """The rows that the last ``send`` led to."""
        if self._rows is None:
            raise RuntimeError("recv() needs a reset() or send() before it")
        rows, self._rows = self._rows, None
        return rows

    def send(self, action: np.ndarray) -> None:
        """Take one action in each environment; ended ones ignore it and start anew."""
        chosen = check_actions(action, self.spec.action, self.num_envs)
        observation, reward, terminated, truncated, info = self._env.step(self._decode(chosen))
        first = self._over.copy()
        terminated, truncated = np.asarray(terminated, bool) & ~first, np.asarray(truncated, bool) & ~first
        self._over = terminated | truncated
        self._take(observation, info, np.where(first, 0.0, reward), terminated, truncated & ~terminated, first)

    def _take(
        self,
        observation: Any,
        info: dict[str, Any],
        reward: np.ndarray,
        terminated: np.ndarray,
        truncated: np.ndarray,
        first: np.ndarray,
    ) -> None:
        raw = np.asarray(reward, np.float32)
        seen = {key: leaf.encode(leaf.checked(leaf.pick(observation), 1), 1) for key, leaf in self._leaves.items()}
        if self._told:
            shape = (self.num_envs, *self.spec.observation[LEGAL].shape)
            seen[LEGAL] = np.array(np.broadcast_to(info.get(MASK, True), shape), bool)
        self._rows = EnvStep(
            env_ids=self._ids.copy(),
            observation=seen,
            reward=transform_reward(raw, self._config),
            raw_reward=raw,
            terminated=terminated,
            truncated=truncated,
            first=first,
            valid=~(terminated | truncated),
        )

    def state(self) -> ArrayDict:
        """It cannot be saved."""
        raise StateUnsupported(
            f"{self._config.id} is a vector environment, whose episodes cannot be played again; deterministic runs "
            "need a factory of single ones"
        )

    def load_state(self, state: ArrayDict) -> None:
        """It cannot be saved."""
        raise StateUnsupported(f"{self._config.id} is a vector environment, whose episodes cannot be played again")

    def close(self) -> None:
        """Close it; harmless when called twice."""
        self._env.close()
