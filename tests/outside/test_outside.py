"""Agents and samplers of somebody else's package, brought in by entry points: every engine serves them like our own."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from offbeat import evaluate, export, load
from offbeat.config.run_config import from_dict
from offbeat.errors import UserError
from offbeat.run.train import RunResult, resume, train
from tests.outside.package import install

COMMON = """
device = "cpu"
[env]
id = "toy/catch"
length = 6
[actor]
envs_per_worker = 4
[evaluation]
every_frames = 0
episodes = 100
[log]
tensorboard = false
dashboard = false
"""
LINEAR_Q = """
total_frames = 3000
[agent]
name = "linear_q"
[learner]
batch_size = 8
unroll_length = 4
optimizer = "adam"
learning_rate = 3e-3
epsilon = 1e-6
"""
DRAWN = """
[replay]
capacity = 2000
samples_per_insert = 4
[[replay.samplers]]
kind = "{kind}"
min_rows = 100
"""
MIXED = """
total_frames = 6000
[agent]
name = "impala"
hidden_size = [16]
core = "lstm"
core_size = 8
[learner]
batch_size = 8
unroll_length = 5
[replay]
capacity = 400
[[replay.samplers]]
kind = "fifo"
share = 0.25
[[replay.samplers]]
kind = "vitter"
share = 0.5
slots = 30
[[replay.samplers]]
kind = "uniform"
share = 0.25
"""
QUICK_Q = """
total_frames = 2000
[agent]
name = "dqn"
hidden_size = [16]
explore = 1000
[learner]
batch_size = 8
unroll_length = 5
[replay]
capacity = 1000
samples_per_insert = 1.0
[[replay.samplers]]
kind = "uniform"
min_rows = 100
"""
ENGINES: dict[str, dict[str, Any]] = {
    "inline": {"engine": "inline"}, "lockstep": {"deterministic": True}, "free": {},
}  # fmt: skip


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that holds the package."""
    return install(tmp_path_factory.mktemp("package"))


@pytest.fixture(autouse=True)
def found(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is on the path of this process, and of those that this one spawns."""
    monkeypatch.syspath_prepend(str(installed))


def run(folder: Path, text: str, **top: Any) -> RunResult:
    """Train in ``folder``/run."""
    data = tomllib.loads(COMMON)
    for key, value in tomllib.loads(text).items():
        data[key] = {**data[key], **value} if key in data and isinstance(value, dict) else value
    return train(from_dict(data | {"out": str(folder / "run")} | top))


@pytest.mark.parametrize(
    ("engine", "kind"),
    [
        ("inline", "uniform"),
        ("inline", "prioritised"),
        pytest.param("lockstep", "uniform", marks=pytest.mark.slow),
        ("free", "uniform"),
    ],
)
def test_an_agent_that_trains_on_transitions(engine: str, kind: str, tmp_path: Path) -> None:
    result = run(tmp_path, LINEAR_Q + DRAWN.format(kind=kind), **ENGINES[engine])
    assert result.finished
    assert result.updates > 1000
    assert result.evaluation_mean is not None
    if engine != "free":  # how stale the weights are that act there depends on the machine
        assert result.evaluation_mean > -0.4, "chance: -0.7"


@pytest.mark.parametrize("engine", ["inline", "free"])
def test_samplers_that_do_not_suit_an_agent_are_refused(engine: str, tmp_path: Path) -> None:
    text = (
        r"replay.samplers.0.kind=fifo draws unrolls, but agent 'linear_q' trains on transitions; allowed: uniform, pr"
    )
    with pytest.raises(UserError, match=text):
        run(tmp_path, LINEAR_Q, **ENGINES[engine])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("engine", ["inline", pytest.param("lockstep", marks=pytest.mark.slow), "free"])
def test_a_sampler_with_slots_of_its_own_beside_others(engine: str, tmp_path: Path) -> None:
    result = run(tmp_path, MIXED, **ENGINES[engine])
    assert result.finished
    records = [json.loads(line) for line in (result.run / "metrics.jsonl").read_text().splitlines()]
    last = [record for record in records if record["kind"] == "learner"][-1]
    assert last["reservoir"] == 30
    assert last["offered"] > 500
    assert last["pending_unrolls_0"] >= 0
    assert resume(result.run, total_frames=7000).frames >= 7000


@pytest.mark.parametrize(
    "engine", ["inline", *(pytest.param(one, marks=pytest.mark.slow) for one in ("lockstep", "free"))]
)
@pytest.mark.parametrize("text", [MIXED, QUICK_Q], ids=["impala", "dqn"])
def test_a_torso_of_every_agent(text: str, engine: str, tmp_path: Path) -> None:
    """By its name alone: in the run, when it goes on, in scores and in exports."""
    result = run(tmp_path, text.replace("hidden_size = [16]", 'torso = "squares"'), **ENGINES[engine])
    assert result.finished
    assert resume(result.run, total_frames=result.frames + 500).finished
    agent = load(result.run).agent
    module = agent.network.torso.module  # type: ignore[union-attr]
    assert (type(module).__module__, type(module).__name__) == ("outside.squares", "Squares")
    assert evaluate(result.run, episodes=2).complete
    assert export(result.run).exists()


@pytest.mark.parametrize("engine", ["inline", pytest.param("lockstep", marks=pytest.mark.slow), "free"])
def test_an_environment_an_agent_and_a_torso_together(engine: str, tmp_path: Path) -> None:
    """By their names alone, saved and gone on with, scored on that very environment."""
    text = QUICK_Q.replace("hidden_size = [16]", 'torso = "squares"') + '[env]\nid = "corridor"\nlength = 20\n'
    result = run(tmp_path, text, **ENGINES[engine])
    assert result.finished
    assert resume(result.run, total_frames=result.frames + 500).finished
    scores = evaluate(result.run, episodes=100)
    assert scores.lengths.min() >= 4 and set(scores.returns.tolist()) <= {0.0, 1.0}
    assert load(result.run).spec.id == "corridor"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (MIXED.replace('"impala"', '"gone"'), "agent 'gone': outside.gone, the entry point .* cannot be loaded"),
        (MIXED.replace('"vitter"', '"gone"'), "sampler 'gone': outside.gone, the entry point .* cannot be loaded"),
        (MIXED.replace("hidden_size = [16]", 'torso = "gone"'), "torso 'gone': outside.squares:Gone, the entry point"),
        (MIXED.replace('"impala"', '"empty"'), "agent 'empty': <module 'outside' .* defines no Config and Agent"),
    ],
)
def test_entry_points_that_lead_nowhere_are_named(text: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=says):
        run(tmp_path, text)


def test_a_torso_that_is_misspelt_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"unknown torso 'square'; did you mean 'squares'\? known: auto, nature, "):
        run(tmp_path, MIXED.replace("hidden_size = [16]", 'torso = "square"'))


def test_options_of_such_a_sampler_are_checked(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"unknown option 'replay\.samplers\.1\.slot'; did you mean 'replay\.samplers\.1\.slots'\?"
    ):
        run(tmp_path, MIXED.replace("slots = 30", "slot = 30"))
    with pytest.raises(UserError, match=r"unknown sampler 'vitterr'; did you mean 'vitter'\?"):
        run(tmp_path, MIXED.replace('"vitter"', '"vitterr"'))
