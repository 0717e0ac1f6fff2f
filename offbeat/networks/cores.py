"""Recurrent cores by their names."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from offbeat.networks.elstm import DEVIATION, ELSTM
from offbeat.networks.lstm import LSTMCore
from offbeat.networks.rtu import RTU
from offbeat.networks.stacked import Stacked
from offbeat.networks.traced import Gradient, TracedCore


def make_core(
    name: str, input_size: int, hidden_size: int, *, layers: int = 1, memory: int = 0, deviation: float = DEVIATION
) -> TracedCore | Stacked | LSTMCore:
    """The core ``lstm``, ``elstm-rtrl``, ``elstm-tbptt``, ``rtu`` (by RTRL) or ``rtu-tbptt``.

    Args:
        name: which one.
        input_size: width D of its inputs.
        hidden_size: width N of its state.
        layers: how many of them, > 0.
        memory: steps within which cells forget at first; 0: initial weights as published.
        deviation: of an eLSTM's initial weights of its inputs.
    """
    if name == "lstm":
        return LSTMCore(input_size, hidden_size, layers, memory)
    gradient: Gradient = "tbptt" if name.endswith("-tbptt") else "rtrl"
    layer: Callable[[int], TracedCore]
    if name.startswith("elstm"):
        layer = partial(ELSTM, hidden_size=hidden_size, gradient=gradient, memory=memory, deviation=deviation)
    else:
        layer = partial(RTU, hidden_size=hidden_size, gradient=gradient, memory=memory)
    return layer(input_size) if layers == 1 else Stacked(layer, input_size, layers)
