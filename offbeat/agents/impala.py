"""IMPALA: an actor-critic trained off-policy with V-trace.

Source: Espeholt et al. 2018, "IMPALA: Scalable Distributed Deep-RL with Importance Weighted Actor-Learner
Architectures"; loss: section 4.2; networks: figure 3; constants: its table of Atari hyperparameters.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from offbeat.algorithms import actor_critic
from offbeat.algorithms.legal import mask_illegal
from offbeat.algorithms.vtrace import VTrace, vtrace
from offbeat.networks.autocast import without_autocast
from offbeat.networks.encoder import Encoder, EncoderConfig
from offbeat.networks.heads import CategoricalHead, GaussianHead, ValueHead, legal_actions
from offbeat.networks.lstm import LSTMCore, check_memory
from offbeat.networks.own_torso import TorsoFactory
from offbeat.types import UNROLL, ActOutput, ArraySpec, CoreState, EnvSpec, Inputs, LossOutput, TensorDict, Unroll


@dataclass(frozen=True)
class Config(EncoderConfig):
    """IMPALA's network and loss. Batches and the optimiser are the learner's."""

    activation: Literal["tanh", "relu"] = "tanh"
    """Non-linearity of the mlp torso."""
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
    policy_init_scale: float = 1.0
    """Factor on the policy head's initial weights, >= 0. 1: torch's own; 0.01: start close to the uniform policy."""
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
    store_features: bool = False
    """Store what the heads read with each row, for samplers that compare it with what they would read now."""

    def __post_init__(self) -> None:
        """Raise ValueError for a value out of range."""
        super().__post_init__()
        for name in ("discount", "lambda_"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name}={getattr(self, name)} is out of range; allowed: 0 to 1")
        for name in ("rho_bar", "c_bar", "pg_rho_bar", "core_size", "core_layers"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)} is out of range; allowed: above 0")
        for name in ("baseline_cost", "entropy_cost", "policy_init_scale"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}={getattr(self, name)} is out of range; allowed: 0 or above")
        check_memory(self.core_memory)
        if self.c_bar > self.rho_bar:
            raise ValueError(f"c_bar={self.c_bar} is above rho_bar={self.rho_bar}; V-trace needs c_bar <= rho_bar")


class NetworkOutput(NamedTuple):
    """What ``Network`` returns. ``policy``: logits [T, B, A], of several components one after the other, or mean and
    log_std joined, [T, B, 2 K].

    Logits of actions that the observation's mask forbids are -1e30: nothing is drawn from them, they add nothing to the
    entropy, and no gradient flows into them.
    """

    policy: Tensor
    value: Tensor  # [T, B]
    state: CoreState  # after the last row


class Network(Encoder):
    """Torso, optional recurrent core, policy and value heads: one class for acting, training and export."""

    def __init__(self, config: Config, spec: EnvSpec, torso: TorsoFactory | None = None) -> None:
        """Build from the configuration for one environment spec; initial weights come from torch's global generator."""
        make_core = None if config.core == "none" else partial(self.make_core, config)
        super().__init__(config, spec, torso=torso, make_core=make_core, clamp_reward=True)
        size, action = self.output_size, spec.action
        self.policy: CategoricalHead | GaussianHead
        self.choices = action.choices
        if action.choices:
            self.policy = CategoricalHead(size, sum(action.choices), config.policy_init_scale)
        else:
            self.policy = GaussianHead(size, action, config.policy_init_scale)
        self.value = ValueHead(size)
        self.begin_with(config.init, (self.policy, config.policy_init_scale), (self.value, 1.0))

    @staticmethod
    def make_core(config: Any, size: int) -> Any:
        """The core that ``config`` names, for inputs of ``size`` numbers."""
        return LSTMCore(size, config.core_size, config.core_layers, config.core_memory)

    def forward(
        self,
        observation: TensorDict,
        first: Tensor,
        state: CoreState,
        last_action: Tensor | None = None,
        last_reward: Tensor | None = None,
        bootstrap: bool = False,
    ) -> NetworkOutput:
        """Policy and value of T rows; arguments as of ``Encoder.encode``.

        ``bootstrap``: row T - 1 only gives a value to bootstrap from; no gradient flows back into its observation's
        features, which saves the backward pass of those rows.
        """
        trained = len(first) - 1 if bootstrap else None
        features, state = self.encode(observation, first, state, last_action, last_reward, trained)
        return self.heads(features, state, observation)

    def heads(self, features: Tensor, state: CoreState, observation: TensorDict) -> NetworkOutput:
        """Policy and value of what ``encode`` gave: features [T, B, D] of ``observation``, and the state after."""
        with without_autocast(features.device.type):  # once for both heads
            policy, value = self.policy(features), self.value(features)
        if isinstance(policy, Tensor):
            policy = mask_illegal(policy, legal_actions(observation), self.choices)
        else:
            policy = torch.cat(policy, -1)
        return NetworkOutput(policy, value, state)


