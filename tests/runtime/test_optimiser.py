"""The optimiser on one vector does what torch.optim does on separate parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from offbeat.runtime.learner_config import LearnerConfig
from offbeat.runtime.optimiser import FlatOptimiser

OPTIMISERS: dict[str, dict[str, Any]] = {
    "rmsprop": {"rmsprop_decay": 0.9, "epsilon": 0.1},
    "rmsprop-momentum": {"rmsprop_momentum": 0.7},
    "adam": {"optimizer": "adam", "epsilon": 1e-5, "adam_beta1": 0.8, "adam_beta2": 0.95},
}
LOSS = torch.tensor(1.0)


def make_network(seed: int = 0) -> nn.Module:
    """Two layers whose sizes leave padding in the flat vector, and buffers that are no parameters.

    No bias before the normalisation: its gradient is rounding noise, which Adam scales up.
    """
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 7, bias=False), nn.BatchNorm1d(7), nn.Tanh(), nn.Linear(7, 3))


def make_config(**changes: Any) -> LearnerConfig:
    """Constant rate and no clipping, but for ``changes``."""
    return LearnerConfig(**({"learning_rate": 0.01, "schedule": "constant", "clip_norm": 0.0} | changes))


def plain_optimiser(network: nn.Module, config: LearnerConfig) -> torch.optim.Optimizer:
    """What torch itself would be asked for."""
    if config.optimizer == "adam":
        betas = (config.adam_beta1, config.adam_beta2)
        return torch.optim.Adam(network.parameters(), lr=config.learning_rate, betas=betas, eps=config.epsilon)
    return torch.optim.RMSprop(
        network.parameters(), lr=config.learning_rate, alpha=config.rmsprop_decay, eps=config.epsilon,
        momentum=config.rmsprop_momentum,
    )  # fmt: skip


def backward(network: nn.Module, step: int) -> Tensor:
    """A loss of random data; its gradients are added to those there are."""
    generator = torch.Generator().manual_seed(step)
    loss = network(torch.randn(11, 5, generator=generator)).square().sum() * 3
    loss.backward()
    return loss.detach()


def flat_step(network: nn.Module, optimiser: FlatOptimiser, step: int, progress: float = 0.0) -> Tensor:
    """One update; the norm."""
    optimiser.zero()
    norm, finite = optimiser.step(progress, backward(network, step))
    assert finite
    return norm


@pytest.mark.parametrize("name", list(OPTIMISERS))
@pytest.mark.parametrize("clip", [0.0, 2.0, 1e6])
@pytest.mark.parametrize("one_gradient", [False, True])
def test_the_same_weights_as_torch(name: str, clip: float, one_gradient: bool) -> None:
    config = make_config(clip_norm=clip, **OPTIMISERS[name])
    network, plain = make_network(), make_network()
    optimiser, reference = FlatOptimiser(network, config, one_gradient), plain_optimiser(plain, config)
    for step in range(6):
        norm = flat_step(network, optimiser, step)
        reference.zero_grad()
        backward(plain, step)
        expected = nn.utils.clip_grad_norm_(plain.parameters(), clip or float("inf"))
        reference.step()
        torch.testing.assert_close(norm, expected)
    for (key, own), (_, theirs) in zip(network.state_dict().items(), plain.state_dict().items(), strict=True):
        torch.testing.assert_close(own, theirs, rtol=1e-5, atol=1e-6, msg=key)


def autocast_step(network: nn.Module, optimiser: FlatOptimiser, step: int) -> Tensor:
    """One update in bfloat16; the norm."""
    optimiser.zero()
    with torch.autocast("cpu", torch.bfloat16):
        loss = network(torch.randn(11, 5, generator=torch.Generator().manual_seed(step))).float().square().sum() * 3
    loss.backward()
    norm, finite = optimiser.step(0.0, loss.detach())
    assert finite
    return norm


@pytest.mark.parametrize("name", list(OPTIMISERS))
def test_weights_rounded_in_each_step_train_as_those_that_autocast_rounds(name: str) -> None:
    config = make_config(clip_norm=2.0, **OPTIMISERS[name])
    network, plain = make_network(), make_network()
    optimiser, reference = FlatOptimiser(network, config, rounded=True), FlatOptimiser(plain, config)
    assert network[0].weight.dtype == torch.bfloat16
    for step in range(6):
        norm = autocast_step(network, optimiser, step)
        torch.testing.assert_close(norm, autocast_step(plain, reference, step))
    for key, weights in optimiser.weights().items():
        torch.testing.assert_close(weights, plain.state_dict()[key], rtol=1e-6, atol=1e-7, msg=key)
    assert torch.equal(network[0].weight, optimiser.weights()["0.weight"].bfloat16())


def test_rounded_weights_are_saved_and_loaded_exactly() -> None:
    network = make_network()
    optimiser = FlatOptimiser(network, make_config(), rounded=True)
    autocast_step(network, optimiser, 0)
    saved = {name: value.clone() for name, value in optimiser.weights().items()}
    assert saved.keys() == make_network().state_dict().keys()
    again_network = make_network(seed=1)
    again = FlatOptimiser(again_network, make_config(), rounded=True)
    again.load_weights(saved)
    again.load_state(optimiser.state())
    for step in (1, 2):
        autocast_step(network, optimiser, step)
        autocast_step(again_network, again, step)
    assert torch.equal(optimiser.flat, again.flat)
    assert torch.equal(network[0].weight, again_network[0].weight)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: weights.pop("0.weight"), "missing \\['0.weight'\\]"),
        (lambda weights: weights.update(more=torch.zeros(1)), "not in this network \\['more'\\]"),
        (lambda weights: weights.update({"3.bias": torch.zeros(1)}), "3.bias: expected weights \\[3\\], got \\[1\\]"),
    ],
)
def test_weights_of_another_network_are_refused(change: Callable[[Any], Any], message: str) -> None:
    optimiser = FlatOptimiser(make_network(), make_config())
    before, weights = optimiser.flat.clone(), dict(make_network(seed=1).state_dict())
    change(weights)
    with pytest.raises(ValueError, match=message):
        optimiser.load_weights(weights)
    assert torch.equal(optimiser.flat, before)


def test_clipping_bounds_the_norm_of_what_is_stepped_with() -> None:
    network = make_network()
    optimiser = FlatOptimiser(network, make_config(clip_norm=0.5, epsilon=1e6, learning_rate=1e6))  # steps = gradients
    before = [parameter.detach().clone() for parameter in network.parameters()]
    norm = flat_step(network, optimiser, 0)
    assert norm > 0.5
    moved = torch.cat([(p.detach() - b).flatten() for p, b in zip(network.parameters(), before, strict=True)])
    torch.testing.assert_close(moved.norm(), torch.tensor(0.5), rtol=1e-4, atol=0)


def test_the_schedule_goes_straight_from_the_first_to_the_last_rate() -> None:
    linear = FlatOptimiser(make_network(), make_config(schedule="linear", final_learning_rate=0.002))
    rates = [linear.learning_rate(progress) for progress in (0.0, 0.25, 0.5, 1.0, 1.5)]
    assert rates == pytest.approx([0.01, 0.008, 0.006, 0.002, 0.002])
    constant = FlatOptimiser(make_network(), make_config())
    assert [constant.learning_rate(progress) for progress in (0.0, 0.5, 1.0)] == [0.01] * 3


ELITE: dict[str, Any] = {
    "learning_rate": 8e-4, "final_learning_rate": 1e-5, "schedule": "polynomial", "schedule_updates": 10_000,
}  # fmt: skip
ELITE_RATES = {1: 7.998420079e-4, 1000: 6.499e-4, 5000: 2.075e-4, 10_000: 1e-5, 10_001: 1e-5, 30_000: 1e-5}
"""Update -> its rate, computed from elite_buffer_vtrace's formula apart from this code."""


