"""Exported files are compared with the agent, in the environment's terms, and refused where they differ."""

from __future__ import annotations

import itertools
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

import offbeat
from offbeat.agents.make import agent_config_class, make_agent
from offbeat.cli import main
from offbeat.envs.base import EnvConfig
from offbeat.envs.registry import env_spec, translator
from offbeat.errors import UserError
from offbeat.run import export
from offbeat.run.export_check import TOLERANCE, Row, check, compare, record
from offbeat.run.exported import mapped, tensors
from tests.run.test_exported import LSTM, Own

CONFIG = EnvConfig(id="mine", frame_skip=1)


def drawn(name: str, options: dict[str, Any], factory: Any, config: EnvConfig = CONFIG) -> Any:
    """An agent whose weights and statistics are drawn, so that all of its outputs differ."""
    torch.manual_seed(0)
    agent = make_agent(name, agent_config_class(name)(**options), env_spec(config, factory))
    with torch.no_grad():
        for weights in agent.network.parameters():
            weights.normal_(0, 1.5 / max(1.0, weights[0].numel() ** 0.5))
        for label, buffer in agent.network.named_buffers():
            if label.startswith("normaliser."):
                buffer.uniform_(0.5, 2.0)
    return agent


def written(agent: Any, factory: Any, path: Path, config: EnvConfig = CONFIG) -> Any:
    """Its file, loaded again."""
    format = path.suffix[1:]
    export.export_agent(agent, path, None, translator(config, factory), format)
    return export.loaded(path, format)


def test_of_those_that_are_stepped_at_once_a_single_one_is_heard() -> None:
    config = EnvConfig(id="CartPole-v1", vectorised="yes")
    agent, own = drawn("impala", {}, None, config), translator(config)
    rows = record(agent, config, 40, own, None)
    assert len(rows) >= 40 and rows[0].inputs["observation"].shape == (1, 1, 4)


def test_what_was_recorded_is_what_the_environment_gave() -> None:
    factory = partial(Own, "nested", action="several")
    agent, own = drawn("impala", LSTM, factory), translator(CONFIG, factory)
    rows = record(agent, CONFIG, 100, own, factory)
    assert len(rows) == 100 and rows[0].inputs["first"].all()
    assert 2 < sum(int(row.inputs["first"]) for row in rows) < 90, "many episodes, each of several rows"
    space = Own("nested").observation_space
    for row in rows:
        seen = row.inputs["observation"]
        assert list(seen) == ["a", "b"] and seen["a"]["x"].dtype == torch.float64
        assert space.contains(
            {"a": {"x": seen["a"]["x"][0, 0].numpy()}, "b": (seen["b"][0].item(), seen["b"][1][0, 0].numpy())}
        )
    for before, row in itertools.pairwise(rows):
        if not row.inputs["first"]:
            assert torch.equal(row.inputs["last_action"], before.outputs["last_action"])
            assert torch.equal(row.state["h"], before.outputs["state"]["h"]) and row.state["h"].abs().sum() > 0


def test_a_long_game_is_begun_anew_halfway_and_other_environments_speak_offbeats_terms() -> None:
    config = EnvConfig(id="toy/tmaze", length=200, frame_skip=1)
    agent = drawn("r2d2", {"core_size": 8}, None, config)
    rows = record(agent, config, 40, None, None)
    assert [number for number, row in enumerate(rows) if row.inputs["first"]] == [0, 20]
    assert compare(lambda inputs: played(agent, inputs), agent, rows).episodes == 2


def played(agent: Any, inputs: dict[str, Any]) -> dict[str, Any]:
    """What a perfect file would give."""
    return export.ExportedNetwork(agent)(*(inputs[name] for name in export.PLACES if name in inputs))


class Several(gymnasium.vector.SyncVectorEnv):
    """Vector environments of a user's."""

    def __init__(self, num_envs: int) -> None:
        super().__init__([partial(Own, "number")] * num_envs)


