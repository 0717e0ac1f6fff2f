"""Whole runs in this process: what a seed decides, what engines agree on, and what an agent's mistakes do."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from offbeat.agents import noop
from offbeat.config.run_config import RunConfig, apply_overrides, load_preset
from offbeat.errors import UserError
from offbeat.run.folders import default_folder
from offbeat.run.train import resume, train
from offbeat.run.verify import compare_checkpoints, verify_resume
from offbeat.runtime import conductor
from offbeat.runtime.learner_report import NonFinite
from offbeat.storage.checkpoint import CheckpointError, find, load, newest
from offbeat.types import LossOutput, Unroll
from tests.runtime.parts import ITEM_AGENTS, item_config

UPDATES = 200
ROWS = 20
"""Rows of a batch."""


def catch(out: Path, updates: int = 40, **overrides: Any) -> RunConfig:
    """A few updates on Catch with 2 workers; ``a__b`` stands for ``a.b``."""
    options = {
        "out": str(out), "engine": "inline", "total_frames": updates * ROWS, "device": "cpu",
        "actor.workers": 2, "actor.envs_per_worker": 4, "learner.batch_size": 4, "learner.unroll_length": 5,
        "evaluation.every_frames": 0, "evaluation.at_end": False,
    }  # fmt: skip
    options |= {name.replace("__", "."): value for name, value in overrides.items()}
    return apply_overrides(load_preset("debug"), options.items())


LSTM = {"agent__core": "lstm", "agent__core_size": 8, "agent__last_action": True, "agent__last_reward": True}


BF16 = {"learner__precision": "bf16"}


@pytest.mark.parametrize(
    "core",
    [
        pytest.param({}, id="feed-forward", marks=pytest.mark.slow),
        pytest.param(LSTM, id="lstm", marks=pytest.mark.slow),
        pytest.param(BF16, id="bf16"),
    ],
)
def test_inline_and_lockstep_give_the_same_weights_bit_for_bit(core: dict[str, Any], tmp_path: Path) -> None:
    inline = train(catch(tmp_path / "inline", UPDATES, **core))
    lockstep = train(catch(tmp_path / "lockstep", UPDATES, engine="local", deterministic=True, **core))
    assert inline.updates == lockstep.updates >= UPDATES
    result = compare_checkpoints(inline.run, lockstep.run)
    assert result.equal, result.differing
    assert result.arrays > 30


def test_the_seed_decides(tmp_path: Path) -> None:
    runs = [train(catch(tmp_path / name, seed=seed)).run for name, seed in (("a", 1), ("b", 1), ("c", 2))]
    assert compare_checkpoints(runs[0], runs[1]).equal
    different = compare_checkpoints(runs[0], runs[2]).differing
    assert any("weights/" in name for name in different)
    assert not any(name.startswith("counter") for name in different)


RARELY: dict[str, Any] = {"learner__publish_every": 3, "evaluation__at_end": True, "evaluation__every_frames": 200}
"""The final weights are then published for the last evaluation only."""


def test_evaluations_carry_the_counters_of_the_weights_that_played(tmp_path: Path) -> None:
    """Not those of the moment when they were asked for: weights are published in every third update only."""
    result = train(catch(tmp_path / "run", **RARELY))
    lines = [json.loads(line) for line in (result.run / "metrics.jsonl").read_text().splitlines()]
    *scheduled, last = [line for line in lines if line["kind"] == "evaluation"]
    assert [last[name] for name in ("updates", "agent_steps", "frames")] == [
        result.updates, result.agent_steps, result.frames,
    ]  # fmt: skip
    assert len(scheduled) == 3
    for number, line in enumerate(scheduled, 1):
        assert line["updates"] == line["version"] and line["updates"] % 3 == 0
        assert line["frames"] < 200 * number + 2 * ROWS, "asked for in the round that passed it"
        assert 16 * line["updates"] <= line["frames"] == line["agent_steps"] <= 20 * line["updates"]


@pytest.mark.parametrize("frames", [10, 370, 400])
def test_a_run_that_ends_at_any_frame_goes_on_like_one_that_was_longer(frames: int, tmp_path: Path) -> None:
    """Also where all frames are there after the first of a round's two batches."""
    whole = train(catch(tmp_path / "whole", learner__schedule="constant"))
    part = train(catch(tmp_path / "part", learner__schedule="constant", total_frames=frames))
    assert frames <= part.frames < frames + 2 * ROWS
    resume(part.run, total_frames=40 * ROWS)
    result = compare_checkpoints(whole.run, part.run)
    assert result.equal, result.differing


