"""The eLSTM: an LSTM whose recurrence is element-wise, so that its exact sensitivities are as small as its weights.

Source: Irie et al. 2024, "Exploring the Promise and Limits of Real-Time Recurrent Learning", equations 5 to 7, with the
biases of the authors' code, where it is called QuasiLSTM.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from offbeat.networks.traced import Gradient, Rows, Steps, TracedCore, products, renew
from offbeat.types import TensorDict

DEVIATION = 0.1
"""Standard deviation of the initial weights of the recurrence, biases included. Source: the authors' code."""


class Local(NamedTuple):
    """Derivatives of each row's cell, all [T, B, N]: by the candidate's and the gate's sum of inputs, and by the cell
    before; ``before`` is that cell, zeroed where an episode starts.
    """

    candidate: Tensor
    gate: Tensor
    before: Tensor
    jacobian: Tensor


class ELSTM(TracedCore):
    """One layer of it.

    With x_t the input and c_{t-1} the cell before, zeroed where an episode starts, element-wise but for Z, F and O::

        z_t = tanh(Z x_t + wz c_{t-1} + bz)         f_t = sigmoid(F x_t + wf c_{t-1} + bf)
        c_t = f_t c_{t-1} + (1 - f_t) z_t           h_t = sigmoid(O [x_t; c_t] + bo) c_t

    State: carry ``c`` [B, N]; trace of Z, F, wz, wf, bz, bf, 2 N D + 4 N floats for each episode. O and bo are not part
    of the recurrence and have none.

    Args:
        input_size: D.
        hidden_size: N.
        gradient: ``rtrl`` or ``tbptt``.
        memory: see ``remember``; 0: biases as the authors have them.
        deviation: standard deviation of the initial Z and F, > 0. How far a gate opens for what it sees depends on it.
    """

    carried = ("c",)
    traced = ("Z", "F", "wz", "wf", "bz", "bf")
    Z: Tensor
    F: Tensor
    wz: Tensor
    wf: Tensor
    bz: Tensor
    bf: Tensor

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        gradient: Gradient = "rtrl",
        memory: int = 0,
        deviation: float = DEVIATION,
    ) -> None:
        super().__init__(hidden_size, gradient)
        size, self.input_size, self.output_size = hidden_size, input_size, hidden_size
        for name in self.traced:
            shape, scale = ((size, input_size), deviation) if name in ("Z", "F") else ((size,), DEVIATION)
            self.register_parameter(name, nn.Parameter(torch.randn(shape) * scale))
        bound = (input_size + size) ** -0.5
        self.O = nn.Parameter(torch.empty(size, input_size + size).uniform_(-bound, bound))
        self.bo = nn.Parameter(torch.empty(size).uniform_(-bound, bound))
        if memory:
            self.remember(memory)

    @torch.no_grad()
    def remember(self, steps: int) -> None:
        """Draw the gate's biases so that cells forget within 1 to ``steps`` rows, each after its own time.

        ``bf = log(u)`` with u uniform in [1, steps - 1] (Tallec & Ollivier 2018, equation 16); the gates are tied, so
        the input's is its negative. ValueError for fewer than 2 steps.
        """
        if steps < 2:
            raise ValueError(f"steps={steps} is out of range; allowed: 2 or above")
        self.bf.uniform_(1.0, steps - 1.0).log_()

    def run(self, x: Tensor, carry: TensorDict, keep: Tensor, trained: int) -> Rows:
        """See ``TracedCore.run``: everything that depends on the inputs alone in one product, then row by row."""
        size, inputs = self.hidden_size, self.input_size
        weights = torch.cat([self.Z, self.F, self.O[:, :inputs]])
        sums = functional.linear(x, weights, torch.cat([self.bz, self.bf, self.bo]))
        recurrent, gate = sums.split([2 * size, size], -1)
        cells: Tensor
        local: Local | None = None
        if torch.compiler.is_compiling() and not trained:
            cells = _plain(recurrent, self.wz, self.wf, carry["c"], keep)
        else:
            cells, *found = _Scan.apply(recurrent, self.wz, self.wf, carry["c"], keep)
            local = Local(*found)
        gate = gate + functional.linear(cells, self.O[:, inputs:])
        part = None if local is None else Local(*(value[:trained] for value in local))
        return Rows(gate.sigmoid() * cells, {"c": cells[-1]}, part)

    @torch.no_grad()
    def advance(self, trace: TensorDict, at: list[int], steps: Steps) -> None:
        """See ``TracedCore.advance``: ``S_T = Q_0 S_0 + sum_t Q_t d_t (x) x_t``, Q_t the product of the Jacobians
        after row t, for each of the two sums of inputs with its slope d.
        """
        local: Local = steps.local
        later, whole = products(local.jacobian)
        x = steps.x.transpose(0, 1)
        for weight, vector, bias, slope in (("Z", "wz", "bz", local.candidate), ("F", "wf", "bf", local.gate)):
            part = later * slope  # [T, B, N]
            renew(trace[f"c.{weight}"], at, whole, part.transpose(0, 1).contiguous().mT, x)
            renew(trace[f"c.{vector}"], at, whole, (part * local.before).sum(0))
            renew(trace[f"c.{bias}"], at, whole, part.sum(0))


