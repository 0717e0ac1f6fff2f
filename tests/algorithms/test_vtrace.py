"""V-trace against a transcription of the paper's double sum, worked examples, limits and episode boundaries."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from offbeat.algorithms.vtrace import vtrace


def column(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None]


def rows(length: int, batch: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    """Random arguments of ``vtrace``."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    discount = 0.9 * (torch.rand(length, batch, generator=generator) > 0.2).to(dtype)
    return {
        "log_ratio": 0.8 * normal(length, batch),
        "discount": discount,
        "reward": normal(length, batch),
        "value": normal(length, batch),
        "bootstrap_value": normal(batch),
    }


def double_sum(log_ratio, discount, reward, value, bootstrap_value, rho_bar, c_bar, pg_rho_bar, lambda_):
    """Equation 1 and the advantage as printed: for each s, a sum over t >= s of a product over i < t."""
    length, batch = log_ratio.shape
    target, advantage = torch.zeros_like(value), torch.zeros_like(value)
    for b in range(batch):
        v = [*value[:, b].tolist(), bootstrap_value[b].item()]
        g, r = discount[:, b].tolist(), reward[:, b].tolist()
        ratio = log_ratio[:, b].exp().tolist()
        vs = []
        for s in range(length):
            total = v[s]
            for t in range(s, length):
                product = 1.0
                for i in range(s, t):
                    product *= g[i] * lambda_ * min(c_bar, ratio[i])
                total += product * min(rho_bar, ratio[t]) * (r[t] + g[t] * v[t + 1] - v[t])
            vs.append(total)
        vs.append(v[length])
        for s in range(length):
            target[s, b] = vs[s]
            advantage[s, b] = min(pg_rho_bar, ratio[s]) * (r[s] + g[s] * vs[s + 1] - v[s])
    return target, advantage


