"""What all value-based agents share: network and target network, epsilon-greedy acting, and their options."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from offbeat.agents.target import TargetNetwork
from offbeat.algorithms.legal import draw_legal, mask_illegal
from offbeat.algorithms.priorities import epsilon_ladder
from offbeat.networks import heads
from offbeat.networks.encoder import EncoderConfig
from offbeat.networks.own_torso import TorsoFactory
from offbeat.networks.q_network import QNetwork, QOutput
from offbeat.types import ActOutput, ArraySpec, CoreState, EnvSpec, Inputs, ItemSpec


@dataclass(frozen=True)
class QConfig(EncoderConfig):
    """Options of every value-based agent."""

    dueling: bool = True
    """Values and advantages apart (Wang et al. 2016)."""
    head_size: int = 0
    """Width of a hidden layer in each stream of the head; 0: none. Unit: neurons."""
    discount: float = 0.99
    """Gamma per environment step, in [0, 1]."""
    n_step: int = 1
    """Steps of the returns, >= 1."""
    double: bool = True
    """The online network chooses the action that the target network values (van Hasselt et al. 2016)."""
    target_period: int = 2500
    """The target network is a copy that is renewed every so many updates, > 0. Source: Horgan et al. 2018."""
    target_rate: float = 1.0
    """How far the target network then moves to the online one, in (0, 1]: 1 is a copy, less is Polyak averaging."""
    exploration: Literal["linear", "ladder"] = "linear"
    """Epsilon: falling in a straight line over ``explore`` steps, or constant and different for each environment
    (Horgan et al. 2018)."""
    epsilon_start: float = 1.0
    """First epsilon of ``linear``, in [0, 1]. Source: Mnih et al. 2015."""
    epsilon_end: float = 0.05
    """Last epsilon of ``linear``, in [0, 1]."""
    explore: int = 250_000
    """Length of ``linear``. Unit: agent steps."""
    explore_repeat: float = 0.0
    """Share of exploring actions that are the last action again, in [0, 1); the others are uniform. Long runs of one
    action lead farther than steps to and fro (after Dabney et al. 2021, "Temporally-Extended epsilon-Greedy
    Exploration"; theirs draws the length of each run)."""
    ladder_base: float = 0.4
    """Largest epsilon of ``ladder``, in [0, 1]. Source: Horgan et al. 2018, section 4.1."""
    ladder_alpha: float = 7.0
    """Exponent of ``ladder``, >= 0. Source: Horgan et al. 2018, section 4.1."""

    def __post_init__(self) -> None:
        """Raise ValueError for a value out of range."""
        super().__post_init__()
        for name in ("discount", "epsilon_start", "epsilon_end", "ladder_base"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name}={getattr(self, name)} is out of range; allowed: 0 to 1")
        for name in ("n_step", "target_period", "explore"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} is out of range; allowed: 1 or above")
        if not 0.0 <= self.explore_repeat < 1.0:
            raise ValueError(f"explore_repeat={self.explore_repeat} is out of range; allowed: 0 or above, below 1")
        if not 0.0 < self.target_rate <= 1.0:
            raise ValueError(f"target_rate={self.target_rate} is out of range; allowed: above 0, up to 1")
        for name in ("head_size", "ladder_alpha"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)} is out of range; allowed: 0 or above")


