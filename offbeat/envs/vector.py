"""Vector environments of Gymnasium (``make_vec``, ``SyncVectorEnv``, ``AsyncVectorEnv``, custom ones) as they are."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode

from offbeat.envs.base import EnvConfig, Misbehaved, StateUnsupported
from offbeat.envs.manners import check_spaces, spaces_of
from offbeat.envs.rows import check_actions, handed_out, make_rows, reject_unused
from offbeat.envs.spaces import (
    Translator,
    action_decoder,
    action_spec,
    flatten_space,
    has_mask,
    read_mask,
    refuse_late_mask,
    with_mask,
)
from offbeat.types import LEGAL, ArrayDict, ArraySpec, EnvSpec, EnvStep

USED = ("channels",)
"""Switches that mean something to them."""
SPACES = ("single_observation_space", "single_action_space")
"""What they call the spaces of one of them."""


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
        self._env, self._config, self._made = env, config, spaces_of(env, SPACES)
        self.num_envs = self.batch_size = env.num_envs
        action = action_spec(env.single_action_space, config.id)
        self._leaves = with_mask(flatten_space(env.single_observation_space, config.id, config.channels), action)
        self._decode = action_decoder(env.single_action_space)
        self._over = np.zeros(self.num_envs, bool)
        self._rows: EnvStep | None = None
        _, info = env.reset(seed=0)
        check_spaces(env, self._made, config.id)
        self._told = LEGAL not in self._leaves and has_mask(info, action, self.num_envs)
        observation = {key: leaf.spec for key, leaf in self._leaves.items()}
        registered = getattr(env.spec, "max_episode_steps", None)
        self.spec = EnvSpec(
            id=config.id,
            observation=observation | ({LEGAL: ArraySpec((sum(action.choices),), "bool")} if self._told else {}),
            action=action,
            max_episode_steps=registered,
        )

    def translator(self) -> Translator:
        """Between the spaces of one of its environments and what ``spec`` says."""
        env = self._env
        return Translator(self._leaves, env.single_observation_space, env.single_action_space)

    def reset(self, seed: int) -> None:
        """Start all episodes."""
        observation, info = self._env.reset(seed=seed % 2**31)
        check_spaces(self._env, self._made, self._config.id)
        self._over[:] = False
        zeros = np.zeros(self.num_envs)
        self._take(observation, info, zeros, zeros > 0, zeros > 0, np.ones(self.num_envs, bool))

    def recv(self) -> EnvStep:
        """The rows that the last ``send`` led to."""
        rows, self._rows = handed_out(self._rows), None
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
        seen = {key: leaf.encode(leaf.checked(leaf.pick(observation), 1), 1) for key, leaf in self._leaves.items()}
        if self._told:
            shape = (self.num_envs, *self.spec.observation[LEGAL].shape)
            seen[LEGAL] = read_mask(info, shape, self._config.id)
        elif LEGAL not in seen:
            refuse_late_mask(info, self.spec.action, self._config.id, self.num_envs)
        self._rows = make_rows(self._config, seen, reward, terminated, truncated, first)

    def state(self) -> ArrayDict:
        """It cannot be saved."""
        raise StateUnsupported(
            f"{self._config.id} is a vector environment, whose episodes cannot be played again; deterministic runs "
            "need a factory of single ones"
        )

    def load_state(self, state: ArrayDict) -> None:
        """It cannot be saved."""
        raise StateUnsupported(f"{self._config.id} is a vector environment, whose episodes cannot be played again")

    @property
    def made(self) -> gymnasium.vector.VectorEnv[Any, Any, Any]:
        """Gymnasium's own, as it was handed over."""
        return self._env

    def close(self) -> None:
        """Close it; harmless when called twice."""
        self._env.close()
