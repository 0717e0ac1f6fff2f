"""What of a network is its stem, what fits another one, and what is not trained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from offbeat.errors import UserError
from offbeat.networks.stem import check_stem, freeze, frozen_names, stem_of


def network(channels: int = 3, width: int = 5, deep: bool = False) -> nn.Module:
    """Named as an encoder: convolutions, the layer behind them, a core and a head."""
    layers: list[nn.Module] = [nn.Conv2d(channels, 2, 3), *([nn.Conv2d(2, 2, 3)] if deep else [])]
    torso = nn.ModuleDict({"trunks": nn.ModuleList([nn.Sequential(*layers)]), "image_layer": nn.Linear(8, width)})
    return nn.ModuleDict({"torso": torso, "core": nn.Linear(width, 4), "policy": nn.Linear(4, 2)})


CONV = ["torso.trunks.0.0.weight", "torso.trunks.0.0.bias"]
FC = ["torso.image_layer.weight", "torso.image_layer.bias"]


def test_the_stem_is_the_torso_with_or_without_the_layer_behind_the_convolutions() -> None:
    weights = network().state_dict()
    assert list(stem_of(weights, fc=True)) == [*CONV, *FC]
    assert list(stem_of(weights, fc=False)) == CONV


def test_a_stem_fits_whatever_the_rest_is() -> None:
    check_stem(network(width=5).state_dict(), network(width=5), fc=True, source="there")
    check_stem(network(width=9).state_dict(), network(width=5), fc=False, source="there")
    check_stem(stem_of(network().state_dict(), fc=False), network(), fc=False, source="there")


@pytest.mark.parametrize(
    ("stem", "fc", "says"),
    [
        (lambda: network(channels=4), True, r"trunks\.0\.0\.weight is \[2, 4, 3, 3\] there and \[2, 3, 3, 3\] here"),
        (lambda: network(width=9), True, r"image_layer\.weight is \[9, 8\] there and \[5, 8\] here.*stem-fc false"),
        (lambda: network(deep=True), True, r"trunks\.0\.1\.bias is there, and is not here"),
        (lambda: network(deep=True), False, r"trunks\.0\.1\.bias is there, and is not here"),
        (lambda: nn.Linear(2, 2), True, r"there holds no stem: none of its weights is called torso\.\*"),
    ],
)
def test_what_does_not_fit_is_named_with_both_shapes(stem: Callable[[], nn.Module], fc: bool, says: str) -> None:
    with pytest.raises(UserError, match=says):
        check_stem(stem().state_dict(), network(), fc=fc, source="there")


def test_a_layer_that_the_stem_lacks_is_named() -> None:
    without = stem_of(network().state_dict(), fc=False)
    with pytest.raises(UserError, match=r"image_layer\.bias is here, and is not there.*stem-fc false"):
        check_stem(without, network(), fc=True, source="there")
    with pytest.raises(UserError, match=r"has no use: the agent's network has no weights called torso\.\*"):
        check_stem(without, nn.Linear(2, 2), fc=True, source="there")


@pytest.mark.parametrize(
    ("options", "frozen"),
    [({"conv": True, "fc": False}, CONV), ({"conv": False, "fc": True}, FC), ({"conv": True, "fc": True}, [*CONV, *FC]),
     ({"conv": False, "fc": False}, [])],
)  # fmt: skip
def test_only_what_is_frozen_gets_no_gradient(options: dict[str, Any], frozen: list[str]) -> None:
    made = network()
    assert frozen_names(made, **options) == frozen
    freeze(made, **options)
    features = made["torso"]["trunks"][0](torch.ones(1, 3, 4, 4)).flatten(1)  # type: ignore[index]
    made["policy"](made["core"](made["torso"]["image_layer"](features))).sum().backward()  # type: ignore[index]
    assert [name for name, one in made.named_parameters() if one.grad is None] == frozen


@pytest.mark.parametrize(("option", "what"), [("conv", "convolutions"), ("fc", "layer behind convolutions")])
def test_layers_that_are_not_there_cannot_be_frozen(option: str, what: str) -> None:
    options = {"conv": False, "fc": False} | {option: True}
    with pytest.raises(UserError, match=f"learner.freeze_{option}=true has no use: the agent's network has no {what}"):
        frozen_names(nn.Linear(2, 2), **options)