class QAgent:
    """A value-based agent bound to one environment spec: see ``offbeat.agents.base.Agent`` for the contract.

    Extras of a row: ``q``, the value of the action that was taken, and ``q_max``, the largest value of one that could
    be taken, both [] float32: initial priorities are made of them.

    Attributes:
        target: the target network; made when it is first needed, because only learners do.
        items: what the agent trains on.
    """

    network_class: type[QNetwork] = QNetwork

    def __init__(
        self,
        config: QConfig,
        spec: EnvSpec,
        device: torch.device | str,
        items: ItemSpec,
        torso: TorsoFactory | None = None,
        **own: Any,
    ) -> None:
        """Build the network of ``config``; ``own``: what an agent adds to ``QNetwork``'s arguments."""
        self.config, self.spec, self.items = config, spec, items
        self.device = torch.device(device)
        network = self.network_class(config, spec, torso=torso, duel=config.dueling, head_size=config.head_size, **own)
        self.network: QNetwork = network.to(self.device)
        self.discount = config.discount
        self.wants_last = network.last_action or network.last_reward or config.explore_repeat > 0
        self._target = TargetNetwork(self.network, config.target_period, config.target_rate)

    @property
    def target(self) -> QNetwork:
        """The target network; a copy of the online one at first."""
        return self._target.network

    def learner_states(self) -> dict[str, TargetNetwork[QNetwork]]:
        """The target network."""
        return {"target": self._target}

    def initial_state(self, batch: int) -> CoreState:
        """Zeros for ``batch`` episodes' starts; {} without a core."""
        return self.network.initial_state(batch)

    def row_extras(self) -> dict[str, ArraySpec]:
        """What ``act`` notes down for each row."""
        return {"q": ArraySpec(()), "q_max": ArraySpec(())}

    def exploration(self, stream: np.ndarray, num_streams: int, agent_steps: int) -> np.ndarray:
        """Epsilon [n] float32 of the environments ``stream`` [n] of ``num_streams`` after ``agent_steps``."""
        config = self.config
        if config.exploration == "ladder":
            ladder = epsilon_ladder(num_streams, config.ladder_base, config.ladder_alpha)
            return ladder.numpy()[stream].astype(np.float32)
        done = min(1.0, agent_steps / config.explore)
        epsilon = config.epsilon_start + (config.epsilon_end - config.epsilon_start) * done
        return np.full(len(stream), epsilon, np.float32)

    @torch.no_grad()
    def act(
        self, inputs: Inputs, state: CoreState, generator: torch.Generator | None, greedy: bool = False
    ) -> ActOutput:
        """The best legal action, or with probability ``inputs.epsilon`` any legal one (not when ``greedy``)."""
        output = self.forward(self.network, inputs, state)
        value = self.values(output.value[0])  # [B, A]
        legal = legal_actions(inputs)
        masked = mask_illegal(value, None if legal is None else legal[0])
        best, action = masked.max(-1)
        if inputs.epsilon is not None and not greedy:
            epsilon, repeat = inputs.epsilon[0], self.config.explore_repeat
            if repeat:  # of those that do not repeat so many draw that epsilon in all explore
                drawn = explore(action, masked, epsilon * (1 - repeat) / (1 - epsilon * repeat), generator)
                action = _repeat(drawn, masked, inputs, repeat, generator)
            else:
                action = explore(action, masked, epsilon, generator)
        taken = value.gather(-1, action.unsqueeze(-1)).squeeze(-1)
        return ActOutput(action, {"q": taken.float(), "q_max": best.float()}, output.state)

    def policy_name(self, greedy: bool) -> str:
        """Without an epsilon the best action is taken, whatever was asked for."""
        return "greedy"

    def values(self, output: Tensor) -> Tensor:
        """Action values [..., A] of what the network gives."""
        return output

    def forward(self, network: QNetwork, inputs: Inputs, state: CoreState) -> QOutput:
        """``network`` at ``inputs``."""
        output: QOutput = network(inputs.observation, inputs.first, state, inputs.last_action, inputs.last_reward)
        return output

    def cast(self, inputs: Inputs) -> Inputs:
        """``inputs`` with images cast once, for the online and the target network to read."""
        return replace(inputs, observation=self.network.cast(inputs.observation))


def explore(action: Tensor, masked: Tensor, epsilon: Tensor, generator: torch.Generator | None) -> Tensor:
    """``action`` [B], but with probability ``epsilon`` [B] any action that ``masked`` [B, A] allows."""
    drawn = torch.rand((2, len(action)), device=action.device, generator=generator)
    return torch.where(drawn[0] < epsilon, draw_legal(masked > -1e29, drawn[1]), action)


def _repeat(action: Tensor, masked: Tensor, inputs: Inputs, share: float, generator: torch.Generator | None) -> Tensor:
    """``action`` [B], but with probability epsilon times ``share`` the last one, if there was one and it is legal."""
    assert inputs.last_action is not None and inputs.epsilon is not None
    last = inputs.last_action[0].long()
    again = torch.rand(len(action), device=action.device, generator=generator) < inputs.epsilon[0] * share
    again &= ~inputs.first[0] & (masked.gather(-1, last.unsqueeze(-1)).squeeze(-1) > -1e29)
    return torch.where(again, last, action)


def legal_actions(inputs: Inputs) -> Tensor | None:
    """The mask [T, B, A] bool among the observations; None where the environment has none."""
    return heads.legal_actions(inputs.observation)
