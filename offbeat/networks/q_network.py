"""The network of value-based agents: torso, optional recurrent core, and a head of action values or distributions."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from offbeat.algorithms.q_learning import dueling
from offbeat.networks.base import TorsoNetwork
from offbeat.networks.exact import exact
from offbeat.networks.heads import Float32Linear, legal_actions
from offbeat.networks.initial import make_orthogonal
from offbeat.networks.lstm import LSTMCore
from offbeat.networks.noisy import NoisyLinear
from offbeat.networks.torsos import Torso, TorsoKind, choose_torso
from offbeat.types import CoreState, EnvSpec, TensorDict


class QOutput(NamedTuple):
    """What ``QNetwork`` returns."""

    value: Tensor  # [T, B, A], or [T, B, A, Z] logits over atoms
    state: CoreState  # after the last row


class QHead(nn.Module):
    """Action values from features: plain or dueling (Wang et al. 2016), scalars or ``atoms`` logits per action.

    ``hidden`` > 0: a hidden ReLU layer before the outputs, for a dueling head one in each stream. ``sigma`` > 0: all
    its layers are noisy.
    """

    def __init__(self, size: int, num_actions: int, *, duel: bool, hidden: int, atoms: int, sigma: float) -> None:
        """``size``: of the features. ``atoms``: 0 for scalar values."""
        super().__init__()
        self.num_actions, self.atoms = num_actions, atoms
        outputs = max(1, atoms)
        self.advantage = _stream(size, hidden, num_actions * outputs, sigma)
        self.value = _stream(size, hidden, outputs, sigma) if duel else None

    def forward(self, features: Tensor, legal: Tensor | None) -> Tensor:
        """[..., D] -> [..., A] or [..., A, Z] float32; ``legal`` [..., A] bool or None: for the dueling mean."""
        advantage: Tensor = self.advantage(features)
        shape = (*features.shape[:-1], self.num_actions, self.atoms) if self.atoms else advantage.shape
        advantage = advantage.reshape(shape)
        if self.value is None:
            return advantage
        value: Tensor = self.value(features)
        if self.atoms:
            value = value.unsqueeze(-2)
        return dueling(value, advantage, legal, atoms=self.atoms > 0)


class QNetwork(TorsoNetwork):
    """One class for acting, training and export.

    Args:
        spec: of the environment; discrete actions only.
        torso: which one; ``auto`` chooses.
        hidden_size, activation: of the mlp torso.
        feature_size: width of the layer after an image trunk; 0: as published, -1: none, the trunk's output as it is.
        centered: filters of the first convolution without their means, see ``ImageConv``.
        orthogonal: initial weights of torso and head orthogonal, with gains sqrt(2) and 1; False: torch's own.
        core_size: width of an LSTM between torso and head; 0: none.
        core_memory: steps that it remembers at the start, see ``LSTMCore.remember``; 0: as torch has it.
        last_action, last_reward: show them to the core.
        duel, head_size, atoms, sigma: of the head, see ``QHead``.
    """

    def __init__(
        self,
        spec: EnvSpec,
        *,
        torso: TorsoKind | Literal["auto"] = "auto",
        hidden_size: tuple[int, ...] = (64, 64),
        activation: Literal["tanh", "relu"] = "relu",
        feature_size: int = 0,
        centered: bool = False,
        orthogonal: bool = False,
        core_size: int = 0,
        core_memory: int = 0,
        last_action: bool = False,
        last_reward: bool = False,
        duel: bool = False,
        head_size: int = 0,
        atoms: int = 0,
        sigma: float = 0.0,
    ) -> None:
        super().__init__()
        if spec.action.kind != "discrete":
            raise ValueError(f"value-based agents need discrete actions, but those of {spec.id} are {spec.action.kind}")
        observation = spec.features
        kind = choose_torso(observation) if torso == "auto" else torso
        self.torso = Torso(observation, kind, hidden_size, activation, feature_size, centered)
        self.num_actions = spec.action.num_actions
        self.last_action, self.last_reward = last_action, last_reward
        size = self.torso.output_size + last_action * self.num_actions + last_reward
        self.core = LSTMCore(size, core_size, memory=core_memory) if core_size else None
        self.head = QHead(core_size or size, self.num_actions, duel=duel, hidden=head_size, atoms=atoms, sigma=sigma)
        if orthogonal:
            make_orthogonal(self.torso, math.sqrt(2.0))
            make_orthogonal(self.head, 1.0)

    def cast(self, observation: TensorDict) -> TensorDict:
        """The same observations with images cast as the torso reads them: once for all networks that read them."""
        return self.torso.cast(observation)

    def forward(
        self,
        observation: TensorDict,
        first: Tensor,
        state: CoreState,
        last_action: Tensor | None = None,
        last_reward: Tensor | None = None,
    ) -> QOutput:
        """Action values of T rows.

        Args:
            observation: key -> [T, B, ...], frame stacks included.
            first: [T, B] bool, rows that start an episode; the state is zeroed before them.
            state: the state before row 0, as ``initial_state``.
            last_action: [T, B] int64, needed if the network was built for it.
            last_reward: [T, B] float32, likewise.
        """
        parts = [exact(self.torso(observation))]
        if self.last_action:
            if last_action is None:
                raise ValueError("last_action: expected a tensor [T, B], got None; the network was built for it")
            shown = functional.one_hot(last_action.long(), self.num_actions).float()
            parts.append(shown * (~first).unsqueeze(-1))  # an episode's first row has no action before it
        if self.last_reward:
            if last_reward is None:
                raise ValueError("last_reward: expected a tensor [T, B], got None; the network was built for it")
            parts.append(last_reward.unsqueeze(-1))
        features = parts[0] if len(parts) == 1 else torch.cat(parts, -1)
        if self.core is not None:
            features, state = self.core(features, state, first)
        return QOutput(self.head(features, legal_actions(observation)), state)


def _stream(size: int, hidden: int, outputs: int, sigma: float) -> nn.Sequential:
    """One stream of a head. The output layer computes in float32: differences between actions are small."""
    if sigma > 0:
        layers: list[nn.Module] = [NoisyLinear(size, hidden, sigma, exact=False), nn.ReLU()] if hidden else []
        return nn.Sequential(*layers, NoisyLinear(hidden or size, outputs, sigma))
    layers = [nn.Linear(size, hidden), nn.ReLU()] if hidden else []
    return nn.Sequential(*layers, Float32Linear(hidden or size, outputs))
