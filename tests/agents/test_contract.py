"""An agent that does not keep to its protocol is refused before a run starts, with what was expected and got."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from offbeat.agents import impala
from offbeat.agents.contract import check_agent
from offbeat.agents.make import make_agent
from offbeat.errors import UserError
from offbeat.run.train import train
from offbeat.types import ActOutput, ArraySpec
from tests.agents.items import masked_spec
from tests.agents.unrolls import BOX, make_spec
from tests.runtime.parts import ITEM_AGENTS, item_config, small_config

CONFIG = impala.Config(hidden_size=(4,), core="lstm", core_size=3, last_action=True)


class Changed(impala.Agent):
    """An agent one of whose members is another."""

    def __init__(self, member: str, value: Any) -> None:
        super().__init__(CONFIG, make_spec())
        if value is None and member in ("discount", "items", "network"):
            delattr(self, member)
        else:
            setattr(self, member, value)


def acts(**fields: Any) -> Callable[..., Any]:
    """``act`` with other fields in what it gives: functions of what there was."""
    agent = impala.Agent(CONFIG, make_spec())

    def act(*arguments: Any, **options: Any) -> ActOutput:
        output = agent.act(*arguments, **options)
        now = {
            name: fields.get(name, lambda value: value)(getattr(output, name)) for name in ("action", "extras", "state")
        }
        return ActOutput(**now)

    return act


LOGITS = "behaviour_logits"


def with_extra(name: str, value: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda extras: extras | {name: value}


WRONG: dict[str, tuple[str, Any, str]] = {
    "no network": ("network", None, "network: expected a torch.nn.Module, got NoneType"),
    "no discount": ("discount", None, "discount: expected a number from 0 to 1, got None"),
    "discount": ("discount", 2.0, "discount: expected a number from 0 to 1, got 2.0"),
    "wants_last": ("wants_last", 1, "wants_last: expected True or False, got 1"),
    "no items": ("items", None, "must say in items what it trains on"),
    "extras None": ("row_extras", lambda: None, "row_extras: expected a dict"),
    "extras tuple": ("row_extras", lambda: {"a": (3,)}, "row_extras: expected a dict"),
    "extras bfloat16": ("row_extras", lambda: {"a": ArraySpec((3,), "bfloat16")}, "'a' has dtype 'bfloat16'"),
    "state None": ("initial_state", lambda n: None, "initial_state: expected a dict .*, got NoneType"),
    "state of torch": ("initial_state", lambda n: {"h": torch.zeros(1, n, 3)}, r"'h' has shape \[1, 2, 3\]; the batch"),
    "state bfloat16": ("initial_state", lambda n: {"h": torch.zeros(n).bfloat16()}, "'h' has dtype torch.bfloat16"),
    "act tuple": ("act", lambda *a, **k: (1, 2), "act: expected an offbeat.types.ActOutput, got tuple"),
    "act numpy": ("act", acts(action=lambda value: value.numpy()), "action'.*: expected a tensor .*, got ndarray"),
    "action float": ("act", acts(action=lambda value: value.float()), r"expected int64 \[2\], got float32 \[2\]"),
    "extra missing": ("act", acts(extras=lambda value: {}), r"extras, .*: expected \['behaviour_logits'\], got \[\]"),
    "extra unknown": ("act", acts(extras=with_extra("foo", torch.zeros(2))), r"got \['behaviour_logits', 'foo'\]"),
    "extra shape": (
        "act",
        acts(extras=with_extra(LOGITS, torch.zeros(2, 1))),
        r"\[2, 3\], got float32 \[2, 1\]",
    ),
    "state missing": ("act", acts(state=lambda value: {}), r"state, .*: expected \['c', 'h'\], got \[\]"),
    "state shape": (
        "act",
        acts(state=with_extra("h", torch.zeros(2, 3))),
        r"'h': expected float32 \[2, 1, 3\]",
    ),
}


class Kept:
    """A learner state that lacks half of what it needs."""

    def trained(self, batch: Any, updates: int) -> None:
        """Nothing."""

    def state(self) -> dict[str, Any]:
        return {}


WRONG |= {
    "kept": ("learner_states", lambda: {"mine": Kept()}, "learner_states: 'mine' has no exact, load_state"),
    "kept name": ("learner_states", lambda: {"weights": Kept()}, "the name 'weights' is not allowed"),
}


@pytest.mark.parametrize("name", list(WRONG))
def test_what_is_wrong_is_said(name: str) -> None:
    member, value, says = WRONG[name]
    with pytest.raises(UserError, match=says):
        check_agent(Changed(member, value), make_spec())


SPECS = {"vector": make_spec(), "image": make_spec("image"), "box": make_spec(action=BOX), "mask": masked_spec()}


@pytest.mark.parametrize(
    ("agent", "spec"),
    [(agent, spec) for agent in ("impala", *ITEM_AGENTS) for spec in SPECS if spec != "box" or agent == "impala"],
)
def test_our_own_agents_keep_to_it_and_nothing_is_drawn(agent: str, spec: str) -> None:
    config = (small_config() if agent == "impala" else item_config(agent)).agent
    made = make_agent(agent, config, SPECS[spec])
    state = torch.get_rng_state()
    check_agent(made, SPECS[spec])
    assert torch.equal(torch.get_rng_state(), state)
    assert made.network.training


def test_nothing_is_left_of_a_run_that_was_refused(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(UserError, match="discount: expected a number from 0 to 1, got 7"):
        train(small_config(out=str(out)), agent_factory=lambda *a: Changed("discount", 7))
    for unpicklable in (lambda *a: None, type("Local", (), {})):
        with pytest.raises(UserError, match=r"agent_factory=.* cannot be handed to the processes of the roles"):
            train(small_config(out=str(out), engine="local"), agent_factory=unpicklable)
    assert not out.exists()


class Counting(impala.Agent):
    """Its state counts rows, in whole numbers."""

    def initial_state(self, batch: int) -> Any:
        return super().initial_state(batch) | {"n": torch.zeros(batch, dtype=torch.int64)}

    def act(self, inputs: Any, state: Any, generator: Any, greedy: bool = False) -> ActOutput:
        own = {name: value for name, value in state.items() if name != "n"}
        output = super().act(inputs, own, generator, greedy)
        n = state["n"].masked_fill(inputs.first[0], 0)
        assert n.dtype == torch.int64
        return ActOutput(output.action, output.extras, output.state | {"n": n + 1})

    def loss(self, batch: Any, progress: float) -> Any:
        assert batch.core_state["n"].dtype == torch.int64
        return super().loss(batch, progress)


@pytest.mark.parametrize("engine", ["inline", pytest.param("local", marks=pytest.mark.slow)])
def test_states_keep_their_dtype(engine: str, tmp_path: Path) -> None:
    from offbeat.run.train import resume

    options: dict[str, Any] = {"engine": engine, "actor__inference": "server"} if engine == "local" else {}
    run = train(small_config(out=str(tmp_path / "run"), **options), agent_factory=Counting).run
    assert resume(run, total_frames=600, agent_factory=Counting).finished
