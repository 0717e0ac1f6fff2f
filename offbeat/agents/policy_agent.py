"""What all agents with a policy and a value share: network, acting, log-probabilities, entropies, divergences.

Networks: Espeholt et al. 2018, figure 3. An agent's ``Config`` extends ``PolicyConfig``, its ``Agent`` ``PolicyAgent``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from offbeat.algorithms import actor_critic
from offbeat.algorithms.divergence import OfLogits, over_components
from offbeat.algorithms.legal import mask_illegal
from offbeat.networks.autocast import without_autocast
from offbeat.networks.encoder import Encoder, EncoderConfig
from offbeat.networks.heads import CategoricalHead, GaussianHead, ValueHead, legal_actions
from offbeat.networks.lstm import LSTMCore, check_memory
from offbeat.networks.own_torso import TorsoFactory
from offbeat.networks.plain import plain_path
from offbeat.types import UNROLL, ActOutput, ArraySpec, CoreState, EnvSpec, Inputs, TensorDict, Unroll


@dataclass(frozen=True)
class PolicyConfig(EncoderConfig):
    """Options of the network, and of what its losses have in common."""

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
    store_features: bool = False
    """Store what the heads read with each row, for samplers that compare it with what they would read now."""

    def __post_init__(self) -> None:
        """Raise ValueError for a value out of range."""
        super().__post_init__()
        if not 0.0 <= self.discount <= 1.0:
            raise ValueError(f"discount={self.discount} is out of range; allowed: 0 to 1")
        for name in ("core_size", "core_layers"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)} is out of range; allowed: above 0")
        for name in ("baseline_cost", "entropy_cost", "policy_init_scale"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}={getattr(self, name)} is out of range; allowed: 0 or above")
        check_memory(self.core_memory)


OfGaussians: TypeAlias = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""From means and logarithms of spreads [..., K] of two policies to a number for each state [...]."""


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

    def __init__(self, config: PolicyConfig, spec: EnvSpec, torso: TorsoFactory | None = None) -> None:
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


