"""Configurations edited between a stop and a resume: each goes on, or is refused in one line that names the option."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from offbeat.agents.make import make_agent
from offbeat.cli import main
from offbeat.config.run_config import RunConfig, apply_overrides, load_preset, read_config, to_toml
from offbeat.config.validation import validate
from offbeat.envs.registry import env_spec
from offbeat.errors import UserError
from offbeat.run.resumable import check_fits
from offbeat.run.train import train
from offbeat.runtime.topology import topology
from offbeat.runtime.world import plan_layout
from tests.checkpoint_damage import meta_with, newest_of

FRAMES = 400
SMALL = {
    "engine": "inline", "device": "cpu", "total_frames": FRAMES, "actor.workers": 2, "actor.envs_per_worker": 4,
    "learner.batch_size": 4, "learner.unroll_length": 5, "evaluation.at_end": False, "evaluation.every_frames": 0,
    "log.tensorboard": False, "log.dashboard": False, "learner.optimizer": "rmsprop", "learner.rmsprop_momentum": 0.0,
}  # fmt: skip
UNIFORM = [{"kind": "uniform", "share": 1.0}]
PRESETS: dict[str, tuple[str, dict[str, Any]]] = {
    "impala": ("debug", {"agent.hidden_size": "32"}),
    "lstm": ("debug", {"agent.hidden_size": "32", "agent.core": "lstm", "agent.core_size": 8}),
    "without-streams": ("debug", {"agent.hidden_size": "32", "checkpoint.replay": False}),
    "apex": ("apex-catch", {"agent.hidden_size": "32", "replay.capacity": 4000, "replay.samplers.0.min_rows": 100}),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Small runs by name, each trained once."""
    folder = tmp_path_factory.mktemp("runs")

    def trained(name: str) -> Path:
        preset, options = PRESETS[name]
        if not (folder / name).exists():
            train(apply_overrides(load_preset(preset), {**SMALL, **options, "out": str(folder / name)}.items()))
        return folder / name

    return trained


def edited(run: Path, options: dict[str, Any]) -> RunConfig:
    """The run's configuration as a user leaves it in config.toml; 400 frames longer."""
    longer = replace(read_config(run / "config.toml"), total_frames=2 * FRAMES)
    return apply_overrides(longer, options.items())


def check(config: RunConfig, run: Path) -> None:
    """What a resume looks at before it starts anything."""
    validate(config, new_run=False)
    spec = env_spec(config.env)
    agent = make_agent(config.agent_name, config.agent, spec, "cpu")
    layout = plan_layout(config, spec, agent)
    check_fits(config, agent, layout, topology(config, layout.items), checkpoint=run, init_from=None)


