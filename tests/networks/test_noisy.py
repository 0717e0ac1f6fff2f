"""Noisy layers: the published equation, one draw per forward, and silence where it is asked for."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from offbeat.networks.flat import flatten_parameters
from offbeat.networks.noisy import NoisyLinear, set_noise


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def layer(inputs: int = 5, outputs: int = 3, sigma: float = 0.5) -> NoisyLinear:
    torch.manual_seed(0)
    made = NoisyLinear(inputs, outputs, sigma)
    with torch.no_grad():
        made.weight_sigma.uniform_(0.1, 0.5)
        made.bias_sigma.uniform_(0.1, 0.5)
    return made


def f(noise: Tensor) -> Tensor:
    return noise.sign() * noise.abs().sqrt()


def test_is_the_published_equation() -> None:
    """Fortunato et al. 2018, eq. 10 and 11, with the noise matrix written out."""
    made, x = layer(), torch.randn(4, 2, 5)
    set_noise(made, seeded())
    y = made(x)
    generator = seeded()
    inner, outer = f(torch.randn(5, generator=generator)), f(torch.randn(3, generator=generator))
    weight, bias = torch.empty(3, 5), torch.empty(3)
    with torch.no_grad():
        for q in range(3):
            bias[q] = made.bias[q] + made.bias_sigma[q] * outer[q]
            for p in range(5):
                weight[q, p] = made.weight[q, p] + made.weight_sigma[q, p] * inner[p] * outer[q]
    torch.testing.assert_close(y, x @ weight.T + bias, rtol=1e-5, atol=1e-5)


def test_initial_weights_and_noise_are_the_published_ones() -> None:
    made = NoisyLinear(16, 400, sigma=0.5)
    assert made.weight.abs().max() <= 0.25 and made.weight.std() > 0.13
    assert made.bias.abs().max() <= 0.25 and made.bias.std() > 0.1
    assert (made.weight_sigma == 0.125).all() and (made.bias_sigma == 0.125).all()


def test_noise_is_drawn_anew_in_each_forward_and_once_for_the_batch() -> None:
    made, x = layer(), torch.randn(1, 5).expand(6, 5)
    first, second = made(x), made(x)
    assert torch.equal(first, first[:1].expand(6, 3))
    assert not torch.equal(first, second)


def test_noise_follows_the_generator_and_not_the_global_one() -> None:
    made, x = layer(), torch.randn(2, 5)
    draws = []
    for seed in (1, 1, 2):
        set_noise(made, seeded(seed))
        before = torch.get_rng_state()
        draws.append(made(x))
        assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_quiet_is_the_mean_of_the_noise() -> None:
    made, x = layer(), torch.randn(2, 5)
    set_noise(made, seeded(), quiet=True)
    quiet = made(x)
    torch.testing.assert_close(quiet, x @ made.weight.T + made.bias)
    set_noise(made, seeded())
    mean = torch.stack([made(x) for _ in range(20_000)]).mean(0)
    torch.testing.assert_close(mean, quiet, rtol=0, atol=0.05)


def test_gradients_reach_weights_and_noise() -> None:
    made = layer()
    set_noise(made, seeded())
    made(torch.randn(4, 5)).square().sum().backward()
    for name, weight in made.named_parameters():
        assert weight.grad is not None and (weight.grad != 0).all(), name


def test_computes_in_float32_under_autocast() -> None:
    made = layer()
    x = torch.randn(4, 5).bfloat16()
    set_noise(made, seeded())
    exact = made(x.float())
    set_noise(made, seeded())
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(made(x), exact)


def test_hidden_layers_follow_autocast_with_noise_drawn_in_float32() -> None:
    made = layer()
    made.exact = False
    x = torch.randn(4, 5)
    set_noise(made, seeded())
    exact = made(x)
    set_noise(made, seeded())
    with torch.autocast("cpu", torch.bfloat16):
        rounded = made(x)
    assert (exact.dtype, rounded.dtype) == (torch.float32, torch.bfloat16)
    torch.testing.assert_close(rounded.float(), exact, rtol=0.02, atol=0.02)


def test_set_noise_reaches_every_noisy_layer_and_no_other() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.Sequential(NoisyLinear(2, 2), nn.ReLU()), NoisyLinear(2, 1))
    generator = seeded()
    set_noise(network, generator, quiet=True)
    noisy = [module for module in network.modules() if isinstance(module, NoisyLinear)]
    assert [(module.generator is generator, module.quiet) for module in noisy] == [(True, True)] * 2
    set_noise(network, None)
    assert [(module.generator, module.quiet) for module in noisy] == [(None, False)] * 2


def test_weights_and_noise_are_in_the_flat_vector() -> None:
    one, other = layer(), NoisyLinear(5, 3)
    flatten_parameters(other).copy_(flatten_parameters(one))
    outputs = []
    for made in (one, other):
        set_noise(made, seeded())
        outputs.append(made(torch.ones(1, 5)))
    assert torch.equal(*outputs)
