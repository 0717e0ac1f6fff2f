"""IMPALA: an actor-critic trained off-policy with V-trace.

Source: Espeholt et al. 2018, "IMPALA: Scalable Distributed Deep-RL with Importance Weighted Actor-Learner
Architectures"; loss: section 4.2; networks: figure 3; constants: its table of Atari hyperparameters.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from offbeat.algorithms import actor_critic
from offbeat.algorithms.legal import mask_illegal
from offbeat.algorithms.vtrace import VTrace, vtrace
from offbeat.networks.base import TorsoNetwork
from offbeat.networks.exact import exact
from offbeat.networks.heads import CategoricalHead, GaussianHead, ValueHead, legal_actions
from offbeat.networks.initial import make_orthogonal
from offbeat.networks.lstm import LSTMCore, check_memory
from offbeat.networks.torsos import Torso, choose_torso
from offbeat.types import UNROLL, ActOutput, ArraySpec, CoreState, EnvSpec, Inputs, LossOutput, TensorDict, Unroll


@dataclass(frozen=True)
class Config:
    """IMPALA's network and loss. Batches and the optimiser are the learner's."""

    torso: Literal["auto", "nature", "shallow", "resnet", "minatar", "mlp"] = "auto"
    """Network up to the features. ``auto``: nature for images of 36 pixels or more, minatar for smaller ones, else mlp.
    ``shallow`` and ``resnet`` are IMPALA's two networks (Espeholt et al. 2018, figure 3)."""
    hidden_size: tuple[int, ...] = (64, 64)
    """Widths of the mlp torso's layers. Unit: neurons, each > 0."""
    activation: Literal["tanh", "relu"] = "tanh"
    """Non-linearity of the mlp torso."""
    feature_size: int = 0
    """Width of the layer after an image trunk; 0: as published (nature 512, shallow and resnet 256,
    minatar 128). Unit: neurons."""
    centered_filters: bool = False
    """Take their means off the filters of the first convolution: it then sees contrast, not brightness, and an even
    background silences no filter (after Huang et al. 2017, "Centered Weight Normalization")."""
    core: Literal["none", "lstm"] = "none"
    """Recurrent core between features and heads."""
    core_size: int = 256
    """Width of the recurrent state. Unit: neurons, > 0. Source: Espeholt et al. 2018, figure 3."""
    core_layers: int = 1
    """Layers of the recurrent core, > 0."""
    core_memory: int = 0
    """Steps over which the LSTM's cells forget at the start of training, each cell at its own pace up to this (chrono
    initialisation, Tallec & Ollivier 2018), 2 or above; 0: torch's own biases, with which half is gone after each row.
    Unit: agent steps."""
    last_action: bool = False
    """Show the previous action to the core (one-hot, or as it is where actions are continuous)."""
    last_reward: bool = False
    """Show the previous reward, clamped to [-1, 1], to the core."""
    policy_init_scale: float = 1.0
    """Factor on the policy head's initial weights, >= 0. 1: torch's own; 0.01: start close to the uniform policy."""
    init: Literal["torch", "orthogonal"] = "torch"
    """Initial weights: torch's own, or orthogonal with gain sqrt(2) in the torso, 1 in the value head, and zero biases,
    as A2C and PPO have them (Engstrom et al. 2020 name it among the choices that matter)."""
    discount: float = 0.99
    """Gamma per environment step, in [0, 1]. Source: Espeholt et al. 2018, Atari hyperparameters."""
    baseline_cost: float = 0.5
    """Weight of the value loss, >= 0. Source: Espeholt et al. 2018, Atari hyperparameters."""
    entropy_cost: float = 0.01
    """Weight of the entropy bonus, >= 0. Source: Espeholt et al. 2018, Atari hyperparameters."""
    rho_bar: float = 1.0
    """Clip of the importance weights in V-trace's temporal differences, > 0.
    Source: Espeholt et al. 2018, section 4."""
    c_bar: float = 1.0
    """Clip of V-trace's trace coefficients, > 0, at most ``rho_bar``. Source: Espeholt et al. 2018, section 4."""
    pg_rho_bar: float = 1.0
    """Clip of the importance weights of the policy gradient, > 0. Source: the authors' code."""
    lambda_: float = 1.0
    """Decay of V-trace's traces, in [0, 1]. Source: Espeholt et al. 2018, remark 2."""
    reduction: Literal["sum", "mean"] = "sum"
    """Loss summed over all rows of a batch, as in IMPALA, or averaged over them."""

    def __post_init__(self) -> None:
        """Raise ValueError for a value out of range."""
        for name in ("discount", "lambda_"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name}={getattr(self, name)} is out of range; allowed: 0 to 1")
        for name in ("rho_bar", "c_bar", "pg_rho_bar", "core_size", "core_layers"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)} is out of range; allowed: above 0")
        for name in ("baseline_cost", "entropy_cost", "policy_init_scale", "feature_size"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}={getattr(self, name)} is out of range; allowed: 0 or above")
        check_memory(self.core_memory)
        if self.c_bar > self.rho_bar:
            raise ValueError(f"c_bar={self.c_bar} is above rho_bar={self.rho_bar}; V-trace needs c_bar <= rho_bar")
        if any(width <= 0 for width in self.hidden_size):
            raise ValueError(f"hidden_size={self.hidden_size} is out of range; allowed: widths above 0")