def test_batches_of_a_users_own_are_given_as_they_are(tmp_path: Path) -> None:
    agent = drawn("dqn", {}, Several)
    own = translator(CONFIG, Several)
    rows = record(agent, CONFIG, 30, own, Several)
    assert {(row.inputs["observation"].dtype, row.inputs["observation"].shape) for row in rows} == {
        (torch.int64, (1, 1))
    }
    assert {int(row.inputs["observation"]) for row in rows} == {-2, -1, 0, 1, 2}
    assert check(written(agent, Several, tmp_path / "policy.pt2"), agent, CONFIG, 30, own, Several).observations == 30


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ("action", r"its action is \[\d, \d, \d, \d\]|its action is \[\["),
        ("policy", r"its policy is .* away; expected at most 0.0001"),
        ("value", r"its value is None; expected \[1, 1\]"),
        ("state", r"observation \d+ of 40 its (policy|state\.h|state\.c|value) is .* away"),
        ("batch", r"at 40 observations at once its policy is"),
    ],
)
def test_each_difference_is_found(changed: str, says: str) -> None:
    factory = partial(Own, "vector", action="several")
    agent = drawn("impala", LSTM, factory)
    own = translator(CONFIG, factory)
    rows = record(agent, CONFIG, 40, own, factory)
    right = export.ExportedNetwork(agent, export.OwnObservation(own), export.OwnAction(own.action_space))

    def wrong(inputs: dict[str, Any]) -> dict[str, Any]:
        inputs = {name: inputs[name] for name in export.PLACES}
        if changed == "state":
            inputs["state"] = mapped(inputs["state"], torch.zeros_like)
        output = right(**inputs)
        if changed == "action":
            output["action"] = output["action"] + 1
        if changed == "policy" or (changed == "batch" and inputs["first"].shape[1] > 1):
            output["policy"] = output["policy"] + 0.1
        return {name: value for name, value in output.items() if name != changed or name != "value"}

    with torch.no_grad():
        assert compare(lambda inputs: right(**{n: inputs[n] for n in export.PLACES}), agent, rows).difference < 1e-6
        with pytest.raises(UserError, match=says):
            compare(wrong, agent, rows)


def test_two_actions_that_are_as_good_may_be_exchanged() -> None:
    agent = drawn("dqn", {}, Own)

    def row(second: float) -> Row:
        q = torch.tensor([[[1.0, 1.0 - second, 0.0]]])
        outputs = {"q": q, "action": torch.zeros(1, 1, dtype=torch.int64), "state": {}}
        return Row({"first": torch.ones(1, 1, dtype=torch.bool)}, {}, outputs)

    near, far = row(TOLERANCE / 2), row(2 * TOLERANCE)
    other = {"action": torch.ones(1, 1, dtype=torch.int64)}
    assert compare(lambda inputs: near.outputs | other, agent, [near]).difference == 0
    with pytest.raises(UserError, match=r"at observation 1 of 1 its action is 1; expected 0"):
        compare(lambda inputs: far.outputs | other, agent, [far])


def test_a_file_that_differs_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    options: dict[str, Any] = {"log": {"tensorboard": False}, "evaluation": {"every_frames": 0, "at_end": False}}
    run = offbeat.train("debug", total_frames=200, out=str(tmp_path / "run"), **options).run
    capsys.readouterr()
    before = sorted(run.iterdir())
    assert main(["export", str(run), "--out", str(tmp_path / "a.pt2")]) == 0
    shown = capsys.readouterr()
    assert shown.out.strip() == str(tmp_path / "a.pt2")
    assert "a.pt2 was checked on 100 observations of " in shown.err and "the same actions" in shown.err
    loaded = export.loaded

    def other(path: Path, format: str) -> Any:
        file = loaded(path, format)
        return lambda inputs: file(inputs) | {"value": file(inputs)["value"] * 1.01 + 0.01}

    monkeypatch.setattr(export, "loaded", other)
    assert main(["export", str(run)]) == 2
    assert "the file does not do what the agent does: at observation 1 of 100 its value is" in capsys.readouterr().err
    assert sorted(run.iterdir()) == before, "no file, and no draft of one"
    assert main(["export", str(run), "--check", "0"]) == 0
    assert (run / "policy.pt2").is_file() and "checked" not in capsys.readouterr().err
    assert main(["export", str(run), "--check", "-1"]) == 2
    assert "check=-1 is out of range; allowed: 0 or above" in capsys.readouterr().err


def test_numbers_that_stand_for_nothing_do_not_set_the_scale() -> None:
    from offbeat.run.export_check import _apart, _magnitude

    assert _magnitude(torch.tensor([-1e30, 5.0, -7.0])) == 7.0 and _magnitude(torch.tensor([-1e30])) == 1.0
    nothing = torch.tensor([-1e30, np.nan, np.inf])
    assert _apart(nothing, nothing.clone()) == 0.0 and _apart(torch.tensor([np.nan]), torch.tensor([1.0])) != 0.0
    assert [name for name, _ in tensors({"a": (torch.ones(1), {"b": torch.ones(1)})})] == ["a.0", "a.1.b"]