@pytest.mark.parametrize("bars", [(1.0, 1.0, 1.0, 1.0), (2.0, 1.0, 1.0, 0.95), (3.0, 0.7, 5.0, 0.5)])
@pytest.mark.parametrize("length", [1, 2, 7])
def test_equals_the_papers_double_sum(bars, length):
    arguments = rows(length, 4, seed=length)
    target, advantage = double_sum(**arguments, rho_bar=bars[0], c_bar=bars[1], pg_rho_bar=bars[2], lambda_=bars[3])
    out = vtrace(**arguments, rho_bar=bars[0], c_bar=bars[1], pg_rho_bar=bars[2], lambda_=bars[3])
    torch.testing.assert_close(out.target, target, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(out.advantage, advantage, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("options", "target", "advantage"),
    [
        ({}, [1.379208, 1.398240, 1.553600, 2.63], [0.879208, 1.598240, 1.253600, 1.63]),
        (
            {"rho_bar": 2.0, "lambda_": 0.95},
            [1.805662893, 2.4799132, 2.60984, 4.26],
            [1.365960940, 2.548856, 2.4272, 1.63],
        ),
        (
            {"rho_bar": None, "pg_rho_bar": None},
            [1.960266, 2.68948, 2.7272, 4.26],
            [1.460266, 3.98172, 2.4272, 3.26],
        ),
    ],
)
def test_worked_example(options, target, advantage):
    out = vtrace(
        log_ratio=column([0.5, 1.5, 0.8, 2.0]).log(),
        discount=column([0.9] * 4),
        reward=column([1.0, 0.0, -0.5, 2.0]),
        value=column([0.5, -0.2, 0.3, 1.0]),
        bootstrap_value=torch.tensor([0.7], dtype=torch.float64),
        **options,
    )
    torch.testing.assert_close(out.target, column(target), rtol=0, atol=1e-8)
    torch.testing.assert_close(out.advantage, column(advantage), rtol=0, atol=1e-8)


def test_worked_example_on_policy():
    out = vtrace(
        log_ratio=column([0.0] * 3),
        discount=column([0.5] * 3),
        reward=column([1.0, 2.0, 3.0]),
        value=column([10.0, 20.0, 30.0]),
        bootstrap_value=torch.tensor([40.0], dtype=torch.float64),
    )
    torch.testing.assert_close(out.target, column([7.75, 13.5, 23.0]))
    torch.testing.assert_close(out.advantage, column([-2.25, -6.5, -7.0]))


def test_on_policy_is_the_n_step_return():
    arguments = rows(6, 3)
    arguments["log_ratio"] = torch.zeros(6, 3, dtype=torch.float64)
    expected, following = [], arguments["bootstrap_value"]
    for t in reversed(range(6)):
        following = arguments["reward"][t] + arguments["discount"][t] * following
        expected.append(following)
    torch.testing.assert_close(vtrace(**arguments).target, torch.stack(expected[::-1]))


def test_lambda_zero_is_one_step():
    arguments = rows(6, 3)
    next_value = torch.cat([arguments["value"][1:], arguments["bootstrap_value"][None]])
    delta = arguments["reward"] + arguments["discount"] * next_value - arguments["value"]
    expected = arguments["value"] + arguments["log_ratio"].exp().clamp(max=1.0) * delta
    torch.testing.assert_close(vtrace(**arguments, lambda_=0.0).target, expected)


def test_no_bar_is_an_infinite_bar():
    arguments = rows(6, 3)
    unclipped = vtrace(**arguments, rho_bar=None, c_bar=None, pg_rho_bar=None)
    infinite = vtrace(**arguments, rho_bar=float("inf"), c_bar=1e30, pg_rho_bar=float("inf"))
    torch.testing.assert_close(unclipped.target, infinite.target)
    torch.testing.assert_close(unclipped.advantage, infinite.advantage)


@pytest.mark.parametrize("end", range(6))
def test_termination_splits_the_unroll(end):
    """After a termination at ``end`` the rows before and after are two unrolls of their own; V(next) plays no part."""
    arguments = rows(6, 3)
    arguments["discount"] = torch.full((6, 3), 0.9, dtype=torch.float64)
    arguments["discount"][end] = 0.0
    whole = vtrace(**arguments)
    before = {key: item[: end + 1] for key, item in arguments.items() if key != "bootstrap_value"}
    head = vtrace(**before, bootstrap_value=torch.full((3,), 1e6, dtype=torch.float64))
    torch.testing.assert_close(whole.target[: end + 1], head.target)
    torch.testing.assert_close(whole.advantage[: end + 1], head.advantage)
    after = {key: item if key == "bootstrap_value" else item[end + 1 :] for key, item in arguments.items()}
    tail = vtrace(**after)
    torch.testing.assert_close(whole.target[end + 1 :], tail.target)
    torch.testing.assert_close(whole.advantage[end + 1 :], tail.advantage)


@pytest.mark.parametrize("final", range(1, 6))
def test_final_observation_bootstraps_and_cuts_the_trace(final):
    """Row ``final`` only carries a final observation: rows before it bootstrap from its value."""
    arguments = rows(6, 3)
    arguments["discount"] = torch.full((6, 3), 0.9, dtype=torch.float64)
    arguments["discount"][final] = 0.0
    arguments["log_ratio"][final] = float("inf")  # its action means nothing, so its ratio may be anything
    keep = torch.ones(6, 3, dtype=torch.bool)
    keep[final] = False
    whole = vtrace(**arguments, keep=keep)
    torch.testing.assert_close(whole.target[final], arguments["value"][final])
    assert (whole.advantage[final] == 0).all()
    before = {key: item[:final] for key, item in arguments.items() if key != "bootstrap_value"}
    head = vtrace(**before, bootstrap_value=arguments["value"][final])
    torch.testing.assert_close(whole.target[:final], head.target)
    torch.testing.assert_close(whole.advantage[:final], head.advantage)
    after = {key: item if key == "bootstrap_value" else item[final + 1 :] for key, item in arguments.items()}
    tail = vtrace(**after)
    torch.testing.assert_close(whole.target[final + 1 :], tail.target)
    torch.testing.assert_close(whole.advantage[final + 1 :], tail.advantage)


def test_mask_passes_no_trace_in_a_running_episode():
    arguments = rows(5, 2)
    keep = torch.rand(5, 2, generator=torch.Generator().manual_seed(3)) > 0.4
    out = vtrace(**arguments, keep=keep)
    correction = torch.zeros(2, dtype=torch.float64)
    next_value = torch.cat([arguments["value"][1:], arguments["bootstrap_value"][None]])
    clipped = arguments["log_ratio"].exp().clamp(max=1.0)
    for t in reversed(range(5)):
        delta = clipped[t] * (arguments["reward"] + arguments["discount"] * next_value - arguments["value"])[t]
        correction = torch.where(keep[t], delta + arguments["discount"][t] * clipped[t] * correction, 0.0)
        torch.testing.assert_close(out.target[t], arguments["value"][t] + correction)


def test_targets_carry_no_gradient():
    arguments = {key: item.requires_grad_() for key, item in rows(4, 2).items()}
    out = vtrace(**arguments)
    assert not out.target.requires_grad
    assert not out.advantage.requires_grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_keeps_the_dtype_and_the_arguments(dtype):
    arguments = rows(4, 2, dtype=dtype)
    copies = {key: item.clone() for key, item in arguments.items()}
    out = vtrace(**arguments)
    assert out.target.dtype == out.advantage.dtype == dtype
    for key, item in arguments.items():
        assert torch.equal(item, copies[key])


@pytest.mark.parametrize(
    ("name", "shape", "text"),
    [
        ("discount", (4, 3), r"discount: expected shape \[4, 2\], got \[4, 3\]"),
        ("reward", (5, 2), r"reward: expected shape \[4, 2\], got \[5, 2\]"),
        ("value", (5, 2), r"value: expected shape \[4, 2\], got \[5, 2\]"),
        ("bootstrap_value", (1, 2), r"bootstrap_value: expected shape \[2\], got \[1, 2\]"),
        ("keep", (4, 1), r"keep: expected shape \[4, 2\], got \[4, 1\]"),
        ("log_ratio", (4, 2, 1), r"log_ratio: expected 2 axes \[T, B\], got shape \[4, 2, 1\]"),
    ],
)
def test_shape_errors_name_argument_expected_and_got(name, shape, text):
    arguments = rows(4, 2) | {"keep": torch.ones(4, 2, dtype=torch.bool)}
    arguments[name] = torch.zeros(shape)
    with pytest.raises(ValueError, match=text):
        vtrace(**arguments)
