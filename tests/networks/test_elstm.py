"""The eLSTM against the paper row by row, its sensitivities against the paper's recursions, and worked numbers."""

from __future__ import annotations

import pytest
import torch

from offbeat.networks import traced
from offbeat.networks.elstm import ELSTM
from tests.networks.recurrences import draw, elstm_rows, elstm_traces, gradients, over_segments

TRACED = ("Z", "F", "wz", "wf", "bz", "bf")


def make(inputs: int = 4, hidden: int = 6, gradient: str = "rtrl", **options) -> ELSTM:
    """A core in float64, always with the same weights."""
    torch.manual_seed(0)
    return ELSTM(inputs, hidden, gradient, **options).double()


def worked(gradient: str = "rtrl") -> tuple[ELSTM, torch.Tensor]:
    """The core and the inputs [3, 1, 2] of the worked numbers."""
    core = make(2, 2, gradient)
    with torch.no_grad():
        for name, value in (
            ("Z", [[0.5, -0.3], [0.1, 0.8]]), ("F", [[-0.2, 0.4], [0.7, -0.6]]), ("wz", [0.3, -0.5]),
            ("wf", [0.2, 0.6]), ("bz", [0.05, -0.1]), ("bf", [0.1, 0.2]),
        ):  # fmt: skip
            core.get_parameter(name).copy_(torch.tensor(value, dtype=torch.float64))
    return core, torch.tensor([[[1, -0.5]], [[0.3, 0.9]], [[-0.7, 0.2]]], dtype=torch.float64)


def cells_of(core: ELSTM, x: torch.Tensor, state, first: torch.Tensor) -> torch.Tensor:
    """The cells, with their gradients, whatever the output gate does."""
    with torch.no_grad():
        core.O.zero_()
        core.bo.fill_(50.0)  # open
    return core(x, state, first)


A = {
    "Z": [[0.0181492255, 0.2282006505], [-0.3496529939, 0.1782651403]],
    "F": [[-0.1504407380, 0.1133393369], [-0.0851101135, -0.0154887748]],
    "wz": [0.1825287663, 0.1499286042],
    "wf": [0.0467319948, 0.0347196926],
    "bz": [0.8542741234, 0.6355290262],
    "bf": [0.0972812070, 0.0715586430],
}
A_SPAN_1 = {
    "Z": [[-0.2636438735, 0.0753268210], [-0.3822348410, 0.1092099546]],
    "F": [[-0.0864536166, 0.0247010333], [-0.0759751394, 0.0217071827]],
    "wz": [0.0853958156, 0.1570772568],
    "wf": [0.0280028396, 0.0312215560],
    "bz": [0.3766341050, 0.5460497729],
    "bf": [0.1235051665, 0.1085359134],
}
B = {
    "Z": [[0.8818400407, 0.4322351281], [-0.0625069011, 0.3910288490]],
    "F": [[-0.1657673678, 0.3515061442], [-0.0889937779, -0.2138493468]],
    "wz": [1.1247687793, -0.0387347352],
    "wf": [0.1593164402, 0.0677658593],
    "bz": [2.1215835477, 0.3898586095],
    "bf": [0.2841404834, -0.2231471501],
}
C = {
    "Z": [[0.5067186626, -0.5380765796], [-0.0881136772, 0.5048791911]],
    "F": [[-0.0064388907, 0.0006985979], [-0.0785056762, -0.1572187535]],
    "wz": [0.1840628274, 0.0756702537],
    "wf": [-0.0264164219, 0.0099811046],
    "bz": [-0.3417617579, 0.4853829446],
    "bf": [-0.1492149559, -0.1531060762],
}


def assert_worked(core: ELSTM, known: dict) -> None:
    for name, value in known.items():
        expected = torch.tensor(value, dtype=torch.float64)
        torch.testing.assert_close(core.get_parameter(name).grad, expected, rtol=0, atol=1e-9, msg=name)


def by_segments(core: ELSTM, x, state, first, ends: tuple[int, ...], loss) -> float:
    """The loss summed over unrolls; gradients lie in the core."""
    total, start = 0.0, 0
    for end in ends:
        output, state = cells_of(core, x[start:end], state, first[start:end])
        value = sum(loss(start + t, output[t]) for t in range(end - start))
        if torch.is_tensor(value):
            value.backward()
        total += value.item() if torch.is_tensor(value) else value
        state = {name: kept.detach() for name, kept in state.items()}
        start = end
    return total


