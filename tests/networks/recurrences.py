"""Slow transcriptions of recurrent cores, row by row, and episodes cut into unrolls."""

from __future__ import annotations

import torch
from torch import Tensor


def elstm_rows(core, x: Tensor, cell: Tensor, first: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs and cells [T, B, N] of an eLSTM, equations 5 to 7 of Irie et al. 2024 with biases."""
    outputs, cells = [], []
    for t in range(len(x)):
        cell = cell * (~first[t]).to(x.dtype).unsqueeze(-1)
        z = torch.tanh(x[t] @ core.Z.T + core.wz * cell + core.bz)
        f = torch.sigmoid(x[t] @ core.F.T + core.wf * cell + core.bf)
        cell = f * cell + (1 - f) * z
        gate = torch.sigmoid(torch.cat([x[t], cell], -1) @ core.O.T + core.bo)
        outputs.append(gate * cell)
        cells.append(cell)
    return torch.stack(outputs), torch.stack(cells)


def elstm_traces(core, x: Tensor, cell: Tensor, first: Tensor, trace: dict[str, Tensor]) -> dict[str, Tensor]:
    """The sensitivities after T rows, by the recursions of section 3 there."""
    s = {name: value.clone() for name, value in trace.items()}
    for t in range(len(x)):
        keep = (~first[t]).to(x.dtype)
        cell = cell * keep.unsqueeze(-1)
        s = {name: value * keep.view(-1, *[1] * (value.dim() - 1)) for name, value in s.items()}
        z = torch.tanh(x[t] @ core.Z.T + core.wz * cell + core.bz)
        f = torch.sigmoid(x[t] @ core.F.T + core.wf * cell + core.bf)
        zh, fh = (1 - f) * (1 - z**2), (cell - z) * f * (1 - f)
        jacobian = f + core.wz * zh + core.wf * fh
        for weight, vector, bias, slope in (("Z", "wz", "bz", zh), ("F", "wf", "bf", fh)):
            outer = slope.unsqueeze(-1) * x[t].unsqueeze(-2)
            s[f"c.{weight}"] = jacobian.unsqueeze(-1) * s[f"c.{weight}"] + outer
            s[f"c.{vector}"] = jacobian * s[f"c.{vector}"] + slope * cell
            s[f"c.{bias}"] = jacobian * s[f"c.{bias}"] + slope
        cell = f * cell + (1 - f) * z
    return s


def rtu_rows(core, x: Tensor, c1: Tensor, c2: Tensor, first: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs and states [T, B, 2 N] of linear recurrent trace units, in reals."""
    r, theta = torch.exp(-torch.exp(core.nu)), torch.exp(core.theta)
    g, phi, gamma = r * torch.cos(theta), r * torch.sin(theta), torch.sqrt(1 - r**2)
    states = []
    for t in range(len(x)):
        keep = (~first[t]).to(x.dtype).unsqueeze(-1)
        c1, c2 = c1 * keep, c2 * keep
        c1, c2 = (
            g * c1 - phi * c2 + gamma * (x[t] @ core.W1.T),
            g * c2 + phi * c1 + gamma * (x[t] @ core.W2.T),
        )
        states.append(torch.cat([c1, c2], -1))
    return torch.relu(torch.stack(states)), torch.stack(states)


def gradients(core) -> dict[str, Tensor]:
    """Of all parameters."""
    return {name: weight.grad.clone() for name, weight in core.named_parameters()}


def over_segments(core, x: Tensor, first: Tensor, weight: Tensor, cuts: tuple[int, ...]) -> dict[str, Tensor]:
    """Gradients of ``sum(weight * outputs)``, T rows in unrolls that begin at ``cuts``, the state carried over."""
    core.zero_grad()
    state = core.initial_state(x.shape[1])
    for start, end in zip(cuts, (*cuts[1:], len(x)), strict=True):
        output, state = core(x[start:end], state, first[start:end])
        (output * weight[start:end]).sum().backward()
        state = {name: value.detach() for name, value in state.items()}
    return gradients(core)


def draw(rows: int, batch: int, inputs: int, outputs: int, share: float = 0.1) -> tuple[Tensor, Tensor, Tensor]:
    """Random inputs, episode starts, and weights of the outputs, in float64."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(rows, batch, inputs, dtype=torch.float64, generator=generator)
    first = torch.rand(rows, batch, generator=generator) < share
    return x, first, torch.randn(rows, batch, outputs, dtype=torch.float64, generator=generator)
