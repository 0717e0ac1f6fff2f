"""Small networks without their modules, for acting: fully connected layers and linear heads as plain calls.

A module's call costs about as much as a layer of 64 units for 16 rows. What is called here are the operations that the
modules call, on the same tensors, so that results are the same bit by bit; only what nobody asks for is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from offbeat.algorithms.legal import mask_illegal
from offbeat.networks.encoder import Encoder
from offbeat.networks.heads import CategoricalHead, ValueHead, legal_actions
from offbeat.networks.torsos import Torso
from offbeat.types import LEGAL, TensorDict

IN_PLACE: dict[type[nn.Module], Callable[[Tensor], Tensor]] = {nn.Tanh: torch.tanh_, nn.ReLU: torch.relu_}
"""Non-linearities of fully connected layers, on a tensor that nobody else has."""


class PlainPath:
    """The way from observations through an ``mlp`` torso to a categorical policy, and to a value where that is wanted.

    Args:
        network: as ``plain_path`` asks for.
        policy, value: its heads.
        choices: among how many each component of an action chooses.
    """

    def __init__(self, network: Encoder, policy: CategoricalHead, value: ValueHead, choices: tuple[int, ...]) -> None:
        assert isinstance(network.torso, Torso), "plain_path has seen it"
        torso = network.torso
        self._network, self._torso, layers = network, torso, list(torso.mlp)
        self._layers: list[tuple[Any, Callable[[Tensor], Tensor]]] = [
            (layer, IN_PLACE[type(then)]) for layer, then in zip(layers[::2], layers[1::2], strict=True)
        ]
        self._policy, self._value, self._choices = policy.linear, value.linear, choices
        modules = (network, torso, torso.mlp, *layers, policy, policy.linear, value, value.linear)
        self._hooks = [hooks for one in modules for hooks in (one._forward_hooks, one._forward_pre_hooks)]

    def serves(self, network: nn.Module) -> bool:
        """Whether it does what ``network``, called now, would do: nobody watches that, and nothing is rounded."""
        return network is self._network and not any(self._hooks) and not torch.is_autocast_enabled("cpu")

    def __call__(self, observation: TensorDict, value: bool) -> tuple[Tensor, Tensor | None]:
        """Logits [T, B, A] and, if that is asked for, values [T, B] of observations, key -> [T, B, ...]; no gradient.

        Logits are as ``policy_agent.NetworkOutput`` has them.
        """
        linear = functional.linear
        x = self._torso.vector(observation)
        for layer, bend in self._layers:
            x = bend(linear(x, layer.weight, layer.bias))
        values = linear(x, self._value.weight, self._value.bias).squeeze(-1) if value else None
        logits = linear(x, self._policy.weight, self._policy.bias)
        if LEGAL in observation:
            logits = mask_illegal(logits, legal_actions(observation), self._choices)
        return logits, values


def plain_path(network: Encoder, policy: nn.Module, value: nn.Module, choices: tuple[int, ...]) -> PlainPath | None:
    """The plain path through ``network`` with these heads and ``choices``; None where that lacks something.

    It has no core, shows neither last action nor reward, normalises nothing, flattens all that it sees, has layers to
    send that through, and weights in float32 on the processor.
    """
    torso = network.torso
    if type(torso) is not Torso or type(policy) is not CategoricalHead or type(value) is not ValueHead:
        return None
    if network.core is not None or network.last_action or network.last_reward or network.normaliser is not None:
        return None
    kinds = [nn.Linear, *IN_PLACE]
    if torso.image_keys or not len(torso.mlp) or any(type(layer) not in kinds for layer in torso.mlp):
        return None
    if any(one.dtype != torch.float32 or one.device.type != "cpu" for one in network.parameters()):
        return None
    return PlainPath(network, policy, value, choices)