def test_a_polynomial_schedule_of_updates_gives_the_rates_of_its_source_whatever_the_progress() -> None:
    optimiser = FlatOptimiser(make_network(), make_config(**ELITE))
    for update, rate in ELITE_RATES.items():
        optimiser.changed(update - 1)
        rates = [optimiser.learning_rate(progress) for progress in (0.0, 0.7, 1.0)]
        assert rates == pytest.approx([rate] * 3, rel=1e-9)


def test_a_polynomial_schedule_over_the_run_goes_by_progress_and_with_power_1_is_the_straight_line() -> None:
    over_run = FlatOptimiser(make_network(), make_config(**ELITE | {"schedule_updates": 0}))
    over_run.changed(7)  # steps do not matter
    rates = {update: rate for update, rate in ELITE_RATES.items() if update > 1}
    assert {u: over_run.learning_rate(u / 10_000) for u in rates} == pytest.approx(rates, rel=1e-9)
    assert over_run.learning_rate(0.0) == 8e-4
    ends: dict[str, Any] = {"learning_rate": 0.3, "final_learning_rate": 0.1}
    line = FlatOptimiser(make_network(), make_config(schedule="linear", **ends))
    first = FlatOptimiser(make_network(), make_config(schedule="polynomial", schedule_power=1.0, **ends))
    third = FlatOptimiser(make_network(), make_config(schedule="polynomial", schedule_power=3.0, **ends))
    for progress in (0.0, 0.1, 0.5, 0.9, 1.0, 2.0):
        assert first.learning_rate(progress) == line.learning_rate(progress)
        assert third.learning_rate(progress) == pytest.approx(0.1 + 0.2 * (1 - min(progress, 1.0)) ** 3)


