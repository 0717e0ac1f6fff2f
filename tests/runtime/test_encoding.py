"""Features for samplers: of the newest weights, pulled when they are needed, by an agent of nobody else's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from offbeat.agents.base import Encodes
from offbeat.agents.make import make_agent
from offbeat.envs.registry import env_spec
from offbeat.errors import UserError
from offbeat.networks.flat import flat_size, flatten_parameters
from offbeat.replay.mixture import ReplayConfig
from offbeat.replay.samplers import sampler_config
from offbeat.runtime.encoding import Encoding, check_encodes
from offbeat.types import Inputs
from tests.runtime.parts import item_config, private_params, small_config, small_world


def made(config: Any) -> Any:
    return make_agent(config.agent_name, config.agent, env_spec(config.env), "cpu")


@pytest.mark.parametrize("kind", ["policy", "torso"])
@pytest.mark.parametrize("core", ["lstm", "none"])
def test_they_are_what_the_agent_makes_of_them_with_the_newest_weights(kind: str, core: str) -> None:
    config = small_config(agent__core=core)
    torch.manual_seed(0)
    agent, own = made(config), made(config)
    flat, params = flatten_parameters(agent.network), private_params(flat_size(agent.network))
    encoding = Encoding(own, params)
    assert encoding.version() == -1 and encoding.components == (3,)
    generator = torch.Generator().manual_seed(1)
    inputs = Inputs(
        {
            key: torch.rand(4, 3, *array.shape, generator=generator).to(getattr(torch, array.dtype))
            for key, array in agent.spec.network_observation.items()
        },
        torch.rand(4, 3, generator=generator) < 0.3,
        torch.randint(0, 3, (4, 3), generator=generator),
        torch.randn(4, 3, generator=generator),
    )
    state = {name: torch.randn_like(value) for name, value in agent.initial_state(3).items()}
    params.publish(flat, 3)
    first, version = encoding.features(kind, inputs, state)
    assert version == 3 and encoding.version() == 3 and not first.requires_grad
    with torch.no_grad():
        output = agent.network(inputs.observation, inputs.first, state, inputs.last_action, inputs.last_reward)
        encoded, _ = agent.network.encode(
            inputs.observation, inputs.first, state, inputs.last_action, inputs.last_reward
        )
    assert torch.equal(first, output.policy if kind == "policy" else encoded)
    with torch.no_grad():
        flat += 0.1
    assert torch.equal(encoding.features(kind, inputs, state)[0], first)
    params.publish(flat, 4)
    later, version = encoding.features(kind, inputs, state)
    assert version == 4 and not torch.equal(later, first)


def test_what_is_asked_of_an_agent_that_gives_none_is_said_before_a_run() -> None:
    replay = ReplayConfig(400, (sampler_config("fifo", share=0.5), sampler_config("elite", share=0.5)))
    agent = made(item_config("dqn"))
    assert not isinstance(agent, Encodes)
    with pytest.raises(UserError, match=r"samplers\.1\.kind=elite compares .* agent dqn has no method features"):
        check_encodes(agent, replay, "dqn")
    check_encodes(agent, ReplayConfig(), "dqn")
    check_encodes(made(small_config()), replay, "impala")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            {"kind": "elite", "features": "torso"},
            r"samplers\.0: features='torso': .* agent.store_features=true; rows have",
        ),
        ({"kind": "attentive", "window": 20}, r"samplers\.0: attentive replay: a window of 20 rows"),
        ({"kind": "circular", "uses": 0}, "uses=0; both must be at least 1"),
        ({"kind": "elite", "strategy": 7}, "strategy=7 is out of range"),
    ],
)
def test_what_a_world_would_be_refused_for(options: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=says):
        small_world(tmp_path, small_config(replay__capacity=400, replay__samplers=[options]))


def test_continuous_actions_have_no_logits_to_compare(tmp_path: Path) -> None:
    config = small_config(env__id="toy/continuous", replay__capacity=400, replay__samplers=[{"kind": "elite"}])
    with pytest.raises(UserError, match=r"behaviour_logits.*for continuous actions use features=.torso."):
        small_world(tmp_path, config)