class PolicyAgent:
    """All of an agent but its loss: see ``offbeat.agents.base.Agent`` for the methods' contract.

    Extras of a row: ``behaviour_logits`` [A] for discrete actions (of several components: all of theirs),
    ``behaviour_log_prob`` [] for continuous ones. Where a loss asks for them, also ``behaviour_value`` [], and of
    continuous actions ``behaviour_mean`` [K] and ``behaviour_log_std`` [K]; ``features`` [D] where ``store_features``.
    """

    network_class: type[Network] = Network
    config: Any

    def __init__(
        self,
        config: PolicyConfig,
        spec: EnvSpec,
        device: torch.device | str = "cpu",
        torso: TorsoFactory | None = None,
        *,
        keeps_value: bool = False,
        keeps_policy: bool = False,
    ) -> None:
        """Build the network on ``device``; its initial weights come from torch's global generator.

        ``torso``: the user's own, in place of the one that ``config`` names. ``keeps_value``: rows hold the value at
        acting time; ``keeps_policy``: all of the policy then, not only how probable its action was.
        """
        self.config = config
        self.spec = spec
        self.device = torch.device(device)
        self.network = self.network_class(config, spec, torso).to(self.device)
        self.discount = config.discount
        self.wants_last = config.last_action or config.last_reward
        self.items = UNROLL
        self.discrete, self._nvec = bool(spec.action.choices), spec.action.nvec
        self._keeps_value, self._keeps_policy = keeps_value, keeps_policy
        known = not config.store_features and self.network_class.forward is Network.forward
        network = self.network
        self._plain = plain_path(network, network.policy, network.value, network.choices) if known else None

    def initial_state(self, batch: int) -> CoreState:
        """Zeros for ``batch`` episodes' starts; {} without a core."""
        return self.network.initial_state(batch)

    def row_extras(self) -> dict[str, ArraySpec]:
        """The behaviour policy's record of each row."""
        extras = {"behaviour_value": ArraySpec(())} if self._keeps_value else {}
        if self.config.store_features:
            extras |= {"features": ArraySpec((self.network.output_size,))}
        if self.discrete:
            return {"behaviour_logits": ArraySpec((sum(self.spec.action.choices),))} | extras
        if self._keeps_policy:
            size = (torch.Size(self.spec.action.shape).numel(),)
            extras |= {"behaviour_mean": ArraySpec(size), "behaviour_log_std": ArraySpec(size)}
        return {"behaviour_log_prob": ArraySpec(())} | extras

    def act(
        self, inputs: Inputs, state: CoreState, generator: torch.Generator | None, greedy: bool = False
    ) -> ActOutput:
        """Draw actions for one row, or take the most probable (``greedy``).

        The same generator state and inputs give the same actions.
        """
        if not torch.is_grad_enabled():
            return self._drawn(inputs, state, generator, greedy)
        with torch.no_grad():
            return self._drawn(inputs, state, generator, greedy)

    def _drawn(self, inputs: Inputs, state: CoreState, generator: torch.Generator | None, greedy: bool) -> ActOutput:
        """``act``, where no gradient is wanted."""
        policy, value, after, extras = self._acted(inputs, state)
        if self._keeps_value:
            assert value is not None, "it was asked for"
            extras["behaviour_value"] = value
        if self.discrete:
            scores = policy if greedy else policy - _noise(policy, generator).exponential_(generator=generator).log()
            extras["behaviour_logits"] = policy
            return ActOutput(self._best(scores), extras, after)
        mean, log_std = policy.chunk(2, -1)
        action = mean if greedy else mean + log_std.exp() * _noise(mean, generator).normal_(generator=generator)
        log_prob = actor_critic.gaussian_log_prob(mean, log_std, action)
        if self._keeps_policy:
            extras |= {"behaviour_mean": mean, "behaviour_log_std": log_std}
        action = action.reshape(-1, *self.spec.action.shape)
        return ActOutput(action, {"behaviour_log_prob": log_prob} | extras, after)

    def features(self, kind: str, inputs: Inputs, state: CoreState) -> Tensor:
        """See ``offbeat.agents.base.Encodes``; ``torso`` is what core or torso give to the heads."""
        if kind == "policy":
            return self._forward(inputs, state).policy
        return self._encoded(inputs, state)[0].float()

    def _acted(self, inputs: Inputs, state: CoreState) -> tuple[Tensor, Tensor | None, CoreState, TensorDict]:
        """What the network makes of one row: policy [B, ...], value [B], the state after, features if they are stored.

        The value may be None where rows do not keep it.
        """
        if self._plain is not None and self._plain.serves(self.network):
            policy, value = self._plain(inputs.observation, self._keeps_value)
            return policy[0], None if value is None else value[0], state, {}
        if not self.config.store_features:
            policy, value, after = self._forward(inputs, state)
            return policy[0], value[0], after, {}
        features, after = self._encoded(inputs, state)
        policy, value, after = self.network.heads(features, after, inputs.observation)
        return policy[0], value[0], after, {"features": features[0].float()}

    def _encoded(self, inputs: Inputs, state: CoreState) -> tuple[Tensor, CoreState]:
        return self.network.encode(inputs.observation, inputs.first, state, inputs.last_action, inputs.last_reward)

    def unrolled(self, batch: Unroll) -> NetworkOutput:
        """The network over the T + 1 rows of ``batch``, the last of which gives a value alone."""
        return self._forward(batch.inputs, batch.core_state, bootstrap=True)

    def compare(self, of_logits: OfLogits, of_gaussians: OfGaussians, policy: Tensor, other: Tensor) -> Tensor:
        """How far two policies lie apart at each row [T, B], both as networks give them [T, B, ...].

        Of discrete actions by ``of_logits``, summed over components; of continuous ones by ``of_gaussians``.
        """
        if not self.discrete:
            return of_gaussians(*policy.chunk(2, -1), *other.chunk(2, -1))
        if self._nvec:
            return over_components(of_logits, policy, other, self._nvec)
        return of_logits(policy, other)

    def behaviour_policy(self, batch: Unroll) -> Tensor:
        """The policy that acted [T, B, ...], as networks give it; of continuous actions where rows keep all of it."""
        if self.discrete:
            return batch.extras["behaviour_logits"]
        return torch.cat([batch.extras["behaviour_mean"], batch.extras["behaviour_log_std"]], -1)

    def _forward(
        self, inputs: Inputs, state: CoreState, bootstrap: bool = False, network: Network | None = None
    ) -> NetworkOutput:
        output: NetworkOutput = (network or self.network)(
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
