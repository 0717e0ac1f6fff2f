"""The deep torsos of any width: published numbers of weights, what they do to a picture, and what they refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import offbeat
from offbeat.agents import dqn, impala, rainbow
from offbeat.agents.make import make_agent
from offbeat.errors import UserError
from offbeat.networks.deep_impala import DeepImpala, channels, least_side, mapped_side
from offbeat.networks.q_network import QNetwork
from offbeat.networks.torsos import Torso
from offbeat.types import ActionSpec, ArraySpec, EnvSpec

IMAGE = ArraySpec((1, 84, 84), "uint8", 0, 255)
STRIDES = {"deep1": [2, 2, 2], "deep2": [2, 1, 1, 1, 2, 1]}
WEIGHTS = {
    "deep1": {0.0625: 54_178, 1: 903_718, 7: 10_368_742, 16: 37_629_958, 29: 104_682_918, 98: 1_008_092_742},
    "deep2": {0.0625: 70_108, 1: 1_288_198, 7: 18_866_182, 16: 76_959_238, 29: 228_083_718, 98: 2_359_881_222},
}  # fmt: skip
"""Weights of DQN's network in the published code, by k, for 6 actions and one grey frame."""


def make_spec(actions: int = 6, image: ArraySpec = IMAGE) -> EnvSpec:
    return EnvSpec("test", {"observation": image}, ActionSpec("discrete", actions))


def count(network: nn.Module) -> int:
    return sum(weight.numel() for weight in network.parameters())


def q_network(kind: str, width: float, actions: int = 6) -> QNetwork:
    """DQN's network without storage for its weights."""
    with torch.device("meta"):
        return dqn.Agent(dqn.Config(torso=kind, torso_width=width, dueling=False), make_spec(actions), "meta").network


@pytest.mark.parametrize(("kind", "width"), [(kind, width) for kind in WEIGHTS for width in WEIGHTS[kind]])
def test_numbers_of_weights_are_the_published_ones(kind: str, width: float) -> None:
    assert count(q_network(kind, width)) == WEIGHTS[kind][width]
    assert count(q_network(kind, width, 18)) == WEIGHTS[kind][width] + 6156


@pytest.mark.parametrize(("actions", "weights"), [(6, 2_317_546), (18, 2_945_458)])
def test_rainbow_has_the_published_number_of_weights(actions: int, weights: int) -> None:
    config = rainbow.Config(torso="deep1", feature_size=0, head_size=512, noisy_sigma=0.5, atoms=51)
    assert count(rainbow.Agent(config, make_spec(actions)).network) == weights


def by_hand(torso: Torso, kind: str, image: Tensor, maps: list[int]) -> Tensor:
    """Features [B, 512] of images [B, 1, 84, 84], layer by layer; the sides of what the sequences give go to maps."""
    weights = iter(torso.trunks[0].parameters())  # type: ignore[arg-type]

    def convolved(x: Tensor, padding: int) -> Tensor:
        return functional.conv2d(x, next(weights), next(weights), padding=padding)

    x = image.double() / 255
    for stride in STRIDES[kind]:
        x = functional.max_pool2d(convolved(x, 0), 3, stride)
        for _ in range(2):
            x = x + convolved(convolved(x.relu(), 1).relu(), 1)
        maps.append(x.shape[-1])
    assert next(weights, None) is None
    assert torso.image_layer is not None
    flat = x.relu().permute(0, 2, 3, 1).flatten(1)
    return functional.linear(flat, torso.image_layer.weight, torso.image_layer.bias).relu()


@pytest.mark.parametrize(("kind", "sides"), [("deep1", [40, 18, 7]), ("deep2", [40, 36, 32, 28, 12, 8])])
@pytest.mark.parametrize("channels_last", [False, True])
def test_features_are_those_made_by_hand(kind: str, sides: list[int], channels_last: bool) -> None:
    torch.manual_seed(0)
    torso = Torso({"image": IMAGE}, kind, width=0.25).double()
    torso.channels_last = channels_last
    image = torch.randint(256, (1, 3, 1, 84, 84), dtype=torch.uint8)
    maps: list[int] = []
    expected = by_hand(torso, kind, image[0], maps)
    assert maps == sides
    features = torso({"image": image})
    assert features.shape == (1, 3, 512) and features.std() > 0
    torch.testing.assert_close(features[0], expected)
    features.sum().backward()
    assert all(weight.grad is not None and weight.grad.any() for weight in torso.parameters())