def _plain(sums: Tensor, wz: Tensor, wf: Tensor, cell: Tensor, keep: Tensor) -> Tensor:
    """The cells [T, B, N], as a compiler or an exporter can follow them; arguments as of ``_Scan``."""
    candidates, gates = sums.chunk(2, -1)
    cells = []
    for t in range(sums.shape[0]):
        before = cell * keep[t]
        cell = torch.lerp((candidates[t] + wz * before).tanh(), before, (gates[t] + wf * before).sigmoid())
        cells.append(cell)
    return torch.stack(cells)


class _Scan(torch.autograd.Function):
    """The recurrence over time without a graph of it: (sums [T, B, 2 N], wz, wf [N], cell [B, N], keep [T, B, 1]) ->
    cells [T, B, N], and the fields of ``Local``, which no gradient flows through.
    """

    @staticmethod
    def forward(ctx: Any, sums: Tensor, wz: Tensor, wf: Tensor, cell: Tensor, keep: Tensor) -> tuple[Tensor, ...]:
        candidates, gates = sums.chunk(2, -1)
        shape = candidates.shape
        z, f, before, cells = (sums.new_empty(shape) for _ in range(4))
        for t in range(shape[0]):
            torch.mul(cell, keep[t], out=before[t])
            torch.addcmul(candidates[t], wz, before[t], out=z[t]).tanh_()
            torch.addcmul(gates[t], wf, before[t], out=f[t]).sigmoid_()
            torch.lerp(z[t], before[t], f[t], out=cells[t])
            cell = cells[t]
        open_ = 1.0 - f
        gate = (before - z).mul_(f).mul_(open_)
        candidate = z.square_().neg_().add_(1.0).mul_(open_)
        jacobian = f.addcmul_(wz, candidate).addcmul_(wf, gate).mul_(keep)
        ctx.save_for_backward(candidate, gate, before, jacobian)
        ctx.mark_non_differentiable(candidate, gate, before, jacobian)
        return cells, candidate, gate, before, jacobian

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *others: Tensor) -> tuple[Tensor | None, ...]:
        candidate, gate, before, jacobian = ctx.saved_tensors
        reached = grad.clone(memory_format=torch.contiguous_format)  # what reaches each cell, from later rows too
        for t in range(len(grad) - 2, -1, -1):
            reached[t].addcmul_(jacobian[t + 1], reached[t + 1])
        sums = torch.cat([reached * candidate, reached * gate], -1)
        by_vector = (sums.unflatten(-1, (2, -1)) * before.unsqueeze(-2)).sum((0, 1))
        return sums, by_vector[0], by_vector[1], jacobian[0] * reached[0], None
