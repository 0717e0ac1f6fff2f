"""The Q network: heads with and without atoms and masks, what the core is shown, resets, one class for every role."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from offbeat.algorithms.q_learning import dueling
from offbeat.networks.encoder import EncoderConfig
from offbeat.networks.flat import flatten_parameters
from offbeat.networks.noisy import NoisyLinear, set_noise
from offbeat.networks.q_network import QNetwork
from offbeat.types import LEGAL, ArraySpec, EnvSpec, Inputs
from tests.agents.unrolls import BOX, make_inputs, make_spec

RECURRENT = {"core_size": 8, "last_action": True, "last_reward": True, "duel": True, "head_size": 6}


def network(spec: EnvSpec | None = None, **options: Any) -> QNetwork:
    torch.manual_seed(0)
    return make(spec or make_spec(), **options)


def make(spec: EnvSpec, **options: Any) -> QNetwork:
    """Options of the encoder and of the head."""
    encoder = {field.name for field in fields(EncoderConfig)} & options.keys()
    config = EncoderConfig(**{name: options.pop(name) for name in encoder})
    return QNetwork(config, spec, **options)


def run(made: QNetwork, inputs: Inputs, state: dict[str, Tensor] | None = None) -> Any:
    state = made.initial_state(inputs.shape[1]) if state is None else state
    return made(inputs.observation, inputs.first, state, inputs.last_action, inputs.last_reward)


def with_mask(spec: EnvSpec) -> EnvSpec:
    return replace(spec, observation=spec.observation | {LEGAL: ArraySpec((spec.action.num_actions,), "bool")})


@pytest.mark.parametrize("observation", ["vector", "grid", "image", "dictionary"])
@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({}, (3, 2, 3)),
        ({"duel": True, "head_size": 6}, (3, 2, 3)),
        ({"duel": True, "head_size": 6, "atoms": 5, "sigma": 0.5}, (3, 2, 3, 5)),
        ({"atoms": 5}, (3, 2, 3, 5)),
        (RECURRENT, (3, 2, 3)),
    ],
)
def test_shapes(observation: str, options: dict[str, Any], shape: tuple[int, ...]) -> None:
    spec = make_spec(observation)
    made = network(spec, **options)
    output = run(made, make_inputs(spec, 3, 2))
    assert (output.value.shape, output.value.dtype) == (shape, torch.float32)
    assert {name: tuple(value.shape) for name, value in output.state.items()} == (
        {"h": (2, 1, 8), "c": (2, 1, 8)} if "core_size" in options else {}
    )
    output.value.square().sum().backward()
    for name, weight in made.named_parameters():
        assert weight.grad is not None and weight.grad.abs().sum() > 0, name


@pytest.mark.parametrize("options", [{"head_size": 6}, {}])
def test_dueling_streams_have_layers_of_their_own(options: dict[str, int]) -> None:
    made = network(duel=True, **options)
    features = torch.randn(4, 2, made.torso.output_size)
    assert made.head.value is not None
    expected = dueling(made.head.value(features), made.head.advantage(features))
    assert torch.equal(made.head(features, None), expected)
    widths = [layer.out_features for layer in made.head.modules() if isinstance(layer, nn.Linear)]
    assert sorted(widths) == ([1, 3, 6, 6] if options else [1, 3])


def test_a_mask_among_the_observations_changes_the_dueling_mean_and_is_no_input() -> None:
    plain, spec = make_spec(), with_mask(make_spec())
    made, known = network(spec, duel=True), network(plain, duel=True)
    assert made.torso.output_size == known.torso.output_size
    inputs = make_inputs(plain, 3, 2)
    legal = torch.ones(3, 2, 3, dtype=torch.bool)
    all_legal = Inputs(inputs.observation | {LEGAL: legal}, inputs.first)
    torch.testing.assert_close(run(made, all_legal).value, run(known, inputs).value)
    legal = legal.clone()
    legal[1, 0] = torch.tensor([True, False, True])
    got = run(made, Inputs(inputs.observation | {LEGAL: legal}, inputs.first)).value
    features = made.torso(inputs.observation)
    assert made.head.value is not None
    value, advantage = made.head.value(features), made.head.advantage(features)
    expected = value + advantage - advantage.mean(-1, keepdim=True)
    expected[1, 0] = value[1, 0] + advantage[1, 0] - (advantage[1, 0, 0] + advantage[1, 0, 2]) / 2
    torch.testing.assert_close(got, expected)


def test_atoms_are_the_last_axis_of_each_action() -> None:
    made = network(duel=True, atoms=4)
    inputs = make_inputs(make_spec(), 2, 3)
    features = made.torso(inputs.observation)
    assert made.head.value is not None
    value, advantage = made.head.value(features), made.head.advantage(features)
    got = run(made, inputs).value
    for a in range(3):
        for z in range(4):
            mean = sum(advantage[..., 4 * b + z] for b in range(3)) / 3
            torch.testing.assert_close(got[..., a, z], value[..., z] + advantage[..., 4 * a + z] - mean)


def test_the_core_is_shown_the_last_action_and_reward() -> None:
    made, inputs = network(**RECURRENT), make_inputs(make_spec(), 1, 4)
    assert inputs.last_action is not None and inputs.last_reward is not None
    base = run(made, inputs).value
    other = replace(inputs, last_action=(inputs.last_action + 1) % 3)
    assert (run(made, other).value != base).any(-1).all()
    other = replace(inputs, last_reward=inputs.last_reward + 1)
    assert (run(made, other).value != base).any(-1).all()
    seen = []
    assert made.core is not None
    made.core.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    first = torch.tensor([[True, False, False, False]])
    run(made, replace(inputs, first=first, last_action=torch.tensor([[0, 0, 1, 2]])))
    shown = seen[0][0, :, made.torso.output_size :]
    assert shown[:, :3].tolist() == [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], "none at an episode's start"
    assert torch.equal(shown[:, 3], inputs.last_reward[0])


@pytest.mark.parametrize("missing", ["last_action", "last_reward"])
def test_what_is_missing_is_named(missing: str) -> None:
    made, inputs = network(**RECURRENT), make_inputs(make_spec(), 1, 2)
    with pytest.raises(ValueError, match=rf"{missing}: expected a tensor \[T, B.*\], got None"):
        run(made, replace(inputs, **{missing: None}))


def test_the_state_is_dropped_where_an_episode_starts() -> None:
    made = network(**RECURRENT)
    first = torch.zeros(6, 2, dtype=torch.bool)
    first[3, 0] = True
    inputs = make_inputs(make_spec(), 6, 2, first)
    state = {name: torch.randn_like(value) for name, value in made.initial_state(2).items()}
    whole = run(made, inputs, state)

    def rows(start: int, stop: int) -> Inputs:
        assert inputs.last_action is not None and inputs.last_reward is not None
        observation = {key: value[start:stop] for key, value in inputs.observation.items()}
        return Inputs(observation, first[start:stop], inputs.last_action[start:stop], inputs.last_reward[start:stop])

    before = run(made, rows(0, 3), state)
    after = run(made, rows(3, 6), before.state)
    torch.testing.assert_close(whole.value, torch.cat([before.value, after.value]))
    fresh = run(made, rows(3, 6))
    torch.testing.assert_close(after.value[:, 0], fresh.value[:, 0])
    assert not torch.isclose(after.value[:, 1], fresh.value[:, 1]).all()


@pytest.mark.parametrize(("size", "width"), [(-1, 3136), (0, 512), (32, 32)])
def test_the_layer_after_the_trunk_can_be_left_out(size: int, width: int) -> None:
    made = network(make_spec("image"), feature_size=size)
    assert made.torso.output_size == width
    assert (made.torso.image_layer is None) == (size == -1)
    assert made.torso(make_inputs(make_spec("image"), 2, 3).observation).shape == (2, 3, width)


def test_the_papers_networks_have_the_known_number_of_weights() -> None:
    """Ape-X with two streams of 512; the same with one shared layer of 512 and linear streams; both with 18 actions."""
    image = make_spec("image")
    spec = replace(image, action=replace(image.action, num_actions=18))

    def count(**options: Any) -> int:
        return sum(weight.numel() for weight in network(spec, duel=True, **options).parameters())

    assert count(feature_size=-1, head_size=512) == 3_300_019
    assert count() == 1_693_875
    assert count(feature_size=-1, core_size=512) == 7_562_931


@pytest.mark.parametrize("options", [{}, RECURRENT, {"duel": True, "head_size": 6, "atoms": 5, "sigma": 0.5}])
@pytest.mark.parametrize("observation", ["vector", "image"])
def test_copies_through_the_flat_vector_give_the_same_values(observation: str, options: dict[str, Any]) -> None:
    spec = make_spec(observation)
    made, copy = network(spec, **options), make(spec, **options)
    inputs = make_inputs(spec, 3, 2)

    def values(of: QNetwork) -> Tensor:
        set_noise(of, torch.Generator().manual_seed(0))
        return run(of, inputs).value

    before = values(made)
    flat = flatten_parameters(made)
    assert torch.equal(values(made), before)
    assert not torch.equal(values(copy), before)
    flatten_parameters(copy).copy_(flat)
    assert torch.equal(values(copy), before)


def test_noise_is_in_the_head_alone() -> None:
    made = network(duel=True, head_size=6, sigma=0.5)
    noisy = [name for name, module in made.named_modules() if isinstance(module, NoisyLinear)]
    assert noisy == ["head.advantage.0", "head.advantage.2", "head.value.0", "head.value.2"]


def test_values_are_float32_under_autocast_and_close() -> None:
    made, inputs = network(make_spec("image"), **RECURRENT), make_inputs(make_spec("image"), 3, 2)
    exact = run(made, inputs).value
    with torch.autocast("cpu", torch.bfloat16):
        value = run(made, inputs).value
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, exact, rtol=0.05, atol=0.05)


def test_continuous_actions_are_refused() -> None:
    with pytest.raises(ValueError, match="value-based agents need discrete actions, but those of test are continuous"):
        network(make_spec(action=BOX))
