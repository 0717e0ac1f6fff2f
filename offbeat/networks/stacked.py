"""Several layers of a traced core, one on top of the other.

The gradient is exact within each layer. What an earlier layer's parameters did to a later layer's state before the
unroll would need sensitivities as large as those of a full recurrence, and is left out: SnAp-1 (Menick et al. 2021).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from offbeat.networks.traced import Steps, TracedCore
from offbeat.types import CoreState, TensorDict


class Stacked(nn.Module):
    """Layers with the methods of one ``TracedCore``; the names in its states begin with the layer's number, ``0.c``.

    Args:
        make: makes a layer from the width of its inputs.
        input_size: D of the first.
        layers: how many, > 0.
    """

    def __init__(self, make: Callable[[int], TracedCore], input_size: int, layers: int) -> None:
        super().__init__()
        if layers < 1:
            raise ValueError(f"layers={layers} is out of range; allowed: 1 or above")
        made: list[TracedCore] = []
        for _ in range(layers):
            made.append(make(input_size))
            input_size = made[-1].output_size
        self.layers = nn.ModuleList(made)
        self._layers, self.output_size = tuple(made), input_size
        self.carried = tuple(f"{i}.{name}" for i, layer in enumerate(made) for name in layer.carried)

    def initial_carry(self, batch: int) -> TensorDict:
        """See ``TracedCore``."""
        return _joined([layer.initial_carry(batch) for layer in self._layers])

    def initial_trace(self, batch: int) -> TensorDict:
        """See ``TracedCore``."""
        return _joined([layer.initial_trace(batch) for layer in self._layers])

    def initial_state(self, batch: int) -> CoreState:
        """See ``TracedCore``."""
        return self.initial_carry(batch) | self.initial_trace(batch)

    def forward(self, x: Tensor, state: CoreState, first: Tensor) -> tuple[Tensor, CoreState]:
        """See ``TracedCore``."""
        after = []
        for index, layer in enumerate(self._layers):
            x, later = layer(x, _part(state, index), first)
            after.append(later)
        return x, _joined(after)

    def follow(
        self, x: Tensor, carry: TensorDict, first: Tensor, trace: TensorDict, at: list[int], trained: int
    ) -> tuple[Tensor, TensorDict, list[Steps]]:
        """See ``TracedCore``; the steps of each layer."""
        after, steps = [], []
        for index, layer in enumerate(self._layers):
            x, later, own = layer.follow(x, _part(carry, index), first, _part(trace, index), at, trained)
            after.append(later)
            steps.append(own)
        return x, _joined(after), steps

    @torch.no_grad()
    def advance(self, trace: TensorDict, at: list[int], steps: list[Steps]) -> None:
        """See ``TracedCore``."""
        for index, (layer, own) in enumerate(zip(self._layers, steps, strict=True)):
            layer.advance(_part(trace, index), at, own)


def _joined(parts: list[TensorDict]) -> TensorDict:
    """Each layer's names with its number in front."""
    return {f"{index}.{name}": value for index, part in enumerate(parts) for name, value in part.items()}


def _part(values: TensorDict, index: int) -> TensorDict:
    """One layer's names without it."""
    head = f"{index}."
    return {name.removeprefix(head): value for name, value in values.items() if name.startswith(head)}