@pytest.mark.parametrize("kind", ["deep1", "deep2"])
@pytest.mark.parametrize("shape", [(1, 84, 84), (4, 60, 90), (2, 53, 54)])
def test_the_size_of_what_is_left_is_known_without_a_forward(kind: str, shape: tuple[int, int, int]) -> None:
    trunk = DeepImpala(kind, shape, 0.125, 1.0)
    image = trunk(torch.zeros(1, *shape))
    assert image.shape[1:] == (4, mapped_side(kind, shape[1]), mapped_side(kind, shape[2]))
    assert trunk.flat_size == image.numel()


def test_channels_are_whole_numbers_of_the_factor() -> None:
    assert channels("deep1", 0.0625) == [1, 2, 2]
    assert channels("deep2", 0.8125) == [13, 26, 26, 26, 26, 26]
    assert channels("deep1", 0.7) == [11, 22, 22]


@pytest.mark.parametrize(("kind", "least"), [("deep1", 29), ("deep2", 53)])
def test_pictures_that_are_too_small_are_refused(kind: str, least: int) -> None:
    assert least_side(kind) == least
    smallest, smaller = ArraySpec((1, least, least), "uint8", 0, 255), ArraySpec((1, least, least - 1), "uint8", 0, 255)
    assert Torso({"image": smallest}, kind)({"image": torch.zeros(1, 1, *smallest.shape)}).shape == (1, 1, 512)
    known = f"torso='{kind}' needs images of at least {least} pixels a side, got image"
    with pytest.raises(ValueError, match=known):
        Torso({"image": smaller}, kind)
    config, spec = dqn.Config(torso=kind), make_spec(image=smaller)
    with pytest.raises(UserError, match=f"agent 'dqn' cannot train on test: torso='{kind}' needs images of at least"):
        make_agent("dqn", config, spec)


def test_widths_that_make_no_network_are_refused() -> None:
    for width in (0.06, 0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=r"torso_width=.* is out of range; allowed: 0.0625 or above"):
            dqn.Config(torso="deep1", torso_width=width)
    with pytest.raises(ValueError, match=r"torso_width=7.0 means nothing to torso='nature', only to deep1 and deep2"):
        dqn.Agent(dqn.Config(torso="nature", torso_width=7.0), make_spec())
    assert impala.Agent(impala.Config(torso="deep2", torso_width=0.125), make_spec()).network.torso.output_size == 512


QUICK: dict[str, Any] = {
    "engine": "inline", "total_frames": 60, "actor__envs_per_worker": 2, "actor__append_rows": 5, "actor__workers": 1,
    "evaluation__every_frames": 0, "evaluation__at_end": False, "log__tensorboard": False, "log__dashboard": False,
    "replay__capacity": 200, "replay__samplers__0__min_rows": 20, "learner__batch_size": 4,
    "replay__samples_per_insert": 1,
}  # fmt: skip


@pytest.mark.parametrize("agent", ["dqn", pytest.param("rainbow", marks=pytest.mark.slow)])
def test_an_agent_trains_on_the_deepest(agent: str, tmp_path: Path) -> None:
    pytest.importorskip("ale_py")
    options = QUICK | {"agent__torso": "deep2", "agent__torso_width": 0.0625, "agent__feature_size": 0}
    result = offbeat.train(
        "dqn-small", env="Boxing", env__frame_skip=1, agent=agent, out=str(tmp_path / "r"), **options
    )
    assert result.finished and result.updates >= 5


@pytest.mark.slow
def test_a_billion_weights_answer() -> None:
    """2 GB of bfloat16: float32 weights are never made."""
    with torch.device("meta"):
        network = QNetwork(dqn.Config(torso="deep1", torso_width=98.0), make_spec())
    assert count(network.torso) == 1_008_092_742 - 6 * 513
    network.torso.to(torch.bfloat16)
    network.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in network.parameters():
            bound = weight[0].numel() ** -0.5
            weight.uniform_(-bound, bound, generator=generator)
    seen = torch.randint(256, (1, 2, 1, 84, 84), dtype=torch.uint8, generator=generator)
    with torch.inference_mode():
        first = torch.zeros(1, 1, dtype=torch.bool)
        one, two = (network({"observation": seen[:, i : i + 1]}, first, {}).value for i in range(2))
    assert one.shape == (1, 1, 6) and one.isfinite().all()
    assert not torch.equal(one, two)
