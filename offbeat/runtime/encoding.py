"""Features for samplers: a copy of the agent that nobody else uses, whose weights are the newest published ones."""

from __future__ import annotations

import torch
from torch import Tensor

from offbeat.agents.base import Agent, Encodes
from offbeat.errors import UserError
from offbeat.networks.flat import flatten_parameters
from offbeat.replay.mixture import ReplayConfig
from offbeat.runtime.ports import ParamReader
from offbeat.types import CoreState, Inputs, move


class Encoding:
    """See ``offbeat.replay.sampler.Encode``. Weights are pulled when they have moved and are needed.

    Args:
        agent: its own.
        params: where weights come from.
    """

    def __init__(self, agent: Agent, params: ParamReader) -> None:
        assert isinstance(agent, Encodes), "it was asked before the run was started"
        self._agent, self._params = agent, params
        self._flat = flatten_parameters(agent.network)
        self._version = -1
        self.components = agent.spec.action.choices
        agent.network.eval()

    def version(self) -> int:
        """The version of the newest weights; -1: there are none yet."""
        return self._params.version()

    @torch.no_grad()
    def features(self, kind: str, inputs: Inputs, state: CoreState) -> tuple[Tensor, int]:
        """See ``Encode.features``. The forward runs on the device that the agent is on."""
        if self._params.version() != self._version:
            self._version = self._params.pull(self._flat).updates
        device = self._flat.device
        found: Tensor = self._agent.features(kind, move(inputs, device), move(state, device))
        return found.float().cpu(), self._version


def check_encodes(agent: Agent, replay: ReplayConfig, name: str) -> None:
    """UserError where a sampler needs features and the agent, called ``name``, gives none."""
    for index, sampler in enumerate(replay.samplers):
        if sampler.encodes and not isinstance(agent, Encodes):
            raise UserError(
                f"replay.samplers.{index}.kind={sampler.kind} compares what the network makes of rows now with what it "
                f"made of them, and agent {name} has no method features to ask (see agents/base.py); impala and r2ac "
                "have one, other samplers need none"
            )
