"""Layers joined into one step do what they do one by one; ``tests/networks/test_torsos.py`` tries whole torsos."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from offbeat.networks.joined import channels_last_vector, joined, joins, missing, onednn_bf16
from offbeat.networks.torsos import Torso
from offbeat.types import ArraySpec


@pytest.fixture
def tried_anew() -> Iterator[None]:
    """What torch has is tried again, in the test and after it."""
    missing.cache_clear()
    yield
    missing.cache_clear()


def make_layers() -> tuple[list[nn.Conv2d], nn.Linear]:
    """Two convolutions of different geometry and a linear layer over 3 x 4 pixels of 6 channels."""
    torch.manual_seed(0)
    return [nn.Conv2d(3, 5, 3, stride=2, padding=1), nn.Conv2d(5, 6, 2)], nn.Linear(72, 7)


def one_by_one(x: Tensor, convolutions: list[nn.Conv2d], linear: nn.Linear | None) -> Tensor:
    """What is to be equalled."""
    for layer in convolutions:
        x = functional.relu(layer(x))
    return x if linear is None else functional.relu(linear(channels_last_vector(x)))


@pytest.mark.skipif(bool(missing()), reason=missing())
@pytest.mark.parametrize("with_linear", [False, True])
def test_gradients_come_from_the_trained_rows_only(with_linear: bool) -> None:
    convolutions, layer = make_layers()
    linear = layer if with_linear else None
    weights = [weight for module in (*convolutions, layer) for weight in module.parameters()][: 6 if with_linear else 4]
    x = torch.randn(9, 3, 8, 10, generator=torch.Generator().manual_seed(1))
    with torch.autocast("cpu", torch.bfloat16):
        both = [(conv, conv.weight) for conv in convolutions]
        all_rows, some_rows = joined(x, both, linear), joined(x, both, linear, trained=6)
        plain = one_by_one(x, convolutions, linear)
        plain_some = one_by_one(x[:6], convolutions, linear)
    assert torch.equal(all_rows, plain)
    assert torch.equal(some_rows, plain)
    factor = torch.linspace(-1, 1, plain.numel()).view_as(plain)
    for given, expected in ((all_rows, plain), (some_rows, plain_some)):
        gradients = torch.autograd.grad((given.float() * factor).sum(), weights)
        known = torch.autograd.grad((expected.float() * factor[: len(expected)]).sum(), weights)
        assert all(gradient.any() for gradient in known)
        for gradient, right in zip(gradients, known, strict=True):
            torch.testing.assert_close(gradient, right, rtol=2e-2, atol=2e-2)


@pytest.mark.skipif(bool(missing()), reason=missing())
def test_without_gradients_the_same_values() -> None:
    convolutions, linear = make_layers()
    x = torch.randn(4, 3, 8, 10)
    with torch.autocast("cpu", torch.bfloat16):
        both = [(conv, conv.weight) for conv in convolutions]
        with torch.no_grad():
            values = joined(x, both, linear)
        assert not values.requires_grad
        assert torch.equal(values, joined(x, both, linear))


def test_only_in_bfloat16_on_a_processor() -> None:
    device = torch.device("cpu")
    assert not joins(device)
    with torch.autocast("cpu", torch.bfloat16):
        assert joins(device) == (torch.backends.mkldnn.is_available() and not missing())
        assert not joins(torch.device("meta"))
    with torch.autocast("cpu", torch.float16):
        assert not joins(device)


def test_layers_are_computed_one_by_one_where_onednn_has_no_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    onednn_bf16.cache_clear()
    with torch.autocast("cpu", torch.bfloat16):
        assert not joins(torch.device("cpu"))
    onednn_bf16.cache_clear()


def gone(*_: Any) -> Any:
    """As an operation that torch no longer has, or that takes other arguments."""
    raise RuntimeError("no such operation")


def wrong(operation: Callable[..., Any]) -> Callable[..., Any]:
    """The operation with another result."""

    def changed(*given: Any) -> Any:
        result = operation(*given)
        return (
            result + 1 if isinstance(result, Tensor) else tuple(None if part is None else part + 1 for part in result)
        )

    return changed


@pytest.mark.skipif(bool(missing()), reason=missing())
@pytest.mark.usefixtures("tried_anew")
@pytest.mark.parametrize("is_gone", [True, False])
@pytest.mark.parametrize(
    "name",
    [
        "mkldnn._convolution_pointwise",
        "mkldnn._linear_pointwise",
        "aten.threshold_backward",
        "aten.convolution_backward",
    ],
)
def test_where_torch_lacks_an_operation_layers_go_one_by_one(
    name: str, is_gone: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    torso = Torso({"image": ArraySpec((4, 20, 20), "uint8", 0, 255)}, "shallow", feature_size=-1)
    image = torch.randint(256, (2, 3, 4, 20, 20), dtype=torch.uint8)

    def run() -> list[Tensor]:
        torso.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            features = torso({"image": image}, 1)
        (features.float() * torch.linspace(-1, 1, features.numel()).view_as(features)).sum().backward()
        return [features.detach(), *(weight.grad.clone() for weight in torso.parameters())]

    joined_once = run()
    space, _, operation = name.partition(".")
    owner = getattr(torch.ops, space)
    monkeypatch.setattr(owner, operation, gone if is_gone else wrong(getattr(owner, operation)))
    missing.cache_clear()
    apart = run()
    assert missing() == ("RuntimeError: no such operation" if is_gone else "it gives other results")
    assert joined_once[1].any()
    assert all(torch.equal(a, b) for a, b in zip(joined_once, apart, strict=True))