class Agent:
    """IMPALA bound to one environment spec: see ``offbeat.agents.base.Agent`` for the methods' contract.

    Extras of a row: ``behaviour_logits`` [A] for discrete actions (of several components: all of theirs),
    ``behaviour_log_prob`` [] for continuous ones.
    """

    network_class: type[Network] = Network

    def __init__(
        self, config: Config, spec: EnvSpec, device: torch.device | str = "cpu", torso: TorsoFactory | None = None
    ) -> None:
        """Build the network on ``device``; its initial weights come from torch's global generator.

        ``torso``: the user's own, in place of the one that ``config`` names.
        """
        self.config = config
        self.spec = spec
        self.device = torch.device(device)
        self.network = self.network_class(config, spec, torso).to(self.device)
        self.discount = config.discount
        self.wants_last = config.last_action or config.last_reward
        self.items = UNROLL
        self.discrete, self._nvec = bool(spec.action.choices), spec.action.nvec

    def initial_state(self, batch: int) -> CoreState:
        """Zeros for ``batch`` episodes' starts; {} without a core."""
        return self.network.initial_state(batch)

    def row_extras(self) -> dict[str, ArraySpec]:
        """The behaviour policy's record of each row."""
        own = {"features": ArraySpec((self.network.output_size,))} if self.config.store_features else {}
        if self.discrete:
            return own | {"behaviour_logits": ArraySpec((sum(self.spec.action.choices),))}
        return own | {"behaviour_log_prob": ArraySpec(())}

    @torch.no_grad()
    def act(
        self, inputs: Inputs, state: CoreState, generator: torch.Generator | None, greedy: bool = False
    ) -> ActOutput:
        """Draw actions for one row, or take the most probable (``greedy``).

        The same generator state and inputs give the same actions.
        """
        output, own = self._acted(inputs, state)
        policy = output.policy[0]
        if self.discrete:
            scores = policy if greedy else policy - _noise(policy, generator).exponential_(generator=generator).log()
            return ActOutput(self._best(scores), own | {"behaviour_logits": policy}, output.state)
        mean, log_std = policy.chunk(2, -1)
        action = mean if greedy else mean + log_std.exp() * _noise(mean, generator).normal_(generator=generator)
        log_prob = actor_critic.gaussian_log_prob(mean, log_std, action)
        extras = own | {"behaviour_log_prob": log_prob}
        return ActOutput(action.reshape(-1, *self.spec.action.shape), extras, output.state)

    def features(self, kind: str, inputs: Inputs, state: CoreState) -> Tensor:
        """See ``offbeat.agents.base.Encodes``; ``torso`` is what core or torso give to the heads."""
        if kind == "policy":
            return self._forward(inputs, state).policy
        return self._encoded(inputs, state)[0].float()

    def _acted(self, inputs: Inputs, state: CoreState) -> tuple[NetworkOutput, TensorDict]:
        """What the network makes of one row, and what is stored of it beside the policy."""
        if not self.config.store_features:
            return self._forward(inputs, state), {}
        features, after = self._encoded(inputs, state)
        return self.network.heads(features, after, inputs.observation), {"features": features[0].float()}

    def _encoded(self, inputs: Inputs, state: CoreState) -> tuple[Tensor, CoreState]:
        return self.network.encode(inputs.observation, inputs.first, state, inputs.last_action, inputs.last_reward)

    def loss(self, batch: Unroll, progress: float) -> LossOutput:
        """V-trace policy gradient + value loss + entropy bonus (Espeholt et al. 2018, section 4.2).

        Rows that only carry a final observation count in no term. ``progress`` is not used.
        """
        config = self.config
        output = self.unrolled(batch)
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

    def unrolled(self, batch: Unroll) -> NetworkOutput:
        """The network over the T + 1 rows of ``batch``, the last of which gives a value alone."""
        return self._forward(batch.inputs, batch.core_state, bootstrap=True)

    def _forward(self, inputs: Inputs, state: CoreState, bootstrap: bool = False) -> NetworkOutput:
        output: NetworkOutput = self.network(
            inputs.observation, inputs.first, state, inputs.last_action, inputs.last_reward, bootstrap
        )
        return output

    def _evaluate(self, policy: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probability of ``action`` and entropy, both [T, B], of the policy's output [T, B, ...]."""
        if self.discrete:
            if self._nvec:
                return self._log_prob(policy, action), actor_critic.multi_categorical_entropy(policy, self._nvec)
            return self._log_prob(policy, action), actor_critic.categorical_entropy(policy)
        mean, log_std = policy.chunk(2, -1)
        action = action.reshape(mean.shape)
        return actor_critic.gaussian_log_prob(mean, log_std, action), actor_critic.gaussian_entropy(log_std)

    def _log_prob(self, logits: Tensor, action: Tensor) -> Tensor:
        """Of discrete actions, of one component or of several."""
        if self._nvec:
            return actor_critic.multi_categorical_log_prob(logits, action, self._nvec)
        return actor_critic.categorical_log_prob(logits, action)

    def _best(self, scores: Tensor) -> Tensor:
        """The actions with the highest scores [..., A], for each component by itself."""
        if self._nvec:
            return actor_critic.multi_categorical_mode(scores, self._nvec)
        return scores.argmax(-1)

    def _behaviour_log_prob(self, batch: Unroll) -> Tensor:
        if self.discrete:
            return self._log_prob(batch.extras["behaviour_logits"], batch.action)
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
