"""From rows of environments to what a network reads: once, for actors, evaluators, recordings and programs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from offbeat.envs.rows import in_order
from offbeat.replay.layout import StreamLayout
from offbeat.replay.stacking import FrameStacker
from offbeat.types import ArrayDict, ArraySpec, EnvSpec, EnvStep, Inputs


class Observer:
    """Keeps what the inputs of ``count`` environments need of the rows before: frame stacks and last actions.

    Rows may come of any of the environments, as asynchronous ones give them.

    Args:
        spec: single frames and how they are stacked.
        action: of one stored action.
        count: environments, K.
        wants_last: inputs carry last actions and rewards.
        explore: gives each environment's epsilon [K] from the actions that were taken; None: not needed.
    """

    def __init__(
        self,
        spec: EnvSpec | StreamLayout,
        action: ArraySpec,
        count: int,
        *,
        wants_last: bool,
        explore: Callable[[int], np.ndarray] | None = None,
    ) -> None:
        self._explore, self.wants_last = explore, wants_last
        self.stacker = FrameStacker(spec, count)
        self.last_action, self._everyone = action.zeros(count), in_order(count)
        self.steps = 0
        """Actions taken; those at rows that only carry a final observation are none."""

    def observe(self, rows: EnvStep) -> Inputs:
        """What the network sees of ``rows``, [1, n, ...] on the processor; stacks only until the next call."""
        stacked = self.stacker.push(rows.env_ids, rows.observation, rows.first)
        observation = {key: torch.from_numpy(value).unsqueeze(0) for key, value in stacked.items()}
        inputs = Inputs(observation, torch.from_numpy(rows.first).unsqueeze(0))
        if self._explore is not None:
            inputs.epsilon = torch.from_numpy(self._explore(self.steps)[rows.env_ids]).unsqueeze(0)
        if not self.wants_last:
            return inputs
        action = self.last_action[rows.env_ids]
        action[rows.first] = 0
        reward = np.where(rows.first, 0.0, rows.reward).astype(np.float32)
        inputs.last_action, inputs.last_reward = torch.from_numpy(action)[None], torch.from_numpy(reward)[None]
        return inputs

    def explore(self, inputs: Inputs) -> None:
        """Bring the epsilon of ``inputs`` of all environments up to date, for who uses them again."""
        if self._explore is not None:
            assert inputs.epsilon is not None, "observe() gave them one"
            inputs.epsilon.numpy()[0] = self._explore(self.steps)

    def remember(self, rows: EnvStep, action: np.ndarray) -> None:
        """Keep the actions [n, ...] taken at ``rows``, for the next inputs."""
        self.last_action[slice(None) if rows.env_ids is self._everyone else rows.env_ids] = action
        self.steps += int(np.count_nonzero(rows.valid))

    def state(self) -> ArrayDict:
        """All of it."""
        saved = {f"stacker/{name}": value for name, value in self.stacker.state().items()}
        return saved | {"last_action": self.last_action, "steps": np.array([self.steps])}

    def load_state(self, state: ArrayDict) -> None:
        """Back to a saved state."""
        stacks = {name.removeprefix("stacker/"): v for name, v in state.items() if name.startswith("stacker/")}
        self.stacker.load_state(stacks)
        self.last_action, self.steps = state["last_action"], int(state["steps"][0])
