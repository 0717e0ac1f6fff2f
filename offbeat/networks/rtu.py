"""Recurrent trace units: a linear, complex, diagonal recurrence, written in reals where others see it.

Source: Elelimy et al. 2024, "Real-Time Recurrent Learning using Trace Units in Reinforcement Learning" (the linear
ones), with parameters and initial weights as in the authors' code. Every equation here is tested against autograd.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from offbeat.networks.traced import Gradient, Rows, Steps, TracedCore, places, products, renew
from offbeat.types import TensorDict


class Local(NamedTuple):
    """What T rows were computed with. The weights may be others by the time that the trace is advanced."""

    before: Tensor  # [T, B, N] complex, the state before each row, zeroed where an episode starts
    inputs: Tensor  # [T, B, N] complex, (W1 + i W2) x
    keep: Tensor  # [T, B, 1]
    factor: Tensor  # [N] complex, lambda
    gamma: Tensor  # [N]
    decay: Tensor  # [N], exp(nu)
    angle: Tensor  # [N], exp(theta)


class RTU(TracedCore):
    """One layer of them.

    With x_t the input and c = c1 + i c2 the state, zeroed where an episode starts, element-wise but for W1 and W2::

        lambda = exp(-exp(nu) + i exp(theta))       gamma = sqrt(1 - |lambda|^2)
        c_t = lambda c_{t-1} + gamma (W1 + i W2) x_t        h_t = relu([Re c_t; Im c_t])

    State: carry ``c1`` and ``c2`` [B, N]; trace of W1, nu and theta by both, 2 N D + 4 N floats for each episode. That
    of W2 is that of W1 turned by a right angle. The output has 2 N numbers.

    Args:
        input_size: D.
        hidden_size: N, complex units.
        gradient: ``rtrl`` or ``tbptt``.
        memory: see ``remember``; 0: |lambda|^2 uniform in [0, 1].
    """

    carried = ("c1", "c2")
    traced = ("W1", "W2", "nu", "theta")
    shared = {"c1.W2": ("c2.W1", -1.0), "c2.W2": ("c1.W1", 1.0)}  # noqa: RUF012

    def __init__(self, input_size: int, hidden_size: int, gradient: Gradient = "rtrl", memory: int = 0) -> None:
        super().__init__(hidden_size, gradient)
        self.input_size, self.output_size = input_size, 2 * hidden_size
        deviation = (2 * input_size) ** -0.5
        self.W1 = nn.Parameter(torch.randn(hidden_size, input_size) * deviation)
        self.W2 = nn.Parameter(torch.randn(hidden_size, input_size) * deviation)
        share = torch.rand(hidden_size).clamp(1e-6, 1 - 1e-6)
        self.nu = nn.Parameter((-0.5 * share.log()).log())
        self.theta = nn.Parameter((2 * math.pi * torch.rand(hidden_size).clamp(min=1e-6)).log())
        if memory:
            self.remember(memory)

    @torch.no_grad()
    def remember(self, steps: int) -> None:
        """Draw the decay so that states shrink to 1/e within 1 to ``steps`` - 1 rows, each after its own time.

        ``nu = -log(u)`` with u uniform in [1, steps - 1]. ValueError for fewer than 2 steps.
        """
        if steps < 2:
            raise ValueError(f"steps={steps} is out of range; allowed: 2 or above")
        self.nu.uniform_(1.0, steps - 1.0).log_().neg_()

    def run(self, x: Tensor, carry: TensorDict, keep: Tensor, trained: int) -> Rows:
        """See ``TracedCore.run``: the inputs in one product, then row by row."""
        inputs = functional.linear(x, torch.cat([self.W1, self.W2]))
        if torch.compiler.is_compiling() and not trained:
            re, im = self._plain(inputs, carry, keep)
            return Rows(torch.cat([re, im], -1).relu(), {"c1": re[-1], "c2": im[-1]}, None)
        decay, angle = self.nu.exp(), self.theta.exp()
        factor, gamma = torch.polar((-decay).exp(), angle), (-torch.expm1(-2 * decay)).sqrt()
        raw = torch.complex(*inputs.chunk(2, -1))
        cells, before = _Scan.apply(raw * gamma, factor, torch.complex(carry["c1"], carry["c2"]), keep)
        output = torch.cat([cells.real, cells.imag], -1).relu()
        weights = (value.detach() for value in (factor, gamma, decay, angle))
        local = Local(before[:trained], raw.detach()[:trained], keep[:trained], *weights)
        return Rows(output, {"c1": cells[-1].real, "c2": cells[-1].imag}, local)

    def _plain(self, inputs: Tensor, carry: TensorDict, keep: Tensor) -> tuple[Tensor, Tensor]:
        """Both parts of the state [T, B, N], in reals, as a compiler or an exporter can follow them."""
        radius, angle = (-self.nu.exp()).exp(), self.theta.exp()
        g, phi, gamma = radius * angle.cos(), radius * angle.sin(), (1 - radius.square()).sqrt()
        re, im, found = carry["c1"], carry["c2"], []
        for t in range(inputs.shape[0]):
            u1, u2 = inputs[t].chunk(2, -1)
            re, im = re * keep[t], im * keep[t]
            re, im = g * re - phi * im + gamma * u1, g * im + phi * re + gamma * u2
            found.append((re, im))
        parts = zip(*found)
        return torch.stack(next(parts)), torch.stack(next(parts))

    @torch.no_grad()
    def advance(self, trace: TensorDict, at: list[int], steps: Steps) -> None:
        """See ``TracedCore.advance``: ``S_T = Q_0 S_0 + sum_t Q_t d_t``, Q_t the product of lambda after row t, and d_t
        the derivative of c_t by the parameter with c_{t-1} fixed.
        """
        local: Local = steps.local
        factor, gamma, decay = local.factor, local.gamma, local.decay
        later, whole = products(factor * local.keep)
        by_nu = -decay * factor * local.before + decay * (-2 * decay).exp() / gamma * local.inputs
        own = {"nu": (later * by_nu).sum(0), "theta": (later * (1j * local.angle * factor) * local.before).sum(0)}
        part = (later * gamma).permute(1, 2, 0)  # [B, N, T]
        turned(trace["c1.W1"], trace["c2.W1"], at, whole, part, steps.x.transpose(0, 1))
        for name, added in own.items():
            turned(trace[f"c1.{name}"], trace[f"c2.{name}"], at, whole, added)


def turned(c1: Tensor, c2: Tensor, at: list[int], factor: Tensor, added: Tensor, by: Tensor | None = None) -> None:
    """``renew`` of a complex trace in two parts; ``factor`` and ``added`` are complex."""
    columns, rows = places(at)
    imag = factor.imag[columns].view(-1, factor.shape[1], *[1] * (c1.dim() - 2))
    cross1, cross2 = -imag * c2[rows], imag * c1[rows]
    for trace, part, cross in ((c1, added.real, cross1), (c2, added.imag, cross2)):
        renew(trace, at, factor.real, part.contiguous(), by)
        trace[rows] += cross


class _Scan(torch.autograd.Function):
    """The recurrence over time: (inputs [T, B, N], lambda [N], state [B, N], all complex, keep [T, B, 1]) -> states
    [T, B, N], and those before each row, through which no gradient flows.
    """

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, factor: Tensor, state: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
        before, cells = torch.empty_like(inputs), torch.empty_like(inputs)
        for t in range(len(inputs)):
            torch.mul(state, keep[t], out=before[t])
            torch.addcmul(inputs[t], factor, before[t], out=cells[t])
            state = cells[t]
        ctx.save_for_backward(factor, keep, before)
        ctx.mark_non_differentiable(before)
        return cells, before

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        factor, keep, before = ctx.saved_tensors
        back = factor.conj()
        reached = grad.clone(memory_format=torch.contiguous_format)
        for t in range(len(grad) - 2, -1, -1):
            reached[t].addcmul_(back, keep[t + 1] * reached[t + 1])
        return reached, (reached * before.conj()).sum((0, 1)), keep[0] * back * reached[0], None
