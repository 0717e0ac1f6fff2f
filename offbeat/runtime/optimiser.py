"""The optimiser on one flat vector: weights, gradients and statistics are single arrays, so each step is a few passes.

The network's parameters and their gradients are views into the flat vectors; clipping is one norm.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from offbeat.networks.flat import flatten_parameters
from offbeat.runtime import fused

if TYPE_CHECKING:
    from offbeat.runtime.learner import LearnerConfig


class FlatOptimiser:
    """RMSProp or Adam over all parameters of ``network`` at once, with the equations of ``torch.optim``.

    Attributes:
        flat: the weights [P] float32, buffers included (their gradient is zero).
        grad: the gradient [P] float32; ``backward`` adds to it.
    """

    def __init__(self, network: nn.Module, config: LearnerConfig) -> None:
        self.flat = flatten_parameters(network)
        self.grad = torch.zeros_like(self.flat)
        self._config = config
        for parameter in network.parameters():
            start = (parameter.data_ptr() - self.flat.data_ptr()) // self.flat.element_size()
            parameter.grad = self.grad[start : start + parameter.numel()].view_as(parameter)
        self.steps = 0
        self._slots = {name: torch.zeros_like(self.flat) for name in _slot_names(config)}

    def zero(self) -> None:
        """Forget the gradient."""
        self.grad.zero_()

    def learning_rate(self, progress: float) -> float:
        """The rate at this share of the run."""
        config = self._config
        if config.schedule == "constant":
            return config.learning_rate
        left = 1.0 - min(max(progress, 0.0), 1.0)
        return config.final_learning_rate + (config.learning_rate - config.final_learning_rate) * left

    def step(self, progress: float, loss: Tensor) -> tuple[Tensor, bool]:
        """Clip and step, unless the gradient or ``loss`` [] is not finite: then nothing is changed.

        Returns the norm before clipping [] and whether both were finite.
        """
        norm = self.grad.norm()
        if not bool(torch.isfinite(norm + loss)):
            return norm, False
        limit = self._config.clip_norm
        scale = min(1.0, limit / (float(norm) + 1e-6)) if limit > 0 else 1.0
        self.steps += 1
        step = self._rmsprop if self._config.optimizer == "rmsprop" else self._adam
        step(scale, self.learning_rate(progress))
        return norm, True

    def _rmsprop(self, scale: float, rate: float) -> None:
        config, slots = self._config, self._slots
        decay, momentum = config.rmsprop_decay, config.rmsprop_momentum
        square, buffer = slots["square_avg"], slots.get("momentum_buffer")
        if self.flat.device.type == "cpu":
            constants = (scale, rate, decay, 1 - decay, config.epsilon, momentum)
            kept = (self.flat[:0] if buffer is None else buffer).numpy()
            vectors = self.flat.numpy(), self.grad.numpy(), square.numpy(), kept
            fused.rmsprop(*vectors, np.array(constants, np.float32))
            return
        self.grad.mul_(scale)
        square.mul_(decay).addcmul_(self.grad, self.grad, value=1 - decay)
        step = self.grad / square.sqrt().add_(config.epsilon)
        if buffer is not None:
            step = buffer.mul_(momentum).add_(step)
        self.flat.add_(step, alpha=-rate)

    def _adam(self, scale: float, rate: float) -> None:
        config, slots = self._config, self._slots
        beta1, beta2 = config.adam_beta1, config.adam_beta2
        mean, square = slots["exp_avg"], slots["exp_avg_sq"]
        rate /= 1 - beta1**self.steps
        correction = math.sqrt(1 - beta2**self.steps)
        if self.flat.device.type == "cpu":
            constants = (scale, rate, beta1, 1 - beta1, beta2, 1 - beta2, correction, config.epsilon)
            vectors = self.flat.numpy(), self.grad.numpy(), mean.numpy(), square.numpy()
            fused.adam(*vectors, np.array(constants, np.float32))
            return
        self.grad.mul_(scale)
        mean.mul_(beta1).add_(self.grad, alpha=1 - beta1)
        square.mul_(beta2).addcmul_(self.grad, self.grad, value=1 - beta2)
        self.flat.addcdiv_(mean, square.sqrt().div_(correction).add_(config.epsilon), value=-rate)

    def state(self) -> dict[str, Tensor]:
        """Statistics by name, each [P], and ``step`` [], the steps taken."""
        return {name: value.clone() for name, value in self._slots.items()} | {"step": torch.tensor(float(self.steps))}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Back to saved statistics."""
        self.steps = int(state["step"])
        for name, slot in self._slots.items():
            slot.copy_(state[name])


def _slot_names(config: LearnerConfig) -> tuple[str, ...]:
    """Names of the statistics, as ``torch.optim`` has them."""
    if config.optimizer == "adam":
        return "exp_avg", "exp_avg_sq"
    return ("square_avg", "momentum_buffer") if config.rmsprop_momentum > 0 else ("square_avg",)
