"""The way from observation, last action and last reward to features, with its options, once for all agents.

An agent's network extends ``Encoder`` with its heads; an agent's ``Config`` extends ``EncoderConfig``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from offbeat.networks.deep_impala import NARROWEST, STRIDES
from offbeat.networks.exact import exact
from offbeat.networks.initial import make_glorot, make_orthogonal, make_unit_rows
from offbeat.networks.normaliser import Normaliser
from offbeat.networks.own_torso import OwnTorso, TorsoFactory, check_torso, find_torso
from offbeat.networks.reward_scale import RewardScale
from offbeat.networks.torsos import KINDS, Torso, choose_torso
from offbeat.types import CoreState, EnvSpec, TensorDict


@dataclass(frozen=True)
class EncoderConfig:
    """Options of the network up to its heads, the same for every agent."""

    torso: str = "auto"
    """Network up to the features: nature, shallow, resnet, deep1, deep2, minatar, strided, mlp, per_key, or one from
    an entry point ``offbeat.torsos``. ``auto``: nature for images of 36 pixels or more, minatar for smaller, else mlp.
    ``per_key``: each image through what ``auto`` says for it, the rest through an mlp, both through a layer.
    ``shallow`` (also of Mnih et al. 2013) and ``resnet`` are IMPALA's two networks (Espeholt et al. 2018, figure 3).
    ``deep1`` and ``deep2`` are made of the latter, in any width, for pictures of 29 and of 53 pixels or more
    (Riemer et al. 2024). ``strided``: convolutions of 3 x 3 alone, 64, 64 and 128 wide, with strides 3, 2 and 2, for
    pictures of 21 pixels or more (the code of the V-trace platform with elite replay)."""
    torso_width: float = 1.0
    """Factor on the channels of deep1 and deep2, in [1/16, infinity): how large the model is. Other torsos: 1.
    Source: Riemer et al. 2024, where it is k."""
    hidden_size: tuple[int, ...] = (64, 64)
    """Widths of the layers of mlp and per_key. Unit: neurons, each > 0."""
    activation: Literal["tanh", "relu"] = "relu"
    """Non-linearity of mlp and per_key."""
    feature_size: int = 0
    """Width of the layer after an image trunk; 0: as published (nature, deep1, deep2 and strided 512, shallow and
    resnet 256, minatar 128; per_key 256); -1: none. Unit: neurons."""
    centered_filters: bool = False
    """Take their means off the filters of the first convolution: it then sees contrast, not brightness, and an even
    background silences no filter (after Huang et al. 2017, "Centered Weight Normalization")."""
    scale_pixels: bool = True
    """Bring pictures of bytes to [0, 1] before they are convolved; false: show them as they are stored, 0 to 255."""
    init: Literal["torch", "orthogonal", "glorot"] = "torch"
    """Initial weights: torch's own, or orthogonal with gain sqrt(2) in the torso, 1 in heads of values, and zero
    biases, as A2C and PPO have them (Engstrom et al. 2020 name it among the choices that matter); or ``glorot``:
    uniform after Glorot & Bengio 2010 in the torso, rows of length 1 in heads of values, and zero biases, as in the
    code of the V-trace platform with elite replay. Noisy layers and the core keep their own."""
    last_action: bool = False
    """Show the previous action to the network (one-hot, or as it is where actions are continuous)."""
    last_reward: bool = False
    """Show the previous reward to the network; IMPALA clamps it to [-1, 1]."""

    normalise: bool = False
    """Show observations of floats as their distance from the running mean, in standard deviations; pictures of bytes
    and what is declared to lie within [0, 1] stay as they are. The statistics are those of the rows trained on, a part
    of the weights."""
    normalise_reward: bool = False
    """Train on rewards divided by the running root mean square of the return so far, a part of the weights too;
    scores and ``last_reward`` stay in the environment's units."""
    normalise_clip: float = 10.0
    """Largest magnitude that ``normalise`` and ``normalise_reward`` let through. Unit: standard deviations, > 0."""

    def __post_init__(self) -> None:
        """Raise ValueError for a value out of range."""
        check_torso(self.torso)
        if not NARROWEST <= self.torso_width < math.inf:
            raise ValueError(f"torso_width={self.torso_width} is out of range; allowed: {NARROWEST} or above")
        if not self.normalise_clip > 0:
            raise ValueError(f"normalise_clip={self.normalise_clip} is out of range; allowed: above 0")
        if any(width <= 0 for width in self.hidden_size):
            raise ValueError(f"hidden_size={self.hidden_size} is out of range; allowed: widths above 0")
        if self.feature_size < -1:
            raise ValueError(f"feature_size={self.feature_size} is out of range; allowed: -1 or above")


class Core(Protocol):
    """A recurrent core between features and heads."""

    output_size: int
    """Width N of what it gives."""

    def initial_state(self, batch: int) -> CoreState:
        """The state at the starts of ``batch`` episodes: name -> [batch, ...]."""

    def __call__(self, x: Tensor, state: CoreState, first: Tensor) -> tuple[Tensor, CoreState]:
        """x [T, B, D], the state before row 0, and ``first`` [T, B] bool -> outputs [T, B, N], and the state after.

        The state is reset before every row that is ``first``.
        """


