"""An LSTM core (Hochreiter & Schmidhuber 1997) over time-major rows, with resets at episode starts."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from offbeat.networks.autocast import without_autocast
from offbeat.networks.exact import exact
from offbeat.types import CoreState

_WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def check_memory(core_memory: int) -> None:
    """Raise ValueError if the option ``core_memory`` is neither 0 nor something that ``LSTMCore.remember`` takes."""
    if core_memory < 0 or core_memory == 1:
        raise ValueError(f"core_memory={core_memory} is out of range; allowed: 0, or 2 and above")


class LSTMCore(nn.Module):
    """One or more LSTM layers; the state is zeroed before every row that starts an episode.

    Holds its weights itself, named, shaped and initialised as in ``torch.nn.LSTM``, because ``torch.compile`` takes no
    ``nn.LSTM``.

    State: ``{"h": [B, layers, N], "c": [B, layers, N]}`` float32. Runs in float32 also under autocast: rounding would
    build up over the unroll, and stored states could not be reproduced.
    """

    def __init__(self, input_size: int, hidden_size: int, layers: int = 1, memory: int = 0) -> None:
        """Sizes of input D and state N; number of layers; ``memory``: see ``remember``, 0: biases as torch has them."""
        super().__init__()
        self.layers = layers
        self.output_size = hidden_size
        bound = hidden_size**-0.5
        for layer in range(layers):
            shapes = ((4 * hidden_size, input_size if layer == 0 else hidden_size), (4 * hidden_size, hidden_size))
            for name, shape in zip(_WEIGHTS, (*shapes, shapes[1][:1], shapes[1][:1]), strict=True):
                weight = torch.empty(shape).uniform_(-bound, bound)
                self.register_parameter(f"{name}_l{layer}", nn.Parameter(weight))

        if memory:
            self.remember(memory)

    @torch.no_grad()
    def remember(self, steps: int) -> None:
        """Draw the gates' biases so that cells forget within 1 to ``steps`` rows, each after its own time.

        With torch's own biases half of a cell is gone after every row, and gradients do not reach what was seen twenty
        rows ago. ``b_f = log(u), b_i = -b_f`` with u uniform in [1, steps - 1] (Tallec & Ollivier 2018, equation 16).

        Raises:
            ValueError: fewer than 2 steps.
        """
        if steps < 2:
            raise ValueError(f"steps={steps} is out of range; allowed: 2 or above")
        size = self.output_size
        for layer in range(self.layers):
            _, _, b_ih, b_hh = self._weights(layer)
            forget = torch.empty(size).uniform_(1.0, steps - 1.0).log_()
            b_ih[: 2 * size] = 0.0
            b_hh[:size], b_hh[size : 2 * size] = -forget, forget

    def initial_state(self, batch: int) -> CoreState:
        """Zeros for ``batch`` episodes' starts, on the module's device."""
        shape = (batch, self.layers, self.output_size)
        device = next(self.parameters()).device
        return {"h": torch.zeros(shape, device=device), "c": torch.zeros(shape, device=device)}

    def forward(self, x: Tensor, state: CoreState, first: Tensor) -> tuple[Tensor, CoreState]:
        """Run T rows.

        Args:
            x: [T, B, D] float.
            state: the state before row 0, as ``initial_state``.
            first: [T, B] bool, rows that start an episode.

        Returns:
            Outputs [T, B, N] float32, and the state after row T - 1.
        """
        with without_autocast(x.device.type):
            x = exact(x)
            h, c = state["h"].to(x.dtype).transpose(0, 1), state["c"].to(x.dtype).transpose(0, 1)
            keep = (~first).to(x.dtype).unsqueeze(-1)  # [T, B, 1]
            # A compiler cannot follow where episodes start, and it fuses the plain loop well.
            run = self._rows if torch.compiler.is_compiling() else self._segments
            output, h, c = run(x, h, c, keep, first)
        return output, {"h": h.transpose(0, 1).contiguous(), "c": c.transpose(0, 1).contiguous()}

    def _segments(self, x: Tensor, h: Tensor, c: Tensor, keep: Tensor, first: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """One call of the fused LSTM for each stretch in which no episode starts."""
        length = x.shape[0]
        starts = [0]
        if length > 1:
            starts += [t for t, reset in enumerate(first.any(1).tolist()) if reset and t > 0]
        weights = [weight for layer in range(self.layers) for weight in self._weights(layer)]
        outputs = []
        for start, end in zip(starts, [*starts[1:], length], strict=True):
            state = ((h * keep[start]).contiguous(), (c * keep[start]).contiguous())
            output, h, c = torch.lstm(x[start:end], state, weights, True, self.layers, 0.0, self.training, False, False)
            outputs.append(output)
        return (outputs[0] if len(outputs) == 1 else torch.cat(outputs)), h, c

    def _rows(self, x: Tensor, h: Tensor, c: Tensor, keep: Tensor, first: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The same row by row, from the LSTM's equations."""
        hs, cs = [], []
        for layer in range(self.layers):
            w_ih, w_hh, b_ih, b_hh = self._weights(layer)
            from_input = functional.linear(x, w_ih, b_ih + b_hh)  # [T, B, 4N]
            hidden, cell, outputs = h[layer], c[layer], []
            for t in range(x.shape[0]):
                gates = from_input[t] + functional.linear(hidden * keep[t], w_hh)
                i, f, g, o = gates.chunk(4, -1)
                cell = f.sigmoid() * (cell * keep[t]) + i.sigmoid() * g.tanh()
                hidden = o.sigmoid() * cell.tanh()
                outputs.append(hidden)
            x = torch.stack(outputs)
            hs.append(hidden)
            cs.append(cell)
        return x, torch.stack(hs), torch.stack(cs)

    def _weights(self, layer: int) -> list[Tensor]:
        return [getattr(self, f"{name}_l{layer}") for name in _WEIGHTS]