class NetworkOutput(NamedTuple):
    """What ``Network`` returns. ``policy``: logits [T, B, A], or mean and log_std joined, [T, B, 2 K].

    Logits of actions that the observation's mask forbids are -1e30: nothing is drawn from them, they add nothing to the
    entropy, and no gradient flows into them.
    """

    policy: Tensor
    value: Tensor  # [T, B]
    state: CoreState  # after the last row


class Network(TorsoNetwork):
    """Torso, optional recurrent core, policy and value heads: one class for acting, training and export."""

    def __init__(self, config: Config, spec: EnvSpec) -> None:
        """Build from the configuration for one environment spec; initial weights come from torch's global generator."""
        super().__init__()
        observation, action = spec.features, spec.action
        kind = choose_torso(observation) if config.torso == "auto" else config.torso
        self.torso = Torso(
            observation, kind, config.hidden_size, config.activation, config.feature_size, config.centered_filters
        )
        self.num_actions = action.num_actions
        self.last_action, self.last_reward = config.last_action, config.last_reward
        size = self.torso.output_size + int(config.last_reward)
        if config.last_action:
            size += action.num_actions if action.kind == "discrete" else torch.Size(action.shape).numel()
        self.core = (
            LSTMCore(size, config.core_size, config.core_layers, config.core_memory) if config.core == "lstm" else None
        )
        size = size if self.core is None else self.core.output_size
        self.policy: CategoricalHead | GaussianHead
        if action.kind == "discrete":
            self.policy = CategoricalHead(size, action.num_actions, config.policy_init_scale)
        else:
            self.policy = GaussianHead(size, action, config.policy_init_scale)
        self.value = ValueHead(size)
        if config.init == "orthogonal":
            make_orthogonal(self.torso, math.sqrt(2.0))
            make_orthogonal(self.policy, config.policy_init_scale)
            make_orthogonal(self.value, 1.0)

    def forward(
        self,
        observation: TensorDict,
        first: Tensor,
        state: CoreState,
        last_action: Tensor | None = None,
        last_reward: Tensor | None = None,
        bootstrap: bool = False,
    ) -> NetworkOutput:
        """Policy and value of T rows.

        Args:
            observation: key -> [T, B, ...], frame stacks included.
            first: [T, B] bool, rows that start an episode; the state is zeroed before them.
            state: the state before row 0, as ``initial_state``.
            last_action: [T, B, ...] the action before each row; needed if the configuration asks for it.
            last_reward: [T, B] float32, likewise.
            bootstrap: row T - 1 only gives a value to bootstrap from; no gradient flows back into its observation's
                features, which saves the backward pass of those rows.
        """
        parts = [exact(self.torso(observation, len(first) - 1 if bootstrap else None))]
        if self.last_action:
            if last_action is None:
                raise ValueError("last_action: expected a tensor [T, B, ...], got None; the configuration asks for it")
            parts.append(self._encode_action(last_action, first))
        if self.last_reward:
            if last_reward is None:
                raise ValueError("last_reward: expected a tensor [T, B], got None; the configuration asks for it")
            parts.append(last_reward.clamp(-1.0, 1.0).unsqueeze(-1))
        features = parts[0] if len(parts) == 1 else torch.cat(parts, -1)
        if self.core is not None:
            features, state = self.core(features, state, first)
        with torch.autocast(features.device.type, enabled=False):  # once for both heads
            policy, value = self.policy(features), self.value(features)
        if isinstance(policy, Tensor):
            policy = mask_illegal(policy, legal_actions(observation))
        else:
            policy = torch.cat(policy, -1)
        return NetworkOutput(policy, value, state)

    def _encode_action(self, action: Tensor, first: Tensor) -> Tensor:
        if self.num_actions:
            action = functional.one_hot(action.long(), self.num_actions)
        # An episode's first row has no action before it: all zeros, not action 0.
        return action.float().reshape(*first.shape, -1) * (~first).unsqueeze(-1)


