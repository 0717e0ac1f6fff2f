"""The network of value-based agents: torso, optional recurrent core, and a head of action values or distributions."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from offbeat.algorithms.q_learning import dueling
from offbeat.networks.encoder import Encoder, EncoderConfig
from offbeat.networks.heads import Float32Linear, legal_actions
from offbeat.networks.lstm import LSTMCore
from offbeat.networks.noisy import NoisyLinear
from offbeat.networks.own_torso import TorsoFactory
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


class QNetwork(Encoder):
    """One class for acting, training and export.

    Args:
        config: of the encoder.
        spec: of the environment; discrete actions only.
        torso: a torso of the user's own.
        core_size: width of an LSTM between torso and head; 0: none.
        core_memory: steps that it remembers at the start, see ``LSTMCore.remember``; 0: as torch has it.
        duel, head_size, atoms, sigma: of the head, see ``QHead``.
    """

    def __init__(
        self,
        config: EncoderConfig,
        spec: EnvSpec,
        *,
        torso: TorsoFactory | None = None,
        core_size: int = 0,
        core_memory: int = 0,
        duel: bool = False,
        head_size: int = 0,
        atoms: int = 0,
        sigma: float = 0.0,
    ) -> None:
        if spec.action.kind != "discrete":
            raise ValueError(
                f"value-based agents need discrete actions, but those of {spec.id} are {spec.action.kind}; "
                "use an actor-critic such as impala, as preset own does"
            )

        def lstm(size: int) -> LSTMCore:
            return LSTMCore(size, core_size, memory=core_memory)

        super().__init__(config, spec, torso=torso, make_core=lstm if core_size else None)
        self.head = QHead(self.output_size, self.num_actions, duel=duel, hidden=head_size, atoms=atoms, sigma=sigma)
        self.begin_with(config.init, (self.head, 1.0))

    def forward(
        self,
        observation: TensorDict,
        first: Tensor,
        state: CoreState,
        last_action: Tensor | None = None,
        last_reward: Tensor | None = None,
    ) -> QOutput:
        """Action values of T rows; arguments as of ``Encoder.encode``."""
        features, state = self.encode(observation, first, state, last_action, last_reward)
        return QOutput(self.head(features, legal_actions(observation)), state)


def _stream(size: int, hidden: int, outputs: int, sigma: float) -> nn.Sequential:
    """One stream of a head. The output layer computes in float32: differences between actions are small."""
    if sigma > 0:
        layers: list[nn.Module] = [NoisyLinear(size, hidden, sigma, exact=False), nn.ReLU()] if hidden else []
        return nn.Sequential(*layers, NoisyLinear(hidden or size, outputs, sigma))
    layers = [nn.Linear(size, hidden), nn.ReLU()] if hidden else []
    return nn.Sequential(*layers, Float32Linear(hidden or size, outputs))
