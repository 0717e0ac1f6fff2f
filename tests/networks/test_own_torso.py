"""Torsos of the user's own: every agent trains with one, on every engine; runs name it and need it again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import offbeat
from offbeat.agents import impala
from offbeat.agents.make import make_agent
from offbeat.errors import UserError
from offbeat.networks.own_torso import OwnTorso, name_of
from offbeat.run.train import train
from offbeat.types import ArraySpec, TensorDict
from tests.agents.unrolls import make_spec
from tests.runtime.parts import ITEM_AGENTS, item_config, small_config


class Columns(nn.Module):
    """Sums of the observation's columns, through one layer."""

    def __init__(self, specs: dict[str, ArraySpec]) -> None:
        super().__init__()
        (self.key,) = specs
        self.layer = nn.Linear(specs[self.key].shape[-1], 7)
        self.output_size = 7

    def forward(self, observation: TensorDict) -> Tensor:
        seen = observation[self.key].float()
        return torch.relu(self.layer(seen.flatten(2, -2).sum(2) if seen.dim() > 3 else seen))


def config_of(agent: str, **options: Any) -> Any:
    return small_config(**options) if agent == "impala" else item_config(agent, **options)


@pytest.mark.parametrize("agent", ["impala", *ITEM_AGENTS])
def test_every_agent_acts_and_trains_with_it(agent: str, tmp_path: Path) -> None:
    run = train(config_of(agent, out=str(tmp_path / "run")), torso=Columns).run
    loaded = offbeat.load(run, torso=Columns)
    torso = loaded.agent.network.torso  # type: ignore[union-attr]
    assert isinstance(torso, OwnTorso) and isinstance(torso.module, Columns)
    shape = loaded.spec.observation["observation"].shape
    assert loaded.act(np.ones(shape, np.float32)) in range(loaded.spec.action.num_actions)
    fresh = make_agent(agent, config_of(agent).agent, loaded.spec, torso=Columns)
    assert not torch.equal(fresh.network.torso.module.layer.weight, torso.module.layer.weight)  # type: ignore[union-attr]


def test_it_gets_pictures_as_they_are() -> None:
    with pytest.raises(ValueError, match="scale_pixels=False means nothing to a torso of your own"):
        impala.Network(impala.Config(scale_pixels=False), make_spec("image"), Columns)


def test_a_run_names_it_and_asks_for_it_again(tmp_path: Path) -> None:
    options = {"engine": "local", "deterministic": True, "out": str(tmp_path / "run"), "evaluation__at_end": False}
    run = train(small_config(**options), torso=Columns).run
    name = name_of(Columns)
    assert f'torso = "{name}"' in (run / "config.toml").read_text()
    for use in (offbeat.resume, offbeat.load, offbeat.evaluate, offbeat.export, offbeat.record):
        with pytest.raises(UserError, match=r"Columns' is an object of the program .* hand it over again"):
            use(run)
    assert offbeat.resume(run, total_frames=600, torso=Columns).finished
    assert offbeat.evaluate(run, episodes=2, torso=Columns).complete
    program = torch.export.load(offbeat.export(run, torso=Columns)).module()
    agent = offbeat.load(run, torso=Columns).agent
    shape = agent.spec.observation["observation"].shape
    state = agent.initial_state(2)
    given = {"observation": torch.rand(1, 2, *shape)}, torch.ones(1, 2, dtype=torch.bool), state
    last = torch.zeros(1, 2, dtype=torch.int64), torch.zeros(1, 2)
    torch.testing.assert_close(program(*given, *last)["value"], agent.network(*given, *last).value)


def test_inline_and_lockstep_give_the_same_weights(tmp_path: Path) -> None:
    engines = {"inline": {"engine": "inline"}, "local": {"engine": "local", "deterministic": True}}
    weights = []
    for name, engine in engines.items():
        run = train(small_config(out=str(tmp_path / name), evaluation__at_end=False, **engine), torso=Columns).run
        network = offbeat.load(run, torso=Columns).agent.network
        weights.append(torch.cat([weight.detach().ravel() for weight in network.parameters()]))
    assert torch.equal(*weights)


def test_where_it_has_no_use_it_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="agent 'noop' has none"):
        train(small_config(agent="noop", out=str(tmp_path / "a")), torso=Columns)
    with pytest.raises(UserError, match="both given"):
        train(small_config(out=str(tmp_path / "b")), torso=Columns, agent_factory=lambda *arguments: None)
    assert not list(tmp_path.iterdir())


class Wrong(Columns):
    """Says another size than it has."""

    def __init__(self, specs: dict[str, ArraySpec]) -> None:
        super().__init__(specs)
        self.output_size = 8


class Sizeless(Columns):
    """Says none."""

    def __init__(self, specs: dict[str, ArraySpec]) -> None:
        super().__init__(specs)
        del self.output_size


@pytest.mark.parametrize(
    ("factory", "says"),
    [
        (lambda specs: "torso", "expected a torch.nn.Module, got str"),
        (Sizeless, "output_size: expected a whole number above 0, got None"),
        (Wrong, r"expected features torch.float32 \[2, 3, 8\] .*, got torch.float32 \[2, 3, 7\]"),
    ],
)
def test_what_is_no_torso_is_said(factory: Any, says: str) -> None:
    with pytest.raises(UserError, match=says):
        OwnTorso(factory, make_spec().features)


def test_gradients_come_from_the_rows_that_are_trained() -> None:
    torso = OwnTorso(Columns, make_spec().features)
    seen = {"observation": torch.rand(5, 2, *make_spec().observation["observation"].shape)}
    torch.testing.assert_close(torso(seen, 3), torso(seen))
    torso(seen, 3)[3:].sum().backward()
    assert not torso.module.layer.weight.grad.any()  # type: ignore[union-attr]
    torso(seen, 3).sum().backward()
    assert torso.module.layer.weight.grad.any()  # type: ignore[union-attr]