def test_steps_use_the_rate_of_their_update_and_a_saved_schedule_goes_on() -> None:
    config = make_config(**ELITE | {"learning_rate": 0.1, "final_learning_rate": 0.02, "schedule_updates": 4})
    network, plain = make_network(), make_network()
    optimiser, reference = FlatOptimiser(network, config), plain_optimiser(plain, config)
    for step in range(6):
        reference.param_groups[0]["lr"] = 0.02 + 0.08 * max(0.0, 1 - (step + 1) / 4) ** 2
        if step == 2:  # another optimiser with the saved state
            saved = optimiser.state()
            optimiser = FlatOptimiser(network, config)
            optimiser.load_state(saved)
        flat_step(network, optimiser, step, progress=0.0)
        reference.zero_grad()
        backward(plain, step)
        reference.step()
    for own, theirs in zip(network.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(own, theirs, rtol=1e-4, atol=1e-5)


def test_steps_use_the_scheduled_rate() -> None:
    network, plain = make_network(), make_network()
    optimiser = FlatOptimiser(network, make_config(schedule="linear"))
    reference = plain_optimiser(plain, make_config())
    for step, progress in enumerate((0.0, 0.5, 0.9)):
        flat_step(network, optimiser, step, progress)
        reference.param_groups[0]["lr"] = 0.01 * (1 - progress)
        reference.zero_grad()
        backward(plain, step)
        reference.step()
    before = optimiser.flat.clone()
    for own, theirs in zip(network.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(own, theirs, rtol=1e-5, atol=1e-6)
    flat_step(network, optimiser, 3, progress=1.0)
    weights = torch.cat([parameter.detach().flatten() for parameter in network.parameters()])
    assert torch.isin(weights, before).all(), "the last rate is 0"


@pytest.mark.parametrize("name", list(OPTIMISERS))
def test_a_saved_state_goes_on_as_if_never_saved(name: str) -> None:
    config = make_config(**OPTIMISERS[name])
    network = make_network()
    optimiser = FlatOptimiser(network, config)
    for step in range(3):
        flat_step(network, optimiser, step)
    again_network = make_network(seed=1)
    again = FlatOptimiser(again_network, config)
    again_network.load_state_dict(network.state_dict())
    again.load_state(optimiser.state())
    for step in range(3, 6):
        flat_step(network, optimiser, step)
        flat_step(again_network, again, step)
    assert torch.equal(optimiser.flat, again.flat)


def test_a_saved_state_is_a_copy() -> None:
    network = make_network()
    optimiser = FlatOptimiser(network, make_config())
    flat_step(network, optimiser, 0)
    saved = optimiser.state()
    kept = {key: value.clone() for key, value in saved.items()}
    flat_step(network, optimiser, 1)
    assert saved.keys() == kept.keys()
    assert all(torch.equal(saved[key], kept[key]) for key in kept)
    assert any(not torch.equal(saved[key], value) for key, value in optimiser.state().items())


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("where", ["gradient", "loss"])
def test_what_is_not_finite_changes_nothing(bad: float, where: str) -> None:
    network = make_network()
    optimiser = FlatOptimiser(network, make_config(clip_norm=1.0))
    flat_step(network, optimiser, 0)
    flat, saved = optimiser.flat.clone(), optimiser.state()
    optimiser.zero()
    backward(network, 1)
    flat = optimiser.flat.clone()  # the forward moved the buffers
    if where == "gradient":
        weight = network.get_parameter("0.weight")
        assert weight.grad is not None
        weight.grad[1, 2] = bad
    loss = torch.tensor(bad) if where == "loss" else LOSS
    _, finite = optimiser.step(0.0, loss)
    assert not finite
    assert torch.equal(optimiser.flat, flat)
    assert all(torch.equal(saved[key], value) for key, value in optimiser.state().items())


NOT_FINITE: dict[str, dict[str, Any]] = {
    "an infinite rate": {"learning_rate": float("inf")},
    "a rate that is no number": {"learning_rate": float("nan")},
    "a rate too large for float32": {"learning_rate": 1e60},
    "weights beyond float32": {"learning_rate": 1e39},
    "nothing over nothing": {"epsilon": 0.0},
}
"""Settings under which a finite gradient leads to weights that are not."""


@pytest.mark.parametrize("cause", list(NOT_FINITE))
@pytest.mark.parametrize("name", list(OPTIMISERS))
@pytest.mark.parametrize("one_gradient", [False, True])
def test_a_step_to_what_is_not_finite_is_undone(cause: str, name: str, one_gradient: bool) -> None:
    network, plain = make_network(), make_network()
    optimiser = FlatOptimiser(network, make_config(**OPTIMISERS[name]), one_gradient)
    never = FlatOptimiser(plain, make_config(**OPTIMISERS[name]), one_gradient)
    good, bad = optimiser._config, make_config(**(OPTIMISERS[name] | NOT_FINITE[cause]))
    if cause != "nothing over nothing":  # which needs statistics that are zero
        flat_step(network, optimiser, 0)
        flat_step(plain, never, 0)
    optimiser.zero()
    loss = backward(network, 1)
    if cause == "nothing over nothing":
        for parameter in network.parameters():
            assert parameter.grad is not None
            parameter.grad.zero_()
    flat, saved = optimiser.flat.clone(), optimiser.state()
    optimiser._config = bad
    norm, finite = optimiser.step(0.0, loss)
    assert torch.isfinite(norm) and not finite
    assert torch.equal(optimiser.flat, flat)
    assert all(torch.equal(saved[key], value) for key, value in optimiser.state().items())
    optimiser._config = good
    backward(plain, 1)  # its normalisation sees the same data
    for step in (2, 3):
        flat_step(network, optimiser, step)
        flat_step(plain, never, step)
    assert torch.equal(optimiser.flat, never.flat)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_weights_that_bfloat16_cannot_hold_are_undone_where_it_is_computed_with(precision: Any) -> None:
    network = nn.Sequential(nn.Linear(2, 1, bias=False))
    optimiser = FlatOptimiser(network, make_config(epsilon=1.0, precision=precision), rounded=precision == "bf16")
    optimiser.load_weights({"0.weight": torch.tensor([[1.0, 3.3895e38]])})
    before = network[0].weight.detach().clone()
    optimiser.zero()
    weight = network[0].weight
    weight.grad = torch.tensor([[1.0, -10.0]], dtype=weight.dtype)
    optimiser._config = make_config(epsilon=1.0, precision=precision, learning_rate=1e36, rmsprop_decay=0.0)
    _, finite = optimiser.step(0.0, LOSS)
    assert finite == (precision == "fp32")
    assert torch.equal(network[0].weight, before) == (precision == "bf16")
    assert torch.isfinite(network[0].weight).all()


@pytest.mark.parametrize("name", list(OPTIMISERS))
@pytest.mark.parametrize("one_gradient", [False, True])
def test_ordinary_steps_copy_nothing(name: str, one_gradient: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FlatOptimiser, "_try_step", None)
    network = make_network()
    optimiser = FlatOptimiser(network, make_config(**OPTIMISERS[name]), one_gradient)
    for step in range(3):
        flat_step(network, optimiser, step)
        assert (
            optimiser._largest()
            == max(float(values.detach().abs().max()) for values in (*network.parameters(), *optimiser._slots.values()))
            or one_gradient
        )
    optimiser.load_weights(make_network(seed=1).state_dict())
    assert optimiser._largest() >= float(network.get_parameter("0.weight").detach().abs().max())


def test_a_parameter_without_a_gradient_stays_as_it_is() -> None:
    network = make_network()
    optimiser = FlatOptimiser(network, make_config(**OPTIMISERS["adam"]))
    flat_step(network, optimiser, 0)
    before = {name: value.clone() for name, value in network.named_parameters()}
    optimiser.zero()
    network.get_parameter("3.bias").grad = torch.ones(3)
    norm, _ = optimiser.step(0.0, LOSS)
    torch.testing.assert_close(norm, torch.tensor(3.0).sqrt())
    for name, value in network.named_parameters():
        assert torch.equal(value, before[name]) == (name != "3.bias"), name


def test_buffers_are_published_but_never_stepped() -> None:
    network = make_network()
    optimiser = FlatOptimiser(network, make_config())
    mean = network.get_buffer("1.running_mean")
    flat_step(network, optimiser, 0)
    moved = mean.clone()
    optimiser.zero()
    network.get_parameter("0.weight").grad = torch.ones(7, 5)
    optimiser.step(0.0, LOSS)
    assert moved.any()
    assert torch.equal(mean, moved)
    optimiser.flat.fill_(4.0)
    assert (mean == 4.0).all()
    assert all((parameter == 4.0).all() for parameter in network.parameters())


def frozen_network() -> nn.Module:
    """The first layer is not trained."""
    network = make_network()
    network[0].weight.requires_grad_(False)  # type: ignore[index]
    return network


def stays_frozen(optimiser: FlatOptimiser, before: dict[str, Tensor]) -> None:
    """The first layer is as it was, its statistics are zero, and all others have moved."""
    after, size = optimiser.weights(), before["0.weight"].numel()
    assert torch.equal(after["0.weight"], before["0.weight"])
    assert all(not torch.equal(after[key], before[key]) for key in ("1.weight", "1.bias", "3.weight", "3.bias"))
    for slot in {*optimiser.state()} - {"step"}:
        assert not optimiser.state()[slot][:size].any() and optimiser.state()[slot].any(), slot


@pytest.mark.parametrize("one_gradient", [False, True])
@pytest.mark.parametrize("name", OPTIMISERS)
def test_parameters_that_need_no_gradient_stay_and_are_in_no_norm(name: str, one_gradient: bool) -> None:
    """As if they were no parameters at all: norm, clipping and steps are those of torch on the others."""
    config = make_config(clip_norm=0.5, **OPTIMISERS[name])
    network, plain = frozen_network(), frozen_network()
    optimiser = FlatOptimiser(network, config, one_gradient)
    trained = [parameter for parameter in plain.parameters() if parameter.requires_grad]
    reference = plain_optimiser(nn.ParameterList(trained), config)
    before = {key: value.clone() for key, value in optimiser.weights().items()}
    for step in range(4):
        norm = flat_step(network, optimiser, step)
        reference.zero_grad()
        backward(plain, step)
        torch.testing.assert_close(norm, nn.utils.clip_grad_norm_(trained, config.clip_norm))
        reference.step()
    stays_frozen(optimiser, before)
    for key, weights in plain.named_parameters():
        torch.testing.assert_close(optimiser.weights()[key], weights.detach(), rtol=1e-5, atol=1e-6, msg=key)


@pytest.mark.parametrize("name", OPTIMISERS)
def test_rounded_weights_that_need_no_gradient_stay_too(name: str) -> None:
    network = frozen_network()
    optimiser = FlatOptimiser(network, make_config(**OPTIMISERS[name]), rounded=True)
    assert network[0].weight.dtype == torch.bfloat16
    before = {key: value.clone() for key, value in optimiser.weights().items()}
    for step in range(4):
        autocast_step(network, optimiser, step)
    stays_frozen(optimiser, before)


@pytest.mark.parametrize("one_gradient", [False, True])
def test_a_gradient_from_several_learners_does_not_reach_what_is_frozen(one_gradient: bool) -> None:
    network = make_network()
    network[0].weight.requires_grad_(False)  # type: ignore[index]
    optimiser = FlatOptimiser(network, make_config(), one_gradient=one_gradient)
    optimiser.zero()
    backward(network, 0)
    kept, before = optimiser.gradient(), optimiser.flat.clone()
    assert not kept[: network[0].weight.numel()].any()  # type: ignore[index]
    optimiser.zero()
    optimiser.set_gradient(kept * 2)
    assert optimiser.step(0.0, LOSS)[1]
    size = network[0].weight.numel()  # type: ignore[index]
    assert torch.equal(optimiser.flat[:size], before[:size])
    assert not torch.equal(optimiser.flat, before)
