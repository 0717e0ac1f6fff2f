"""A forward model: what will be there when an action takes effect, from what is seen now and the actions on their way.

One hidden layer that reads and says everything, for small pictures and vectors. Source: Walsh et al. 2009, "Learning
and planning in environments with delayed feedback" (model based simulation); Derman et al. 2021, "Acting in Delayed
Environments with Non-Stationary Markov Policies". Theirs go step by step; this one goes all the way at once, which was
better where it is not seen when things move.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from offbeat.types import ArraySpec, TensorDict


class ForwardModel(nn.Module):
    """The observations at a later moment.

    Args:
        seen: what is read, key -> spec; among it what is told of that moment, ``there``, which may be only the end of a
            stack along the first axis.
        there: what is told: pictures of bytes and floats. ValueError for anything else.
        history: key of the actions on their way in ``seen``, int64, 0: none, a + 1: action a.
        width: neurons of the hidden layer.
    """

    def __init__(self, seen: dict[str, ArraySpec], there: dict[str, ArraySpec], history: str, width: int) -> None:
        super().__init__()
        self.seen, self.there, self.history = dict(seen), dict(there), history
        for key, spec in there.items():
            if spec.dtype != "uint8" and not spec.dtype.startswith("float"):
                raise ValueError(
                    f"there is no forward model of {key} ({spec.shape}, {spec.dtype}); allowed are uint8 and floats"
                )
        self.categories = int(seen[history].high or 0) + 1
        size = seen[history].shape[0] * self.categories + sum(_size(seen[key]) for key in there)
        self.hidden = nn.Linear(size, width)
        self.told = nn.ModuleList([nn.Linear(width, _size(spec)) for spec in there.values()])
        for layer, spec in zip(self.told, there.values(), strict=True):
            if spec.high == 1:  # most cells of a board are empty
                nn.init.constant_(layer.bias, -3.0)  # type: ignore[arg-type]

    def forward(self, observation: TensorDict) -> TensorDict:
        """The expected observations, key -> [T, B, ...] float32 in their own units, without gradients.

        ``observation``: what is seen, key -> [T, B, ...].
        """
        with torch.no_grad():
            raw = self.raw(observation)
            return {key: raw[key].sigmoid() * _top(spec) if spec.dtype == "uint8" else raw[key]
                    for key, spec in self.there.items()}  # fmt: skip

    def raw(self, observation: TensorDict) -> TensorDict:
        """The same with gradients; of bytes the logits of their share of the largest value."""
        lead = observation[self.history].shape[:2]
        read = {key: observation[key].to(torch.float32) / _top(self.seen[key]) for key in self.there}
        flat = {key: value.reshape(*lead, -1) for key, value in read.items()}
        actions = functional.one_hot(observation[self.history].long(), self.categories).to(torch.float32).flatten(2)
        x = functional.relu(self.hidden(torch.cat([actions, *flat.values()], -1)))
        found = {}
        for layer, (key, spec) in zip(self.told, self.there.items(), strict=True):
            value = layer(x).float()
            if spec.dtype != "uint8":
                value = value + flat[key][..., -value.shape[-1] :]
            found[key] = value.reshape(*lead, *spec.shape)
        return found

    def loss(self, observation: TensorDict, there: TensorDict) -> Tensor:
        """[T, B]: the cross-entropy of bytes beyond their own entropy, in nats, and half the squared error of floats,
        both summed over what ``there`` (key -> [T, B, ...]) holds.
        """
        total = torch.zeros((), device=observation[self.history].device)
        for key, value in self.raw(observation).items():
            share = there[key].to(torch.float32) / _top(self.there[key])
            if self.there[key].dtype == "uint8":
                each = functional.binary_cross_entropy_with_logits(value, share, reduction="none")
                each = each - torch.special.entr(share) - torch.special.entr(1.0 - share)
            else:
                each = 0.5 * (value - share).square()
            total = total + each.reshape(*each.shape[:2], -1).sum(-1)
        return total


def _size(spec: ArraySpec) -> int:
    return torch.Size(spec.shape).numel()


def _top(spec: ArraySpec) -> float:
    """The largest value of bytes; floats are as they are."""
    return float(spec.high or 255.0) if spec.dtype == "uint8" else 1.0