@pytest.mark.parametrize("ends", [(3,), (1, 3), (2, 3), (1, 2, 3)])
def test_worked_numbers_whatever_the_unrolls_are(ends):
    never = torch.zeros(3, 1, dtype=torch.bool)

    def last(t, output):
        return output.sum() if t == 2 else 0.0 * output.sum()

    def weighted(t, output):
        return (t + 1) * output.square().sum()

    core, x = worked()
    total = by_segments(core, x, core.initial_state(1), never, ends, last)
    assert total == pytest.approx(0.0590286153, abs=1e-9)
    assert_worked(core, A)

    core, x = worked()
    start = core.initial_state(1) | {"c": torch.tensor([[0.5, -0.25]], dtype=torch.float64)}
    assert by_segments(core, x, start, never, ends, weighted) == pytest.approx(1.0037534439, abs=1e-9)
    assert_worked(core, B)

    core, x = worked()
    cut = never.clone()
    cut[1] = True
    assert by_segments(core, x, start, cut, ends, weighted) == pytest.approx(0.7057628643, abs=1e-9)
    assert_worked(core, C)


def test_worked_numbers_of_a_truncated_gradient():
    core, x = worked("tbptt")
    never = torch.zeros(3, 1, dtype=torch.bool)
    by_segments(core, x, core.initial_state(1), never, (1, 2, 3), lambda t, o: (t == 2) * o.sum())
    assert_worked(core, A_SPAN_1)


def test_worked_cells():
    core, x = worked()
    output, _ = cells_of(core, x, core.initial_state(1), torch.zeros(3, 1, dtype=torch.bool))
    known = [[0.3471745470, -0.0879487683], [0.2267341551, 0.2876610606], [0.0175218467, 0.0415067687]]
    torch.testing.assert_close(output[:, 0].detach(), torch.tensor(known, dtype=torch.float64), rtol=0, atol=1e-9)


@pytest.mark.parametrize("share", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("form", ["scan", "plain"])
def test_equals_the_paper_row_by_row(share, form, monkeypatch):
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: form == "plain")
    core = make(gradient="tbptt")
    x, first, weight = draw(9, 3, 4, 6, share)
    x.requires_grad_()
    start = torch.randn(3, 6, dtype=torch.float64, requires_grad=True)
    output, after = core(x, {"c": start}, first)
    known, cells = elstm_rows(core, x, start, first)
    torch.testing.assert_close(output, known)
    torch.testing.assert_close(after["c"], cells[-1])
    wanted = [x, start, *core.parameters()]
    got = torch.autograd.grad((output * weight).sum() + after["c"].sum(), wanted)
    expected = torch.autograd.grad((known * weight).sum() + cells[-1].sum(), wanted)
    torch.testing.assert_close(got, expected)


@pytest.fixture(params=["small", "large"])
def way(request, monkeypatch):
    """Traces are gone through all at once, or episode by episode and padded where they are large."""
    if request.param == "large":
        monkeypatch.setattr(traced, "LARGE", 1)


@pytest.mark.parametrize("cuts", [(0,), (0, 7), (0, 1, 2, 3, 11, 24, 25)])
def test_gradients_over_unrolls_equal_full_backpropagation(cuts, way):
    x, first, weight = draw(30, 3, 4, 6)
    whole = over_segments(make(gradient="tbptt"), x, first, weight, (0,))
    found = over_segments(make(), x, first, weight, cuts)
    for name, expected in whole.items():
        assert (found[name] - expected).abs().max() < 1e-12, name
    if len(cuts) > 1:
        truncated = over_segments(make(gradient="tbptt"), x, first, weight, cuts)
        assert max((truncated[name] - whole[name]).abs().max() for name in TRACED) > 1e-2


def test_the_trace_follows_the_papers_recursions():
    core = make()
    x, first, _ = draw(12, 3, 4, 6)
    state = {name: torch.randn_like(value) for name, value in core.initial_state(3).items()}
    trace = {name: value for name, value in state.items() if name != "c"}
    _, after = core(x, state, first)
    known = elstm_traces(core, x, state["c"], first, trace)
    assert after.keys() == state.keys()
    for name, expected in known.items():
        torch.testing.assert_close(after[name], expected, msg=name)
        assert torch.equal(trace[name], state[name])  # forward leaves what it was given


