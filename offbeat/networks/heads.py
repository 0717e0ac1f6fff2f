"""Heads: from features to a categorical policy, a diagonal Gaussian policy, or a value; and masks for them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from offbeat.types import LEGAL, ActionSpec, TensorDict

LARGEST = 1e15
"""Bounds of actions that are greater in magnitude are taken for none."""


class Float32Linear(nn.Linear):
    """A linear layer that computes in float32 under autocast too.

    bfloat16 values near 2 come in steps of 1/64, as large as the change of a value in one environment step.
    """

    def forward(self, input: Tensor) -> Tensor:
        """[..., D] of any float dtype -> [..., D'] float32."""
        if not torch.is_autocast_enabled(input.device.type):
            return super().forward(input)
        with torch.autocast(input.device.type, enabled=False):
            return super().forward(input.float())


class CategoricalHead(nn.Module):
    """Logits of a categorical policy: features [..., D] -> [..., A]."""

    def __init__(self, input_size: int, num_actions: int, init_scale: float = 1.0) -> None:
        """``init_scale`` multiplies the initial weights; small values start near the uniform policy."""
        super().__init__()
        self.linear = _scaled_linear(input_size, num_actions, init_scale)

    def forward(self, features: Tensor) -> Tensor:
        """Logits [..., A] float32."""
        logits: Tensor = self.linear(features)
        return logits


class GaussianHead(nn.Module):
    """A diagonal Gaussian in the environment's units: features [..., D] -> mean and log_std, each [..., K].

    The spread does not depend on the observation. Where the action's bounds are finite, the mean starts near their
    middle and the spread at ``exp(init_log_std)`` half ranges. A component whose range is empty has its only value for
    mean; bounds beyond ``LARGEST`` are none. Actions are not cut to the bounds here: environments do
    that, so that the log-probability stays that of the action that was drawn.
    """

    centre: Tensor
    half_range: Tensor

    def __init__(self, input_size: int, action: ActionSpec, init_scale: float = 1.0, init_log_std: float = 0.0) -> None:
        """``init_scale`` multiplies the initial weights; ``init_log_std`` is in half ranges of the action."""
        super().__init__()
        size = torch.Size(action.shape).numel()
        low = torch.tensor(action.low or [-1.0], dtype=torch.float32).expand(size).reshape(size)
        high = torch.tensor(action.high or [1.0], dtype=torch.float32).expand(size).reshape(size)
        finite = (low.abs() < LARGEST) & (high.abs() < LARGEST)  # wider ones overflow when they are squared
        self.shape = action.shape
        self.linear = _scaled_linear(input_size, size, init_scale)
        self.log_std = nn.Parameter(torch.full((size,), init_log_std))
        self.register_buffer("centre", torch.where(finite, (low + high) / 2, 0.0))
        self.register_buffer("half_range", torch.where(finite, (high - low) / 2, 1.0))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(mean, log_std), each [..., K] float32, K = number of action components."""
        mean = self.centre + self.half_range * self.linear(features)
        spread = torch.where(self.half_range > 0, self.half_range, 1.0)  # of an empty range the mean is all there is
        return mean, (self.log_std + spread.log()).expand_as(mean)


class ValueHead(nn.Module):
    """A scalar value: features [..., D] -> [...]."""

    def __init__(self, input_size: int) -> None:
        """A single linear layer."""
        super().__init__()
        self.linear = Float32Linear(input_size, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Values [...] float32."""
        values: Tensor = self.linear(features)
        return values.squeeze(-1)


def legal_actions(observation: TensorDict) -> Tensor | None:
    """The mask [T, B, A] bool among the observations; None where the environment has none."""
    legal = observation.get(LEGAL)
    return None if legal is None else legal.bool()


def _scaled_linear(input_size: int, output_size: int, scale: float) -> Float32Linear:
    layer = Float32Linear(input_size, output_size)
    with torch.no_grad():
        layer.weight.mul_(scale)
        if layer.bias is not None:
            layer.bias.mul_(scale)
    return layer
