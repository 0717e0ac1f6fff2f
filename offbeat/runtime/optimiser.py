"""The optimiser on one flat vector: weights, gradients and statistics are single arrays, so each step is a few passes.

The network's parameters are views into the flat vector of weights; clipping is one norm over all of them.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from offbeat.networks.flat import flatten_parameters
from offbeat.networks.rounded import RoundedWeights
from offbeat.runtime import fused
from offbeat.types import TensorDict

if TYPE_CHECKING:
    from offbeat.runtime.learner_config import LearnerConfig

SAFE = 1e37
"""A step whose weights and statistics stay below this by its own bounds needs no look at them: float32 and bfloat16
end at 3.4e38."""
LEAST_EPSILON = 1e-30
"""Below this a denominator may be taken for zero."""


class FlatOptimiser:
    """RMSProp or Adam over all parameters of ``network`` at once, with the equations of ``torch.optim``.

    On a processor gradients stay where ``backward`` makes them: one compiled pass over each reads it once, and nothing
    is added up or zeroed. On a GPU they are views into one vector too, and each operation is one kernel; so are they
    where the parameters are float64.

    Args:
        network: the parameters' owner.
        config: which optimiser, and its constants.
        one_gradient: gradients in one vector; None: on a GPU, and in float64.
        rounded: on a processor, have ``network`` train on weights rounded to bfloat16, which each step renews (see
            ``RoundedWeights``). Save ``weights`` then, and load with ``load_weights``.

    Attributes:
        flat: the weights [P] in the parameters' dtype, buffers included (they are never stepped).
        trained: where the buffers begin in it.
    """

    def __init__(
        self, network: nn.Module, config: LearnerConfig, one_gradient: bool | None = None, rounded: bool = False
    ) -> None:
        self.flat = flatten_parameters(network)
        if one_gradient is None:
            one_gradient = self.flat.device.type != "cpu" or self.flat.dtype == torch.float64
        self._config = config
        self._exact: TensorDict = dict(network.state_dict())
        self._rounded: RoundedWeights | None = None
        if rounded and not one_gradient:
            self._rounded = RoundedWeights(network, train=True)
        exact = self._rounded.exact if self._rounded is not None else {}
        self.steps = 0
        self._slots = {name: torch.zeros_like(self.flat) for name in slot_names(config)}
        places = ((parameter, _place(exact.get(parameter, parameter), self.flat)) for parameter in network.parameters())
        self._parts = [_Part(parameter, at, self.flat, self._slots) for parameter, at in places]
        self.trained = max((part.at.stop for part in self._parts), default=0)
        self._grad: Tensor | None = None
        if not one_gradient:
            self._load_loops()
        else:
            self._grad = torch.zeros_like(self.flat)
            for part in self._parts:
                part.parameter.grad = self._grad[part.at].view_as(part.parameter)
        self._most: Tensor | None = None  # largest magnitude of weights and statistics; only with one gradient

    def _load_loops(self) -> None:
        """Steps over empty vectors: their compiled loops are then there when the first gradient is."""
        for part in self._parts:
            nothing, rounded = part.weights[:0], part.rounded[:0]
            grad = _as_array(part.parameter.detach())[:0]
            fused.squares(grad)
            fused.largest(nothing)
            if self._config.optimizer == "adam":
                fused.adam(nothing, grad, nothing, nothing, rounded, np.zeros(8, np.float32))
            else:
                fused.rmsprop(nothing, grad, nothing, nothing, rounded, np.zeros(6, np.float32))

    def weights(self) -> TensorDict:
        """The exact weights and all buffers by name, as ``network.state_dict`` would have them; not copies."""
        return self._exact

    def load_weights(self, weights: TensorDict) -> None:
        """Take over what ``weights`` once gave."""
        missing, unknown = self._exact.keys() - weights.keys(), weights.keys() - self._exact.keys()
        if missing or unknown:
            raise ValueError(f"weights: missing {sorted(missing)}, not in this network {sorted(unknown)}")
        for name, value in weights.items():
            if value.shape != self._exact[name].shape:
                raise ValueError(f"{name}: expected weights {list(self._exact[name].shape)}, got {list(value.shape)}")
        with torch.no_grad():
            for name, value in weights.items():
                self._exact[name].copy_(value)
        self.changed()

    def vectors(self) -> list[Tensor]:
        """The weights [P] and then each of the statistics [P] themselves. Call ``changed`` after writing to them."""
        return [self.flat, *self._slots.values()]

    def changed(self, steps: int | None = None) -> None:
        """Weights or statistics are others than the last step left. ``steps``: those that led to them."""
        self.steps = self.steps if steps is None else steps
        self._most = None
        for part in self._parts:
            part.most = None
        if self._rounded is not None:
            self._rounded.refresh()

    def zero(self) -> None:
        """Forget the gradient, before the next one is taken in this thread."""
        # The averages of a gradient that has become zero shrink for ever. As subnormal numbers they would slow the
        # learner down twentyfold, so processors take them as zero; a setting of this thread.
        torch.set_flush_denormal(True)
        if self._grad is not None:
            self._grad.zero_()
            return
        for part in self._parts:
            part.parameter.grad = None

    def learning_rate(self, progress: float) -> float:
        """The rate of the next step, at this share of the run."""
        return self._config.rate(progress, self.steps + 1)

    def gradient(self) -> Tensor:
        """A copy of the gradient [P], zeros where a parameter has none."""
        if self._grad is not None:
            return self._grad.clone()
        whole = torch.zeros_like(self.flat)
        for part in self._parts:
            if part.parameter.grad is not None:
                whole[part.at] = part.parameter.grad.reshape(-1)
        return whole

    def set_gradient(self, whole: Tensor) -> None:
        """Step with this gradient [P] next, e.g. the sum of several learners' ones."""
        if self._grad is not None:
            self._grad.copy_(whole)
            return
        for part in (part for part in self._parts if part.parameter.requires_grad):
            part.parameter.grad = whole[part.at].view_as(part.parameter).to(part.parameter.dtype, copy=True)

    def step(self, progress: float, loss: Tensor, divisor: float = 1.0) -> tuple[Tensor, bool]:
        """Divide the gradient by ``divisor``, clip and step, unless it, ``loss`` [] or what the step leads to is not
        finite: then nothing is changed.

        Parameters without a gradient stay as they are, and so do their statistics; those that need none never have one.
        Returns the norm before clipping [] and whether all were
        finite.
        """
        norm = self._norm() if divisor == 1.0 else self._norm() / divisor
        if not bool(torch.isfinite(norm + loss)):
            return norm, False
        limit = self._config.clip_norm
        clip = min(1.0, limit / (float(norm) + 1e-6)) if limit > 0 else 1.0
        rate, scale = self.learning_rate(progress), clip / divisor
        if self._stays_finite(float(norm) * clip, rate):
            self._step(scale, rate)
            return norm, True
        return norm, self._try_step(scale, rate)

    def _step(self, scale: float, rate: float) -> None:
        self.steps += 1
        step = self._rmsprop if self._config.optimizer == "rmsprop" else self._adam
        step(scale, rate)
        self._most = None

    def _stays_finite(self, size: float, rate: float) -> bool:
        """Whether a step with gradients up to ``size`` cannot lead to anything that is not finite, which is so but for
        absurd rates and weights. From bounds alone: looking at the result would be too late.
        """
        config, largest = self._config, self._largest()
        if not config.epsilon > LEAST_EPSILON:
            return False
        if config.optimizer == "adam":
            step, rate = max(largest, size) / config.epsilon, rate / max(1 - config.adam_beta1, LEAST_EPSILON)
        else:
            step = size / config.epsilon + abs(config.rmsprop_momentum) * largest
        return all(bound < SAFE for bound in (size * size, step, largest + abs(rate) * step))

    def _try_step(self, scale: float, rate: float) -> bool:
        """Step, and undo it if something is not finite afterwards; whether it stands."""
        kept = {name: values.clone() for name, values in self._slots.items()}
        weights = self.flat.clone()
        with np.errstate(over="ignore"):  # of constants that are too large for float32
            self._step(scale, rate)
        if self.finite():
            return True
        self.steps -= 1
        self.flat.copy_(weights)
        for name, values in kept.items():
            self._slots[name].copy_(values)
        self.changed()
        return False

    def finite(self) -> bool:
        """Whether all parameters and statistics are finite; parameters also in bfloat16 if that is computed with."""
        vectors = [self.flat[part.at] for part in self._parts]
        if self._config.precision == "bf16":
            vectors = [vector.bfloat16() for vector in vectors]
        return all(bool(torch.isfinite(vector).all()) for vector in (*vectors, *self._slots.values()))

    def _largest(self) -> float:
        """Largest magnitude among weights and statistics; inf or NaN if one is not finite."""
        if self._grad is None:
            return fused.magnitude(max((part.largest() for part in self._parts), default=0))
        if self._most is None and self.flat.numel():
            bounds = [bound for vector in (self.flat, *self._slots.values()) for bound in torch.aminmax(vector)]
            self._most = torch.stack(bounds).abs().max()
        return float(self._most) if self._most is not None else 0.0

    def _norm(self) -> Tensor:
        if self._grad is not None:
            whole: Tensor = self._grad.norm()
            return whole
        grads = (part.grad() for part in self._parts)
        return torch.tensor(math.sqrt(sum(fused.squares(grad) for grad in grads if grad is not None)))

    def _rmsprop(self, scale: float, rate: float) -> None:
        config, slots = self._config, self._slots
        decay, momentum = config.rmsprop_decay, config.rmsprop_momentum
        if self._grad is None:
            constants = np.array((scale, rate, decay, 1 - decay, config.epsilon, momentum), np.float32)
            for part in self._parts:
                if (grad := part.grad()) is not None:
                    buffer = part.slots.get("momentum_buffer", part.weights[:0])
                    part.most = fused.rmsprop(
                        part.weights, grad, part.slots["square_avg"], buffer, part.rounded, constants
                    )
            return
        vector, square = self._grad.mul_(scale), slots["square_avg"]
        square.mul_(decay).addcmul_(vector, vector, value=1 - decay)
        step = vector / square.sqrt().add_(config.epsilon)
        if "momentum_buffer" in slots:
            step = slots["momentum_buffer"].mul_(momentum).add_(step)
        self.flat.add_(step, alpha=-self._representable(rate))

    def _adam(self, scale: float, rate: float) -> None:
        config, slots = self._config, self._slots
        beta1, beta2 = config.adam_beta1, config.adam_beta2
        rate /= 1 - beta1**self.steps
        correction = math.sqrt(1 - beta2**self.steps)
        if self._grad is None:
            values = (scale, rate, beta1, 1 - beta1, beta2, 1 - beta2, correction, config.epsilon)
            constants = np.array(values, np.float32)
            for part in self._parts:
                if (grad := part.grad()) is not None:
                    mean, square = part.slots["exp_avg"], part.slots["exp_avg_sq"]
                    part.most = fused.adam(part.weights, grad, mean, square, part.rounded, constants)
            return
        vector, means, squares = self._grad.mul_(scale), slots["exp_avg"], slots["exp_avg_sq"]
        means.mul_(beta1).add_(vector, alpha=1 - beta1)
        squares.mul_(beta2).addcmul_(vector, vector, value=1 - beta2)
        self.flat.addcdiv_(
            means, squares.sqrt().div_(correction).add_(config.epsilon), value=-self._representable(rate)
        )

    def _representable(self, value: float) -> float:
        """``value``, or infinity where it is too large for the weights' dtype, which torch refuses instead."""
        return math.copysign(math.inf, value) if abs(value) > torch.finfo(self.flat.dtype).max else value

    def state(self) -> dict[str, Tensor]:
        """Statistics by name, each [P], and ``step`` [], the steps taken."""
        return {name: value.clone() for name, value in self._slots.items()} | {"step": torch.tensor(float(self.steps))}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Back to saved statistics."""
        self.steps = int(state["step"])
        for name, slot in self._slots.items():
            slot.copy_(state[name])
        self.changed()


class _Part:
    """One parameter on a processor: its place in the vectors, and those as arrays."""

    def __init__(self, parameter: nn.Parameter, at: slice, flat: Tensor, slots: dict[str, Tensor]) -> None:
        self.parameter, self.at = parameter, at
        self.most: int | None = None  # bits of the largest magnitude among weights and statistics; None: not known
        if flat.device.type == "cpu":
            self.weights = flat[at].numpy()
            is_rounded = parameter.dtype == torch.bfloat16
            self.rounded = _as_array(parameter.detach()) if is_rounded else fused.NOTHING_ROUNDED
            self.slots = {name: values[at].numpy() for name, values in slots.items()}

    def largest(self) -> int:
        """Bits of the largest magnitude among this parameter's weights and statistics."""
        if self.most is None:
            self.most = max(fused.largest(values) for values in (self.weights, *self.slots.values()))
        return self.most

    def grad(self) -> np.ndarray | None:
        """The gradient as an array [n]; autograd lays it out as the parameter, which is contiguous."""
        grad = self.parameter.grad
        return None if grad is None else _as_array(grad)


def _as_array(tensor: Tensor) -> np.ndarray:
    """``tensor`` as an array [n] over the same memory: float32, or for bfloat16 its bits as uint16."""
    flat = tensor.view(-1)
    return flat.numpy() if flat.dtype == torch.float32 else flat.view(torch.uint16).numpy()


def _place(parameter: Tensor, flat: Tensor) -> slice:
    """Where ``parameter`` lies in ``flat``, which it is a view of."""
    start = (parameter.data_ptr() - flat.data_ptr()) // flat.element_size()
    return slice(start, start + parameter.numel())


def slot_names(config: LearnerConfig) -> tuple[str, ...]:
    """Names of the statistics, as ``torch.optim`` has them."""
    if config.optimizer == "adam":
        return "exp_avg", "exp_avg_sq"
    return ("square_avg", "momentum_buffer") if config.rmsprop_momentum > 0 else ("square_avg",)