@pytest.mark.parametrize("options", [{}, BF16, RARELY], ids=["fp32", "bf16", "publish_every"])
def test_a_run_that_is_resumed_ends_like_one_that_was_longer(options: dict[str, Any], tmp_path: Path) -> None:
    whole = train(catch(tmp_path / "whole", 40, learner__schedule="constant", **options))
    half = train(catch(tmp_path / "half", 20, learner__schedule="constant", **options))
    assert half.agent_steps >= 20 * ROWS
    resumed = resume(half.run, total_frames=40 * ROWS)
    assert resumed.finished
    result = compare_checkpoints(whole.run, resumed.run)
    assert result.equal, result.differing
    found = newest(resumed.run)
    assert found is not None
    parts, _ = load(found)
    weights = [value for name, value in parts["learner"].items() if name.startswith("weights/")]
    assert all(torch.as_tensor(value).dtype == torch.float32 for value in weights)
    rounded = [torch.equal(torch.as_tensor(value), torch.as_tensor(value).bfloat16().float()) for value in weights]
    assert not all(rounded), "exact weights are saved"


@pytest.mark.parametrize(
    ("engine", "core", "kills"), [("inline", LSTM, 2), pytest.param("local", {}, 1, marks=pytest.mark.slow)]
)
def test_killed_and_resumed_equals_never_killed(engine: str, core: dict[str, Any], kills: int, tmp_path: Path) -> None:
    config = catch(tmp_path / "unused", UPDATES, engine=engine, **core)
    assert verify_resume(replace(config, out=""), kills=kills, folder=tmp_path)


@dataclass(frozen=True)
class Failing:
    """An agent factory whose agent's loss is not finite in the updates that ``bad`` names."""

    bad: frozenset[int]
    gradient: bool
    """Whether the gradient is not finite either."""

    def __call__(self, config: Any, spec: Any, device: Any) -> noop.Agent:
        """Make one."""
        return FailingAgent(self, spec, device)


class FailingAgent(noop.Agent):
    """Counts its losses; its weights move by Adam's step in each good update."""

    def __init__(self, failing: Failing, spec: Any, device: Any) -> None:
        super().__init__(noop.Config(), spec, device)
        self.failing, self.calls = failing, 0

    def loss(self, batch: Unroll, progress: float) -> LossOutput:
        """The only weight, or NaN."""
        self.calls += 1
        weight = self.network.get_parameter("unused").sum()
        if self.calls not in self.failing.bad:
            return LossOutput(weight, {})
        return LossOutput(weight * torch.nan if self.failing.gradient else weight + torch.nan, {})


@pytest.mark.parametrize("gradient", [True, False])
def test_updates_that_are_not_finite_change_nothing_and_are_counted(gradient: bool, tmp_path: Path) -> None:
    bad = frozenset({3, 7, 8, 20})
    config = catch(tmp_path / "run", 30, agent="noop", learner__nonfinite_limit=3)
    result = train(config, agent_factory=Failing(bad, gradient))
    assert result.updates >= 30
    assert result.frames >= 30 * ROWS, "rows that were not trained on count nothing"
    found = newest(result.run)
    assert found is not None
    parts, meta = load(found)
    assert meta["counters"]["skipped"] == len(bad)
    assert float(parts["learner"]["optimiser/step"]) == result.updates
    moved = torch.as_tensor(parts["learner"]["weights/unused"])
    assert torch.isfinite(moved).all()
    assert (moved != 0).all()


@pytest.mark.parametrize("engine", ["inline", pytest.param("local", marks=pytest.mark.slow)])
def test_updates_to_weights_that_are_not_finite_end_the_run_and_are_never_saved(engine: str, tmp_path: Path) -> None:
    """A rate that is fine for some updates and then is not: the schedule goes up to infinity."""
    rates = {"learner__learning_rate": 1e-3, "learner__final_learning_rate": 1e308, "learner__schedule": "linear"}
    config = catch(tmp_path / "run", engine=engine, learner__nonfinite_limit=3, checkpoint__every_updates=1, **rates)
    error, name = (NonFinite, "") if engine == "inline" else (Exception, "learner failed")
    with pytest.raises(error, match=f"{name}[\\s\\S]*3 updates in a row .*but the weights that they led to were not"):
        train(config)
    folders = list((tmp_path / "run" / "checkpoints").glob("[0-9]*"))
    assert folders
    for folder in folders:
        part = load(find(folder))[0]["learner"]
        assert all(torch.isfinite(torch.as_tensor(value)).all() for name, value in part.items() if "/" in name)


