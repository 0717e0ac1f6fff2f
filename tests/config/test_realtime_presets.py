"""The presets of realtime learning on Atari: the emulator frame by frame, and the published numbers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import offbeat
from offbeat.agents.make import make_agent
from offbeat.config.model_sizes import MODEL_SIZES
from offbeat.config.run_config import load_preset
from offbeat.envs.base import EnvConfig
from offbeat.envs.registry import env_spec, make_env
from offbeat.types import OBSERVATION

NAMES = ("realtime-atari", "realtime-dqn", "realtime-dqn-small", "realtime-rainbow")
DQN = {
    "torso": "deep1", "torso_width": 1.0, "feature_size": 512, "head_size": 0, "dueling": False, "double": False,
    "n_step": 1, "discount": 0.99, "loss": "huber", "target_period": 10_000, "target_rate": 1.0,
    "exploration": "linear", "epsilon_start": 1.0, "epsilon_end": 0.05, "explore": 100_000,
}  # fmt: skip
AGENTS: dict[str, dict[str, Any]] = {
    "realtime-dqn": DQN,
    "realtime-dqn-small": DQN | {"torso_width": 0.0625},
    "realtime-rainbow": {
        **{name: value for name, value in DQN.items() if name != "loss"},
        "head_size": 512, "dueling": True, "double": True, "n_step": 3, "atoms": 51, "value_min": 0.0,
        "value_max": 200.0, "noisy_sigma": 0.5,
    },
}  # fmt: skip
"""The published hyperparameters, by preset."""
SAMPLERS: dict[str, dict[str, Any]] = {
    "realtime-dqn": {"kind": "uniform"},
    "realtime-dqn-small": {"kind": "uniform"},
    "realtime-rainbow": {
        "kind": "prioritised", "alpha": 0.2, "beta": 0.6, "final_beta": 0.6, "priority_floor": 1e-6,
    },
}  # fmt: skip
LEARNER = {
    "batch_size": 32, "optimizer": "adam", "learning_rate": 1e-3, "schedule": "constant", "clip_norm": 10.0,
    "adam_beta1": 0.9, "adam_beta2": 0.999, "epsilon": 1e-8,
}  # fmt: skip
WEIGHTS = {"realtime-dqn": 903_718, "realtime-dqn-small": 54_178, "realtime-rainbow": 2_317_546}
"""Published, for 6 actions."""


@pytest.mark.parametrize("name", list(AGENTS))
def test_presets_have_the_published_numbers(name: str) -> None:
    config = load_preset(name)
    assert {key: getattr(config.agent, key) for key in AGENTS[name]} == AGENTS[name]
    assert {key: getattr(config.learner, key) for key in LEARNER} == LEARNER
    (sampler,) = config.replay.samplers
    assert {key: getattr(sampler, key) for key in SAMPLERS[name]} == SAMPLERS[name]
    updates_per_step = config.replay.samples_per_insert / config.learner.batch_size
    assert (updates_per_step, config.actor.append_rows, config.actor.envs_per_worker) == (1 / 4, 4, 1)
    assert config.replay.capacity * 84 * 84 < 1.5e9, "fits a laptop"


@pytest.mark.parametrize("name", list(AGENTS))
def test_presets_build_networks_of_the_published_sizes(name: str) -> None:
    pytest.importorskip("ale_py")
    config = load_preset(name)
    spec = env_spec(replace(config.env, id="NameThisGame"))
    assert spec.action.num_actions == 6
    torch.manual_seed(0)
    network = make_agent(config.agent_name, config.agent, spec).network
    assert sum(weight.numel() for weight in network.parameters()) == WEIGHTS[name]


def test_all_of_them_play_the_same_environment() -> None:
    base = load_preset("realtime-atari")
    for name in NAMES:
        config = load_preset(name)
        assert config.env == config.eval_env == base.env
        assert (config.evaluation, config.actor, config.total_frames) == (base.evaluation, base.actor, 14_282_000)
    assert base.evaluation.longest == 0, "a whole game may have 108,000 actions"


@pytest.mark.parametrize(
    ("name", "agent"),
    [("realtime-atari", "random"), ("realtime-atari", "noop"), ("realtime-dqn-small", "dqn")],
)
def test_a_preset_runs_as_it_is(name: str, agent: str, tmp_path: Path) -> None:
    """Nothing is changed but its length and its engine, and the published spelling of the game is taken."""
    pytest.importorskip("ale_py")
    quiet: dict[str, Any] = {"evaluation__at_end": False, "log__tensorboard": False, "log__dashboard": False}
    result = offbeat.train(
        name, agent=agent, env="BoxingNoFrameSkip-v4", engine="inline", total_frames=200, out=str(tmp_path), **quiet
    )
    assert result.finished and 200 <= result.agent_steps < 225
    assert result.updates >= (200 - 32) // 4 if agent == "dqn" else result.updates > 0
    weights = f"{54_178 + 6_156:,}" if agent == "dqn" else "1"
    assert f"{agent} with {weights} weights on BoxingNoFrameSkip-v4; streams" in (tmp_path / "run.log").read_text()


def bare_game(config: EnvConfig, actions: np.ndarray) -> tuple[list[np.ndarray], list[int], list[int]]:
    """Pictures, rewards and lives of one game of the emulator alone; the first picture is that before any action."""
    import ale_py
    import cv2
    from ale_py import roms

    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    ale = ale_py.ALEInterface()
    ale.setFloat("repeat_action_probability", 0.0)
    ale.loadROM(str(roms.get_rom_path(config.id.lower())))
    ale.reset_game()

    def picture() -> np.ndarray:
        # As the published code: colours to grey, then scaled by area.
        return cv2.resize(cv2.cvtColor(ale.getScreenRGB(), cv2.COLOR_RGB2GRAY), (84, 84), interpolation=cv2.INTER_AREA)

    known = ale.getMinimalActionSet()
    pictures, rewards, lives = [picture()], [0], [ale.lives()]
    for action in actions:
        rewards.append(int(ale.act(known[int(action)])))
        pictures.append(picture())
        lives.append(ale.lives())
        if ale.game_over():
            break
    return pictures, rewards, lives


@pytest.mark.parametrize(
    ("game", "backend"),
    [
        ("Boxing", "auto"),
        ("Krull", "ale-single"),
        pytest.param("Boxing", "ale-single", marks=pytest.mark.slow),
        pytest.param("Krull", "auto", marks=pytest.mark.slow),
    ],
)
def test_a_game_is_that_of_the_bare_emulator(game: str, backend: str) -> None:
    """Every reward, and every picture but that after the last action, which nobody acts on and ALE does not draw."""
    pytest.importorskip("ale_py")
    pytest.importorskip("cv2")
    config = replace(load_preset("realtime-atari").env, id=game, backend=backend)
    actions = np.random.default_rng(0).integers(18, size=8_000)
    pictures, rewards, lives = bare_game(config, actions)
    steps = len(rewards) - 1
    assert 1_000 < steps < len(actions), "a whole game"
    assert any(rewards) and (game == "Boxing" or len(set(lives)) > 2)
    env = make_env(config, 1)
    env.reset(3)
    for step in range(steps + 1):
        row = env.recv()
        assert row.raw_reward[0] == row.reward[0] == rewards[step], step
        assert row.first[0] == (step == 0), step
        assert row.terminated[0] == (step == steps) and not row.truncated[0], step
        if step < steps:
            assert np.array_equal(row.observation[OBSERVATION][0, 0], pictures[step]), step
            env.send(actions[step : step + 1])
    assert not row.valid[0]
    env.close()


def test_there_is_a_preset_for_each_size_of_the_published_table() -> None:
    for row in MODEL_SIZES:
        config = load_preset(f"realtime-size-{row.label.lower()}" + ("-deep2" if row.torso == "deep2" else ""))
        assert (config.agent.torso, config.agent.torso_width) == (row.torso, row.label_width)
        assert (config.delay.inference_frames, config.delay.mode) == (row.atari_frames, "async")
        assert config.env == replace(load_preset("realtime-dqn").env, delay=config.delay)
