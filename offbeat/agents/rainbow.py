"""Rainbow: DQN with double Q-learning, priorities, dueling, n-step returns, categorical values and noisy layers.

Source: Hessel et al. 2018, "Rainbow: Combining Improvements in Deep Reinforcement Learning"; categorical values:
Bellemare et al. 2017; noisy layers: Fortunato et al. 2018.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from offbeat.agents.q_agent import QAgent, QConfig, legal_actions
from offbeat.algorithms.legal import mask_illegal
from offbeat.algorithms.q_learning import categorical_projection, expected_value
from offbeat.networks.exact import exact
from offbeat.networks.noisy import set_noise
from offbeat.networks.own_torso import TorsoFactory
from offbeat.types import ActOutput, CoreState, EnvSpec, Inputs, ItemSpec, LossOutput, Transition


@dataclass(frozen=True)
class Config(QConfig):
    """Rainbow's network and loss, with the paper's defaults where they differ from DQN's."""

    n_step: int = 3
    """Steps of the returns, >= 1. Source: Hessel et al. 2018, table 1."""
    head_size: int = 512
    """Width of a hidden layer in each stream of the head; 0: none. Unit: neurons."""
    feature_size: int = -1
    """Width of the layer after an image trunk; 0: as published (nature 512, shallow 256, minatar 128); -1: none.
    Unit: neurons."""
    target_period: int = 2000
    """The target network is renewed every so many updates, > 0: 32,000 frames, where each 16 have one update.
    Source: Hessel et al. 2018, table 1."""
    epsilon_start: float = 0.0
    """First epsilon of ``linear``, in [0, 1]; with noisy layers none is needed. Source: Hessel et al. 2018, table 1."""
    epsilon_end: float = 0.0
    """Last epsilon of ``linear``, in [0, 1]."""
    noisy_sigma: float = 0.5
    """Initial noise of the layers of the head, >= 0; 0: plain layers. Source: Hessel et al. 2018, table 1."""
    atoms: int = 51
    """Atoms of the value distribution, >= 2. Source: Bellemare et al. 2017."""
    value_min: float = -10.0
    """Least value of the distribution's support. Source: Hessel et al. 2018, table 1."""
    value_max: float = 10.0
    """Largest value of the distribution's support, above ``value_min``. Source: Hessel et al. 2018, table 1."""

    def __post_init__(self) -> None:
        """Raise ValueError for a value out of range."""
        super().__post_init__()
        if self.atoms < 2:
            raise ValueError(f"atoms={self.atoms} is out of range; allowed: 2 or above")
        if not self.value_min < self.value_max:
            raise ValueError(f"value_min={self.value_min} must be below value_max={self.value_max}")
        if self.noisy_sigma < 0:
            raise ValueError(f"noisy_sigma={self.noisy_sigma} is out of range; allowed: 0 or above")


class Agent(QAgent):
    """Rainbow bound to one environment spec."""

    config: Config

    def __init__(
        self, config: Config, spec: EnvSpec, device: torch.device | str = "cpu", torso: TorsoFactory | None = None
    ) -> None:
        """Build the network on ``device``; its initial weights come from torch's global generator.

        ``torso``: the user's own, in place of the one that ``config`` names.
        """
        items = ItemSpec("transition", n=config.n_step)
        super().__init__(config, spec, device, items, torso, atoms=config.atoms, sigma=config.noisy_sigma)
        self.support = torch.from_numpy(np.linspace(config.value_min, config.value_max, config.atoms, dtype=np.float32))
        self.support = self.support.to(self.device)

    def values(self, output: Tensor) -> Tensor:
        """Expected values [..., A] of the distributions whose logits [..., A, Z] the network gives."""
        return expected_value(self.support, output.float().softmax(-1))

    @torch.no_grad()
    def act(
        self, inputs: Inputs, state: CoreState, generator: torch.Generator | None, greedy: bool = False
    ) -> ActOutput:
        """The best legal action under freshly drawn noise; without noise when ``greedy``."""
        set_noise(self.network, generator, quiet=greedy)
        output = super().act(inputs, state, generator, greedy)
        set_noise(self.network, None)
        return output

    def policy_name(self, greedy: bool) -> str:
        """The best action: under noise unless ``greedy``, where layers are noisy."""
        return "greedy" if greedy or self.config.noisy_sigma == 0 else "noisy"

    def loss(self, batch: Transition, progress: float) -> LossOutput:
        """Cross-entropy to the projected distribution of ``R + gamma^n Z'(s_n, a*)`` (Hessel et al. 2018, eq. 3).

        Priorities are the Kullback-Leibler divergences. ``progress`` is not used.
        """
        target = self._target_distribution(batch)
        logits = exact(self.forward(self.network, batch.inputs, {}).value[0])
        index = batch.action.long()[:, None, None].expand(-1, 1, logits.shape[-1])
        log_probs = functional.log_softmax(logits.gather(1, index).squeeze(1), -1)
        cross = -(target * log_probs).sum(-1)
        total = (cross if batch.weight is None else cross * batch.weight).sum()
        entropy = -(target * target.clamp(min=1e-12).log()).sum(-1)
        divergence = (cross.detach() - entropy).clamp(min=0)
        with torch.no_grad():
            q_mean = expected_value(self.support, log_probs.exp()).mean()
        metrics = {"q_mean": q_mean, "divergence": divergence.mean(), "target_entropy": entropy.mean()}
        return LossOutput(total, metrics, {"priority": divergence}, len(divergence))

    @torch.no_grad()
    def _target_distribution(self, batch: Transition) -> Tensor:
        """[B, Z], projected onto the support."""
        legal = legal_actions(batch.next_inputs)
        legal = None if legal is None else legal[0]
        inputs = self.cast(batch.next_inputs)
        probs = exact(self.forward(self.target, inputs, {}).value[0]).softmax(-1)
        chooser = probs
        if self.config.double:
            chooser = exact(self.forward(self.network, inputs, {}).value[0]).softmax(-1)
        best = mask_illegal(expected_value(self.support, chooser), legal).argmax(-1)
        index = best[:, None, None].expand(-1, 1, probs.shape[-1])
        return categorical_projection(self.support, probs.gather(1, index).squeeze(1), batch.reward, batch.discount)