def test_too_many_in_a_row_end_the_run_which_saves(tmp_path: Path) -> None:
    config = catch(tmp_path / "run", agent="noop", learner__nonfinite_limit=3)
    with pytest.raises(NonFinite, match=r"3 updates in a row .* \(loss nan, gradient norm 1\)"):
        train(config, agent_factory=Failing(frozenset({5, 6, 9, 10, 11}), False))
    found = newest(tmp_path / "run")
    assert found is not None
    _, meta = load(found)
    assert meta["counters"]["updates"] == 6
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["kind"] for line in lines].count("ledger") == 1


def test_an_end_that_cannot_be_saved_is_no_good_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def begin(run: Path, agent_steps: int) -> None:
        raise CheckpointError("the disk is full")

    monkeypatch.setattr(conductor, "begin", begin)
    with pytest.raises(CheckpointError, match="the run's end is not saved: the disk is full"):
        train(catch(tmp_path / "run", 2))


def test_weights_of_another_run_are_where_a_new_one_starts(tmp_path: Path) -> None:
    first = train(catch(tmp_path / "first"))
    still = catch(tmp_path / "second", 2, learner__learning_rate=0.0, seed=9)
    second = train(still, init_from=first.run)
    a, b = newest(first.run), newest(second.run)
    assert a is not None and b is not None
    old, new = load(a)[0]["learner"], load(b)[0]["learner"]
    names = [name for name in old if name.startswith("weights/")]
    assert all(torch.equal(torch.as_tensor(old[name]), torch.as_tensor(new[name])) for name in names)
    assert second.updates >= 2


def test_what_cannot_be_resumed_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run folder"):
        resume(tmp_path)
    (tmp_path / "config.toml").write_text("")
    with pytest.raises(UserError, match="no complete checkpoint"):
        resume(tmp_path)


def test_default_folders_are_never_taken_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("offbeat.run.folders.time", lambda: 1234.5)
    first = default_folder("toy/catch")
    assert first == Path("results/toy_catch_1234")
    first.mkdir(parents=True)
    assert default_folder("toy/catch") == Path("results/toy_catch_1234_2")


@pytest.mark.parametrize(
    "agent", [pytest.param(name, marks=() if name == "apex" else pytest.mark.slow) for name in ITEM_AGENTS]
)
def test_items_inline_and_in_lockstep_are_the_same_bit_for_bit(agent: str, tmp_path: Path) -> None:
    """Weights, target, optimiser, replay, priorities, environments and counters."""
    options = {"actor__workers": 2, "actor__envs_per_worker": 2, "evaluation__at_end": False, "total_frames": 800}
    inline = train(item_config(agent, out=str(tmp_path / "inline"), **options))
    lockstep = train(item_config(agent, out=str(tmp_path / "b"), engine="local", deterministic=True, **options))
    assert inline.updates == lockstep.updates > 25
    result = compare_checkpoints(inline.run, lockstep.run)
    assert result.equal, result.differing
    found = newest(inline.run)
    assert found is not None
    names = load(found)[0]
    assert any(name.startswith("target/") for name in names["learner"])
    assert any(name.startswith("mixture/0/leaf") for name in names["streams"])


@pytest.mark.parametrize("agent", list(ITEM_AGENTS))
def test_items_of_a_resumed_run_are_those_of_a_longer_one(agent: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"evaluation__at_end": False, "learner__schedule": "constant"}
    options |= {} if agent == "dqn" else {"replay__samplers__0__final_beta": 0.4}
    whole = train(item_config(agent, out=str(tmp_path / "whole"), total_frames=800, **options))
    half = train(item_config(agent, out=str(tmp_path / "half"), total_frames=400, **options))
    assert half.updates < whole.updates
    resumed = resume(half.run, total_frames=800)
    assert resumed.finished
    result = compare_checkpoints(whole.run, resumed.run)
    assert result.equal, result.differing


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["inline", "local"])
@pytest.mark.parametrize("agent", ["apex", "r2d2"])
def test_killed_and_resumed_items_equal_never_killed(agent: str, engine: str, tmp_path: Path) -> None:
    config = item_config(agent, engine=engine, total_frames=20_000, checkpoint__every_updates=40)
    assert verify_resume(replace(config, out=""), kills=3, folder=tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["inline", "local"])
@pytest.mark.parametrize("core", [{}, LSTM], ids=["feed-forward", "lstm"])
@pytest.mark.parametrize("env", ["toy/catch", "Pong"])
def test_ten_kills(env: str, core: dict[str, Any], engine: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"engine": engine, "total_frames": 30_000} | core
    if env == "Pong":
        options |= {"env__id": "Pong", "env__sticky": 0.25, "env__length": 20, "total_frames": 40_000}
        options |= {"agent__feature_size": 32, "actor__envs_per_worker": 2}
    config = catch(tmp_path / "unused", **options)
    assert verify_resume(replace(config, out=""), kills=10, folder=tmp_path)
