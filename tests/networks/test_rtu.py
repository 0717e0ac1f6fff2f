"""Recurrent trace units against their equations row by row, and their sensitivities against autograd."""

from __future__ import annotations

import math

import pytest
import torch

from offbeat.networks.rtu import RTU
from tests.networks.recurrences import draw, over_segments, rtu_rows


def make(gradient: str = "rtrl", **options) -> RTU:
    """A core in float64, always with the same weights."""
    torch.manual_seed(0)
    return RTU(4, 6, gradient, **options).double()


@pytest.mark.parametrize("share", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("form", ["scan", "plain"])
def test_equals_the_equations_row_by_row(share, form, monkeypatch):
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: form == "plain")
    core = make("tbptt")
    x, first, weight = draw(9, 3, 4, 12, share)
    x.requires_grad_()
    c1, c2 = (torch.randn(3, 6, dtype=torch.float64, requires_grad=True) for _ in range(2))
    output, after = core(x, {"c1": c1, "c2": c2}, first)
    known, states = rtu_rows(core, x, c1, c2, first)
    torch.testing.assert_close(output, known)
    torch.testing.assert_close(torch.cat([after["c1"], after["c2"]], -1), states[-1])
    wanted = [x, c1, c2, *core.parameters()]
    last = after["c1"].sum() + 2 * after["c2"].sum()
    got = torch.autograd.grad((output * weight).sum() + last, wanted)
    known_last = states[-1, :, :6].sum() + 2 * states[-1, :, 6:].sum()
    expected = torch.autograd.grad((known * weight).sum() + known_last, wanted)
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("cuts", [(0,), (0, 7), (0, 1, 2, 3, 11, 24, 25)])
def test_gradients_over_unrolls_equal_full_backpropagation(cuts):
    x, first, weight = draw(30, 3, 4, 12)
    whole = over_segments(make("tbptt"), x, first, weight, (0,))
    found = over_segments(make(), x, first, weight, cuts)
    for name, expected in whole.items():
        assert (found[name] - expected).abs().max() < 1e-12, name
    if len(cuts) > 1:
        truncated = over_segments(make("tbptt"), x, first, weight, cuts)
        assert min((truncated[name] - whole[name]).abs().max() for name in whole) > 1e-3


def test_the_trace_is_the_derivative_of_the_state():
    core = make()
    x, first, _ = draw(12, 2, 4, 12)
    _, after = core(x, core.initial_state(2), first)
    for part in ("c1", "c2"):
        for b in range(2):
            for unit in range(6):
                state, _ = rtu_rows(core, x, *(torch.zeros(2, 6, dtype=torch.float64),) * 2, first)[::-1]
                value = state[-1, b, unit + (6 if part == "c2" else 0)]
                grads = torch.autograd.grad(value, [core.get_parameter(name) for name in core.traced])
                for name, grad in zip(core.traced, grads, strict=True):
                    full, factor = core.shared.get(f"{part}.{name}", (f"{part}.{name}", 1.0))
                    torch.testing.assert_close(factor * after[full][b, unit], grad[unit], msg=full)


def test_advances_with_the_weights_that_the_rows_were_computed_with():
    core = make()
    x, first, _ = draw(5, 2, 4, 12)
    known = core(x, core.initial_state(2), first)[1]
    trace = core.initial_trace(2)
    _, _, steps = core.follow(x, core.initial_carry(2), first, trace, [0, 1], 5)
    with torch.no_grad():
        for weight in core.parameters():
            weight.add_(0.3)
    core.advance(trace, [0, 1], steps)
    for name, value in trace.items():
        torch.testing.assert_close(value, known[name])


def test_initial_weights():
    torch.manual_seed(0)
    core = RTU(8, 4000)
    radius, angle = (-core.nu.exp()).exp(), core.theta.exp()
    assert radius.square().mean().item() == pytest.approx(0.5, abs=0.02)  # uniform in the unit disc
    assert angle.mean().item() == pytest.approx(math.pi, abs=0.1)
    assert core.W1.std().item() == pytest.approx(0.25, rel=0.02)
    slow = RTU(8, 4000, memory=100)
    times = slow.nu.neg().exp()
    assert times.min() >= 1
    assert times.max() <= 99
    assert times.mean().item() == pytest.approx(50, rel=0.05)
    with pytest.raises(ValueError, match="steps=1"):
        RTU(4, 6, memory=1)


def test_stays_float32_under_autocast():
    torch.manual_seed(0)
    core = RTU(4, 6)
    first = torch.zeros(3, 2, dtype=torch.bool)
    x = torch.randn(3, 2, 4)
    plain, _ = core(x, core.initial_state(2), first)
    with torch.autocast("cpu", torch.bfloat16):
        output, state = core(x, core.initial_state(2), first)
    assert torch.equal(output, plain)
    assert all(value.dtype == torch.float32 for value in state.values())