REFUSED: dict[str, tuple[str, dict[str, Any], list[str]]] = {
    "env": ("impala", {"env.id": "toy/counting", "eval_env.id": "toy/counting"}, ["env.id was 'toy/catch'"]),
    "workers": ("impala", {"actor.workers": 3}, ["actor.workers was 2 and is now 3", "8 streams", "makes 12"]),
    "envs": ("impala", {"actor.envs_per_worker": 8}, ["actor.envs_per_worker was 4 and is now 8", "makes 16"]),
    "shared-otherwise": ("impala", {"actor.workers": 4, "actor.envs_per_worker": 2}, ["2 actors are saved"]),
    "unroll": ("impala", {"learner.unroll_length": 10}, ["learner.unroll_length was 5 and is now 10", "block 5"]),
    "shorter-unroll": ("impala", {"learner.unroll_length": 4}, ["learner.unroll_length was 5 and is now 4"]),
    "adam": ("impala", {"learner.optimizer": "adam"}, ["learner.optimizer was 'rmsprop' and is now 'adam'"]),
    "momentum": ("impala", {"learner.rmsprop_momentum": 0.9}, ["rmsprop_momentum was 0.0 and is now 0.9"]),
    "capacity": ("impala", {"replay.capacity": 4000}, ["replay.capacity was 0 and is now 4000"]),
    "samplers": (
        "impala", {"replay.samplers": UNIFORM, "replay.capacity": 4000, "replay.samples_per_insert": 1.0},
        ["replay.samplers was [{'kind': 'fifo'"],
    ),
    "more-samplers": (
        "impala",
        {"replay.samplers": [{"kind": "fifo", "share": 0.5}, {"kind": "uniform", "share": 0.5}],
         "replay.capacity": 4000},
        ["replay.samplers was [{'kind': 'fifo'"],
    ),
    "hidden": ("impala", {"agent.hidden_size": "64"}, ["agent.hidden_size was [32] and is now [64]"]),
    "deeper": ("impala", {"agent.hidden_size": "32,32"}, ["agent.hidden_size was [32] and is now [32, 32]"]),
    "to-lstm": ("impala", {"agent.core": "lstm", "agent.core_size": 8}, ["agent.core was 'none' and is now 'lstm'"]),
    "from-lstm": ("lstm", {"agent.core": "none"}, ["agent.core was 'lstm' and is now 'none'"]),
    "core-size": ("lstm", {"agent.core_size": 16}, ["agent.core_size was 8 and is now 16"]),
    "agent": ("impala", {"agent.name": "random"}, ["agent.name was 'impala' and is now 'random'"]),
    "env-frames": ("impala", {"env.id": "toy/tmaze", "eval_env.id": "toy/tmaze"}, ["env.id was 'toy/catch'"]),
    "weights-without-streams": ("without-streams", {"agent.hidden_size": "64"}, ["agent.hidden_size was [32]"]),
    "adam-without-streams": ("without-streams", {"learner.optimizer": "adam"}, ["learner.optimizer was 'rmsprop'"]),
    "apex-capacity": ("apex", {"replay.capacity": 8000}, ["replay.capacity was 4000 and is now 8000"]),
    "apex-steps": ("apex", {"agent.n_step": 5}, ["agent.n_step was 3 and is now 5", "items"]),
    "apex-dueling": ("apex", {"agent.dueling": False}, ["agent.dueling was True and is now False"]),
    "apex-workers": ("apex", {"actor.workers": 1}, ["actor.workers was 2 and is now 1", "8 streams are saved"]),
}  # fmt: skip


@pytest.mark.parametrize("noted", [True, False], ids=["noted", "from before"])
@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_by_name(
    case: str, noted: bool, runs: Callable[[str], Path], tmp_path: Path
) -> None:
    name, options, expected = REFUSED[case]
    run = runs(name)
    if not noted:  # checkpoints of before do not say with what they were saved
        run = Path(shutil.copytree(run, tmp_path / "run"))
        meta_with(lambda meta: (meta.pop("config"), meta.pop("layout")))(newest_of(run))
    if not noted and case in ("apex-steps", "apex-capacity", "unroll"):
        return  # their arrays are those of the same run
    with pytest.raises(UserError) as refused:
        check(edited(run, options), run)
    text = str(refused.value)
    assert text.isprintable()
    assert "does not fit config.toml" in text
    assert "put" in text and "or start a new run" in text
    assert newest_of(run).name in text
    for part in expected if noted else ["put back what the run was saved with (see "]:
        assert part in text, text


HARMLESS: dict[str, tuple[str, dict[str, Any]]] = {
    "rate": ("impala", {"learner.learning_rate": 1e-4, "learner.schedule": "constant"}),
    "loss": ("impala", {"agent.entropy_cost": 0.1, "agent.discount": 0.9, "learner.clip_norm": 1.0}),
    "evaluation": ("impala", {"evaluation.every_frames": 500, "evaluation.episodes": 2, "evaluation.envs": 2}),
    "saves": ("impala", {"checkpoint.every_s": 1.0, "checkpoint.keep": 1, "log.every_s": 5.0}),
    "no-replay": ("impala", {"checkpoint.replay": False}),
    "threads": ("impala", {"actor.threads": 2, "learner.threads": 2}),
    "batch": ("impala", {"learner.batch_size": 8}),
    "publish": ("impala", {"learner.publish_every": 2}),
    "seed": ("impala", {"seed": 7}),
    "length": ("impala", {"total_frames": FRAMES}),
    "local": ("impala", {"engine": "local", "deterministic": True}),
    "without-streams-workers": ("without-streams", {"actor.workers": 3, "actor.envs_per_worker": 2}),
    "without-streams-unroll": ("without-streams", {"learner.unroll_length": 10}),
    "without-streams-samplers": (
        "without-streams",
        {"replay.samplers": UNIFORM, "replay.capacity": 4000, "replay.samples_per_insert": 1.0},
    ),
    "lstm-memory": ("lstm", {"learner.learning_rate": 1e-4}),
    "apex-priorities": ("apex", {"replay.samplers.0.alpha": 0.5, "replay.samplers.0.beta": 0.6}),
    "free-running": ("impala", {"engine": "local", "actor.workers": 4, "actor.envs_per_worker": 2}),
}