@pytest.mark.parametrize("at", [[6, -1, 2], [3, 4, 5]])
def test_following_goes_by_the_place_in_a_larger_trace(at, way):
    core = make()
    x, first, weight = draw(5, 3, 4, 6)
    start = {name: torch.randn_like(value) for name, value in core.initial_state(3).items()}
    carry = {"c": start["c"]}
    large = core.initial_trace(8)
    for name, value in large.items():
        value.normal_()
        for b, row in enumerate(at):
            start[name][b] = value[row] if row >= 0 else 0.0
    output, state = core(x, start, first)
    (output * weight).sum().backward()
    expected, expected_trace = gradients(core), core(x[:4], start, first[:4])[1]
    core.zero_grad()
    before = {name: value.clone() for name, value in large.items()}
    output, after, steps = core.follow(x, carry, first, large, at, trained=4)
    (output * weight).sum().backward()
    for name, value in gradients(core).items():
        torch.testing.assert_close(value, expected[name], msg=name)
    torch.testing.assert_close(after["c"].detach(), state["c"])
    core.advance(large, at, steps)
    for name, value in large.items():
        for row in range(8):
            known = expected_trace[name][at.index(row)] if row in at else before[name][row]
            torch.testing.assert_close(value[row], known, msg=f"{name} {row}")


def test_a_state_without_a_trace_is_one_of_zeros_and_leads_to_none():
    core = make()
    x, first, weight = draw(6, 2, 4, 6)
    output, after = core(x, core.initial_carry(2), first)
    (output * weight).sum().backward()
    assert set(after) == {"c"}
    with_trace, known = gradients(core), over_segments(core, x, first, weight, (0,))
    for name, value in with_trace.items():
        torch.testing.assert_close(value, known[name])


def test_a_first_row_forgets_carry_and_trace():
    core = make()
    x, _, weight = draw(1, 3, 4, 6)
    first = torch.ones(1, 3, dtype=torch.bool)
    old = {name: torch.randn_like(value) for name, value in core.initial_state(3).items()}
    output, after = core(x, old, first)
    (output * weight).sum().backward()
    got = gradients(core)
    core.zero_grad()
    fresh, known = core(x, core.initial_state(3), torch.zeros_like(first))
    (fresh * weight).sum().backward()
    assert torch.equal(output, fresh)
    for name, value in known.items():
        torch.testing.assert_close(after[name], value)
    for name, value in gradients(core).items():
        torch.testing.assert_close(got[name], value)


def test_truncated_gradients_have_no_trace():
    core = make(gradient="tbptt")
    assert set(core.initial_state(3)) == {"c"}


def test_stays_float32_under_autocast():
    torch.manual_seed(0)
    core = ELSTM(4, 6)
    first = torch.zeros(3, 2, dtype=torch.bool)
    x = torch.randn(3, 2, 4)
    plain, _ = core(x, core.initial_state(2), first)
    with torch.autocast("cpu", torch.bfloat16):
        output, state = core(x, core.initial_state(2), first)
    assert output.dtype == torch.float32
    assert all(value.dtype == torch.float32 for value in state.values())
    assert torch.equal(output, plain)


def test_initial_weights_are_the_authors():
    torch.manual_seed(0)
    core = ELSTM(257, 512)
    names = {name: tuple(weight.shape) for name, weight in core.named_parameters()}
    shapes = {"Z": (512, 257), "F": (512, 257), "wz": (512,), "wf": (512,), "bz": (512,), "bf": (512,)}
    assert names == shapes | {"O": (512, 769), "bo": (512,)}
    assert sum(core.get_parameter(name).numel() for name in TRACED) == 265_216
    assert core.Z.std().item() == pytest.approx(0.1, rel=0.02)
    assert core.bf.mean().item() == pytest.approx(0.0, abs=0.02)
    assert ELSTM(257, 512, deviation=1.0).F.std().item() == pytest.approx(1.0, rel=0.02)
    assert core.O.abs().max().item() <= 769**-0.5


def test_a_traces_size_is_as_computed():
    state = ELSTM(257, 512).initial_state(1)
    assert sum(value.numel() for value in state.values()) == 265_728  # 1.01 MiB for an environment


def test_remembering_cells_keep_what_they_hold_for_as_long_as_drawn():
    """Without input a cell shrinks by sigmoid(bf) = u / (1 + u) a row: to 1/e within 1 + u rows, u <= steps - 1."""
    torch.manual_seed(0)
    core = ELSTM(3, 400, memory=50)
    with torch.no_grad():
        core.wz.zero_()
        core.wf.zero_()
        core.bz.zero_()
    start = {"c": torch.ones(1, 400)}
    _, after = core(torch.zeros(50, 1, 3), start, torch.zeros(50, 1, dtype=torch.bool))
    kept = after["c"]
    assert kept.max() < 0.40
    assert kept.max() > 0.3
    assert (kept < 0.1).float().mean() > 0.3


def test_refuses_what_cannot_be():
    with pytest.raises(ValueError, match=r"gradient='bptt' is not allowed; choose one of: rtrl, tbptt"):
        ELSTM(4, 6, "bptt")
    with pytest.raises(ValueError, match="hidden_size=0"):
        ELSTM(4, 0)
    with pytest.raises(ValueError, match="steps=1"):
        ELSTM(4, 6, memory=1)
