"""The LSTM core against ``nn.LSTMCell`` called row by row, with episodes starting anywhere."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from offbeat.networks.lstm import LSTMCore


def row_by_row(core: LSTMCore, x, state, first):
    """The slow way: one cell per layer, state zeroed by hand."""
    cells = []
    for layer in range(core.layers):
        cell = nn.LSTMCell(x.shape[-1] if layer == 0 else core.output_size, core.output_size)
        names = {name: getattr(core, f"{name}_l{layer}") for name in dict(cell.named_parameters())}
        cells.append((cell, names))
    h, c, outputs = state["h"].clone(), state["c"].clone(), []
    for t in range(x.shape[0]):
        for b in range(x.shape[1]):
            if first[t, b]:
                h[b], c[b] = 0.0, 0.0
        value, hs, cs = x[t], [], []
        for layer, (cell, weights) in enumerate(cells):
            pair = torch.func.functional_call(cell, weights, (value, (h[:, layer], c[:, layer])))
            value = pair[0]
            hs.append(pair[0])
            cs.append(pair[1])
        h, c = torch.stack(hs, 1), torch.stack(cs, 1)
        outputs.append(value)
    return torch.stack(outputs), {"h": h, "c": c}


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("share", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("form", ["segments", "rows"])
def test_equals_row_by_row(layers, share, form, monkeypatch):
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: form == "rows")
    torch.manual_seed(0)
    core = LSTMCore(4, 5, layers)
    x = torch.randn(9, 3, 4, requires_grad=True)
    state = {"h": torch.randn(3, layers, 5), "c": torch.randn(3, layers, 5)}
    first = torch.rand(9, 3) < share
    output, after = core(x, state, first)
    expected, expected_after = row_by_row(core, x, state, first)
    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(after, expected_after)
    weights = [x, *core.parameters()]
    got, known = torch.autograd.grad(output.sum(), weights), torch.autograd.grad(expected.sum(), weights)
    torch.testing.assert_close(got, known)


def test_initial_state_and_a_first_row_are_the_same():
    core = LSTMCore(4, 5, 2)
    x = torch.randn(1, 3, 4)
    fresh, _ = core(x, core.initial_state(3), torch.zeros(1, 3, dtype=torch.bool))
    old = {"h": torch.randn(3, 2, 5), "c": torch.randn(3, 2, 5)}
    reset, _ = core(x, old, torch.ones(1, 3, dtype=torch.bool))
    assert torch.equal(fresh, reset)


def test_stays_float32_under_autocast():
    core = LSTMCore(4, 5)
    first = torch.zeros(3, 2, dtype=torch.bool)
    x = torch.randn(3, 2, 4)
    plain, _ = core(x, core.initial_state(2), first)
    with torch.autocast("cpu", torch.bfloat16):
        output, state = core(x, core.initial_state(2), first)
    assert output.dtype == state["h"].dtype == torch.float32
    assert torch.equal(output, plain)


def test_remembering_cells_keep_what_they_hold_for_as_long_as_drawn():
    """Without input a cell shrinks by sigmoid(b_f) = u / (1 + u) a row: to 1/e within 1 + u rows, u <= steps - 1."""
    torch.manual_seed(0)
    steps, rows = 50, 50
    core = LSTMCore(3, 400, 2, memory=steps)
    core.weight_hh_l0.data.zero_()
    start = core.initial_state(1)
    start["c"][:, 0] = 1.0
    _, end = core(torch.zeros(rows, 1, 3), start, torch.zeros(rows, 1, dtype=torch.bool))
    size = core.output_size
    for layer in range(2):
        forget = core.get_parameter(f"bias_hh_l{layer}")[size : 2 * size].detach()
        assert torch.equal(core.get_parameter(f"bias_hh_l{layer}")[:size].detach(), -forget)
        assert not core.get_parameter(f"bias_ih_l{layer}")[: 2 * size].any()
        u = forget.exp()
        assert u.min() >= 1.0 - 1e-5
        assert u.max() <= steps - 1.0 + 1e-3
        assert u.mean() == pytest.approx(steps / 2, rel=0.1)
    kept = (u := core.bias_hh_l0[size : 2 * size].detach().exp()) / (1 + u)
    written = end["c"][0, 0] - kept**rows  # by the cell's own bias, a sum of at most 1 / (1 + u) a row
    assert written.abs().max() < 1.0
    assert (kept**rows)[u > 40].min() > 0.25, "such cells still hold a quarter after all rows"


def test_memory_of_one_step_is_none():
    with pytest.raises(ValueError, match="steps=1 is out of range"):
        LSTMCore(3, 4, memory=1)