class Encoder(nn.Module):
    """Base of agents' networks: a torso, the last action and reward beside it, and a core behind them.

    Args:
        config: which parts, and how they are made.
        spec: of the environment.
        torso: a torso of the user's own, in place of the one that ``config`` names.
        make_core: makes the core from the width of its inputs; None: there is none.
        clamp_reward: show last rewards clamped to [-1, 1].

    Attributes:
        output_size: width of what ``encode`` gives.
    """

    def __init__(
        self,
        config: EncoderConfig,
        spec: EnvSpec,
        *,
        torso: TorsoFactory | None = None,
        make_core: Callable[[int], Any] | None = None,
        clamp_reward: bool = False,
    ) -> None:
        super().__init__()
        observation, action = spec.features, spec.action
        self.normaliser = Normaliser(observation, config.normalise_clip) if config.normalise else None
        self.reward_scale = RewardScale(config.normalise_clip) if config.normalise_reward else None
        if config.torso_width != 1.0 and config.torso not in STRIDES:
            raise ValueError(
                f"torso_width={config.torso_width} means nothing to torso={config.torso!r}, only to deep1 and deep2; "
                "leave it at 1.0"
            )
        factory = torso or find_torso(config.torso)
        self.torso: Torso | OwnTorso
        if factory is not None:
            if not config.scale_pixels:
                raise ValueError("scale_pixels=False means nothing to a torso of your own; it gets pictures as stored")
            self.torso = OwnTorso(factory, observation)
        else:
            kind = choose_torso(observation) if config.torso == "auto" else config.torso
            assert kind in KINDS, "the configuration has checked it"
            self.torso = Torso(
                observation, kind, config.hidden_size, config.activation, config.feature_size, config.centered_filters,
                config.torso_width, config.scale_pixels,
            )  # fmt: skip
        self.num_actions, self._clamp = action.num_actions, clamp_reward
        self._nvec = action.nvec
        self.last_action, self.last_reward = config.last_action, config.last_reward
        size = self.torso.output_size + int(config.last_reward)
        if config.last_action:
            size += sum(action.choices) if action.choices else torch.Size(action.shape).numel()
        self.core: Any = None if make_core is None else make_core(size)
        self.output_size: int = size if self.core is None else self.core.output_size

    @property
    def channels_last(self) -> bool:
        """Whether images are laid out channels-last inside the torso."""
        return self.torso.channels_last

    @channels_last.setter
    def channels_last(self, value: bool) -> None:
        self.torso.channels_last = value

    def begin_with(self, init: str, *heads: tuple[nn.Module, float]) -> None:
        """Give torso and ``heads`` their initial weights, as ``EncoderConfig.init`` says; each head has its gain."""
        if init == "orthogonal":
            for module, gain in ((self.torso, math.sqrt(2.0)), *heads):
                make_orthogonal(module, gain)
        elif init == "glorot":
            make_glorot(self.torso)
            for module, gain in heads:
                make_unit_rows(module, gain)

    def initial_state(self, batch: int) -> CoreState:
        """The core's state at an episode's start; {} without a core."""
        if self.core is None:
            return {}
        state: CoreState = self.core.initial_state(batch)
        return state

    def cast(self, observation: TensorDict) -> TensorDict:
        """The same observations with images cast as the torso reads them: once for all networks that read them."""
        return self.torso.cast(observation)

    def encode(
        self,
        observation: TensorDict,
        first: Tensor,
        state: CoreState,
        last_action: Tensor | None = None,
        last_reward: Tensor | None = None,
        trained: int | None = None,
    ) -> tuple[Tensor, CoreState]:
        """Features [T, B, ``output_size``] of T rows, and the state after the last.

        Args:
            observation: key -> [T, B, ...], frame stacks included.
            first: [T, B] bool, rows that start an episode; the state is zeroed before them.
            state: the state before row 0, as ``initial_state``.
            last_action: [T, B, ...] the action before each row; needed if the configuration asks for it.
            last_reward: [T, B] float32, likewise.
            trained: gradients flow into the observations' features of the first so many rows only; None: of all.
        """
        if self.normaliser is not None:
            observation = self.normaliser(observation)
        parts = [exact(self.torso(observation, trained))]
        if self.last_action:
            if last_action is None:
                raise ValueError("last_action: expected a tensor [T, B, ...], got None; the configuration asks for it")
            parts.append(self._encode_action(last_action, first))
        if self.last_reward:
            if last_reward is None:
                raise ValueError("last_reward: expected a tensor [T, B], got None; the configuration asks for it")
            parts.append((last_reward.clamp(-1.0, 1.0) if self._clamp else last_reward).unsqueeze(-1))
        features = parts[0] if len(parts) == 1 else torch.cat(parts, -1)
        if self.core is not None:
            features, state = self.remember(features, state, first, trained)
        return features, state

    def remember(
        self, features: Tensor, state: CoreState, first: Tensor, trained: int | None
    ) -> tuple[Tensor, CoreState]:
        """Outputs [T, B, N] of the core for ``features`` [T, B, D], and the state after; arguments as of ``encode``."""
        output, after = self.core(features, state, first)
        return output, after

    def _encode_action(self, action: Tensor, first: Tensor) -> Tensor:
        if self.num_actions:
            action = functional.one_hot(action.long(), self.num_actions)
        if self._nvec:
            parts = zip(action.long().unbind(-1), self._nvec, strict=True)
            action = torch.cat([functional.one_hot(chosen, count) for chosen, count in parts], -1)
        # An episode's first row has no action before it: all zeros, not action 0.
        return action.float().reshape(*first.shape, -1) * (~first).unsqueeze(-1)
