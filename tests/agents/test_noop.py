"""One action for ever, and which that may be."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from offbeat.agents.make import make_agent
from offbeat.agents.noop import Config
from offbeat.errors import UserError
from offbeat.types import ActionSpec
from tests.agents.unrolls import BOX, DISCRETE, make_inputs, make_spec


def acted(space: ActionSpec, **options: Any) -> Any:
    """Actions of four environments."""
    agent = make_agent("noop", Config(**options), make_spec("vector", space))
    return agent.act(make_inputs(agent.spec, 1, 4), {}, None).action


def test_it_takes_the_action_that_it_is_told() -> None:
    assert acted(DISCRETE, action=2).tolist() == [2, 2, 2, 2] and acted(DISCRETE).tolist() == [0, 0, 0, 0]
    several = ActionSpec("multi_discrete", nvec=(3, 5))
    assert acted(several, action=2).tolist() == [[2, 2]] * 4
    assert torch.equal(acted(BOX), torch.zeros(4, *BOX.shape))


def test_an_action_that_there_is_not_is_refused() -> None:
    with pytest.raises(UserError, match=r"agent.action=3 is no action of test; allowed: 0 to 2"):
        acted(DISCRETE, action=3)
    with pytest.raises(UserError, match=r"agent.action=3 is no action of test; allowed: 0 to 2"):
        acted(ActionSpec("multi_discrete", nvec=(5, 3)), action=3)
    with pytest.raises(UserError, match=r"agent.action=1 is no action of test; allowed: 0, as its actions are not num"):
        acted(BOX, action=1)
    with pytest.raises(ValueError, match=r"action=-1 is out of range; allowed: 0 or above"):
        Config(action=-1)