@pytest.mark.parametrize("noted", [True, False], ids=["noted", "from before"])
@pytest.mark.parametrize("case", HARMLESS)
def test_what_only_says_how_to_go_on_may_change(
    case: str, noted: bool, runs: Callable[[str], Path], tmp_path: Path
) -> None:
    name, options = HARMLESS[case]
    run = runs(name)
    if not noted:
        run = Path(shutil.copytree(run, tmp_path / "run"))
        meta_with(lambda meta: (meta.pop("config"), meta.pop("layout")))(newest_of(run))
    check(edited(run, options), run)


GONE_ON = [
    "loss", "batch", "no-replay", "without-streams-workers", "without-streams-unroll", "apex-priorities",
    pytest.param("local", marks=pytest.mark.slow), pytest.param("free-running", marks=pytest.mark.slow),
]  # fmt: skip


@pytest.mark.parametrize("case", GONE_ON)
def test_the_command_goes_on_with_what_may_change(
    case: str, runs: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, options = HARMLESS[case]
    run = Path(shutil.copytree(runs(name), tmp_path / "run"))
    (run / "config.toml").write_text(to_toml(edited(run, options)))
    assert main(["resume", str(run)]) == 0, capsys.readouterr()


@pytest.mark.parametrize("case", ["workers", "adam", "hidden", "apex-steps"])
def test_the_command_refuses_in_one_line_and_leaves_the_run_as_it_was(
    case: str, runs: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, options, expected = REFUSED[case]
    run = Path(shutil.copytree(runs(name), tmp_path / "run"))
    (run / "config.toml").write_text(to_toml(edited(run, options)))
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    capsys.readouterr()
    assert main(["resume", str(run)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert expected[0] in error
    assert before == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


def test_weights_of_another_network_are_one_line_wherever_they_are_loaded(
    runs: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(runs("impala"), tmp_path / "run"))
    (run / "config.toml").write_text(to_toml(edited(run, {"agent.hidden_size": "64"})))
    preset = tmp_path / "other.toml"
    preset.write_text(to_toml(replace(edited(run, {"agent.hidden_size": "16"}), out="")))
    new = tmp_path / "new"
    capsys.readouterr()
    for command in (
        ["eval", str(run), "--episodes", "2"],
        ["export", str(run)],
        ["train", str(preset), "--from", str(run), "--out", str(new)],
    ):
        assert main(command) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1, error
        assert "another network" in error
        assert "agent.hidden_size was [32] and is now" in error
    assert not new.exists(), "refused before anything was made"


def test_weights_that_fit_start_a_new_run(runs: Callable[[str], Path], tmp_path: Path) -> None:
    source = runs("impala")
    options = {"actor.workers": 1, "learner.optimizer": "adam", "replay.capacity": 4000, "total_frames": 100}
    preset = tmp_path / "other.toml"
    preset.write_text(to_toml(edited(source, options)))
    assert main(["train", str(preset), "--from", str(source), "--out", str(tmp_path / "new")]) == 0


def test_a_capacity_that_is_too_small_is_one_line(
    runs: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(runs("impala"), tmp_path / "run"))
    (run / "config.toml").write_text(to_toml(edited(run, {"replay.capacity": 16})))
    capsys.readouterr()
    assert main(["resume", str(run)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "replay.capacity=16" in error


def test_a_checkpoint_notes_the_configuration_that_saved_it(runs: Callable[[str], Path]) -> None:
    run = runs("impala")
    meta = json.loads((newest_of(run) / "meta.json").read_text())
    assert meta["config"]["learner"]["unroll_length"] == 5
    assert meta["layout"]["streams"] == 8