class Agent:
    """IMPALA bound to one environment spec: see ``offbeat.agents.base.Agent`` for the methods' contract.

    Extras of a row: ``behaviour_logits`` [A] for discrete actions, ``behaviour_log_prob`` [] for continuous ones.
    """

    def __init__(self, config: Config, spec: EnvSpec, device: torch.device | str = "cpu") -> None:
        """Build the network on ``device``; its initial weights come from torch's global generator."""
        self.config = config
        self.spec = spec
        self.device = torch.device(device)
        self.network = Network(config, spec).to(self.device)
        self.discount = config.discount
        self.wants_last = config.last_action or config.last_reward
        self.items = UNROLL
        self.discrete = spec.action.kind == "discrete"

    def initial_state(self, batch: int) -> CoreState:
        """Zeros for ``batch`` episodes' starts; {} without a core."""
        return self.network.initial_state(batch)

    def row_extras(self) -> dict[str, ArraySpec]:
        """The behaviour policy's record of each row."""
        if self.discrete:
            return {"behaviour_logits": ArraySpec((self.spec.action.num_actions,))}
        return {"behaviour_log_prob": ArraySpec(())}

    @torch.no_grad()
    def act(
        self, inputs: Inputs, state: CoreState, generator: torch.Generator | None, greedy: bool = False
    ) -> ActOutput:
        """Draw actions for one row, or take the most probable (``greedy``).

        The same generator state and inputs give the same actions.
        """
        output = self._forward(inputs, state)
        policy = output.policy[0]
        if self.discrete:
            scores = policy if greedy else policy - _noise(policy, generator).exponential_(generator=generator).log()
            return ActOutput(scores.argmax(-1), {"behaviour_logits": policy}, output.state)
        mean, log_std = policy.chunk(2, -1)
        action = mean if greedy else mean + log_std.exp() * _noise(mean, generator).normal_(generator=generator)
        log_prob = actor_critic.gaussian_log_prob(mean, log_std, action)
        return ActOutput(action.reshape(-1, *self.spec.action.shape), {"behaviour_log_prob": log_prob}, output.state)

    def loss(self, batch: Unroll, progress: float) -> LossOutput:
        """V-trace policy gradient + value loss + entropy bonus (Espeholt et al. 2018, section 4.2).

        Rows that only carry a final observation count in no term. ``progress`` is not used.
        """
        config = self.config
        output = self._forward(batch.inputs, batch.core_state, bootstrap=True)
        log_prob, entropy = self._evaluate(output.policy[:-1], batch.action)
        log_ratio = log_prob.detach() - self._behaviour_log_prob(batch)
        value, bootstrap_value, valid = output.value[:-1], output.value[-1], batch.valid[:-1]
        targets = vtrace(
            log_ratio,
            batch.discount,
            batch.reward,
            value,
            bootstrap_value,
            config.rho_bar,
            config.c_bar,
            config.pg_rho_bar,
            config.lambda_,
            keep=valid,
        )
        policy_loss = actor_critic.policy_gradient_loss(log_prob, targets.advantage, valid)
        baseline_loss = actor_critic.baseline_loss(value, targets.target, valid)
        entropy_loss = actor_critic.entropy_loss(entropy, valid)
        total = policy_loss + config.baseline_cost * baseline_loss + config.entropy_cost * entropy_loss
        count = valid.sum().clamp(min=1) if config.reduction == "mean" else None
        divisor = 1 if count is None else count
        metrics = {
            "policy_loss": policy_loss.detach() / divisor,
            "baseline_loss": baseline_loss.detach() / divisor,
            "entropy_loss": entropy_loss.detach() / divisor,
            **_statistics(log_ratio, value.detach(), entropy.detach(), targets, valid, config.rho_bar),
        }
        return LossOutput(total, metrics, count=count)

    def _forward(self, inputs: Inputs, state: CoreState, bootstrap: bool = False) -> NetworkOutput:
        output: NetworkOutput = self.network(
            inputs.observation, inputs.first, state, inputs.last_action, inputs.last_reward, bootstrap
        )
        return output

    def _evaluate(self, policy: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probability of ``action`` and entropy, both [T, B], of the policy's output [T, B, ...]."""
        if self.discrete:
            return actor_critic.categorical_log_prob(policy, action), actor_critic.categorical_entropy(policy)
        mean, log_std = policy.chunk(2, -1)
        action = action.reshape(mean.shape)
        return actor_critic.gaussian_log_prob(mean, log_std, action), actor_critic.gaussian_entropy(log_std)

    def _behaviour_log_prob(self, batch: Unroll) -> Tensor:
        if self.discrete:
            return actor_critic.categorical_log_prob(batch.extras["behaviour_logits"], batch.action)
        return batch.extras["behaviour_log_prob"]


def _noise(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """An uninitialised tensor like ``like``, to be filled with noise from ``generator``."""
    if generator is not None and generator.device.type != like.device.type:
        raise ValueError(f"generator: expected one on {like.device}, got one on {generator.device}")
    return torch.empty_like(like, memory_format=torch.contiguous_format)


@torch.no_grad()
def _statistics(
    log_ratio: Tensor, value: Tensor, entropy: Tensor, targets: VTrace, valid: Tensor, rho_bar: float
) -> TensorDict:
    """Means over valid rows, for the log; everything stays on the device."""
    weight = valid.float()
    count = weight.sum().clamp(min=1.0)
    ratio = log_ratio.masked_fill(~valid, 0.0).exp()
    residual = (targets.target - value).masked_fill(~valid, 0.0)
    target_mean = (targets.target * weight).sum() / count
    target_variance = ((targets.target - target_mean).square() * weight).sum() / count
    return {
        "entropy": (entropy * weight).sum() / count,
        "ratio_mean": (ratio * weight).sum() / count,
        "ratio_clipped_share": ((ratio > rho_bar).float() * weight).sum() / count,
        "value_mean": (value * weight).sum() / count,
        "target_mean": target_mean,
        "advantage_mean": targets.advantage.sum() / count,
        "explained_variance": 1.0 - (residual.square().sum() / count) / target_variance.clamp(min=1e-8),
        "valid_share": weight.mean(),
    }
