"""The encoder: what heads are given, made of observations, last actions, last rewards and a core."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from offbeat.errors import UserError
from offbeat.networks.encoder import Encoder, EncoderConfig
from offbeat.networks.lstm import LSTMCore
from offbeat.types import CoreState, EnvSpec
from tests.agents.unrolls import BOX, make_inputs, make_spec


class Sum(torch.nn.Module):
    """A core of three features: the sum of its inputs so far in the episode, thrice."""

    output_size = 3

    def initial_state(self, batch: int) -> CoreState:
        return {"sum": torch.zeros(batch, 1)}

    def forward(self, x: Tensor, state: CoreState, first: Tensor) -> tuple[Tensor, CoreState]:
        total, outputs = state["sum"], []
        for t in range(len(x)):
            total = total.masked_fill(first[t, :, None], 0.0) + x[t].sum(-1, keepdim=True)
            outputs.append(total.expand(-1, 3))
        return torch.stack(outputs), {"sum": total}


def made(spec: EnvSpec, make_core: Any = None, clamp_reward: bool = False, **options: Any) -> Encoder:
    torch.manual_seed(0)
    return Encoder(EncoderConfig(**options), spec, make_core=make_core, clamp_reward=clamp_reward)


def encode(encoder: Encoder, spec: EnvSpec, **changed: Any) -> tuple[Tensor, CoreState]:
    inputs = make_inputs(spec, 5, 2)
    given = {"last_action": inputs.last_action, "last_reward": 3 * inputs.last_reward} | changed
    return encoder.encode(inputs.observation, inputs.first, encoder.initial_state(2), **given)


@pytest.mark.parametrize("clamp", [True, False])
@pytest.mark.parametrize("action", ["discrete", BOX])
def test_last_actions_and_rewards_stand_behind_the_observation_by_hand(action: Any, clamp: bool) -> None:
    spec = make_spec() if action == "discrete" else make_spec(action=BOX)
    inputs = make_inputs(spec, 5, 2)
    plain = made(spec)
    shown = made(spec, clamp_reward=clamp, last_action=True, last_reward=True)
    features, _ = encode(shown, spec)
    size = plain.output_size
    assert torch.equal(features[..., :size], encode(plain, spec)[0])
    assert inputs.last_action is not None and inputs.last_reward is not None
    for t in range(5):
        for b in range(2):
            if action == "discrete":
                want = [float(int(inputs.last_action[t, b]) == a) for a in range(spec.action.num_actions)]
            else:
                want = inputs.last_action[t, b].reshape(-1).tolist()
            want = [0.0] * len(want) if inputs.first[t, b] else want
            reward = 3 * float(inputs.last_reward[t, b])
            want.append(max(-1.0, min(1.0, reward)) if clamp else reward)
            assert features[t, b, size:].tolist() == pytest.approx(want)
    assert shown.output_size == features.shape[-1]


def test_any_core_stands_between_features_and_heads() -> None:
    spec = make_spec()
    encoder = made(spec, lambda size: Sum())
    features, state = encode(encoder, spec)
    own, features = encode(made(spec), spec)[0].detach(), features.detach()
    state = {name: value.detach() for name, value in state.items()}
    inputs = make_inputs(spec, 5, 2)
    for b in range(2):
        total = 0.0
        for t in range(5):
            total = float(own[t, b].sum()) + (0.0 if inputs.first[t, b] else total)
            assert features[t, b].tolist() == pytest.approx([total] * 3, rel=1e-5)
        assert float(state["sum"][b]) == pytest.approx(total, rel=1e-5)
    assert encoder.output_size == 3


@pytest.mark.parametrize("size", [0, 8])
def test_layout_reaches_the_torso_and_states_come_from_the_core(size: int) -> None:
    encoder = made(make_spec("grid"), (lambda width: LSTMCore(width, size)) if size else None)
    assert not encoder.channels_last
    encoder.channels_last = True
    assert encoder.torso.channels_last and encoder.channels_last
    state = encoder.initial_state(3)
    assert state.keys() == ({"h", "c"} if size else set())
    assert all(value.shape == (3, 1, 8) and not torch.any(value) for value in state.values())


@pytest.mark.parametrize("missing", ["last_action", "last_reward"])
def test_what_is_asked_for_must_be_given(missing: str) -> None:
    spec = make_spec()
    with pytest.raises(ValueError, match=f"{missing}: expected a tensor .*, got None"):
        encode(made(spec, last_action=True, last_reward=True), spec, **{missing: None})


@pytest.mark.parametrize("observation", ["vector", "image"])
def test_no_gradient_flows_into_rows_that_are_not_trained(observation: str) -> None:
    spec = make_spec(observation)
    encoder = made(spec)
    features, _ = encode(encoder, spec, trained=3)
    whole, _ = encode(encoder, spec)
    torch.testing.assert_close(features, whole)
    features[3:].sum().backward()
    assert all(weight.grad is None or not weight.grad.any() for weight in encoder.parameters())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"torso": "natur"}, "unknown torso 'natur'; did you mean 'nature'"),
        ({"hidden_size": (4, 0)}, "widths above 0"),
        ({"feature_size": -2}, "-1 or above"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        EncoderConfig(**options)
    assert issubclass(UserError, ValueError)
