"""What is asked of every agent, ours or somebody else's."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from offbeat.agents.base import learner_states, trains_on
from offbeat.agents.make import list_agents, make_agent
from offbeat.config.run_config import agent_config
from offbeat.envs.base import EnvConfig
from offbeat.envs.registry import env_spec
from offbeat.types import UNROLL, ItemSpec

KINDS = dict.fromkeys(("dqn", "rainbow", "apex", "delayed_dqn"), "transition") | {"r2d2": "sequence"}


@pytest.mark.parametrize("name", list_agents())
def test_every_agent_says_what_it_trains_on(name: str) -> None:
    made = make_agent(name, agent_config(name)(), env_spec(EnvConfig("toy/catch")))
    assert trains_on(made).kind == KINDS.get(name, "unroll")


def test_one_that_does_not_is_refused_with_what_is_allowed() -> None:
    with pytest.raises(ValueError, match=r'must say in items .*"unroll", "transition" or "sequence"; it has no such'):
        trains_on(SimpleNamespace())
    with pytest.raises(ValueError, match=r"SimpleNamespace must say .*; got 'unroll'"):
        trains_on(SimpleNamespace(items="unroll"))
    with pytest.raises(ValueError, match=r"kind='episode' is not allowed; choose one of: unroll, transition, sequence"):
        ItemSpec("episode")  # type: ignore[arg-type]
    assert (UNROLL.kind, UNROLL.state_period) == ("unroll", 0)


def test_what_is_kept_in_the_learner_has_names_of_its_own() -> None:
    assert learner_states(SimpleNamespace()) == {}
    mine = SimpleNamespace(learner_states=lambda: {"sensitivities": "S"})
    assert learner_states(mine) == {"sensitivities": "S"}
    for name in ("weights", "generator", "a/b"):
        with pytest.raises(ValueError, match=f"name '{name}' is not allowed; .* weights, optimiser, published, gen"):
            learner_states(SimpleNamespace(learner_states=lambda name=name: {name: 0}))
