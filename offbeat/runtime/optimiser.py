"""The optimiser on one flat vector: weights, gradients and statistics are single arrays, so each step is a few passes.

The network's parameters and their gradients are views into the flat vectors; clipping is one norm.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from offbeat.networks.flat import flatten_parameters

if TYPE_CHECKING:
    from offbeat.runtime.learner import LearnerConfig


class FlatOptimiser:
    """RMSProp or Adam over all parameters of ``network`` at once.

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
        self._weights = nn.Parameter(self.flat)
        self._weights.grad = self.grad
        self._optimiser: torch.optim.Optimizer
        if config.optimizer == "rmsprop":
            self._optimiser = torch.optim.RMSprop(
                [self._weights],
                lr=config.learning_rate,
                alpha=config.rmsprop_decay,
                eps=config.epsilon,
                momentum=config.rmsprop_momentum,
            )
        else:
            betas = (config.adam_beta1, config.adam_beta2)
            self._optimiser = torch.optim.Adam(
                [self._weights], lr=config.learning_rate, betas=betas, eps=config.epsilon
            )

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
        if limit > 0:
            self.grad.mul_(torch.clamp(limit / (norm + 1e-6), max=1.0))
        for group in self._optimiser.param_groups:
            group["lr"] = self.learning_rate(progress)
        self._optimiser.step()
        return norm, True

    def state(self) -> dict[str, Tensor]:
        """Statistics of the optimiser, by name: [P] or []."""
        slots = self._optimiser.state.get(self._weights, {})
        return {name: torch.as_tensor(value).clone() for name, value in slots.items()}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Back to saved statistics."""
        self._optimiser.state[self._weights] = {
            name: value.clone().to(self._place(value)) for name, value in state.items()
        }

    def _place(self, value: Tensor) -> torch.device:
        return self.flat.device if value.ndim else torch.device("cpu")
