"""The policy that an actor holds when it runs the network itself."""

from __future__ import annotations

import numpy as np
import torch

from offbeat.agents.base import Agent
from offbeat.envs.rows import in_order
from offbeat.networks.flat import WeightViews, flatten_parameters
from offbeat.networks.rounded import RoundedWeights
from offbeat.runtime.ports import ParamReader, Point
from offbeat.types import ActOutput, ArrayDict, CoreState, Inputs, move


class LocalPolicy:
    """Acts with a copy of the network, pulls newer weights when asked, keeps the recurrent state of ``count``
    environments.

    Args:
        agent: this role's own agent.
        params: where weights come from.
        count: environments.
        seed: of the actions drawn.
        greedy: always the most probable action.
        precision: ``"bf16"`` runs the forward in bfloat16.
        shared: act on the published weights where they lie, without a copy of one's own.
    """

    def __init__(
        self,
        agent: Agent,
        params: ParamReader,
        count: int,
        *,
        seed: int,
        greedy: bool = False,
        precision: str = "fp32",
        shared: bool = False,
    ) -> None:
        self.agent, self.params, self.greedy = agent, params, greedy
        self.flat = flatten_parameters(agent.network)
        self.device = self.flat.device
        self.point = Point(-1)
        """Where the weights that act are from."""
        self._state, self._mode = agent.initial_state(count), torch.inference_mode()
        self._everyone = in_order(count)
        self._generator = torch.Generator(self.device)
        self._generator.manual_seed(seed)
        agent.network.eval()
        self._rounded = RoundedWeights(agent.network) if precision == "bf16" else None
        # Weights that are rounded, or that go to a device, are copied in any case.
        self._shared = shared and self._rounded is None and self.device.type == "cpu"
        self._released = True
        self._views = WeightViews(agent.network)

    def refresh(self) -> int:
        """Take newer weights if there are any; the version that acts from now on."""
        moved = self.params.version() != self.version
        if self._shared and (moved or self._released):
            self.flat, self.point = self.params.pin()
            self._views.look_at(self.flat)
            self._released = False
        elif moved:
            self.point = self.params.pull(self.flat if self._rounded is None else self._rounded)
        return self.version

    def release(self) -> None:
        """Others may write over the weights until the next ``refresh``."""
        if self._shared:
            self.params.release()
            self._released = True

    @property
    def version(self) -> int:
        """Version of the weights that act; -1 before the first."""
        return self.point.updates

    def act(self, env_ids: np.ndarray, inputs: Inputs) -> ActOutput:
        """Actions for these environments; their recurrent states move on."""
        if env_ids is self._everyone or np.array_equal(env_ids, self._everyone):
            with self._mode:
                output = self._acted(inputs, self._state)
            self._state = output.state
            return output
        index = torch.from_numpy(env_ids)
        with self._mode:
            output = self._acted(inputs, {name: value[index] for name, value in self._state.items()})
            for name, value in output.state.items():
                self._state[name][index] = value
        return output

    def _acted(self, inputs: Inputs, state: CoreState) -> ActOutput:
        """What the agent does, in the precision that was asked for."""
        if self._rounded is None and self.device.type == "cpu":
            return self.agent.act(inputs, state, self._generator, self.greedy)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._rounded is not None):
            inputs = inputs if self.device.type == "cpu" else move(inputs, self.device)
            return self.agent.act(inputs, state, self._generator, self.greedy)

    def core_state(self, env_ids: np.ndarray) -> CoreState:
        """The state before the next ``act`` of these environments: name -> [n, ...]."""
        index = torch.from_numpy(env_ids)
        return {name: value[index] for name, value in self._state.items()}

    def state(self) -> ArrayDict:
        """Recurrent states, the generator and the weights acted with."""
        saved = {f"core/{name}": value.cpu().numpy() for name, value in self._state.items()}
        return saved | {"generator": self._generator.get_state().numpy(), "version": np.array([self.version])}

    def load_state(self, state: ArrayDict) -> None:
        """Back to a saved state; the weights come with the next ``refresh``."""
        for name in self._state:
            self._state[name] = torch.from_numpy(state[f"core/{name}"].copy()).to(self.device)
        self._generator.set_state(torch.from_numpy(state["generator"].copy()))
        self.point = Point(-1)
